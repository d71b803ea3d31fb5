"""Threads of native functions: how many run side by side, and which no longer count."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import Objective

MAX_PLACES = 32  # native functions mostly wait for other services; more of them at once rarely helps
LONG_S = 5.0  # after which a function may be one that never returns, and gives its place to another that waits for one
MAX_LONG = 224  # functions that have given their places up so: 256 threads in all

_of_thread = threading.local()


@dataclass(eq=False)
class Run:
    """A function that the runtime asked for.

    Attributes:
        call: the call that it belongs to.
        what: its name in messages.
        function: takes nothing, and gives the result.
        finish: takes the result, or what the function raised.
        objective: of the call.
        unwanted: whether its result is of no use any more.
        over: whether it has ended and its result was told.
        place: whether it counts among the functions that run; "lent" while it waits in `get()`, "long" after `LONG_S`.
        begun_s: when its thread began, on the monotonic clock.
    """

    call: Call
    what: str
    function: Callable[[], Any]
    finish: Callable[[Any, BaseException | None], None]
    objective: Objective
    unwanted: bool = False
    over: bool = False
    place: Literal["none", "taken", "lent", "long"] = "none"
    begun_s: float = 0.0


class Places:
    """Starts functions, each on a thread of its own, `MAX_PLACES` at once and the others in order.

    A function that blocks in `get()` lends its place to another meanwhile, so that calls which wait for each other cannot use up all
    places. One that has run for `LONG_S` seconds loses its place if others wait for one, up to `MAX_LONG` of them.

    Args:
        work: called on the function's thread.
        refused: told of a function whose thread could not be started.
    """

    def __init__(self, work: Callable[[Run], None], refused: Callable[[Run, RuntimeError], None]) -> None:
        self._work = work
        self._refused = refused
        self._lock = threading.Lock()
        self._queue: deque[Run] = deque()
        self._taken: set[Run] = set()
        self._long: set[Run] = set()
        self._timer: threading.Timer | None = None

    def start(self, run: Run) -> None:
        """Start a function as soon as there is a place. Returns at once."""
        with self._lock:
            self._queue.append(run)
        self._start_queued()

    def leave(self, run: Run) -> None:
        """Give the place of a function back that has ended or that nobody wants. Harmless for one that has none."""
        with self._lock:
            if run in self._queue:
                self._queue.remove(run)
            self._taken.discard(run)
            self._long.discard(run)
            run.place = "none"
        self._start_queued()

    def lend(self, run: Run) -> None:
        """Give a function's place to another while it waits."""
        with self._lock:
            if run.place == "taken":
                self._taken.remove(run)
                run.place = "lent"
        self._start_queued()

    def take_back(self, run: Run) -> None:
        """Count a function again that has waited."""
        with self._lock:
            if run.place == "lent":
                self._taken.add(run)
                run.place = "taken"

    def close(self) -> None:
        """Start nothing more; threads end with their function."""
        with self._lock:
            self._queue.clear()
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

    def _start_queued(self) -> None:
        refused: list[tuple[Run, RuntimeError]] = []
        while (run := self._next()) is not None:
            try:
                threading.Thread(target=self._begin, args=(run,), name=f"parrot-native-{run.call.name}", daemon=True).start()
            except RuntimeError as error:  # the process ends, or has no thread left
                with self._lock:
                    self._taken.discard(run)
                    run.place = "none"
                refused.append((run, error))
        for run, why in refused:  # told last, since whoever is told looks for the next in the queue
            self._refused(run, why)

    def _next(self) -> Run | None:
        """Take the next function from the queue, if it may start."""
        with self._lock:
            if not self._queue:
                return None
            if len(self._taken) >= MAX_PLACES:
                self._watch()
                return None
            run = self._queue.popleft()
            run.place, run.begun_s = "taken", time.monotonic()
            self._taken.add(run)
            return run

    def _begin(self, run: Run) -> None:
        _of_thread.place = self, run
        self._work(run)

    def _watch(self) -> None:
        """Look again when the oldest function is a long one. Under the lock."""
        if self._timer is None and len(self._long) < MAX_LONG:
            due_s = min(run.begun_s for run in self._taken) + LONG_S - time.monotonic()
            self._timer = threading.Timer(max(0.01, due_s), self._look)
            self._timer.daemon, self._timer.name = True, "parrot-native-places"
            try:
                self._timer.start()
            except RuntimeError:  # no thread left: the next end of a function starts another
                self._timer = None

    def _look(self) -> None:
        """Count the functions no longer that have run for long."""
        with self._lock:
            self._timer = None
            before_s = time.monotonic() - LONG_S
            late = [run for run in self._taken if run.begun_s <= before_s] if self._queue else []
            for run in late[: MAX_LONG - len(self._long)]:
                run.place = "long"
                self._taken.remove(run)
                self._long.add(run)
        self._start_queued()


class blocked:  # noqa: N801 - a context manager reads as a verb
    """Around a wait: if this thread runs a native function, another may run meanwhile."""

    def __init__(self) -> None:
        self._place: tuple[Places, Run] | None = getattr(_of_thread, "place", None)

    def __enter__(self) -> None:
        if self._place is not None:
            places, run = self._place
            places.lend(run)

    def __exit__(self, *exc_info: object) -> None:
        if self._place is not None:
            places, run = self._place
            places.take_back(run)
