"""The store's file: generations in SQLite, each under a name that says what it depends on.

Several processes may use one file at once (write-ahead log). Nothing here is used on the runtime's loop: each call may wait for
the disk, or for another process that writes.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, NoReturn

import msgspec

from parrot_nb.engine.protocol import GenerationEnd
from parrot_nb.errors import SessionError

VERSION = 1  # of the tables below
APPLICATION_ID = 0x50617274  # what marks a SQLite file as a store
ID_PLACE = slice(68, 72)  # of that number in a SQLite file
SUFFIXES = (".db", ".sqlite", ".sqlite3", ".store")  # of files that are taken for damaged stores if SQLite cannot read them
BUSY_S = 10.0  # to wait for another process that writes
CHECKED_BYTES = 16 * 2**20  # files up to this size are checked whole when they are opened: some 50 ms
DEFAULT_BYTES, DEFAULT_DAYS = 2**30, 365.0
FULL_SHARE = 0.9  # of its size that a store is trimmed to: not each new text throws out one
DAY_S = 86_400.0
USED_STEP_S = 3_600.0  # exactness of the time of last use: without it each reading would write
ROW_BYTES = 200  # that a row takes beside its texts

TABLES = f"""
CREATE TABLE IF NOT EXISTS bounds (max_bytes INTEGER NOT NULL, max_days REAL NOT NULL);
CREATE TABLE IF NOT EXISTS generations (
    name BLOB PRIMARY KEY, made_s REAL NOT NULL, used_s REAL NOT NULL, size INTEGER NOT NULL, model TEXT NOT NULL,
    function TEXT NOT NULL, output TEXT NOT NULL, kind TEXT NOT NULL, refused INTEGER NOT NULL,
    messages BLOB NOT NULL, text TEXT NOT NULL, ending BLOB NOT NULL
);
CREATE INDEX IF NOT EXISTS by_use ON generations (used_s, size);
CREATE INDEX IF NOT EXISTS by_age ON generations (made_s);
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {VERSION};
"""
PUT = "INSERT OR REPLACE INTO generations VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
SIZE = 3  # place of that column in a row
SELECT = "SELECT name, made_s, size, model, function, output, kind, refused, messages, text, ending FROM generations"

_encoder = msgspec.msgpack.Encoder()
_end_decoder = msgspec.msgpack.Decoder(GenerationEnd)
_messages_decoder = msgspec.msgpack.Decoder(tuple[tuple[str, str], ...])

Messages = tuple[tuple[str, str], ...]  # role and content


class StoreError(Exception):
    """A store's file cannot be used; the message is a sentence for the user."""


class DamagedError(StoreError):
    """A store's file is damaged."""


@dataclass(frozen=True, slots=True)
class Generation:
    """A generation as a store keeps it.

    Attributes:
        model: id of the model.
        function: name of the semantic function.
        output: name of its output.
        kind: "value", or "thinking" for what the model thought before one.
        messages: the prompt as role and content of each turn; a last one of the assistant is how the value begins.
        text: what was generated.
        end: how it ended, with its token ids and scores.
        refused: whether a check, or the output's type, refused it.
        made_s: when it was generated, as `time.time()`.
        size: bytes that it takes, about.
    """

    model: str
    function: str
    output: str
    kind: Literal["value", "thinking"]
    messages: Messages
    text: str
    end: GenerationEnd
    refused: bool = False
    made_s: float = 0.0
    size: int = 0

    @property
    def value(self) -> str:
        """Text of the whole value, with what it was told to begin with."""
        begins = self.messages[-1][1] if self.messages and self.messages[-1][0] == "assistant" else ""
        return begins + self.text

    @property
    def turns(self) -> Messages:
        """The prompt's turns without the beginning of the value."""
        return self.messages[:-1] if self.messages and self.messages[-1][0] == "assistant" else self.messages


@dataclass(frozen=True, slots=True)
class Bounds:
    """Limits of a store: bytes of its texts, and days since a text was generated."""

    max_bytes: int = DEFAULT_BYTES
    max_days: float = DEFAULT_DAYS


