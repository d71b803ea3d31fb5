"""A large file of the hub, taken in small pieces and resumed in its middle, which `huggingface_hub` begins anew.

The file is put where the hub's cache keeps the contents of files (`blobs`, by their hash), under a name of its own until it is
complete; `hf_hub_download` finds it there and makes it part of the snapshot.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from parrot_nb.engine.embedded.hub_errors import is_unreachable

LARGE_BYTES = 8 * 2**20  # smaller ones are begun anew
LARGEST_BYTES = 50 * 10**9  # the hub hands out larger ones by another protocol only
PIECE_BYTES = 2**18
ANSWER_S = 10.0  # for the hub to answer
PAUSE_S = 1.0  # before a line that broke is tried again


def fetch_blob(repo: str, name: str, commit: str, begin: Callable[[int], None], received: Callable[[int], None]) -> None:
    """Download a file into the cache.

    Args:
        repo: the model.
        name: of the file.
        commit: of the model.
        begin: is told how many bytes are there already.
        received: is told of each piece that has been written; what it raises ends the download, which can be resumed.

    Raises:
        Exception: what `huggingface_hub` and its HTTP library raise, where nothing came since the last such failure.
    """
    from huggingface_hub import constants, get_hf_file_metadata, hf_hub_url, utils

    library: Any = utils  # its type stubs do not name what it hands out
    url = hf_hub_url(repo, name, revision=commit)
    file = get_hf_file_metadata(url, timeout=ANSWER_S)
    folder = "--".join(["models", *repo.split("/")])
    cache = Path(constants.HF_HUB_CACHE)
    blob = cache / folder / "blobs" / str(file.etag)
    lock = cache / ".locks" / folder / f"{file.etag}.lock"  # the one that the library takes, too
    for path in (blob, lock):
        path.parent.mkdir(parents=True, exist_ok=True)
    part = blob.with_name(f"{blob.name}.parrot.incomplete")
    with library.WeakFileLock(lock):
        before = -1
        while not blob.exists():
            there = part.stat().st_size if part.exists() else 0
            if (
                file.size is not None and there > file.size
            ):  # of another file, or broken off too late: no server sends what is beyond an end
                part.unlink()
                there = 0
            try:
                if there != file.size:
                    begin(there)
                    _append(part, there, url, file, received)
            except Exception as error:
                now = part.stat().st_size if part.exists() else 0
                if not is_unreachable(error) or now in (before, there):
                    raise
                before = now
                time.sleep(PAUSE_S)
            else:
                if part.stat().st_size != file.size:
                    part.unlink()  # larger than it may be: begun anew by the next load
                    raise ConnectionError(f"{name} came with another size than announced")
                part.rename(blob)


def _append(part: Path, there: int, url: str, file: Any, received: Callable[[int], None]) -> None:
    from huggingface_hub import get_session, utils

    library: Any = utils
    headers: dict[str, str] = library.build_hf_headers()
    if urlsplit(file.location).netloc != urlsplit(url).netloc:  # where the hub sent us is signed, and no business of the token
        headers = {key: value for key, value in headers.items() if key.lower() != "authorization"}
    headers["Accept-Encoding"] = "identity"
    if there:
        headers["Range"] = f"bytes={there}-"
    session: Any = get_session()
    with session.stream("GET", file.location, headers=headers, timeout=ANSWER_S) as response:
        library.hf_raise_for_status(response)
        with part.open("ab" if response.status_code == 206 else "wb") as stream:  # some servers send the whole all the same
            for piece in response.iter_bytes(chunk_size=PIECE_BYTES):
                stream.write(piece)
                received(len(piece))
