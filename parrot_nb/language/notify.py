"""Telling listeners: one that raises harms nobody else."""

from __future__ import annotations

import logging
from collections.abc import Callable

logger = logging.getLogger("parrot_nb")


def notified(listener: Callable[[], None]) -> None:
    """Call a listener; what it raises goes to the log of Python."""
    try:
        listener()
    except Exception:
        logger.exception("A listener of parrot_nb raised; it is called again at the next event.")
