"""Token counts and timings of a run, function by function."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from parrot_nb.language.nodes import Usage
from parrot_nb.record.timeline import CallTimes, Timeline, summed


@dataclass(frozen=True, slots=True)
class FunctionUsage:
    """Token counts and timings of one function's calls together.

    Attributes:
        usage: tokens and seconds of all outputs, as their variables say.
        num_from_memo: calls for which nothing was computed, since an equal one had been.
        waited_s: seconds in which the calls waited for the engine or for an equal call; of calls that waited at the same time, all.
        computed_s: seconds in which they were filled, generated or ran; of calls at the same time, all.
    """

    function: str
    num_calls: int
    num_done: int
    num_from_memo: int
    usage: Usage
    waited_s: float
    computed_s: float


def account(timeline: Timeline) -> list[FunctionUsage]:
    """A row for every function that ran something, in order of its first call; joins take nothing and are left out."""
    groups: dict[str, list[CallTimes]] = {}
    for call in timeline.calls:
        if call.kind in ("semantic", "native"):
            groups.setdefault(call.function, []).append(call)
    return [_of(name, calls) for name, calls in groups.items()]


def total(rows: Iterable[FunctionUsage]) -> FunctionUsage:
    """Return the sum over all functions."""
    found = list(rows)
    return FunctionUsage(
        "all",
        sum(r.num_calls for r in found),
        sum(r.num_done for r in found),
        sum(r.num_from_memo for r in found),
        summed(r.usage for r in found),
        sum(r.waited_s for r in found),
        sum(r.computed_s for r in found),
    )


def _of(name: str, calls: list[CallTimes]) -> FunctionUsage:
    return FunctionUsage(
        name,
        len(calls),
        sum(call.state == "done" for call in calls),
        sum(call.usage.from_memo for call in calls),
        summed(call.usage for call in calls),
        sum(call.seconds("queued", "memo") for call in calls),
        sum(call.seconds("prefill", "streaming", "decode", "native") for call in calls),
    )
