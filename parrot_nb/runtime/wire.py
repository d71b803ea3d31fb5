"""Messages as bytes: MessagePack, each frame with its length before it; what comes in is checked against the types.

Errors cross as kind, message and cause. Each has a number, so that an error which crosses twice, or comes back, is the same
object again: `error.__cause__ is first.error`.
"""

from __future__ import annotations

import builtins
import itertools
import struct
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import msgspec

from parrot_nb import errors
from parrot_nb.errors import CheckError, EngineLostError, ParrotError
from parrot_nb.language.notify import MAX_CAUSES, message_of
from parrot_nb.runtime.messages import Item, Message

HEADER = struct.Struct("<I")
GREETING = b"\0parrot_nb runtime\0"  # a process writes it before its first frame: what was printed before is no frame
MAX_FRAME_BYTES = 2**30  # what claims to be more is no frame of ours


class WireError(Exception):
    """The other side said what cannot be understood."""


class ErrorBook:
    """Errors by the numbers under which they cross.

    Args:
        side: 0 or 1: the two sides number their own errors apart.
    """

    def __init__(self, side: int) -> None:
        self._fresh = itertools.count(2 + side, 2)
        self._numbers: weakref.WeakKeyDictionary[ParrotError, int] = weakref.WeakKeyDictionary()
        self._known: weakref.WeakValueDictionary[int, ParrotError] = weakref.WeakValueDictionary()

    def written(self, error: BaseException, depth: int = 0) -> dict[str, Any]:
        """An error as data."""
        kind = type(error).__name__
        record: dict[str, Any] = {"kind": kind, "message": _message(error)}
        if isinstance(error, ParrotError) and type(error).__hash__ is object.__hash__:  # the user's own kinds may have none
            record["number"] = self._noted(error, self._numbers.get(error) or next(self._fresh))
        if isinstance(error, EngineLostError):
            record["stalled"] = error.stalled
        if isinstance(error, CheckError):
            record["attempts"] = error.attempts
        if error.__cause__ is not None and depth < MAX_CAUSES:
            record["cause"] = self.written(error.__cause__, depth + 1)
        return record

    def read(self, record: Any) -> BaseException:
        """The error that was written. Raises WireError."""
        if not isinstance(record, dict) or not isinstance(record.get("kind"), str) or not isinstance(record.get("message"), str):
            raise WireError("an error without kind or message")
        number = record.get("number")
        if isinstance(number, int) and (known := self._known.get(number)) is not None:
            return known
        error = _made(record["kind"], record["message"])
        if isinstance(error, EngineLostError):
            error.stalled = bool(record.get("stalled"))
        if isinstance(error, CheckError):
            error.attempts = _attempts(record.get("attempts"))
        if "cause" in record:
            error.__cause__ = self.read(record["cause"])
        if isinstance(error, ParrotError) and isinstance(number, int):
            self._noted(error, number)
        return error

    def _noted(self, error: ParrotError, number: int) -> int:
        self._numbers[error] = number
        self._known[number] = error
        return number


def _message(error: BaseException) -> str:
    """The message that another error is made of. That of a KeyError is its argument: what it says is that in quotes, which would be
    put in quotes again."""
    argument = error.args[0] if type(error) is KeyError and len(error.args) == 1 else None
    return argument if type(argument) is str else message_of(error)


def _made(kind: str, message: str) -> BaseException:
    """An error of ours or of Python's own by its name; another one as a RuntimeError that says its name."""
    own = getattr(errors, kind, None) if kind in errors.__all__ else None
    if own is not None:
        return own(message)  # type: ignore[no-any-return]
    plain = getattr(builtins, kind, None)
    if isinstance(plain, type) and issubclass(plain, Exception):
        try:
            return plain(message)
        except TypeError:  # one that takes more, such as UnicodeDecodeError
            pass
    return RuntimeError(f"{kind}: {message}")


def _attempts(record: Any) -> tuple[tuple[str, str], ...]:
    try:
        return msgspec.convert(record, tuple[tuple[str, str], ...])
    except msgspec.ValidationError:
        raise WireError("a refused value without its attempts") from None


class Wire:
    """Encodes what one side says and decodes what it hears.

    Args:
        side: 0 for the notebook's, 1 for the runtime's.
    """

    def __init__(self, side: int) -> None:
        book = ErrorBook(side)

        def write_hook(value: Any) -> Any:
            if isinstance(value, BaseException):
                return book.written(value)
            raise TypeError(f"{type(value).__name__} is no data")

        def read_hook(kind: type[Any], record: Any) -> Any:
            if kind is BaseException:
                return book.read(record)
            raise TypeError(f"{kind} is no data")

        self._encoder = msgspec.msgpack.Encoder(enc_hook=write_hook)
        heard: Any = tuple[Item, ...] if side == 0 else tuple[Message, ...]
        self._decoder = msgspec.msgpack.Decoder(heard, dec_hook=read_hook)

    def frame(self, items: Any) -> bytes:
        """A list of messages as one frame."""
        payload = self._encoder.encode(items)
        return HEADER.pack(len(payload)) + payload

    def items(self, payload: bytes | bytearray | memoryview) -> tuple[Any, ...]:
        """The messages of a frame's payload. Raises WireError."""
        try:
            return self._decoder.decode(payload)  # type: ignore[no-any-return]
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            raise WireError(f"not a message of this version: {error}") from None


class Frames:
    """Cuts a stream of bytes into payloads."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def add(self, data: bytes) -> Iterator[bytes]:
        """The payloads that are complete now. Raises WireError."""
        self._buffer += data
        while len(self._buffer) >= HEADER.size:
            (size,) = HEADER.unpack_from(self._buffer)
            if size > MAX_FRAME_BYTES:
                raise WireError(f"a frame of {size} bytes")
            end = HEADER.size + size
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[HEADER.size : end])
            del self._buffer[:end]
            yield payload


Say = Callable[[Item], None]
