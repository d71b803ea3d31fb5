"""A process that is started before a session needs it, so that a first call finds what every engine imports in place.

One at most in a kernel, and no session's: the next session that starts a runtime takes it.
"""

from __future__ import annotations

import contextlib
import threading

from parrot_nb.runtime.messages import Start
from parrot_nb.session.links import Broken, Hear
from parrot_nb.session.process import NoProcessError, ProcessLink

_lock = threading.Lock()
_spare: ProcessLink | None = None


def prepare() -> None:
    """Start a process for the next session that needs one, unless one waits. Returns at once."""
    global _spare
    with _lock:
        if _spare is None or not _spare.alive:
            with contextlib.suppress(NoProcessError):  # the session that needs one says so
                _spare = ProcessLink()


def process_for(start: Start, hear: Hear, broken: Broken) -> ProcessLink:
    """A process for a session: the one that waits if it is as one that is started now would be, or a new one.

    Args:
        start: what the session is.
        hear: is told what the runtime says, on the thread that hears it.
        broken: is told that the process has ended by itself.

    Raises:
        NoProcessError: none can be started.
    """
    global _spare
    with _lock:
        spare, _spare = _spare, None
    if spare is not None:
        if spare.fits and spare.begin(start, hear, broken):
            return spare
        spare.dismiss()
    return ProcessLink(start, hear, broken)


def dismiss() -> None:
    """End the process that waits, if one does. Returns at once."""
    global _spare
    with _lock:
        spare, _spare = _spare, None
    if spare is not None:
        spare.dismiss()


def abandon() -> None:
    """Forget it, in a process that was forked from the one whose it is; locks may be held by threads that are not here."""
    global _lock, _spare
    _lock = threading.Lock()
    spare, _spare = _spare, None
    if spare is not None:
        spare.abandon()
