"""Return of a model's memory to the system once the model is gone: nothing may still refer to it, and the C library must hand
back what it keeps at hand."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import sys
import traceback
from functools import cache
from typing import Any


def forget_locals(error: BaseException | None) -> None:
    """Clear the local variables of all frames that an exception has left behind, with those of its causes.

    A traceback keeps them alive for as long as somebody keeps the exception, and a model among them. It still prints the same.
    """
    seen: set[int] = set()
    pending = [error]
    while pending:
        found = pending.pop()
        if found is None or id(found) in seen:
            continue
        seen.add(id(found))
        traceback.clear_frames(found.__traceback__)
        pending += [found.__cause__, found.__context__]
        if isinstance(found, BaseExceptionGroup):
            pending += found.exceptions


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, which may be empty."""
    try:
        return (str(error).strip().splitlines() or [""])[0]
    except BaseException:  # a foreign exception's own code
        return ""


def ran_out_of_memory(error: BaseException) -> bool:
    """Return True if an exception says that memory has run out, on a device or on the host."""
    named = type(error).__name__ == "OutOfMemoryError"  # torch's, which need not be loaded here
    return named or isinstance(error, MemoryError) or "can't allocate memory" in first_line(error)


def failure_of(task: asyncio.Task[Any]) -> BaseException | None:
    """The exception of a task that has ended, without what its frames refer to; None if it has none or was cancelled."""
    if task.cancelled():
        with contextlib.suppress(asyncio.CancelledError):
            task.result()  # the task lets go of its exception, whose frames refer to the task
        return None
    error = task.exception()
    forget_locals(error)
    return error


def return_freed() -> None:
    """Give freed memory that the C library keeps for later back to the system; a few milliseconds. Only glibc keeps so much."""
    libc = _glibc()
    if libc is not None:
        libc.malloc_trim(0)


@cache
def _glibc() -> Any:
    if sys.platform != "linux":
        return None
    libc = ctypes.CDLL(None)
    return libc if hasattr(libc, "malloc_trim") else None
