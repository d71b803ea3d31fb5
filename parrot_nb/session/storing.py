"""The store of a session, from the notebook's side: which file it is, what is in it, and what the user should know of it."""

from __future__ import annotations

import json
import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from parrot_nb.errors import SessionError
from parrot_nb.language.escaping import visible
from parrot_nb.runtime import messages
from parrot_nb.runtime.store_file import (
    Bounds,
    DamagedError,
    Generation,
    StoreError,
    StoreFile,
    as_session_error,
    open_store,
    why_unwritable,
)
from parrot_nb.session.connection import Connection


class SessionStore:
    """A file in which the generations of a session outlive it, once the user has named one; `session.store`.

    Args:
        connection: to the runtime, which reads and writes the file while calls run.

    Attributes:
        path: of the file; None while nothing is stored.
    """

    def __init__(self, connection: Connection) -> None:
        self.path: Path | None = None
        self._connection = connection
        self._notices: list[str] = []
        self._told: str | None = None  # when the store was opened here; the runtime, which opens it too, says the same

    @property
    def place(self) -> str | None:
        """Path of the file as text; None while nothing is stored."""
        return None if self.path is None else str(self.path)

    def begin(self, path: str | Path | None) -> None:
        """Open the store that a session begins with, if it has one; where that cannot be, warn, and store nothing."""
        try:
            if path is not None:
                self.open(path)
        except SessionError as error:
            warnings.warn(f"{error} Nothing is stored.", RuntimeWarning, stacklevel=3)

    def open(self, path: str | Path, *, max_bytes: int | None = None, max_days: float | None = None) -> None:
        """Keep what is generated from now on in a file, and take from it what it has. A damaged file is set aside, with a warning.

        Args:
            path: of the file, which is made if it does not exist.
            max_bytes: size of the texts beyond which those used longest ago are deleted; 1 GB, or what was said of this file before, when None.
            max_days: age at which texts are deleted; 365, or what was said of this file before, when None.

        Raises:
            SessionError: the file cannot be a store.
        """
        try:
            place = Path(path).expanduser().absolute()
        except (OSError, RuntimeError) as error:  # there is no such user, or the current folder is gone
            raise SessionError(f"'{path}' names no file ({error}): give the whole path of the store.") from error
        try:
            file, notice = open_store(place)
        except StoreError as error:
            raise as_session_error(error) from error
        try:
            if max_bytes is not None or max_days is not None:
                file.set_bounds(max_bytes=max_bytes, max_days=max_days)
                file.trim()
        except sqlite3.Error as error:
            raise SessionError(f"The limits of '{place}' could not be changed: {why_unwritable(error)}.") from error
        finally:
            file.close()
        self._told = notice
        if notice is not None:
            warnings.warn(notice, RuntimeWarning, stacklevel=2)
        self._use(place)

    def close(self) -> None:
        """Store nothing from now on; the file stays."""
        self._use(None)

    def _use(self, path: Path | None) -> None:
        self.path = path
        self._connection.ask_if_running(messages.UseStore(self.place))

    def generations(self, limit: int = -1) -> list[Generation]:
        """Return the stored generations, the last first; at most `limit` of them where that is not negative. Raises SessionError."""
        with self._opened() as file:
            return list(file.generations(limit))

    def size(self) -> tuple[int, int, Bounds]:
        """Return how many generations are stored, their bytes, and the limits. Raises SessionError."""
        with self._opened() as file:
            return len(file), file.num_bytes, file.bounds

    def clear(self) -> int:
        """Delete all that is stored; returns how many generations there were. What the session remembers stays until `reset`.

        Raises:
            SessionError: there is no store, or it cannot be written.
        """
        with self._opened() as file:
            count = file.clear()
        self._use(self.path)  # what is remembered and used again is stored again
        return count

    def export(self, path: str | Path, *, messages: bool = False) -> int:
        """Write what is stored to a file, a line of JSON for each generation, the first first; returns how many.

        Args:
            path: of the file, which is replaced.
            messages: write conversations for fine-tuning, `{"messages": [{"role": ..., "content": ...}, ...]}`: values alone, and
                none that was refused.

        Raises:
            SessionError: there is no store, or the file cannot be written.
        """
        target, count = Path(path).expanduser(), 0
        with self._opened() as file:
            try:
                with target.open("w", encoding="utf-8") as out:
                    for generation in file.generations(oldest_first=True):
                        if not messages or (generation.kind == "value" and not generation.refused):
                            record = _as_messages(generation) if messages else _as_record(generation)
                            out.write(json.dumps(record, ensure_ascii=False) + "\n")
                            count += 1
            except OSError as error:
                raise SessionError(f"'{target}' cannot be written ({error.strerror or error}): name another file.") from error
        return count

    @contextmanager
    def _opened(self) -> Iterator[StoreFile]:
        """The file, with all that was generated until now."""
        if self.path is None:
            raise SessionError("Nothing is stored: open a store first, as in %parrot store results.db.")
        self._connection.ask_if_running(messages.SyncStore())
        try:
            file = StoreFile(self.path)
        except DamagedError:
            self.open(self.path)  # sets it aside, and says so
            file = StoreFile(self.path)
        except StoreError as error:
            raise as_session_error(error) from error
        try:
            yield file
        except sqlite3.Error as error:
            raise SessionError(f"The store '{self.path}' cannot be used: {why_unwritable(error)}.") from error
        finally:
            file.close()

    # Messages of the runtime

    def hear(self, notice: messages.StoreNotice) -> None:
        """Keep a notice until `warn`, unless it was told when the store was opened (the thread that hears the runtime, which must
        show nothing)."""
        if notice.text != self._told:
            self._notices.append(notice.text)

    def warn(self) -> None:
        """Show the user what has come (a user's thread)."""
        while self._notices:
            warnings.warn(visible(self._notices.pop(0)), RuntimeWarning, stacklevel=4)


def _as_record(generation: Generation) -> dict[str, Any]:
    return {
        "function": generation.function,
        "output": generation.output,
        "kind": generation.kind,
        "model": generation.model,
        "made": datetime.fromtimestamp(generation.made_s, UTC).isoformat(timespec="seconds"),
        "messages": _turns(generation),
        "text": generation.value,
        "finish": generation.end.finish,
        "tokens": generation.end.decoded_tokens,
        "refused": generation.refused,
    }


def _as_messages(generation: Generation) -> dict[str, Any]:
    return {"messages": [*_turns(generation), {"role": "assistant", "content": generation.value}]}


def _turns(generation: Generation) -> list[dict[str, str]]:
    return [{"role": role, "content": content} for role, content in generation.turns]
