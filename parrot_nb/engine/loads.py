"""A load in progress: what it tells of how far it has come, and whether it is still wanted.

A loader is a plain function of a model's name that blocks. Whoever calls it may enter a `Load` around it (`Load.run`); what
is deep inside finds it with `current_load` and needs no parameter handed through.
"""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeVar

from parrot_nb.errors import ModelLoadError

T = TypeVar("T")

LoadPhase = Literal["downloading", "reading", "packing", "compiling"]


@dataclass(frozen=True, slots=True)
class LoadProgress:
    """Progress of a load; counts and sizes are those of the download.

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
    """A load was stopped because nobody waits for it any more; what was downloaded is kept, and the next load goes on from it."""


class LoadInterrupted(KeyboardInterrupt):
    """The user interrupted a load; a notebook shows its sentence alone.

    Args:
        model: hub id or path. Of what is downloaded, the next load goes on from what came.
    """

    def __init__(self, model: str) -> None:
        kept = "" if Path(model).expanduser().exists() else "; what was downloaded is kept"
        super().__init__(f"interrupted: {model} was not loaded{kept}")

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self.args[0].removeprefix('interrupted: ')}, and the session goes on."]


class BrokenOffError(BaseException):
    """Nobody waits for what a thread does; no `except Exception` on its way shall keep it going."""


class Load:
    """One load, from the side of whoever waits for it.

    Args:
        on_progress: is told how far it has come, on the thread that loads.

    Attributes:
        phase: the last that was told.
        num_weights: how many weights the model's files hold; None until that is known.
        error: what the load fails with once it is stopped for another reason than that nobody waits for it.
    """

    def __init__(self, on_progress: Callable[[LoadProgress], None] = lambda _: None) -> None:
        self.phase: LoadPhase = "downloading"
        self.num_weights: int | None = None
        self.error: ModelLoadError | None = None
        self._on_progress = on_progress
        self._stopped = threading.Event()
        self._switching = threading.Lock()  # held while what can be broken off changes
        self._breaks: list[Callable[[], None]] = []

    def tell(self, progress: LoadProgress) -> None:
        """Tell how far it has come."""
        self.phase = progress.phase
        self._on_progress(progress)

    def run(self, function: Callable[..., T], *args: Any) -> T:
        """Call a function that finds this load with `current_load`."""

        def call() -> T:
            _current.set(self)
            return function(*args)

        return copy_context().run(call)

    def stop(self, error: ModelLoadError | None = None) -> None:
        """End it at its next check. The first call says why: with this error, or because nobody waits for it."""
        if not self.stopped:
            self.error = error
            self._stopped.set()

    @property
    def stopped(self) -> bool:
        """True once it is to end."""
        return self._stopped.is_set()

    def check(self, model: str) -> None:
        """Raise the error of a load that was stopped."""
        if self.stopped:
            raise self._why(model)

    def wait(self, seconds: float) -> None:
        """Sleep, but not longer than until the load is stopped."""
        self._stopped.wait(seconds)

    @contextmanager
    def breakable(self, model: str, break_off: Callable[[], None] | None = None) -> Iterator[None]:
        """Let `break_off` end the body, where it raises the error of a load that was stopped.

        Args:
            model: for messages.
            break_off: raises `BrokenOffError` in what the body waits for; in this thread where it is None.
        """
        self.check(model)
        thread = threading.get_ident()
        breaks = break_off or (lambda: _raise_in(thread, BrokenOffError))
        try:
            with self._switching:
                self._breaks.append(breaks)
            yield
        except BrokenOffError:
            raise self._why(model) from None
        finally:
            while breaks in self._breaks:
                with suppress(BrokenOffError), self._switching:  # it may come here, too
                    self._breaks.remove(breaks)
                    if break_off is None:
                        _raise_in(thread, None)  # what has not been raised yet

    def break_off(self) -> None:
        """End a load that was stopped and has not reached a check, as soon as it is in Python: not within a call of a library."""
        with self._switching:
            for breaks in self._breaks:
                breaks()

    def _why(self, model: str) -> ModelLoadError:
        if self.error is not None:
            return self.error
        if self.phase == "downloading":
            return LoadStoppedError(f"The download of '{model}' was stopped: load it again, and it goes on where it ended.")
        return LoadStoppedError(f"The loading of '{model}' was stopped, since nobody waited for it: load it again.")


def _raise_in(thread: int, error: type[BaseException] | None) -> None:
    """Have a thread raise an error at its next step in Python; None takes back one that it has not raised."""
    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), None if error is None else ctypes.py_object(error))


_current: ContextVar[Load | None] = ContextVar("parrot_load", default=None)


def current_load() -> Load:
    """The load that this thread is part of; one that nobody listens to where there is none."""
    return _current.get() or Load()
