"""Where the default model lies: an ordinary Hugging Face checkpoint inside the package."""

from __future__ import annotations

from pathlib import Path

from parrot_nb.errors import ModelLoadError

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

_FOLDER = Path(__file__).parent / "weights"


def default_model() -> Path:
    """The folder of parrot-tiny.

    Raises:
        ModelLoadError: a file of it is missing, which an incomplete installation can do.

    """
    missing = [name for name in FILES if not (_FOLDER / name).is_file()]
    if missing:
        raise ModelLoadError(f"parrot-tiny is incomplete ({', '.join(missing)} missing in {_FOLDER}): install parrot_nb again.")
    return _FOLDER
