"""A stand-in for the model hub on the loopback interface: what `huggingface_hub` asks for, and how a hub refuses.

with ModelHub() as hub:
    hub.add("acme/smol", folder)
    run(..., env=hub.environment(cache))
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).parents[2]
CHUNK = 1 << 16


@dataclass
class Repository:
    """A model of the hub.

    Attributes:
        revisions: folder of each branch, tag or commit.
        refusal: HTTP status and error code that every request is answered with; None where it is open.
        files_refusal: the same for requests of files alone.
        sizes: sizes that the hub claims for some files, whatever they have.
        rate: bytes per second of a download; as fast as it goes when None.
        moved_to: name that it has now.
    """

    revisions: dict[str, Path] = field(default_factory=dict)
    refusal: tuple[int, str] | None = None
    files_refusal: tuple[int, str] | None = None
    sizes: Mapping[str, int] = field(default_factory=dict)
    rate: float | None = None
    moved_to: str | None = None


class ModelHub:
    """The server; `requests` is what it was asked, as "METHOD path", `sent` how many bytes of each file it sent."""

    def __init__(self) -> None:
        self.repositories: dict[str, Repository] = {}
        self.requests: list[str] = []
        self.sent: dict[str, int] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.address = f"http://127.0.0.1:{self.server.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()

    def add(self, name: str, folder: Path, **settings: Any) -> Repository:
        """Serve a folder as the main branch of a model."""
        repository = self.repositories[name] = Repository({"main": folder}, **settings)
        return repository

    def environment(self, cache: Path, **more: str) -> dict[str, str]:
        """Environment of a process that talks to this hub, with a cache of its own."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "HUGGING", "TRANSFORMERS_"))}
        paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
        return {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "HF_HOME": str(cache), "HF_ENDPOINT": self.address, **more}

    def downloads(self) -> list[str]:
        """Names of the files that were downloaded, each once."""
        return sorted(self.sent)

    def _handler(self) -> type[BaseHTTPRequestHandler]:
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_: object) -> None:
                pass

            def do_HEAD(self) -> None:
                self.answer()

            def do_GET(self) -> None:
                self.answer()

            def answer(self) -> None:
                hub.requests.append(f"{self.command} {self.path}")
                parts = [unquote(part) for part in urlsplit(self.path).path.strip("/").split("/")]
                if parts[:2] == ["api", "models"]:
                    name, rest = "/".join(parts[2:4]), parts[4:]
                else:
                    name, rest = "/".join(parts[:2]), parts[2:]
                repository = hub.repositories.get(name)
                if repository is None:
                    return self.refuse(404, "RepoNotFound")
                if repository.refusal is not None:
                    return self.refuse(*repository.refusal)
                if repository.moved_to is not None:
                    return self.reply(307, b"", Location=self.path.replace(name, repository.moved_to))
                revision = rest[1] if len(rest) > 1 else "main"
                folder = repository.revisions.get(revision) or next(
                    (one for one in repository.revisions.values() if commit_of(one) == revision), None
                )
                if folder is None:
                    return self.refuse(404, "RevisionNotFound")
                if parts[0] == "api":
                    return self.describe(name, repository, folder)
                if repository.files_refusal is not None:
                    return self.refuse(*repository.files_refusal)
                return self.send_file(repository, folder, "/".join(rest[2:]))

            def describe(self, name: str, repository: Repository, folder: Path) -> None:
                files = [
                    {"rfilename": path.name, "size": repository.sizes.get(path.name, path.stat().st_size)}
                    for path in sorted(folder.iterdir())
                ]
                info = {"id": name, "modelId": name, "sha": commit_of(folder), "siblings": files, "tags": [], "private": False}
                self.reply(200, json.dumps(info).encode(), Content_Type="application/json")

            def send_file(self, repository: Repository, folder: Path, file: str) -> None:
                path = folder / file
                if not path.is_file():
                    return self.refuse(404, "EntryNotFound")
                size = path.stat().st_size
                wanted = self.headers.get("Range", "")
                start = int(wanted.removeprefix("bytes=").split("-")[0]) if wanted else 0
                self.send_response(206 if wanted else 200)
                self.send_header("Content-Length", str(size - start))
                if wanted:
                    self.send_header("Content-Range", f"bytes {start}-{size - 1}/{size}")
                self.send_header("ETag", f'"{hashlib.sha1(path.read_bytes()).hexdigest()}"')
                self.send_header("X-Repo-Commit", commit_of(folder))
                self.end_headers()
                if self.command == "HEAD":
                    return None
                with path.open("rb") as stream:
                    stream.seek(start)
                    while chunk := stream.read(CHUNK):
                        try:
                            self.wfile.write(chunk)
                        except OSError:  # whoever asked went away
                            return None
                        hub.sent[file] = hub.sent.get(file, 0) + len(chunk)
                        if repository.rate is not None:
                            time.sleep(len(chunk) / repository.rate)
                return None

            def refuse(self, status: int, code: str) -> None:
                self.reply(status, json.dumps({"error": code}).encode(), X_Error_Code=code, X_Error_Message=code)

            def reply(self, status: int, body: bytes, **headers: str) -> None:
                self.send_response(status)
                for key, value in headers.items():
                    self.send_header(key.replace("_", "-"), value)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

        return Handler


def commit_of(folder: Path) -> str:
    """A commit's name for what a folder holds."""
    return hashlib.sha1(str(folder).encode()).hexdigest()
