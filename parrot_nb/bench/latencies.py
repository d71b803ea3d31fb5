"""Latencies of the calls of each function, as seen by whoever made them."""

from __future__ import annotations

import itertools
import statistics
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from parrot_nb.runtime import events
from parrot_nb.runtime.events import Event


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of the calls of one function.

    Attributes:
        calls: how many.
        last_s: seconds from the first event of all to the end of the last call.
        per_token_s: mean of seconds from when a call could start to its end, for each token that it wrote.
        tpot_s: mean of seconds between two tokens.
        tpot_p95_s: what 95 of 100 of these times are within. Tokens that are told together share theirs: calls without a
            target are told of theirs 25 times a second, which smooths what they had to wait, and those with one are not.
    """

    calls: int
    last_s: float
    per_token_s: float
    tpot_s: float
    tpot_p95_s: float


@dataclass(slots=True)
class _Call:
    function: str
    ready_s: float | None = None
    end_s: float | None = None
    tokens_s: list[tuple[float, int]] = field(default_factory=list)  # when so many came


def latencies(log: Iterable[Event]) -> dict[str, Latency]:
    """Return the latencies, by function, of the semantic calls that are made and end in this part of a log."""
    calls: dict[int, _Call] = {}
    writers: dict[int, _Call] = {}
    began_s: float | None = None
    for event in log:
        match event:
            case events.CallAdded(time_s=time_s, call_id=call_id, function=name, kind="semantic", outputs=outputs):
                began_s = time_s if began_s is None else began_s
                calls[call_id] = _Call(name)
                writers |= dict.fromkeys(outputs, calls[call_id])
            case events.CallChanged(time_s=time_s, call_id=call_id, phase=phase) if call_id in calls:
                if phase == "ended":
                    calls[call_id].end_s = time_s
                elif calls[call_id].ready_s is None:
                    calls[call_id].ready_s = time_s
            case events.TextAppended() | events.ThinkingAppended() if event.variable_id in writers:
                if event.num_tokens:
                    writers[event.variable_id].tokens_s.append((event.time_s, event.num_tokens))
            case _:
                pass
    by_function: defaultdict[str, list[_Call]] = defaultdict(list)
    for call in calls.values():
        if call.ready_s is not None and call.end_s is not None and call.tokens_s:
            by_function[call.function].append(call)
    return {name: _latency(found, began_s or 0.0) for name, found in by_function.items()}


def _latency(calls: list[_Call], began_s: float) -> Latency:
    gaps = sorted(gap for call in calls for gap in _gaps(call.tokens_s)) or [0.0]
    took = [(call, (call.end_s or 0.0) - (call.ready_s or 0.0)) for call in calls]
    return Latency(
        calls=len(calls),
        last_s=max(call.end_s or 0.0 for call in calls) - began_s,
        per_token_s=statistics.fmean(seconds / sum(count for _, count in call.tokens_s) for call, seconds in took),
        tpot_s=statistics.fmean(gaps),
        tpot_p95_s=gaps[int(0.95 * (len(gaps) - 1))],
    )


def _gaps(tokens_s: list[tuple[float, int]]) -> list[float]:
    """Seconds before each token after the first; tokens that come together share theirs."""
    return [(now_s - before_s) / count for (before_s, _), (now_s, count) in itertools.pairwise(tokens_s) for _ in range(count)]
