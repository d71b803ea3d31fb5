"""Objectives that a reader may request: `P.LATENCY`, `P.THROUGHPUT`, or LATENCY with figures."""

from __future__ import annotations

import math
from typing import Any

from parrot_nb.errors import OptionError
from parrot_nb.language.nodes import LATENCY, LatencyTarget, Objective, Perf


def latency(*, ttft: float | None = None, tpot: float | None = None) -> LatencyTarget:
    """LATENCY with figures, as in `var.get(perf=P.latency(ttft=0.5, tpot=0.05))`.

    What cannot be had is run all the same, as fast as it goes, and `P.explain` says so.

    Args:
        ttft: seconds from the read to the first token ("time to first token").
        tpot: seconds for each token after it ("time per output token"); other work leaves the engine that much room.

    Raises:
        OptionError: neither is given, or one is not a positive number.
    """
    for name, seconds in (("ttft", ttft), ("tpot", tpot)):
        number = isinstance(seconds, (int, float)) and not isinstance(seconds, bool)
        if seconds is not None and (not number or not math.isfinite(seconds) or seconds <= 0):
            raise OptionError(f"{name} must be a positive number of seconds, not {seconds!r}.")
    if ttft is None and tpot is None:
        raise OptionError("P.latency() needs ttft, tpot or both, in seconds; without figures it is P.LATENCY.")
    return LatencyTarget(ttft, tpot)


def checked_perf(perf: Any) -> Perf | None:
    """Check the `perf` that a reader gave, and return it. Raises OptionError."""
    if perf is not None and not isinstance(perf, (Objective, LatencyTarget)):
        raise OptionError(f"perf must be P.LATENCY, P.THROUGHPUT or P.latency(...), not {perf!r}.")
    return perf


def objective_of(perf: Perf) -> Objective:
    """The objective in it."""
    return perf if isinstance(perf, Objective) else LATENCY
