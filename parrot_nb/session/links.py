"""The notebook's end of the line to a runtime: in a thread of this process, or in a process of its own."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Protocol

from parrot_nb.errors import EngineLostError
from parrot_nb.runtime.loop import RuntimeLoop
from parrot_nb.runtime.messages import Item, Message

Hear = Callable[[Item], None]
Broken = Callable[["Link", EngineLostError], None]  # told when a runtime ends by itself
STORING_S = 2.0  # to write what is still to be stored, where a runtime ends without having been closed
IN_THREAD = "in a thread of this process, where a busy cell slows it"


def warn_of_thread(reason: Exception) -> None:
    """Warn the user that the runtime has to run in a thread, since no process can be started."""
    warnings.warn(
        f"No process can be started for the runtime ({reason}): it runs {IN_THREAD}; set sys.executable to this Python, "
        "or say isolate=False.",
        RuntimeWarning,
        stacklevel=3,
    )


class Link(Protocol):
    """Interface of a session to its runtime, wherever that runs."""

    @property
    def is_current(self) -> bool:
        """Whether the caller is on the thread that hears the runtime, which must never wait for it."""

    @property
    def alive(self) -> bool:
        """Whether messages are still taken."""

    @property
    def place(self) -> str:
        """Place where the runtime runs, in words."""

    def post(self, message: Message) -> None:
        """Tell the runtime something, in order of posting. Any thread; returns at once."""

    def close(self, ask: Callable[[], object]) -> None:
        """Let its engines close in peace; `ask` asks it for that and waits."""

    def stop(self) -> None:
        """End it and wait for that; not under a lock that what it says may need. Harmless when it has ended."""

    def abandon(self) -> None:
        """Let go of what this process has of it, which was forked from the one whose runtime it is."""


class ThreadLink:
    """A runtime in a thread of this process: for debuggers, for what cannot leave the process, and where there are no processes.

    Args:
        make: makes the runtime, given who hears it.
        hear: is told what it says, on its thread.
    """

    def __init__(self, make: Callable[[Hear], RuntimeInThread], hear: Hear) -> None:
        self._runtime = make(hear)
        self._loop = RuntimeLoop("parrot-runtime", on_crash=self._runtime.crashed)

    @property
    def is_current(self) -> bool:
        """See `Link`."""
        return self._loop.is_current

    @property
    def alive(self) -> bool:
        """See `Link`."""
        return self._loop.alive

    @property
    def place(self) -> str:
        """See `Link`."""
        return IN_THREAD

    def post(self, message: Message) -> None:
        """See `Link`."""
        self._loop.post(self._runtime.handle, message)

    def close(self, ask: Callable[[], object]) -> None:
        """See `Link`."""
        ask()

    def stop(self) -> None:
        """See `Link`."""
        self._loop.stop()
        self._runtime.finish_store(STORING_S)

    def abandon(self) -> None:
        """See `Link`. Its thread is not here, and its memory is shared until it is written."""


class RuntimeInThread(Protocol):
    """Interface of a runtime that a `ThreadLink` needs."""

    def handle(self, message: Message) -> None:
        """Do what the notebook says."""

    def crashed(self, error: BaseException) -> None:
        """Take an error that nothing handled."""

    def finish_store(self, patience_s: float) -> None:
        """Write what is still to be stored, and close the store; waits so many seconds at most."""
