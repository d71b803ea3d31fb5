"""Where a model's parts are: a folder of config and safetensors, a GGUF file, a LoRA adapter over another model."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.checkpoint import ADAPTER_FILE
from parrot_nb.engine.embedded.refusals import (
    NO_FOLDER,
    check_all_contained,
    check_contained,
    check_folder,
    refuse_adapter_weights,
    refuse_file,
    several_gguf_files,
)
from parrot_nb.errors import ModelLoadError

ADAPTER_WEIGHTS = "adapter_model.safetensors"
GGUF_SUFFIX = ".gguf"
TOKENIZER_FILES = (
    "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt", "spiece.model", "sentencepiece.bpe.model",
    "tekken.json", "tokenizer.tiktoken",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Source:
    """Where to read a model.

    Attributes:
        model: hub id or folder of config and weights.
        tokenizer: hub id or folder of the tokenizer.
        gguf: name of the GGUF file in that folder that holds config, weights and tokenizer; None where they are files of their own.
        adapter: folder of a LoRA adapter to merge into the weights.
    """

    model: str
    tokenizer: str
    gguf: str | None = None
    adapter: Path | None = None

    @property
    def name(self) -> str:
        """Name of the model in messages: its id, folder or file."""
        return self.model if self.gguf is None else str(Path(self.model) / self.gguf)

    @property
    def is_plain(self) -> bool:
        """True for config and weights in files of their own, with nothing to merge."""
        return self.gguf is None and self.adapter is None


def find_source(model: str) -> Source:
    """Find a model's parts on this machine; what is no path here is taken for a hub id.

    Raises:
        ModelError: the path is there and holds no model that can be loaded, or it looks like a path and is not there.
    """
    path = Path(model).expanduser()
    if path.is_file():
        return _of_file(path)
    if path.is_dir():
        return _of_folder(path)
    if path.is_absolute() or model.startswith((".", "~")) or model.count("/") > 1 or path.suffix.lower() == GGUF_SUFFIX:
        raise ModelLoadError(NO_FOLDER.format(model))
    return Source(model, model)


def _of_file(path: Path) -> Source:
    if path.suffix.lower() != GGUF_SUFFIX:
        refuse_file(path)
    file = path.resolve()  # whoever names a link means the file
    return Source(str(file.parent), str(file.parent), gguf=file.name)


def _of_folder(folder: Path) -> Source:
    if (folder / ADAPTER_FILE).is_file():
        return _of_adapter(folder)
    found = sorted(path.name for path in folder.iterdir() if path.suffix.lower() == GGUF_SUFFIX)
    if found and not any(folder.glob("*.safetensors")):
        if len(found) > 1:
            several_gguf_files(folder, found)
        check_contained(folder, found[0])
        return Source(str(folder), str(folder), gguf=found[0])
    check_folder(folder)
    return Source(str(folder), str(folder))


def _of_adapter(folder: Path) -> Source:
    """An adapter over the model that its config names, or over the one that lies in the same folder."""
    if not (folder / ADAPTER_WEIGHTS).is_file():
        refuse_adapter_weights(folder)
    check_all_contained(folder)
    if (folder / "config.json").is_file() and any(folder.glob("model*.safetensors")):
        check_folder(folder)
        return Source(str(folder), str(folder), adapter=folder)
    named = adapter_config(folder).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelLoadError(
            f"The adapter in '{folder}' does not say which model it belongs to: write that into base_model_name_or_path of its "
            f"{ADAPTER_FILE}."
        )
    beside = folder / named  # a relative path counts from the adapter, so that both can be moved together
    base = beside if not Path(named).is_absolute() and beside.is_dir() else Path(named).expanduser()
    try:
        source = find_source(str(base) if base.is_dir() else named)
    except ModelLoadError as error:
        raise ModelLoadError(f"The base of the adapter in '{folder}' cannot be loaded. {error}") from error
    if not source.is_plain:
        raise ModelLoadError(
            f"The adapter in '{folder}' has '{named}' as its base, which is an adapter or a GGUF file itself: merge that first, "
            "and save it as safetensors."
        )
    own = any((folder / name).is_file() for name in TOKENIZER_FILES)
    return replace(source, tokenizer=str(folder) if own else source.tokenizer, adapter=folder)


def adapter_config(folder: Path) -> dict[str, Any]:
    """Read an adapter's config."""
    try:
        found = json.loads((folder / ADAPTER_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"{ADAPTER_FILE} in '{folder}' is damaged: get it again.") from error
    if not isinstance(found, dict):
        raise ModelLoadError(f"{ADAPTER_FILE} in '{folder}' is damaged: get it again.")
    return found
