"""The choice of quantised weights for a model: whether they can be had, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.placement import free_bytes
from parrot_nb.engine.settings import QUANTIZATIONS
from parrot_nb.errors import ModelLoadError

if TYPE_CHECKING:
    import torch

    from parrot_nb.engine.embedded.quantized_linear import QuantizedLinears
    from parrot_nb.engine.protocol import Verdict

DTYPE = "bfloat16"  # that quantised weights are computed with
WEIGHTS = {"int8": "int8", "int4": "int4, head int8"}  # by which texts are told apart that other weights have written
NONE = "none"


def find_quantize(
    kind: str, device: torch.device, dtype: str, *, held: bool, off: Collection[str]
) -> tuple[Quantizer | None, str]:
    """Return what makes quantised products, None for weights as they are, and the dtype to load the model in.

    Args:
        kind: one of `QUANTIZATIONS`.
        device: where the model is to run.
        dtype: that the user asks for, or "auto".
        held: the user holds the model.
        off: optimisations to do without.

    Raises:
        ModelLoadError: an unknown kind, or one that cannot be had with the other settings.
    """
    if kind not in QUANTIZATIONS:
        raise ModelLoadError(f"Unknown quantisation {kind!r}: choose from {', '.join(QUANTIZATIONS)}.")
    if kind == NONE:
        return None, dtype
    if held:
        raise ModelLoadError(
            "A model that you hold is served with its own weights: leave out quantize, or pass its folder or id."
        )
    if device.type != "cpu":
        raise ModelLoadError(f"Weights are quantised on a CPU only, not on {device}: choose --device cpu, or --quantize none.")
    if dtype not in ("auto", DTYPE):
        raise ModelLoadError(f"Quantised weights are computed with in {DTYPE}, not in {dtype}: leave out --dtype, or --quantize.")
    if "fused" in off:
        raise ModelLoadError("Only the fused decoder computes with quantised weights: leave out --off fused, or --quantize.")
    _check_products(kind)
    return Quantizer(kind, device), DTYPE


class Quantizer:
    """Chooses how a model's weights are quantised, and remembers what became of them.

    Args:
        kind: "int8" or "int4".
        device: where the model is to run.

    Attributes:
        weights: what they are, in words that name no other.
    """

    def __init__(self, kind: str, device: torch.device) -> None:
        self.weights = WEIGHTS[kind]
        self._kind, self._device = kind, device
        self._made: QuantizedLinears | None = None

    def __call__(self, num_parameters: int) -> QuantizedLinears:
        """Return what makes the quantised products of a model with so many parameters; with copies in bfloat16 beside them if a share of
        the free memory holds these."""
        from parrot_nb.engine.embedded.quantized_linear import DENSE_BYTES, DENSE_SHARE, QuantizedLinears

        keeps_dense = DENSE_BYTES * num_parameters <= DENSE_SHARE * free_bytes(self._device)
        self._made = QuantizedLinears("int4" if self._kind == "int4" else "int8", keeps_dense=keeps_dense)
        return self._made

    def told(self, name: str, verdicts: Sequence[Verdict]) -> str:
        """Return what was quantised, for people, once the model is loaded.

        Args:
            name: of the model's class.
            verdicts: about its parts.

        Raises:
            ModelLoadError: nothing was, since the model has no fused decoder.
        """
        missing = next((v for v in verdicts if v.part == "fused decoder" and v.outcome != "taken"), None)
        if self._made is None or missing is not None:
            why = "" if missing is None else f", and {missing.reason}"
            raise ModelLoadError(f"Only fused decoders compute with quantised weights{why}: load this {name} without --quantize.")
        return self._made.describe()


def _check_products(kind: str) -> None:
    """Multiply once: that this torch has the product, and for this machine, shows nowhere else."""
    import torch

    from parrot_nb.engine.embedded.int_weights import GROUP, Int4Weight, Int8Weight, int4_chunks

    weight = torch.zeros(1, GROUP)
    try:
        integers = Int4Weight((1, GROUP), int4_chunks(weight)) if kind == "int4" else Int8Weight(weight)
        integers.product(torch.zeros(1, GROUP, dtype=torch.bfloat16))
    except (AttributeError, RuntimeError) as error:
        raise ModelLoadError(
            f"torch {torch.__version__} multiplies no {kind} weights on this machine: leave out --quantize."
        ) from error
