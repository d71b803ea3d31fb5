"""Critical paths: which unfinished calls decide when what was read will be there, and how much later the others may start.

The longest-path recurrences of the critical path method (Kelley and Walker, 1959) over predicted seconds: forwards for the
earliest start of every call, backwards for the longest way from its start to the reader. Linear in calls and edges.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import LatencyTarget, Path


class Cost(NamedTuple):
    """Predicted seconds of a call that runs alone: until its first token, and until its last."""

    first_s: float
    whole_s: float


@dataclass(frozen=True, slots=True)
class Reading:
    """Variables that were read together, when, with which figures, and whether somebody waits for them."""

    nodes: tuple[ValueRecord, ...]
    at_s: float
    target: LatencyTarget | None = None
    waits: bool = False


def critical_paths(
    order: Iterable[CallRecord], readings: Iterable[Reading], cost: Callable[[CallRecord], Cost]
) -> dict[CallRecord, Path]:
    """Return the place of each call on the way to what was read.

    Args:
        order: the unfinished calls behind what was read, consumers before producers, as from `stages`.
        readings: who reads what.
        cost: of a call.
    """
    calls = list(order)
    costs = {call: cost(call) for call in calls}
    producers = {call: _producers(call, costs) for call in calls}
    head = dict.fromkeys(calls, 0.0)  # the earliest start, from now
    for call in reversed(calls):
        for producer in producers[call]:
            head[call] = max(head[call], head[producer] + costs[producer].whole_s)

    latest_end = dict.fromkeys(calls, math.inf)  # that delays no reader, from now
    end_by = dict.fromkeys(calls, math.inf)  # for first tokens to come when they were asked for, on the clock
    earliest_read_s = math.inf
    for reading in readings:
        earliest_read_s = min(earliest_read_s, reading.at_s)
        for call in {node.producer for node in reading.nodes if node.producer is not None and node.producer in costs}:
            latest_end[call] = min(latest_end[call], head[call] + costs[call].whole_s)
            if reading.target is not None and reading.target.ttft_s is not None:
                rest_s = costs[call].whole_s - costs[call].first_s
                end_by[call] = min(end_by[call], reading.at_s + reading.target.ttft_s + rest_s)

    tail = dict.fromkeys(calls, 0.0)
    paths: dict[CallRecord, Path] = {}
    for call in calls:  # what reads a call has left its figures there already
        seconds = costs[call].whole_s
        tail[call] += seconds
        latest_start = latest_end[call] - seconds
        start_by = end_by[call] - seconds
        for producer in producers[call]:
            tail[producer] = max(tail[producer], tail[call])
            latest_end[producer] = min(latest_end[producer], latest_start)
            end_by[producer] = min(end_by[producer], start_by)
        paths[call] = Path(
            tail_s=tail[call],
            slack_s=max(0.0, latest_start - head[call]),
            start_by_s=start_by if start_by < math.inf else earliest_read_s + latest_start,
            due=start_by < math.inf,
        )
    return paths


def _producers(call: CallRecord, known: Mapping[CallRecord, object]) -> list[CallRecord]:
    """The unfinished calls that a call reads from, each once."""
    found = {node.producer: None for node in call.inputs.values() if node.producer is not None and node.producer in known}
    return list(found)
