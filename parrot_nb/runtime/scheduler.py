"""Which ready call starts next, and how urgent it is inside its engine."""

from __future__ import annotations

import heapq

from parrot_nb.engine.protocol import AHEAD, Priority
from parrot_nb.language.nodes import LATENCY, Call

MAX_OPEN_CONTEXTS = 256  # beyond this a larger batch no longer fills an engine better, it only holds more pages


def priority(call: Call, *, ahead: bool = False) -> Priority:
    """Latency before throughput, then in order of the calls; what is begun ahead of its inputs comes last. Smaller is more
    urgent."""
    urgency = 0 if call.objective is LATENCY else 1
    return (AHEAD, urgency, call.id) if ahead else (urgency, call.id)


class Scheduler:
    """The ready calls, most urgent first. Lives on the runtime loop.

    Args:
        max_open: most calls that may hold a context at once.
    """

    def __init__(self, max_open: int = MAX_OPEN_CONTEXTS) -> None:
        self.max_open = max_open
        self._heap: list[tuple[Priority, Call]] = []
        self._queued: set[int] = set()

    def __len__(self) -> int:
        return len(self._queued)

    def add(self, call: Call) -> None:
        """A call is ready. Adding it again, after its objective became stricter, moves it forward."""
        self._queued.add(call.id)
        heapq.heappush(self._heap, (priority(call), call))

    def raised(self, call: Call) -> None:
        """A call's objective became stricter; matters only while it is queued."""
        if call.id in self._queued:
            self.add(call)

    def discard(self, call: Call) -> None:
        """A call will not start."""
        self._queued.discard(call.id)

    def next(self, num_open: int) -> Call | None:
        """Take the call to start now, given how many are running; None for "not now"."""
        while self._heap and num_open < self.max_open:
            _, call = heapq.heappop(self._heap)
            if call.id in self._queued:  # else a stale entry of a call that was raised, started or cancelled
                self._queued.discard(call.id)
                return call
        return None
