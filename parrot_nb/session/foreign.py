"""Around code that is not ours: whatever it raises is caught here, and it never runs on the runtime's loop."""

from __future__ import annotations

from typing import Any

from parrot_nb.errors import NativeFunctionError, ParrotError


def described(value: Any) -> str:
    """`repr(value)`, or its type where that cannot be told."""
    try:
        return str(repr(value))
    except BaseException as error:
        return f"<{type(value).__name__} whose repr raises {type(error).__name__}>"


def sound(text: str) -> str:
    """A text without what no encoding can write."""
    return text.encode("utf-8", "replace").decode()


def message_of(error: BaseException) -> str:
    """An exception's message, or that it cannot be told."""
    try:
        return str(error)
    except BaseException as raised:
        return f"its message cannot be told: {type(raised).__name__}"


def failure(what: str, error: BaseException) -> ParrotError:
    """What a call fails with when the user's code raised: an error of ours as it is, any other as NativeFunctionError."""
    if isinstance(error, ParrotError):
        return error
    failed = NativeFunctionError(f"{what} raised {type(error).__name__}: {message_of(error)}")
    failed.__cause__ = error
    return failed
