"""Checkpoints whose weights are quantised: loaded where transformers has what it needs on this device, else refused early."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from parrot_nb.engine.embedded.refusals import quoted
from parrot_nb.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

NEAREST = "load the unquantised checkpoint or a .gguf file of the model"
# Methods whose linear layers have no code for a CPU, whatever is installed.
GPU_ONLY = {"awq", "fbgemm_fp8", "hqq", "eetq", "higgs", "vptq", "aqlm", "spqr", "fp_quant", "auto-round", "sinq", "nvfp4"}
DEQUANTISED = {"fp8", "mxfp4"}  # transformers makes plain weights of them where the device has no products for them


def quantisation_of(config: Any) -> dict[str, Any] | None:
    """Return a config's settings of quantised weights; None where they are plain."""
    for holder in (config, config.get_text_config()):
        found = getattr(holder, "quantization_config", None)
        if found is not None:
            return dict(found) if isinstance(found, dict) else dict(found.to_dict())
    return None


def check_quantised(model: str, config: Any, device: torch.device, *, again: bool = False) -> None:
    """Refuse quantised weights that transformers cannot compute with on a device, before they are read.

    Args:
        model: hub id or path, for messages.
        config: of the model.
        device: where it is to run.
        again: the weights are to be quantised here.

    Raises:
        ModelLoadError: they are to be quantised twice, the method is not known, a package is missing, or there is no code for the device.
    """
    settings = quantisation_of(config)
    if settings is None:
        return
    from transformers.quantizers.auto import AUTO_QUANTIZATION_CONFIG_MAPPING, AutoHfQuantizer

    method = str(settings.get("quant_method") or ("bitsandbytes" if _is_bitsandbytes(settings) else "unknown"))
    if again:
        raise ModelLoadError(f"The weights of '{model}' are quantised already, by {method}: load them without --quantize.")
    if device.type == "cpu" and method in GPU_ONLY:
        raise ModelLoadError(f"The weights of '{model}' are quantised by {method}, which needs a GPU: {NEAREST}.")
    if (
        "quant_method" in settings
        and settings["quant_method"] not in AUTO_QUANTIZATION_CONFIG_MAPPING
        and not _is_bitsandbytes(settings)
    ):
        raise ModelLoadError(f"The weights of '{model}' are quantised by {method}, which transformers does not know: {NEAREST}.")
    try:
        quantiser = AutoHfQuantizer.from_config(dict(settings), pre_quantized=True)
        quantiser.validate_environment(device_map={"": device}, weights_only=True)
    except Exception as error:  # of any type: what is missing is said in as many ways as there are methods
        raise ModelLoadError(
            f"The weights of '{model}' are quantised by {method}, which transformers cannot load here ({quoted(error)}): {NEAREST}."
        ) from error


def _is_bitsandbytes(settings: dict[str, Any]) -> bool:
    return bool(settings.get("load_in_4bit") or settings.get("load_in_8bit"))
