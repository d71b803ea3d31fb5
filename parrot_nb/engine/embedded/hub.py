"""Models of the Hugging Face hub: an id becomes a folder of the hub's cache, with all files that loading reads.

The hub is asked once per load for the names, sizes and commit of a model's files. What is missing is downloaded
(`hub_file`: large files are resumed where they were broken off); everything after that reads the folder and needs no network.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial, wraps
from pathlib import Path
from typing import ParamSpec, TypeVar

from parrot_nb.engine.embedded.hub_errors import explained, is_unreachable
from parrot_nb.engine.embedded.hub_file import ANSWER_S, LARGE_BYTES, LARGEST_BYTES, fetch_blob
from parrot_nb.engine.embedded.hub_request import Meter, Request
from parrot_nb.engine.loads import Load, LoadStoppedError
from parrot_nb.errors import ModelLoadError, ParrotError

P = ParamSpec("P")
T = TypeVar("T")

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
# Besides weights: settings, tokenizers in all their forms, chat templates. Not what other programs read.
NEEDED = re.compile(
    r"(config|generation_config|tokenizer|tokenizer_config|special_tokens_map|added_tokens|vocab|chat_template)\.json"
    r"|merges\.txt|vocab\.txt|.*\.tiktoken|(tokenizer|spiece|sentencepiece\.bpe)\.model"
    r"|(additional_chat_templates/)?[^/]+\.jinja"
)
CODE = re.compile(r"[^/]+\.py")
PICKLES = (".bin", ".pt", ".pth", ".ckpt")
COMMIT = re.compile(r"[0-9a-f]{40}")
LOOKS_LIKE_ID = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)?(@.*)?")
CACHE_PATH = re.compile(r"[^'\"\s]*models--([\w.-]+?)(?:--([\w.-]+))?[/\\]snapshots[/\\]\w+")
ROOM_BYTES = 64 * 2**20  # to leave on the disk


@dataclass(frozen=True, slots=True)
class HubId:
    """A model of the hub.

    Attributes:
        repo: its owner and name.
        revision: branch, tag or commit; None is the main branch.
    """

    repo: str
    revision: str | None = None

    def __str__(self) -> str:
        return self.repo if self.revision is None else f"{self.repo}@{self.revision}"


def hub_id(model: str, revision: str | None = None) -> HubId:
    """Read "owner/name" or "owner/name@revision".

    Raises:
        ModelLoadError: two revisions that differ, or none after the @.
    """
    repo, at, said = model.partition("@")
    if at and not said:
        raise ModelLoadError(f"'{model}' names no revision after its @: give a branch, a tag or a commit.")
    if said and revision not in (None, said):
        raise ModelLoadError(f"'{model}' and revision '{revision}' name two revisions: give one of them.")
    return HubId(repo, said or revision)


def local_folder(model: str, revision: str | None, load: Load, *, code: bool = False) -> str:
    """Return the folder of a model that is named by a hub id, see `snapshot`; anything else as it is.

    Raises:
        ModelLoadError: as `snapshot`, or a revision of what is no model of the hub.
    """
    if Path(model).exists() or not LOOKS_LIKE_ID.fullmatch(model) or model.endswith((".gguf", ".safetensors")):
        if revision is not None:
            raise ModelLoadError(f"'{model}' has no revision '{revision}': only models of the hub have revisions.")
        return model
    return str(snapshot(hub_id(model, revision), load, code=code))


def plain_messages(load: Callable[P, T]) -> Callable[P, T]:
    """Have the errors of a function name models by their hub ids, not by folders of the hub's cache."""

    @wraps(load)
    def loaded(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return load(*args, **kwargs)
        except ParrotError as error:
            said = str(error)
            plain = CACHE_PATH.sub(lambda found: "/".join(part for part in found.groups() if part), said)
            if plain == said:
                raise
            raise type(error)(plain) from error.__cause__

    return loaded


@dataclass(frozen=True, slots=True)
class _Listing:
    """Information of the hub about a model.

    Attributes:
        repo: its name now; another than was asked for where it was renamed.
        commit: of the revision.
        sizes: of each file in bytes.
    """

    repo: str
    commit: str
    sizes: Mapping[str, int]


def snapshot(model: HubId, load: Load, *, code: bool = False) -> Path:
    """Return the folder of a model in the hub's cache, after downloading what is missing there. Blocking.

    Args:
        model: which one.
        load: is told how far the download has come, and may stop it.
        code: fetch Python files too.

    Raises:
        ModelLoadError: there is no such model, it may not be read, it has no weights as safetensors, the hub cannot be
            reached and the cache lacks something, or the disk has no room.
        LoadStoppedError: the load was stopped.
    """
    from huggingface_hub import constants

    found = _cached(model)
    if constants.HF_HUB_OFFLINE and found is None:
        raise ModelLoadError(
            f"'{model}' is not complete in the hub's cache ('{constants.HF_HUB_CACHE}'), and HF_HUB_OFFLINE forbids to fetch it: "
            "unset that variable and restart, or give a local folder."
        )
    if found is not None and (constants.HF_HUB_OFFLINE or COMMIT.fullmatch(model.revision or "")):
        return found
    try:
        listing = _listing(model, load)
    except (LoadStoppedError, ModelLoadError):
        raise
    except Exception as error:
        if found is not None and is_unreachable(error):
            return found  # as it was when the hub was last asked
        raise explained(model, error) from None
    try:
        return _fetched(model, listing, load, code=code)
    except (LoadStoppedError, ModelLoadError):
        raise
    except Exception as error:
        raise explained(model, error) from None


def _cached(model: HubId) -> Path | None:
    """The folder of a model in the cache, if it is complete."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(model.repo, revision=model.revision, local_files_only=True))
        return folder if _is_complete(folder) else None
    except (OSError, ValueError):  # nothing is there, or no repository can have this name
        return None


def _is_complete(folder: Path) -> bool:
    if all((folder / name).is_file() for name in ADAPTER_FILES):
        return True
    try:
        names = [SINGLE_FILE] if not (folder / INDEX_FILE).is_file() else _shards(folder / INDEX_FILE)
    except (OSError, ValueError):
        return False
    tokenizer = any(folder.glob("*token*")) or any(folder.glob("vocab.*")) or any(folder.glob("*.model"))
    return tokenizer and all((folder / name).is_file() for name in ["config.json", *names])


def _shards(index: Path) -> list[str]:
    """The files that an index names. Raises ValueError if it is none."""
    try:
        return sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{index.name} is no index") from error


def _listing(model: HubId, load: Load) -> _Listing:
    """Ask the hub, a second time where it is overloaded."""
    from huggingface_hub import HfApi

    def ask() -> _Listing:
        api = HfApi()
        info = api.model_info(model.repo, revision=model.revision, files_metadata=True, timeout=ANSWER_S)
        sizes: dict[str, int | None] = {one.rfilename: one.size for one in info.siblings or ()}
        if None in sizes.values():  # a mirror may not know the parameter
            tree = api.list_repo_tree(info.id, revision=info.sha, recursive=True)
            sizes |= {entry.path: entry.size for entry in tree if hasattr(entry, "size")}
        return _Listing(info.id, str(info.sha), {name: size or 0 for name, size in sizes.items()})

    try:
        return Request(str(model), load).result(ask)
    except Exception as error:
        if not is_unreachable(error, only_overloaded=True):
            raise
    load.wait(1.0)
    load.check(str(model))
    return Request(str(model), load).result(ask)


def _fetched(model: HubId, listing: _Listing, load: Load, *, code: bool) -> Path:
    """Download what the cache lacks; the folder."""
    from huggingface_hub import hf_hub_download

    _check_kind(model, listing.sizes)
    names = [name for name in listing.sizes if NEEDED.fullmatch(name) or (code and CODE.fullmatch(name))]
    if INDEX_FILE in listing.sizes:
        _download(model, listing, [INDEX_FILE], load)
        index = Path(hf_hub_download(listing.repo, INDEX_FILE, revision=listing.commit, local_files_only=True))
        try:
            weights = [INDEX_FILE, *_shards(index)]
        except ValueError as error:
            raise ModelLoadError(f"The file {INDEX_FILE} of '{model}' is damaged: tell its author.") from error
        if lacking := [name for name in weights if name not in listing.sizes]:
            raise ModelLoadError(f"'{model}' lacks its file {lacking[0]}: choose another --revision, or tell its author.")
    else:
        weights = [name for name in (SINGLE_FILE, *ADAPTER_FILES) if name in listing.sizes]
    _download(model, listing, [*names, *(name for name in weights if name not in names)], load)
    first = "config.json" if "config.json" in listing.sizes else ADAPTER_FILES[0]
    if model.revision != listing.commit:  # remember what the branch or tag stands for, for whoever is offline
        Request(str(model), load).result(lambda: hf_hub_download(model.repo, first, revision=model.revision))
    return Path(hf_hub_download(listing.repo, first, revision=listing.commit, local_files_only=True)).parent


def _check_kind(model: HubId, names: Iterable[str]) -> None:
    found = set(names)
    if INDEX_FILE in found or SINGLE_FILE in found or found.issuperset(ADAPTER_FILES):
        return
    kinds = (
        ("only GGUF files", (".gguf",), "download one and give its path"),
        ("only pickle weights, which can run code when loaded", PICKLES, "choose a repository with model.safetensors"),
        ("only weights under other names", (".safetensors",), "choose a repository made by save_pretrained()"),
    )
    for what, endings, remedy in kinds:
        if any(name.endswith(endings) for name in found):
            raise ModelLoadError(f"'{model}' has {what}: {remedy}.")
    raise ModelLoadError(f"'{model}' has no weights: choose a repository with model.safetensors.")


def _download(model: HubId, listing: _Listing, names: list[str], load: Load) -> None:
    """Download the files that are not there yet, one after another, the small ones first."""
    from huggingface_hub import constants, try_to_load_from_cache

    def is_there(name: str) -> bool:
        return isinstance(try_to_load_from_cache(listing.repo, name, revision=listing.commit), str)

    missing = sorted((name for name in names if not is_there(name)), key=lambda name: listing.sizes[name])
    num_bytes = sum(listing.sizes[name] for name in missing)
    _check_room(model, Path(constants.HF_HUB_CACHE), num_bytes)
    meter = Meter(load, len(missing), num_bytes)
    for name in missing:
        request = Request(str(model), load, meter)
        request.result(partial(_fetch_file, listing, name, request))
        meter.file_done(listing.sizes[name])


def _fetch_file(listing: _Listing, name: str, request: Request) -> None:
    from huggingface_hub import hf_hub_download

    if LARGE_BYTES <= listing.sizes[name] <= LARGEST_BYTES:
        fetch_blob(listing.repo, name, listing.commit, request.begin, request.received)
    hf_hub_download(listing.repo, name, revision=listing.commit, tqdm_class=request.bar, etag_timeout=ANSWER_S)


def _check_room(model: HubId, folder: Path, num_bytes: int) -> None:
    there = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(there).free
    if num_bytes and free < num_bytes + ROOM_BYTES:
        raise ModelLoadError(
            f"'{model}' needs {num_bytes / 1e9:.1f} GB more on the disk of '{folder}', which has {free / 1e9:.1f} GB free: "
            "make room, or set HF_HOME to a folder of another disk and restart."
        )
