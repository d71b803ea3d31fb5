"""Cost of a call that computes nothing: time, and CPU time of both sides of its session."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_nb.session import Session

SETTLE_S = 0.3  # for both sides to forget calls
TASKS = Path("/proc/self/task")


@dataclass(frozen=True, slots=True)
class PerCall:
    """Seconds of one of many calls.

    Attributes:
        whole_s: until it was there.
        made_s: until it was made.
        cpu_s: CPU seconds of both sides until it was forgotten; None where nothing tells them.
    """

    whole_s: float
    made_s: float
    cpu_s: float | None


def per_call(session: Session, make: Callable[[int], Any], *, count: int, repeat: int) -> PerCall:
    """Measure a call: medians of several runs.

    Args:
        session: where the calls run.
        make: makes so many calls and returns what waits for all of them with `get()`.
        count: calls of a run.
        repeat: runs.
    """
    found = []
    for _ in range(repeat):
        cpu_before_s, began_s = cpu_s(), time.perf_counter()
        values = make(count)
        made_s = time.perf_counter() - began_s
        values.get()
        whole_s = time.perf_counter() - began_s
        del values
        session.flush()
        time.sleep(SETTLE_S)
        cpu_after_s = cpu_s()
        used_s = None if cpu_before_s is None or cpu_after_s is None else (cpu_after_s - cpu_before_s) / count
        found.append(PerCall(whole_s / count, made_s / count, used_s))
    used = [one.cpu_s for one in found if one.cpu_s is not None]
    return PerCall(
        statistics.median(one.whole_s for one in found),
        statistics.median(one.made_s for one in found),
        statistics.median(used) if used else None,
    )


def cpu_s() -> float | None:
    """CPU seconds of all threads of this process and of its children that have not ended; None where nothing tells them."""
    try:
        folders = [TASKS, *(Path(f"/proc/{pid}/task") for pid in children())]
        return 1e-9 * sum(_run_ns(task) for folder in folders for task in folder.iterdir())
    except OSError:
        return None


def children() -> list[str]:
    """Ids of the processes that this one has started and that have not ended. Raises OSError where nothing tells them."""
    return [pid for task in TASKS.iterdir() for pid in (task / "children").read_text().split()]


def _run_ns(task: Path) -> int:
    return int((task / "schedstat").read_text().split()[0])
