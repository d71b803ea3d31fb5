"""A load in progress: what it tells of how far it has come, and whether it is still wanted.

A loader is a plain function of a model's name that blocks. Whoever calls it may enter a `Load` around it (`Load.run`); what
is deep inside finds it with `current_load` and needs no parameter handed through.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

from parrot_nb.errors import ModelLoadError

T = TypeVar("T")

LoadPhase = Literal["downloading", "reading", "packing", "compiling"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """How far a load has come; counts and sizes are those of the download.

    Attributes:
        phase: what it does now.
        done_files: files that are complete.
        num_files: files to download.
        done_bytes: bytes that are on the disk.
        num_bytes: size of all files.
        bytes_per_s: of the last seconds; 0 where it cannot be told yet.
    """

    phase: LoadPhase
    done_files: int = 0
    num_files: int = 0
    done_bytes: int = 0
    num_bytes: int = 0
    bytes_per_s: float = 0.0


class LoadStoppedError(ModelLoadError):
    """A download was stopped because nobody waits for it any more; what has come is kept, and the next load goes on from it."""


class Load:
    """One load, from the side of whoever waits for it.

    Args:
        on_progress: is told how far it has come, on the thread that loads.
    """

    def __init__(self, on_progress: Callable[[LoadProgress], None] = lambda _: None) -> None:
        self.tell = on_progress
        self._stopped = threading.Event()

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that finds this load with `current_load`."""

        def call() -> T:
            _current.set(self)
            return function(*args)

        return copy_context().run(call)

    def stop(self) -> None:
        """End a download soon; what comes after it goes on to its end."""
        self._stopped.set()

    @property
    def stopped(self) -> bool:
        """True if nobody waits for it any more."""
        return self._stopped.is_set()

    def check(self, model: str) -> None:
        """Raise LoadStoppedError if the load was stopped."""
        if self.stopped:
            raise LoadStoppedError(f"The download of '{model}' was stopped: load it again, and it goes on where it ended.")

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until the load is stopped."""
        self._stopped.wait(seconds)


_current: ContextVar[Load | None] = ContextVar("parrot_load", default=None)


def current_load() -> Load:
    """The load that this thread is part of; one that nobody listens to where there is none."""
    return _current.get() or Load()
