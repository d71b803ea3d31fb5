"""Models on this machine that Tab offers after `%parrot model`: GGUF files, and folders on the way to one."""

from __future__ import annotations

import os
from pathlib import Path

MAX_ENTRIES = 2000  # of a folder that are looked at: Tab answers at once


def model_paths(word: str) -> list[str]:
    """Return the GGUF files and folders whose paths begin with a word, as the word writes them; hidden ones only if it says so.

    Without a word, the GGUF files and the folders that hold a model in the working folder.
    """
    place, _, beginning = word.rpartition("/")
    place = f"{place}/" if "/" in word else ""
    found = []
    try:
        with os.scandir(Path(place or ".").expanduser()) as entries:
            for entry, _ in zip(entries, range(MAX_ENTRIES), strict=False):
                name = entry.name
                if not name.startswith(beginning) or (name.startswith(".") and not beginning) or any(c.isspace() for c in name):
                    continue
                if entry.is_dir():
                    if word or _holds_model(Path(entry.path)):
                        found.append(f"{place}{name}/")
                elif name.lower().endswith(".gguf"):
                    found.append(f"{place}{name}")
    except (OSError, RuntimeError):  # no such folder, none of ours, no such user
        return []
    return sorted(found)


def _holds_model(folder: Path) -> bool:
    return (folder / "config.json").is_file() or (folder / "adapter_config.json").is_file() or any(folder.glob("*.gguf"))
