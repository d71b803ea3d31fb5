"""Every error a user of parrot_nb can meet, drawn as a tree.

Each message is one sentence or two that name the thing at fault and the remedy. An error survives `copy` and `pickle`, and so a
way to another process, with its attributes; its `__cause__` comes along where that can be pickled.

    ParrotError
    ├── TemplateError (SyntaxError)      the text of a prompt or of its magic line is malformed
    ├── OptionError (ValueError)         an option has a value that cannot be used
    ├── ArgumentError (TypeError)        a function was called with missing, extra or unusable arguments
    ├── InputValueError (ValueError)     a value cannot stand in a prompt (None, NaN, bytes, a DataFrame, ...)
    ├── UsageError (TypeError)           a variable was used as if it were its value (bool, iteration, f-string, pickle)
    ├── AlreadySetError (ValueError)     a variable was set twice
    ├── SessionError (RuntimeError)      the session cannot do that: closed, wrong thread, another session's variable
    ├── TraceError (ValueError)          a file is not a recorded run, or nothing can be exported so
    ├── GetTimeoutError (TimeoutError)   `get(timeout=...)` ran out; the call goes on
    ├── ModelError (RuntimeError)        a model cannot be had
    │   ├── ModelLoadError               missing, damaged or unsafe files
    │   └── UnsupportedModelError        an architecture the engine cannot run, with the reason
    ├── EngineError (RuntimeError)       a computation failed; other calls go on
    │   ├── EngineLostError              an engine ended under a call that had begun to write, or cannot be loaded again yet
    │   ├── ContextLengthError           the text is longer than the model or the memory allows
    │   ├── OutOfMemoryError             the device has no room; names the knob to turn
    │   ├── NonFiniteError               the model computed NaN for this call
    │   └── ConstraintError              a type cannot be compiled, or no text that obeys it can be written
    └── CallError (RuntimeError)         a call has no result
        ├── TruncatedError               a typed output was cut off before it was a value
        ├── CheckError                   a value was refused, by its type or by a check; `attempts` has what was written
        ├── NativeFunctionError          a native function raised; its exception is `__cause__`
        ├── UpstreamError                an earlier call failed; the first error is `__cause__`
        └── CallCancelledError           the call was cancelled
"""

from __future__ import annotations

import pickle
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

__all__ = [
    "AlreadySetError",
    "ArgumentError",
    "CallCancelledError",
    "CallError",
    "CheckError",
    "ConstraintError",
    "ContextLengthError",
    "EngineError",
    "EngineLostError",
    "GetTimeoutError",
    "InputValueError",
    "ModelError",
    "ModelLoadError",
    "NativeFunctionError",
    "NonFiniteError",
    "OptionError",
    "OutOfMemoryError",
    "ParrotError",
    "SessionError",
    "TemplateError",
    "TraceError",
    "TruncatedError",
    "UnsupportedModelError",
    "UpstreamError",
    "UsageError",
]


class ParrotError(Exception):
    """The root of all errors that parrot_nb raises on purpose."""

    def __reduce__(self) -> tuple[Any, ...]:
        cause = self.__cause__ if _can_be_pickled(self.__cause__) else None
        return _made_again, (type(self), self.args, dict(vars(self)), cause)

    def __copy__(self) -> ParrotError:
        return _made_again(type(self), self.args, dict(vars(self)), self.__cause__)

    def __deepcopy__(self, memo: dict[int, Any]) -> ParrotError:
        # The cause is anybody's exception, which may have no copy; nobody changes it.
        return _made_again(type(self), deepcopy(self.args, memo), deepcopy(vars(self), memo), self.__cause__)


def _made_again(
    kind: type[ParrotError], args: tuple[Any, ...], attributes: Mapping[str, Any], cause: BaseException | None
) -> ParrotError:
    """Make an error from its parts, past the constructor of its class, which may take others."""
    error = kind.__new__(kind, *args)
    super(ParrotError, error).__init__(*args)  # sets what built-in exceptions keep outside of their attributes
    vars(error).update(attributes)
    if cause is not None:
        error.__cause__ = cause
    return error


def _can_be_pickled(error: BaseException | None) -> bool:
    """True if another process can have this exception: some constructors do not take what pickle gives them."""
    try:
        pickle.loads(pickle.dumps(error))  # noqa: S301 - of what this process has just written
    except Exception:  # a class of the user's can raise anything
        return False
    return True


