"""Limits of a load, in time and memory: a thread looks at it, and ends it in steps where it goes beyond them or nobody waits for it.

First it is to end by itself, at its next check; then whatever it does in Python is broken off; where that does not help either, a
process that may be ended ends (`parrot_nb.engine.deadline`). A download has no limit in time: it shows how far it has come.

The system tells what memory a process holds, not who took it. So the limit in memory holds for a load that is alone in the runtime's own
process: beside no other load, no engine, whose cache fills while it works, and no code of the user's.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from types import TracebackType
from typing import Any, ParamSpec, TypeVar
from weakref import WeakSet

from parrot_nb.engine.deadline import give_up, may_end
from parrot_nb.engine.loads import Load, current_load
from parrot_nb.engine.settings import unusable_timeout
from parrot_nb.errors import ModelLoadError

P = ParamSpec("P")
T = TypeVar("T")

LOAD_TIMEOUT_S = 1800.0  # without downloads
LOOK_S = 0.1
CHECK_S = 1.0  # for a load that was stopped to reach a check
ENDING_S = 120.0  # and then to end: as long as a compiler may run, which cannot be broken off
# Memory beside what the process holds: room for libraries, and for so many copies of all weights in float32.
ROOM_BYTES, COPIES = 4 * 2**30, 3

_lock = threading.Lock()
_loads: set[Limits] = set()  # that run in this process
_engines: WeakSet[Any] = WeakSet()  # that were loaded in it, and are not gone


class Limits:
    """The limits of one load, as a context around what loads.

    Args:
        load: what is looked at.
        model: its name, for messages.
        timeout_s: of all but the download.
    """

    def __init__(self, load: Load, model: str, timeout_s: float) -> None:
        self._load = load
        self._model = model
        self._timeout_s = timeout_s
        self._over = threading.Event()
        self._held_bytes = held_bytes()
        self._thread = threading.Thread(target=self._look, name="parrot-load-limits", daemon=True)

    def __enter__(self) -> None:
        with _lock:
            _loads.add(self)
        self._thread.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._over.set()
        self._thread.join()
        with _lock:
            _loads.remove(self)

    def _look(self) -> None:
        run_s, before_s = 0.0, time.monotonic()
        while not self._over.wait(LOOK_S):
            now_s = time.monotonic()
            run_s += now_s - before_s if self._load.phase != "downloading" else 0
            before_s = now_s
            if run_s > self._timeout_s:
                self._load.stop(
                    ModelLoadError(
                        f"Loading '{self._model}' took more than {self._timeout_s:g} s: allow more with %parrot model ID "
                        "--load-timeout S, or choose another model."
                    )
                )
            elif self._load.phase == "reading" and self._load.num_weights is not None:
                allowed = ROOM_BYTES + COPIES * 4 * self._load.num_weights
                if held_bytes() - self._held_bytes > allowed and self._is_alone():
                    self._load.stop(
                        ModelLoadError(
                            f"Loading '{self._model}' took more than {allowed / 2**30:.1f} GB of memory, which is more than the weights in "
                            "its files need: get the model's files again, or choose another model."
                        )
                    )
            if self._load.stopped:
                self._end()
                return

    def _is_alone(self) -> bool:
        """True if nothing else takes memory in this process."""
        with _lock:
            return may_end() and _loads == {self} and not len(_engines)

    def _end(self) -> None:
        """Wait for a load that was stopped, and break it off where it takes longer."""
        until_s = time.monotonic() + ENDING_S
        while not self._over.wait(CHECK_S):
            if self._load.phase != "downloading":  # which looks by itself whether it is wanted
                self._load.break_off()
            if time.monotonic() > until_s:
                give_up(f"Loading '{self._model}' was stopped and did not end")
                return


def limited(load: Callable[P, T]) -> Callable[P, T]:
    """Have a loader, which takes a model, its `name` and `load_timeout`, keep to the limits."""

    @wraps(load)
    def loaded(*args: P.args, **kwargs: P.kwargs) -> T:
        timeout_s: Any = kwargs.get("load_timeout", LOAD_TIMEOUT_S)
        if (reason := unusable_timeout("load_timeout", timeout_s)) is not None:
            raise ModelLoadError(reason)
        progress = current_load()
        shown = kwargs.get("name") or (args[0] if isinstance(args[0], (str, Path)) else type(args[0]).__name__)
        with Limits(progress, str(shown), float(timeout_s)):
            engine = progress.run(partial(load, *args, **kwargs))
            with _lock:
                _engines.add(engine)
        return engine

    return loaded


def held_bytes() -> int:
    """Memory that the process holds; 0 where the system does not say."""
    try:
        return int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError):
        return 0