class StoreFile:
    """An open store. Used by one thread at a time.

    Args:
        path: of the file, which is made if it does not exist.

    Attributes:
        can_write: False if the file or its disk is read-only.

    Raises:
        DamagedError: it is a store, or named like one, and SQLite cannot read it.
        StoreError: it cannot be opened, holds something else, or was written by a newer version.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.can_write = True
        try:
            try:
                _check_place(path)
                self._connection = self._opened()
                self._check()
            except sqlite3.Error as error:
                _refuse(path, error)
        except (OSError, ValueError) as error:  # rights of a folder above it, or a name that no file can have
            self.close()
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            raise StoreError(
                f"'{path}' cannot be used as a store ({reason}): see to its folder's rights, or name another file."
            ) from error
        except BaseException:
            self.close()
            raise

    def _opened(self) -> sqlite3.Connection:
        try:
            self._connection = sqlite3.connect(self.path, timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            number, version = self._number("application_id"), self._number("user_version")
            if number != APPLICATION_ID and self._connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                raise StoreError(f"'{self.path}' is a SQLite file of another program: name another file for the store.")
            if version > VERSION:
                raise StoreError(
                    f"'{self.path}' was written by a newer parrot_nb (version {version} of stores, and this one reads {VERSION}): "
                    "update parrot_nb, or name another file."
                )
            if number != APPLICATION_ID or version < VERSION:
                self._connection.execute("PRAGMA auto_vacuum = INCREMENTAL")
                self._connection.execute("PRAGMA journal_mode = WAL")
                self._connection.executescript(f"BEGIN IMMEDIATE;{TABLES}COMMIT;")
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = NORMAL")  # a process that is killed loses nothing that was committed
        except sqlite3.OperationalError as error:
            if not _is_read_only(error) or not self.path.exists():
                raise
            self.close()
            self.can_write = False
            self._connection = sqlite3.connect(
                f"{self.path.as_uri()}?mode=ro&immutable=1", uri=True, isolation_level=None, check_same_thread=False
            )
        return self._connection

    def _check(self) -> None:
        """Find damage. Raises sqlite3.Error or DamagedError."""
        self._connection.execute(SELECT + " LIMIT 1").fetchall()
        if self.path.stat().st_size <= CHECKED_BYTES:
            (found,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if found != "ok":
                raise DamagedError(f"'{self.path}' is damaged")

    def _number(self, pragma: str) -> int:
        return int(self._connection.execute(f"PRAGMA {pragma}").fetchone()[0])

    def wait_at_most(self, seconds: float) -> None:
        """Wait so long from now on for another process that writes; `BUSY_S` at first."""
        self._connection.execute(f"PRAGMA busy_timeout = {round(1000 * seconds)}")

    def close(self) -> None:
        """Close the file. Harmless when closed."""
        if (connection := getattr(self, "_connection", None)) is not None:
            with contextlib.suppress(sqlite3.Error):
                connection.close()

    # One generation

    def find(self, name: bytes) -> Generation | None:
        """Return the generation of that name, or None. Raises sqlite3.Error."""
        row = self._connection.execute(SELECT + " WHERE name = ?", (name,)).fetchone()
        return None if row is None else _generation(row)

    def write(self, made: Iterable[tuple[bytes, Generation]], refused: Iterable[bytes], used: Iterable[bytes]) -> int:
        """Keep generations, in one transaction; those of the same names before are replaced. Returns their bytes, about.

        Args:
            made: names and generations.
            refused: names of generations that turned out to be no values.
            used: names of generations that were read.

        Raises:
            sqlite3.Error: nothing was written.
        """
        now_s = time.time()
        rows = [_row(name, generation, now_s) for name, generation in made]
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            self._connection.executemany(PUT, rows)
            self._connection.executemany("UPDATE generations SET refused = 1 WHERE name = ?", [(name,) for name in refused])
            self._connection.executemany(
                "UPDATE generations SET used_s = ? WHERE name = ? AND used_s < ?",
                [(now_s, name, now_s - USED_STEP_S) for name in used],
            )
            self._connection.execute("COMMIT")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("ROLLBACK")
            raise
        return sum(row[SIZE] for row in rows)

    # All of them

    def __len__(self) -> int:
        """Return the number of generations."""
        return int(self._connection.execute("SELECT count(*) FROM generations").fetchone()[0])

    @property
    def num_bytes(self) -> int:
        """Bytes that the generations take, about."""
        return int(self._connection.execute("SELECT total(size) FROM generations").fetchone()[0])

    def generations(self, limit: int = -1, *, oldest_first: bool = False) -> Iterator[Generation]:
        """The generations, the last first unless otherwise asked for; at most `limit` of them where that is not negative."""
        order = " ORDER BY made_s, rowid LIMIT ?" if oldest_first else " ORDER BY made_s DESC, rowid DESC LIMIT ?"
        rows = self._connection.execute(SELECT + order, (limit,))
        return (found for row in rows if (found := _generation(row)) is not None)

    def clear(self) -> int:
        """Delete all generations; returns how many there were."""
        count = self._connection.execute("DELETE FROM generations").rowcount
        self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return count

    @property
    def bounds(self) -> Bounds:
        """Limits of the store."""
        row = self._connection.execute("SELECT max_bytes, max_days FROM bounds").fetchone()
        return Bounds() if row is None else Bounds(*row)

    def set_bounds(self, *, max_bytes: int | None, max_days: float | None) -> None:
        """Change limits, for all who use the store; None leaves one as it is."""
        before = self.bounds
        bounds = replace(
            before,
            max_bytes=before.max_bytes if max_bytes is None else max_bytes,
            max_days=before.max_days if max_days is None else max_days,
        )
        self._connection.execute("DELETE FROM bounds")
        self._connection.execute("INSERT INTO bounds VALUES (?, ?)", (bounds.max_bytes, bounds.max_days))

    def trim(self) -> int:
        """Delete what is too old, and where the store is too large, what was used longest ago; returns how many generations went."""
        bounds = self.bounds
        oldest_s = time.time() - bounds.max_days * DAY_S
        gone = self._connection.execute("DELETE FROM generations WHERE made_s < ?", (oldest_s,)).rowcount
        excess = self.num_bytes - bounds.max_bytes
        if excess > 0:
            excess += int((1 - FULL_SHARE) * bounds.max_bytes)
            gone += self._connection.execute(
                "DELETE FROM generations WHERE rowid IN (SELECT rowid FROM "
                "(SELECT rowid, size, sum(size) OVER (ORDER BY used_s, rowid) AS until FROM generations) WHERE until - size < ?)",
                (excess,),
            ).rowcount
        if gone:
            self._connection.execute("PRAGMA incremental_vacuum").fetchall()
        return gone


def _check_place(path: Path) -> None:
    """Refuse what cannot become a store, before SQLite touches it."""
    if path.is_dir():
        raise StoreError(f"'{path}' is a folder: name a file in it, such as results.db.")
    if not path.parent.is_dir():
        raise StoreError(f"There is no folder '{path.parent}' for the store: make it, or name another file.")


def _refuse(path: Path, error: sqlite3.Error) -> NoReturn:
    """Raise what an error of SQLite at opening is told as."""
    if is_damage(error):
        if not _is_ours(path):
            raise StoreError(f"'{path}' is no store: name another file, such as results.db.") from error
        raise DamagedError(f"'{path}' is damaged") from error
    raise StoreError(f"'{path}' cannot be opened as a store ({error}): see to its folder's rights and room.") from error


def _is_ours(path: Path) -> bool:
    """True if a file that SQLite cannot read says that it is a store, or is named like one: nothing else is moved."""
    with path.open("rb") as file:
        head = file.read(ID_PLACE.stop)
    return head[ID_PLACE] == APPLICATION_ID.to_bytes(4, "big") or path.suffix.lower() in SUFFIXES


def is_damage(error: sqlite3.Error) -> bool:
    """True if an error says that a file is no database any more."""
    return isinstance(error, sqlite3.DatabaseError) and (
        "malformed" in str(error) or "not a database" in str(error) or "corrupt" in str(error)
    )


def _is_read_only(error: sqlite3.Error) -> bool:
    return "readonly" in str(error) or "unable to open" in str(error)


def why_unwritable(error: sqlite3.Error) -> str:
    """Return in words why SQLite could not write."""
    if "full" in str(error):
        return "its disk is full"
    return "it is read-only" if "readonly" in str(error) else str(error)


def set_aside(path: Path) -> Path:
    """Rename a damaged store, with what SQLite has beside it; returns its new name. Raises OSError."""
    number = 1
    while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    path.rename(aside)
    for ending in ("-wal", "-shm"):
        with contextlib.suppress(FileNotFoundError):
            Path(f"{path}{ending}").rename(f"{aside}{ending}")
    return aside


def open_store(path: Path) -> tuple[StoreFile, str | None]:
    """Open a store; one that is damaged is set aside, and a new one begun. Returns also what to tell the user, or None.

    Raises:
        StoreError: the file cannot be used.
    """
    try:
        file = StoreFile(path)
    except DamagedError as error:
        if not os.access(path, os.W_OK):  # read without locks, a file looks damaged while another process writes it
            raise StoreError(
                f"{error}, or is being written by another process, and may not be written here: get rights to write it, or name "
                "another file."
            ) from error
        try:
            aside = set_aside(path)
        except OSError as failure:
            raise StoreError(f"{error} and cannot be moved ({failure}): move it, or name another file.") from error
        return StoreFile(path), f"{error}: it was moved to '{aside.name}', and a new store begins."
    return file, None if file.can_write else f"'{path}' is read-only: texts are taken from it, and none are added."


def as_session_error(error: StoreError) -> SessionError:
    """The error of a user's command that names a file which cannot be a store."""
    sentence = str(error)
    return SessionError(sentence if sentence.endswith(".") else f"{sentence}.")


def _row(name: bytes, generation: Generation, now_s: float) -> tuple[Any, ...]:
    messages = zlib.compress(_encoder.encode(generation.messages), 1)
    ending = _encoder.encode(generation.end)
    size = ROW_BYTES + len(messages) + len(generation.text.encode()) + len(ending)
    return (
        name, now_s, now_s, size, generation.model, generation.function, generation.output, generation.kind, generation.refused,
        messages, generation.text, ending,
    )  # fmt: skip


def _generation(row: Sequence[object]) -> Generation | None:
    """The generation of a row; None where it was written by another build and cannot be understood."""
    _, made_s, size, model, function, output, kind, refused, messages, text, ending = row
    try:
        return Generation(
            model, function, output, kind, _messages_decoder.decode(zlib.decompress(messages)),  # type: ignore[arg-type]
            text, _end_decoder.decode(ending), bool(refused), made_s, size,  # type: ignore[arg-type]
        )  # fmt: skip
    except (msgspec.MsgspecError, zlib.error, TypeError, ValueError):
        return None
