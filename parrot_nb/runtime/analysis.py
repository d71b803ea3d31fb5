"""Properties deduced of calls when they are read: their task groups, their place on the critical path, their application."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from parrot_nb.graph import Applications, Cost, Reading, critical_paths, stages, task_groups
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import LATENCY, LatencyTarget, Path, Perf, TaskGroup
from parrot_nb.language.perf import objective_of
from parrot_nb.runtime.events import GroupDeduced, now_s
from parrot_nb.runtime.wire import Say


@dataclass(frozen=True, slots=True)
class Deduced:
    """Properties that some readings imply for the unfinished calls behind them.

    Attributes:
        groups: the task groups, the nearest to the readers first.
        paths: the place of each call on the way to the readers, by call.
        calls: all of them, producers before consumers.
    """

    groups: tuple[TaskGroup, ...]
    paths: Mapping[CallRecord, Path]
    calls: tuple[CallRecord, ...]


def deduce(readings: Sequence[Reading], cost: Callable[[CallRecord], Cost]) -> Deduced:
    """Deduce task groups and critical paths, in time that is linear in the unfinished calls behind what was read. Changes nothing.

    Args:
        readings: that came since the last time.
        cost: of a call.
    """
    waiting = [reading.nodes for reading in readings if reading.waits]
    order = stages(node for reading in readings for node in reading.nodes)
    groups = task_groups(waiting) if waiting else []
    return Deduced(tuple(groups), critical_paths(order, readings, cost), tuple(reversed(order)))


class Analysis:
    """Collector of readings, on the runtime loop: deduces once for all that came at the same time, and notes what follows in
    the records of calls.

    Args:
        say: is told of every group.
        applications: to keep up to date.
        cost: of a call.
        call_of: an unfinished call by its id, or None.
    """

    def __init__(
        self,
        say: Say,
        applications: Applications,
        cost: Callable[[CallRecord], Cost],
        call_of: Callable[[int], CallRecord | None],
    ) -> None:
        self._say = say
        self._applications = applications
        self._cost = cost
        self._call_of = call_of
        self._readings: list[Reading] = []

    def read(self, nodes: Sequence[ValueRecord], perf: Perf, at_s: float) -> bool:
        """Record that these variables are read together, for `run`. Returns whether it is the first reading since then."""
        target = perf if isinstance(perf, LatencyTarget) else None
        for node in nodes:
            if node.producer is not None and target is not None:
                node.producer.target = stricter(node.producer.target, target)
        self._readings.append(Reading(tuple(nodes), at_s, target, objective_of(perf) is LATENCY))
        return len(self._readings) == 1

    def run(self) -> list[CallRecord]:
        """Deduce; returns the calls whose place may be another now, producers before consumers."""
        readings, self._readings = self._readings, []
        deduced = deduce(readings, self._cost)
        for group in deduced.groups:
            for call_id in group.call_ids:
                if (call := self._call_of(call_id)) is not None:
                    call.group = group
            self._say(GroupDeduced(now_s(), group))
        for call, path in deduced.paths.items():
            call.path = path if call.path is None else _both(call.path, path)
            self._applications.planned(call)
        return list(deduced.calls)


def stricter(a: LatencyTarget | None, b: LatencyTarget | None) -> LatencyTarget | None:
    """Return the target that meets both."""
    if a is None or b is None:
        return a or b
    return LatencyTarget(_least(a.ttft_s, b.ttft_s), _least(a.tpot_s, b.tpot_s))


def _least(a: float | None, b: float | None) -> float | None:
    return a if b is None else b if a is None else min(a, b)


def _both(a: Path, b: Path) -> Path:
    """The place of a call that two readers wait for."""
    due = a.due or b.due
    starts = [path.start_by_s for path in (a, b) if path.due == due]
    return Path(max(a.tail_s, b.tail_s), min(a.slack_s, b.slack_s), min(starts), due)
