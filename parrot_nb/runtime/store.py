"""The memo's store: a file in which generations outlive the kernel, read and written by a thread of its own.

The loop hands over what was generated and goes on; the thread writes it within `WRITE_S`, so that a crash loses no more than
the last second. A store that fails is told of once and left alone: no call fails for it, or waits for it longer than `FIND_S`.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from parrot_nb.engine.protocol import Sampling
from parrot_nb.runtime.store_file import (
    BUSY_S,
    DEFAULT_BYTES,
    Generation,
    StoreError,
    StoreFile,
    is_damage,
    open_store,
    why_unwritable,
)

KEY_VERSION = 1  # raise it where the same weights, tokens and options begin to give other texts
WRITE_S = 0.5  # from the first of some new texts until they are written
MANY = 500  # texts, which are written at once
TRIM_SHARE = 0.05  # of its limit, by which a store may grow before it is trimmed
LOCKED_S, STEP_S = 60.0, 0.05  # to try to write while another process does, and for one attempt, which holds up finds
FIND_S = 5.0  # after which a text is generated rather than waited for
CLOSE_S = 15.0  # for what is still to be written

_encoder = msgspec.msgpack.Encoder()

T = TypeVar("T")


def name_of(model: str, codec: str, token_ids: bytes, taken_back: bytes, sampling: Sampling) -> bytes:
    """Return the name of a generation: a hash of all that its text depends on.

    Args:
        model: fingerprint of the model; see `ModelInfo.fingerprint`.
        codec: key of the tokenizer, whose ids these are.
        token_ids: what the context holds, as 32-bit numbers.
        taken_back: the prompt's last tokens, likewise, which were not filled.
        sampling: every field, cleared of those that change nothing.
    """
    digest = blake2b(digest_size=20)
    for part in (f"{KEY_VERSION}|{model}|{codec}".encode(), _encoder.encode(sampling), taken_back, token_ids):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.digest()


class Store:
    """A store in use. Its methods are called on the runtime loop, and none of them waits for the disk there.

    Args:
        path: of its file, which is made if it does not exist.
        tell: is told in a sentence what the user should know; called on the loop.
    """

    def __init__(self, path: Path, tell: Callable[[str], None]) -> None:
        self.path = path
        self._tell = tell
        self._loop = asyncio.get_running_loop()
        self._tasks: queue.SimpleQueue[tuple[str, Any]] = queue.SimpleQueue()
        self._unstored: set[str] = set()
        self._file: StoreFile | None = None
        self._made: dict[bytes, Generation] = {}  # of these, the thread's own: not written yet
        self._refused: set[bytes] = set()
        self._used: set[bytes] = set()
        self._due_s: float | None = None
        self._most_bytes = DEFAULT_BYTES
        self._num_new_bytes = 0  # since the store was trimmed
        self._trimmed = False
        self._locked_s: float | None = None  # when it was first found that another process writes
        self._syncing: list[asyncio.Future[None]] = []
        self._thread = threading.Thread(target=self._run, name="parrot-store", daemon=True)
        self._thread.start()

    # On the loop

    async def find(self, name: bytes) -> Generation | None:
        """Return the generation of that name; None where the store has none, or cannot be read in time."""
        found: asyncio.Future[Generation | None] = self._loop.create_future()
        self._tasks.put(("find", (name, found)))
        try:
            return await asyncio.wait_for(found, FIND_S)
        except TimeoutError:
            return None

    def put(self, name: bytes, generation: Generation) -> None:
        """Keep a generation."""
        self._tasks.put(("put", (name, generation)))

    def refuse(self, name: bytes) -> None:
        """Note that a generation is no value: a check, or its type, refused it."""
        self._tasks.put(("refuse", name))

    async def sync(self) -> None:
        """Wait until all that was handed over is written, or cannot be for now."""
        done: asyncio.Future[None] = self._loop.create_future()
        self._tasks.put(("sync", done))
        await done

    async def close(self) -> None:
        """Write what is left and close the file; the store is not used again."""
        await asyncio.to_thread(self.finish, CLOSE_S)

    def finish(self, patience_s: float) -> None:
        """Do as `close` on any thread, and wait no longer than so many seconds."""
        self._tasks.put(("close", None))
        self._thread.join(patience_s)

    def cannot_hold(self, model: str) -> None:
        """Tell the user, once for each model, that its texts are not stored."""
        if model not in self._unstored:
            self._unstored.add(model)
            self._tell(
                f"Texts of '{model}' are not stored, since its weights could change without a sign: only models that are loaded "
                "from files are known again."
            )

    # In the thread

    def _run(self) -> None:
        self._safely(self._open)
        self._due_s = time.monotonic()  # for the trimming, which finds that wait come before
        while self._step():
            pass
        if self._file is not None:
            self._file.close()

    def _open(self) -> None:
        try:
            self._file, notice = open_store(self.path)
            self._file.wait_at_most(STEP_S)
        except StoreError as error:
            notice = f"{str(error).rstrip('.')}. Nothing is stored."
        if notice is not None:
            self._say(notice)

    def _safely(self, do: Callable[[], T]) -> T | None:
        """Do something with the file; after an error that is none of SQLite's, do without it: the thread goes on and answers."""
        try:
            return do()
        except Exception as error:
            if self._file is not None:
                self._file.close()
                self._file = None
            self._drop()
            reason = f"{type(error).__name__}: {error}"
            self._say(f"'{self.path}' cannot be used ({reason}): nothing is stored; say %parrot store {self.path.name} again.")
            return None

    def _step(self) -> bool:
        """Do one task, or write what is due; returns False at the end."""
        wait_s = None if self._due_s is None else max(0.0, self._due_s - time.monotonic())
        try:
            task, subject = self._tasks.get(timeout=wait_s)
        except queue.Empty:
            self._safely(self._write)
            return True
        match task:
            case "find":
                name, future = subject
                self._answer(future, self._safely(lambda: self._found(name)))
            case "put":
                name, generation = subject
                self._made[name] = generation
                self._refused.discard(name)
                self._soon()
            case "refuse":
                self._refused.add(subject)
                self._soon()
            case "sync":
                self._syncing.append(subject)
                self._safely(self._write)
            case "close":
                self._safely(self._write_last)
                self._synced()
                return False
        if len(self._made) >= MANY and self._locked_s is None:
            self._safely(self._write)
        return True

    def _found(self, name: bytes) -> Generation | None:
        if name in self._made:
            return self._made[name]
        if self._file is None:
            return None
        try:
            found = self._file.find(name)
        except sqlite3.Error as error:
            if "locked" not in str(error):
                self._failed(error, "read")
            return None
        if found is not None and self._file.can_write:
            self._used.add(name)
            self._soon()
        return found

    def _soon(self) -> None:
        if self._due_s is None:
            self._due_s = time.monotonic() + WRITE_S

    def _write(self) -> None:
        """Write what has come since the last time; where another process writes, later."""
        self._due_s = None
        if self._file is None or not self._file.can_write:
            return self._drop()
        try:
            if self._made or self._refused or self._used:
                self._num_new_bytes += self._file.write(self._made.items(), self._refused, self._used)
        except sqlite3.Error as error:
            if "locked" in str(error) and self._may_wait():
                return self._soon()
            self._failed(error, "write")
            return self._synced()
        self._drop()
        if not self._trimmed or self._num_new_bytes > TRIM_SHARE * self._most_bytes:
            self._trim()
        return None

    def _may_wait(self) -> bool:
        """True while another process that writes may be waited for; who waits for that here waits less."""
        now_s = time.monotonic()
        if self._locked_s is None:
            self._locked_s = now_s
        if now_s - self._locked_s > BUSY_S:
            self._synced()
        return now_s - self._locked_s < LOCKED_S

    def _write_last(self) -> None:
        """Write what is left: no find comes after it, so it may wait."""
        if self._file is not None:
            self._file.wait_at_most(BUSY_S)
        self._write()

    def _trim(self) -> None:
        if self._file is None or not self._file.can_write:
            return
        try:
            self._file.trim()
            self._most_bytes = self._file.bounds.max_bytes
            self._num_new_bytes, self._trimmed = 0, True
        except sqlite3.Error as error:
            if "locked" not in str(error):  # then another process does it
                self._failed(error, "write")

    def _drop(self) -> None:
        self._made.clear()
        self._refused.clear()
        self._used.clear()
        self._locked_s = None
        self._synced()

    def _synced(self) -> None:
        while self._syncing:
            self._answer(self._syncing.pop(), None)

    def _failed(self, error: sqlite3.Error, what: str) -> None:
        """Do without what SQLite refuses: a damaged file is begun anew, one that cannot be written is read alone."""
        assert self._file is not None
        if is_damage(error) and self._file.can_write:
            self._file.close()
            self._file = None
            with contextlib.suppress(StoreError):
                self._file, notice = open_store(self.path)
                self._file.wait_at_most(STEP_S)
                if notice is not None:  # else another process has begun a new one
                    self._say(notice)
            if self._file is None:
                self._say(f"'{self.path}' is damaged and cannot be moved: name another file. Nothing is stored.")
        elif what == "write":
            self._file.can_write = False
            self._drop()
            self._say(
                f"'{self.path}' could not be written ({why_unwritable(error)}): what is generated from now on is not stored; make "
                f"room or rights for it, then say %parrot store {self.path.name} again."
            )
        else:
            self._file.close()
            self._file = None
            self._say(f"'{self.path}' could not be read ({error}): nothing is stored; say %parrot store {self.path.name} again.")

    def _say(self, notice: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has ended
            self._loop.call_soon_threadsafe(self._tell, notice)

    def _answer(self, future: asyncio.Future[Any], value: Any) -> None:
        def answer() -> None:
            if not future.done():
                future.set_result(value)

        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(answer)
