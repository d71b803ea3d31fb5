"""Calling code that is not ours, listeners and exceptions: what raises there harms nobody else."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("parrot_nb")

MAX_CAUSES = 8  # of an exception, whose messages are told to another process
_MESSAGE = "_parrot_message"


def notified(listener: Callable[[], None]) -> None:
    """Call a listener; what it raises goes to the log of Python, but for an interrupt of the main thread."""
    try:
        listener()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        logger.exception("A listener of parrot_nb raised; it is called again at the next event.")


def message_of(error: BaseException) -> str:
    """Return an exception's message, in characters that can be encoded, or that it cannot be told. The one that `take_messages` took,
    if it did."""
    return _taken(error) or _asked(error)


def take_messages(error: BaseException) -> None:
    """Ask an exception and its causes for their messages on this thread, once: a user's exception may take long to answer, and
    `message_of` is called where nobody may wait."""
    seen: BaseException | None = error
    for _ in range(MAX_CAUSES + 1):
        if seen is None:
            return
        if not _taken(seen):
            with contextlib.suppress(Exception):
                BaseException.__setattr__(seen, _MESSAGE, _asked(seen))
        seen = seen.__cause__


def _taken(error: BaseException) -> str:
    try:
        said = BaseException.__getattribute__(error, _MESSAGE)
    except AttributeError:
        return ""
    return said if type(said) is str else ""


def _asked(error: BaseException) -> str:
    try:
        return str(error).encode("utf-8", "replace").decode()
    except BaseException as raised:  # a user's exception may be unable to say what it is
        return f"its message cannot be told: {type(raised).__name__}"
