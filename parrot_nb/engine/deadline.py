"""A limit in time for calls into libraries that hold the interpreter's lock, which no thread of Python could break off.

Only a process that may be ended can have one: the runtime's own (`allow_ending`). The system's timer ends it, and whoever started it
sees by which signal. Elsewhere, and on systems without such timers, there is no limit.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from types import TracebackType

FREE_CHARS = 64  # of a text: a tokenizer gives up each of so few positions by itself before long
GIVEN_UP = 6  # the code of a process that ends because what it does cannot be ended otherwise
TEXT_S, TEXT_S_PER_CHAR = 60.0, 60e-6  # an honest tokenizer takes a second for a million characters
OVERDUE = "a tokenizer took more than a minute, and a minute a million characters, over one text"

HAS_TIMER = hasattr(signal, "setitimer")

_lock = threading.Lock()
_ends_s: list[float] = []  # of the calls that run, on the monotonic clock
_allowed = False


def allow_ending() -> None:
    """Let deadlines, and what else cannot be ended, end this process. Called on its main thread."""
    global _allowed
    _allowed = True
    if HAS_TIMER:
        signal.signal(signal.SIGALRM, signal.SIG_DFL)


def may_end() -> bool:
    """True if this process may be ended: it is the runtime's own, and no code of the user's runs in it."""
    return _allowed


def give_up(why: str) -> None:
    """End this process if that is allowed; whoever started it shows what is said last."""
    if _allowed:
        sys.stderr.write(f"{why}.\n")
        sys.stderr.flush()
        os._exit(GIVEN_UP)


def is_overdue(exit_code: int) -> bool:
    """True for the code of a process that a deadline has ended."""
    return hasattr(signal, "SIGALRM") and exit_code == -signal.SIGALRM


class Deadline:
    """The time in which a text must be encoded, as a context.

    Args:
        num_chars: length of the text.
    """

    def __init__(self, num_chars: int) -> None:
        self._limit_s = TEXT_S + TEXT_S_PER_CHAR * num_chars if _allowed and HAS_TIMER and num_chars > FREE_CHARS else None

    def __enter__(self) -> None:
        if self._limit_s is not None:
            self._end_s = time.monotonic() + self._limit_s
            with _lock:
                _ends_s.append(self._end_s)
                _set()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._limit_s is not None:
            with _lock:
                _ends_s.remove(self._end_s)
                _set()


def _set() -> None:
    """Set the timer to the next end."""
    signal.setitimer(signal.ITIMER_REAL, max(min(_ends_s) - time.monotonic(), 0.001) if _ends_s else 0)
