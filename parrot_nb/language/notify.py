"""Calling code that is not ours, listeners and exceptions: what raises there harms nobody else."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

logger = logging.getLogger("parrot_nb")


def notified(listener: Callable[[], None]) -> None:
    """Call a listener; what it raises goes to the log of Python, but for an interrupt of the main thread."""
    try:
        listener()
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt) and threading.current_thread() is threading.main_thread():
            raise
        logger.exception("A listener of parrot_nb raised; it is called again at the next event.")


def message_of(error: BaseException) -> str:
    """An exception's message, in characters that can be encoded, or that it cannot be told."""
    try:
        return str(error).encode("utf-8", "replace").decode()
    except BaseException as raised:  # a user's exception may be unable to say what it is
        return f"its message cannot be told: {type(raised).__name__}"
