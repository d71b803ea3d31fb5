"""How errors look in a cell: what happened and what to do, in a few lines instead of a traceback through our own code."""

from __future__ import annotations

import traceback
from types import TracebackType
from typing import Any

from parrot_nb.errors import ParrotError, TemplateError
from parrot_nb.language.escaping import visible

MAX_CAUSES = 4


def rendered(error: BaseException) -> list[str]:
    """The lines for an error of ours: its name, its message, and what it came from.

    For what a native function raised, the user's own lines of the traceback follow.
    """
    if isinstance(error, TemplateError):
        return [visible(f"TemplateError: {error.caret()}")]
    lines = [f"{type(error).__name__}: {error}"]
    cause = error.__cause__
    for _ in range(MAX_CAUSES):
        if cause is None:
            break
        lines.append(f"  from {type(cause).__name__}: {cause}")
        if not isinstance(cause, ParrotError):
            lines += _own_frames(cause.__traceback__)
            break
        cause = cause.__cause__
    return [visible(line) for line in lines]


def _own_frames(trace: TracebackType | None) -> list[str]:
    frames = [f for f in traceback.extract_tb(trace) if "parrot_nb" not in f.filename]
    return [f"    {frame.name}, line {frame.lineno}: {frame.line}" for frame in frames[-3:]]


class ErrorHandler:
    """IPython's hook for the errors of a cell, ours for our own; those of the handler that was there before stay with it.

    Args:
        ip: the shell.
    """

    def __init__(self, ip: Any) -> None:
        self._ip = ip
        self._before: tuple[tuple[type[BaseException], ...], Any] = ((), None)
        self._installed: Any = None

    def install(self) -> None:
        """Show our errors from now on."""
        ip = self._ip
        self._before = (tuple(ip.custom_exceptions or ()), getattr(ip, "CustomTB", None))
        ip.set_custom_exc((ParrotError, *self._before[0]), self._show)
        self._installed = ip.CustomTB

    def remove(self) -> None:
        """Put back what was there, unless somebody has put a handler over ours, which is theirs to take back."""
        if self._ip.CustomTB is self._installed:
            self._ip.custom_exceptions, self._ip.CustomTB = self._before

    def _show(self, shell: Any, kind: type[BaseException], error: BaseException, trace: Any, tb_offset: int | None = None) -> Any:
        if not isinstance(error, ParrotError):
            return self._before[1](kind, error, trace, tb_offset=tb_offset)
        lines = rendered(error)
        shell._showtraceback(kind, error, lines)  # noqa: SLF001 - the hook that IPython gives to subclasses
        return lines
