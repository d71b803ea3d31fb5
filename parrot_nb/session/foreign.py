"""Around code that is not ours: whatever it raises is caught here, and it never runs on the runtime's loop."""

from __future__ import annotations

from asyncio import CancelledError
from typing import Any

from parrot_nb.errors import GetTimeoutError, NativeFunctionError, ParrotError
from parrot_nb.language.notify import message_of


def described(value: Any) -> str:
    """`repr(value)`, or its type where that cannot be told."""
    try:
        return str(repr(value))
    except BaseException as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def sound(text: str) -> str:
    """A text without what no encoding can write."""
    return text.encode("utf-8", "replace").decode()


def failure(what: str, error: BaseException) -> ParrotError:
    """Return the error of a call whose user code raised: an error of ours as it is, any other as NativeFunctionError, and
    likewise the user's own kinds of ours whose methods raise, or which no future takes, and a `get` that ran out of time inside:
    the reader of this call did not wait for that one."""
    if isinstance(error, ParrotError) and not isinstance(error, GetTimeoutError) and _travels(error):
        return error
    failed = NativeFunctionError(f"{what} raised {type(error).__name__}: {message_of(error)}")
    failed.__cause__ = error
    return failed


def _travels(error: ParrotError) -> bool:
    """Whether an error can be told, kept by its hash, and raised by whoever waits."""
    try:
        return (
            isinstance(str(error), str)
            and type(error).__hash__ is object.__hash__
            and not isinstance(error, (StopIteration, CancelledError))
        )
    except BaseException:
        return False
