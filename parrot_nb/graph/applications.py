"""Applications: the calls of a session that hang together by their variables, and how much of each is still to do.

Where a call joins two, the smaller one's calls move to the larger one, so that `n` calls take `n log n` moves. An application goes
by the id of its first call.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field

from parrot_nb.graph.records import CallRecord

MANY_TAILS = 64  # entries, beside two for each call, above which those that are out of date are dropped


@dataclass(eq=False, slots=True)
class _Application:
    """Calls that hang together.

    Attributes:
        first: id of the first call, which may be forgotten.
        calls: ids of those that are not forgotten.
        tails: (negative seconds, id) of calls, the longest first; entries may be out of date.
    """

    first: int
    calls: set[int]
    tails: list[tuple[float, int]] = field(default_factory=list)


class Applications:
    """Not thread-safe: the runtime thread owns it."""

    def __init__(self) -> None:
        self._of: dict[int, _Application] = {}  # by call
        self._tail_of: dict[int, float] = {}  # of the calls that have not ended

    def add(self, call: CallRecord) -> None:
        """A call was made; what it reads was added before."""
        if call.id not in self._of:
            self._of[call.id] = _Application(call.id, {call.id})
        for node in call.inputs.values():
            if node.producer is not None and node.producer.id in self._of:
                self._unite(self._of[call.id], self._of[node.producer.id])

    def of(self, call: CallRecord) -> int:
        """Return the application that a call belongs to; a call that is not known is one of its own."""
        application = self._of.get(call.id)
        return call.id if application is None else application.first

    def planned(self, call: CallRecord) -> None:
        """A call's path was deduced, or deduced again."""
        assert call.path is not None
        application = self._of.get(call.id)
        if application is None or self._tail_of.get(call.id) == call.path.tail_s:
            return
        self._tail_of[call.id] = call.path.tail_s
        heapq.heappush(application.tails, (-call.path.tail_s, call.id))
        if len(application.tails) > MANY_TAILS + 2 * len(application.calls):
            application.tails = [(-self._tail_of[i], i) for i in application.calls if i in self._tail_of]
            heapq.heapify(application.tails)

    def ended(self, call: CallRecord) -> None:
        """A call needs nothing any more."""
        self._tail_of.pop(call.id, None)

    def forget(self, call: CallRecord) -> None:
        """Forget a call that has ended and that nothing made from now on can read from. Unknown calls are ignored."""
        application = self._of.pop(call.id, None)
        if application is not None:
            application.calls.discard(call.id)

    def remaining_s(self, call: CallRecord) -> float:
        """Predicted seconds until the whole application of a call is done: the longest tail in it."""
        application = self._of.get(call.id)
        tails = [] if application is None else application.tails
        while tails and self._tail_of.get(tails[0][1]) != -tails[0][0]:
            heapq.heappop(tails)
        return -tails[0][0] if tails else 0.0

    def clear(self) -> None:
        """Forget everything."""
        self._of.clear()
        self._tail_of.clear()

    def _unite(self, a: _Application, b: _Application) -> None:
        if a is b:
            return
        into, other = (a, b) if len(a.calls) + len(a.tails) >= len(b.calls) + len(b.tails) else (b, a)
        into.first = min(a.first, b.first)
        into.calls |= other.calls
        self._of.update(dict.fromkeys(other.calls, into))
        for entry in other.tails:
            heapq.heappush(into.tails, entry)
