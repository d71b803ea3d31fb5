"""Where the default model lives: a folder in the user's cache, made on first use and checked on every one."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import shutil
import sys
import tempfile
from pathlib import Path

from parrot_nb.errors import ModelLoadError

_MANIFEST = "manifest.json"


def cache_folder() -> Path:
    """Where parrot_nb keeps what it makes: `PARROT_NB_CACHE`, else `parrot_nb` in the platform's cache folder.

    The folder may not exist yet.
    """
    if chosen := os.environ.get("PARROT_NB_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "parrot_nb"


def default_model() -> Path:
    """The folder of the default model, an ordinary Hugging Face checkpoint; made if it is missing or damaged.

    Safe to call from several processes at once: the model is built in a folder beside and moved into place, and since
    every build writes the same bytes, whoever comes second changes nothing.

    Raises:
        ModelLoadError: the cache cannot be written.

    """
    try:
        folder = cache_folder() / f"parrot-tiny-untrained-{_recipe_hash()}"
        if not _is_whole(folder):
            _make(folder)
    except (OSError, RuntimeError) as error:  # RuntimeError: there is no home folder
        raise ModelLoadError(
            f"The default model cannot be put into the cache ({error}); set PARROT_NB_CACHE to a folder that can be written."
        ) from error
    return folder


def _recipe_hash() -> str:
    """Names the recipe: a change of this package's code or of torch's version makes a new folder."""
    digest = hashlib.sha256(importlib.metadata.version("torch").encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def _is_whole(folder: Path) -> bool:
    """Whether every file is there and is what was written."""
    from parrot_nb.tiny.recipe import FILES

    try:
        manifest = json.loads((folder / _MANIFEST).read_bytes())
        return isinstance(manifest, dict) and all(_sha256(folder / name) == manifest.get(name) for name in FILES)
    except (OSError, ValueError):
        return False


def _make(folder: Path) -> None:
    from parrot_nb.tiny.recipe import FILES, write_checkpoint

    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".building-", ignore_cleanup_errors=True) as temporary:
        built = Path(temporary) / folder.name
        built.mkdir()
        write_checkpoint(built)
        manifest = {name: _sha256(built / name) for name in FILES}
        (built / _MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")
        if folder.is_dir() or not _moved(built, folder):
            _mend(folder, built, manifest)


def _moved(built: Path, folder: Path) -> bool:
    """Put a new folder into place; False when another process was faster."""
    if folder.exists() or folder.is_symlink():
        folder.unlink()  # a file, or a link to nowhere, has no business under this name
    try:
        built.rename(folder)
    except OSError:
        if not folder.is_dir():
            raise
        return False
    return True


def _mend(folder: Path, built: Path, manifest: dict[str, str]) -> None:
    """Replace what differs, file by file, each at once: a reader sees a whole file at any time, damaged or right."""
    for name in (*manifest, _MANIFEST):
        target = folder / name
        if target.is_dir():
            shutil.rmtree(target)
        if not target.is_file() or _sha256(target) != _sha256(built / name):
            (built / name).replace(target)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
