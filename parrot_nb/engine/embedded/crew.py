"""Number of threads that compute an engine's steps on a CPU, which follows what other processes leave of the cores.

A step is hundreds of short loops, each shared out evenly among OpenMP's threads, and a loop ends with its slowest thread. One neighbour
that takes half a core from one of them so doubles every loop, and worse: those that are ready spin, and take the core from the one
they wait for. With a thread less all of them run at full speed. How long threads that could run had to wait for a core is told by
Linux (`schedstat`), and so is how much of the cores nobody uses; elsewhere the number of threads stays as it is.
"""

from __future__ import annotations

import contextlib
import math
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

LOOK_S = 0.25  # the machine counts idle time in hundredths of a second
BUSY = 0.3  # of the time between two looks the engine must have computed, else they tell nothing of its steps
WAITING = 0.25  # of the time that a thread could run; three threads that share two cores wait for a third of it
IDLE_CORES = 0.6  # that nobody uses: a core is free for another thread, but for what the engine's loop takes of it
PATIENCE_S, MOST_PATIENCE_S = 1.0, 30.0  # for which a core must be free; twice as long each time that it was soon taken again
SOON_S = 5.0


@dataclass(frozen=True, slots=True)
class Look:
    """Running, waiting and idle times as the system counts them at one moment.

    Attributes:
        at_s: the moment, in seconds of the monotonic clock.
        threads: for each thread of this process, by its id: seconds that it ran, and that it waited for a core.
        idle_s: idle seconds of the CPUs in this process's affinity mask, summed.
    """

    at_s: float
    threads: dict[int, tuple[float, float]]
    idle_s: float


def look() -> Look | None:
    """Return the times of this process and its cores; None where the system does not tell them."""
    try:
        found = {}
        for path in Path("/proc/self/task").iterdir():
            with contextlib.suppress(OSError):  # a thread that has just ended
                ran, waited, _ = (path / "schedstat").read_text().split()
                found[int(path.name)] = int(ran) / 1e9, int(waited) / 1e9
        ours = {f"cpu{number}" for number in os.sched_getaffinity(0)}
        lines = [line.split() for line in Path("/proc/stat").read_text().splitlines() if line.startswith("cpu")]
        ticks = sum(int(words[4]) for words in lines if words[0] in ours)
        return Look(time.monotonic(), found, ticks / os.sysconf("SC_CLK_TCK")) if found else None
    except (OSError, ValueError, IndexError, AttributeError):
        return None


class Crew:
    """Decides how many threads compute. Lives in the engine's worker thread.

    Args:
        most: largest number of threads.
        use: has the thread that calls it compute with so many from now on.
        look: returns times; None where there are none.
        clock: seconds.
        allowed_cores: cores that this process may use at once by its quota, which may be a fraction; no limit if infinite.

    Attributes:
        count: number of threads that compute now.
        most: largest number of threads.
    """

    def __init__(
        self,
        most: int,
        use: Callable[[int], None],
        look: Callable[[], Look | None] = look,
        clock: Callable[[], float] = time.monotonic,
        *,
        allowed_cores: float = math.inf,
    ) -> None:
        self.count = most
        self.most, self._use, self._look, self._clock = most, use, look, clock
        self._allowed_cores = allowed_cores
        self._before: Look | None = None
        self._next_s = 0.0
        self._free_s = 0.0  # for how long a core has been free
        self._patience_s = PATIENCE_S
        self._grown_at_s: float | None = None
        self._was_short = False

    def before_step(self) -> None:
        """Look, if that is due, and add or leave out a thread. Some 0.1 ms where it looks."""
        if self.most == 1 or self._clock() < self._next_s:
            return
        self._next_s = self._clock() + LOOK_S
        before, now = self._before, self._look()
        self._before = now
        if before is None or now is None:
            return
        span_s = now.at_s - before.at_s
        spent = {
            thread: (ran - before.threads[thread][0], waited - before.threads[thread][1])
            for thread, (ran, waited) in now.threads.items()
            if thread in before.threads
        }
        own_s = sum(spent.get(threading.get_native_id(), (0.0, 0.0)))
        if span_s <= 0 or own_s < BUSY * span_s:
            self._free_s, self._was_short = 0.0, False
            return
        used_cores = sum(ran for ran, _ in spent.values()) / span_s  # a quota leaves no more, however idle the host's cores are
        idle_cores = min((now.idle_s - before.idle_s) / span_s, self._allowed_cores - used_cores)
        self._judge(span_s, _waiting(spent, own_s), idle_cores)

    def _judge(self, span_s: float, waiting: float, idle_cores: float) -> None:
        is_short = waiting > WAITING
        if is_short and self._was_short and self.count > 1:  # twice: a moment is no neighbour
            self._change(-1)
            if self._grown_at_s is not None and self._clock() - self._grown_at_s < SOON_S + self._patience_s:
                self._patience_s = min(2 * self._patience_s, MOST_PATIENCE_S)
            else:
                self._patience_s = PATIENCE_S
            is_short = False  # of the new number nothing is known yet
        self._was_short = is_short
        self._free_s = self._free_s + span_s if idle_cores > IDLE_CORES and not is_short else 0.0
        if self.count < self.most and self._free_s >= self._patience_s:
            self._change(+1)
            self._grown_at_s = self._clock()

    def _change(self, by: int) -> None:
        self.count += by
        self._free_s = 0.0
        self._use(self.count)


def _waiting(spent: dict[int, tuple[float, float]], own_s: float) -> float:
    """Share of its time that the thread of the crew waited that waited most: those that computed half as long as this one, or more."""
    return max((waited / (ran + waited) for ran, waited in spent.values() if ran + waited > own_s / 2), default=0.0)
