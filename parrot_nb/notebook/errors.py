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


def show(shell: Any, kind: type[BaseException], error: BaseException, _trace: Any, tb_offset: int | None = None) -> list[str]:
    """IPython's hook (`set_custom_exc`) for our errors; also the cell's error, so that executing a notebook fails."""
    lines = rendered(error)
    shell._showtraceback(kind, error, lines)  # noqa: SLF001 - the hook that IPython gives to subclasses
    return lines
