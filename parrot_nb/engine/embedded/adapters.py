"""LoRA adapters and their like: weights trained on top of a model, merged into it at load.

A merged model has the layers of its base, so that nothing else of the engine has to know that there was an adapter.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from parrot_nb.engine.embedded.checkpoint import ADAPTER_FILE
from parrot_nb.engine.embedded.refusals import explained, quoted
from parrot_nb.engine.embedded.sources import ADAPTER_WEIGHTS, adapter_config
from parrot_nb.errors import ModelLoadError, UnsupportedModelError

INSTALL = 'pip install "parrot-nb[lora]"'
EMBEDDINGS = ("embed_tokens", "lm_head", "wte", "embed_in", "embed_out")


def check_adapter(folder: Path) -> None:
    """Refuse an adapter that cannot be merged, before the base is read.

    Raises:
        ModelLoadError: peft is not installed, or the config is damaged.
        UnsupportedModelError: an adapter for another task, or of a kind that has nothing to merge.
    """
    settings = adapter_config(folder)
    if find_spec("peft") is None:
        raise ModelLoadError(f"'{folder}' is an adapter, which needs the package peft: {INSTALL}.")
    task = settings.get("task_type")
    if task not in (None, "CAUSAL_LM"):
        raise UnsupportedModelError(f"The adapter in '{folder}' is for another task ({task}): give one for CAUSAL_LM.")
    from peft import PeftConfig

    try:
        config = PeftConfig.from_pretrained(str(folder))
    except Exception as error:
        raise ModelLoadError(
            f"{ADAPTER_FILE} in '{folder}' cannot be read ({quoted(error)}): update peft, or get the file again."
        ) from error
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UnsupportedModelError(
            f"The adapter in '{folder}' is of the kind {settings.get('peft_type')}, which adds to the prompt and cannot be merged "
            "into weights: give a LoRA adapter."
        )


def merged(module: Any, folder: Path) -> Any:
    """Merge an adapter into a model of transformers, whose weights change.

    Raises:
        ModelLoadError: the adapter does not fit the model.
    """
    from peft import PeftModel

    rows = _saved_rows(folder)
    try:
        if rows is not None and rows != module.get_input_embeddings().weight.shape[0]:
            module.resize_token_embeddings(rows, mean_resizing=False)
        adapted = PeftModel.from_pretrained(module, str(folder))
        missing = _missing(adapted, folder)
        whole = adapted.merge_and_unload(safe_merge=True)
    except MemoryError:
        raise
    except (RuntimeError, ValueError, KeyError, TypeError, AttributeError, NotImplementedError) as error:
        if "mismatch" in str(error):
            raise ModelLoadError(
                f"The adapter in '{folder}' has weights of another shape than its base: give the base that it was trained on."
            ) from error
        raise ModelLoadError(
            f"The adapter in '{folder}' cannot be merged into its base ({type(error).__name__}: {quoted(error)}): give the base "
            "that it was trained on."
        ) from error
    except Exception as error:  # a file that is damaged
        raise explained(str(folder), error) from error
    if missing:
        raise ModelLoadError(
            f"The adapter in '{folder}' does not fit its base: nothing in the model takes its weight '{missing[0]}'; give the base "
            "that it was trained on."
        )
    return whole


def _missing(adapted: Any, folder: Path) -> list[str]:
    """Weights of the file that no module of the model has taken: peft passes over them in silence."""
    from peft import get_peft_model_state_dict
    from safetensors import safe_open

    taken = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
        stored = list(file.keys())
    return sorted(name for name in stored if name not in taken and not _is_embedding(name))


def _is_embedding(name: str) -> bool:
    return any(part in EMBEDDINGS for part in name.split("."))


def _saved_rows(folder: Path) -> int | None:
    """Rows of an embedding that was saved whole with the adapter, because tokens were added; None without one."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(folder / ADAPTER_WEIGHTS, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 - not a mapping
                if _is_embedding(name) and "lora" not in name and name.endswith("weight"):
                    return int(file.get_slice(name).get_shape()[0])
    except SafetensorError as error:
        raise ModelLoadError(f"'{ADAPTER_WEIGHTS}' in '{folder}' is damaged or cut short: get it again.") from error
    return None


@contextmanager
def without_adapter(folder: Path) -> Iterator[Path]:
    """A folder of the same files less those of the adapter, which transformers would load by itself."""
    with TemporaryDirectory(prefix="parrot-nb-") as place:
        for entry in folder.iterdir():
            if entry.name == ADAPTER_FILE or entry.name.startswith("adapter_model") or not entry.is_file():
                continue
            try:
                (Path(place) / entry.name).symlink_to(entry.resolve())
            except OSError:  # where links need a permission
                shutil.copy2(entry, Path(place) / entry.name)
        yield Path(place)
