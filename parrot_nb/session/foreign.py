"""Around code that is not ours: whatever it raises is caught here, and it never runs on the runtime's loop."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from parrot_nb import errors
from parrot_nb.errors import CheckError, GetTimeoutError, NativeFunctionError, ParrotError, TemplateError
from parrot_nb.language.notify import message_of, take_messages

OUR_ERRORS = frozenset(vars(errors)[name] for name in errors.__all__)

T = TypeVar("T")


def attempt(function: Callable[[], T]) -> tuple[T | None, BaseException | None]:
    """Call foreign code. Returns what it returned, or None and what it raised: KeyboardInterrupt, SystemExit and the panics of
    libraries belong to their call, too."""
    try:
        return function(), None
    except BaseException as error:
        return None, error


def described(value: Any) -> str:
    """`repr(value)`, or its type where that cannot be told."""
    said, error = attempt(lambda: str(repr(value)))
    return f"<{type(value).__name__} whose repr raises {type(error).__name__}>" if said is None else said


def sound(text: str) -> str:
    """A text without what no encoding can write."""
    return text.encode("utf-8", "replace").decode()


def failure(what: str, error: BaseException) -> ParrotError:
    """Return the error of a call whose user code raised: an error of ours as it is, any other as NativeFunctionError, and likewise a
    `get` that ran out of time inside: the reader of this call did not wait for that one. Takes the messages of the error and its
    causes, which may be code of the user's and take long: call it on a thread of the call."""
    take_messages(error)
    if is_plain(error) and not isinstance(error, GetTimeoutError):
        return error  # type: ignore[return-value]
    failed = NativeFunctionError(f"{what} raised {type(error).__name__}: {message_of(error)}")
    failed.__cause__ = error
    return failed


def is_plain(error: BaseException) -> bool:
    """Whether an error is of a class of ours and holds nothing of the user's: no code of the user's runs when it is told. Its causes
    are not looked at."""
    if type(error) not in OUR_ERRORS or not all(type(arg) in (str, tuple) for arg in error.args):
        return False
    if isinstance(error, TemplateError):  # its arguments are the message and the place, from which Python made attributes
        return all(type(part) in (str, int, type(None)) for part in (error.msg, error.filename, error.lineno, error.text))
    if isinstance(error, CheckError):
        attempts = error.attempts
        return type(attempts) is tuple and all(type(one) is tuple and [*map(type, one)] == [str, str] for one in attempts)
    return all(type(arg) is str for arg in error.args) and type(getattr(error, "stalled", False)) is bool