class TemplateError(ParrotError, SyntaxError):
    """A malformed prompt or magic line.

    Args:
        message: one sentence, without the position.
        line: 1-based line of the text that was parsed (for a cell: of the cell, the magic line being line 1).
        column: 1-based column, counted in characters.
        text: that whole line, for the caret.
        filename: what the text is called in a traceback.
    """

    def __init__(self, message: str, *, line: int = 1, column: int = 1, text: str = "", filename: str = "<semantic>") -> None:
        super().__init__(message, (filename, line, column, text))
        self.line = line
        self.column = column

    def shifted(self, lines: int) -> TemplateError:
        """The same error, `lines` further down: a body's position seen from its cell."""
        return TemplateError(
            self.msg, line=self.line + lines, column=self.column, text=self.text or "", filename=self.filename or "<semantic>"
        )

    def caret(self) -> str:
        """The message, the line at fault and a caret under the column, for a terminal or a cell."""
        text = (self.text or "").rstrip("\r\n").replace("\t", " ")
        return f"{self.msg} (line {self.line}, column {self.column})\n  {text}\n  {' ' * (self.column - 1)}^"


class OptionError(ParrotError, ValueError):
    """An option's name is unknown or its value cannot be used."""


class ArgumentError(ParrotError, TypeError):
    """A function was called with missing, extra or unusable arguments."""


class InputValueError(ParrotError, ValueError):
    """A value that has no one obvious text was given where a prompt needs text."""


class UsageError(ParrotError, TypeError):
    """A variable was used as if it were its value."""


class AlreadySetError(ParrotError, ValueError):
    """A variable that already has a value, or whose value a call produces, was set."""


class SessionError(ParrotError, RuntimeError):
    """The session cannot do what was asked of it here and now."""


class GetTimeoutError(ParrotError, TimeoutError):
    """`get(timeout=...)` ran out of time. The call goes on; another `get` can read it."""


class TraceError(ParrotError, ValueError):
    """A file is not a recorded run, or a run cannot be written as that file."""


class ModelError(ParrotError, RuntimeError):
    """A model cannot be had."""


class ModelLoadError(ModelError):
    """A model's files are missing, damaged, or of a kind that is not loaded."""


class UnsupportedModelError(ModelError):
    """The embedded engine cannot run this architecture; the message says why."""


class EngineError(ParrotError, RuntimeError):
    """A computation failed."""


class EngineLostError(EngineError):
    """An engine has ended, and all its contexts with it. Calls that have written nothing yet move to another; others fail.

    Args:
        message: why, and what to do.
        stalled: a step of it did not end in time; it might not on an engine loaded in its place either.
    """

    def __init__(self, message: str, *, stalled: bool = False) -> None:
        super().__init__(message)
        self.stalled = stalled


class ContextLengthError(EngineError):
    """The text is longer than the model's context or the engine's memory allows."""


class OutOfMemoryError(EngineError):
    """The device has no room left; the message names the knob to turn."""


class NonFiniteError(EngineError):
    """The model computed NaN or infinity for this call; the others go on."""


class ConstraintError(EngineError):
    """The type of an output cannot be compiled for the model's tokenizer, or no text that obeys it can be written."""


class CallError(ParrotError, RuntimeError):
    """A call has no result."""


class TruncatedError(CallError):
    """A typed output was cut off, by `max_tokens`, the end of the context or a stop string, before its text was a value."""


class CheckError(CallError):
    """A value was refused: its text obeys the type, but the user's class or check does not take it.

    Args:
        message: what was refused, why, and what to do.
        attempts: each text that was written, and why it was refused, in order.
    """

    def __init__(self, message: str, attempts: tuple[tuple[str, str], ...] = ()) -> None:
        super().__init__(message)
        self.attempts = attempts


class NativeFunctionError(CallError):
    """A native function raised; its exception is `__cause__`."""


class UpstreamError(CallError):
    """A call that this one reads from failed; the first error is `__cause__`."""


class CallCancelledError(CallError):
    """The call was cancelled before it finished."""


def is_cancelled(error: BaseException) -> bool:
    """Whether an error says that a call was cancelled, or what it reads from."""
    return isinstance(error, CallCancelledError) or isinstance(error.__cause__, CallCancelledError)
