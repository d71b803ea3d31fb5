"""Applications: the calls of a session that hang together by their variables, and how much of each is still to do.

Union-find over producer edges (Tarjan 1975), as the graph grows; an application goes by the id of its first call.
"""

from __future__ import annotations

import heapq

from parrot_nb.graph.records import CallRecord


class Applications:
    """Not thread-safe: the runtime thread owns it."""

    def __init__(self) -> None:
        self._leader: dict[int, int] = {}
        self._tails: dict[int, list[tuple[float, int]]] = {}  # of an application's calls, the longest first
        self._tail_of: dict[int, float] = {}  # of the calls that have not ended

    def add(self, call: CallRecord) -> None:
        """A call was made; what it reads was added before."""
        leader = self._leader.setdefault(call.id, call.id)
        for node in call.inputs.values():
            if node.producer is not None and node.producer.id in self._leader:
                leader = self._unite(leader, self._find(node.producer.id))

    def of(self, call: CallRecord) -> int:
        """Which application a call belongs to; a call that was not added is one of its own."""
        return self._find(call.id) if call.id in self._leader else call.id

    def planned(self, call: CallRecord) -> None:
        """A call's path was deduced, or deduced again."""
        assert call.path is not None
        if self._tail_of.get(call.id) != call.path.tail_s:
            self._tail_of[call.id] = call.path.tail_s
            heapq.heappush(self._tails.setdefault(self.of(call), []), (-call.path.tail_s, call.id))

    def ended(self, call: CallRecord) -> None:
        """A call needs nothing any more."""
        self._tail_of.pop(call.id, None)

    def remaining_s(self, call: CallRecord) -> float:
        """Predicted seconds until the whole application of a call is done: the longest tail in it."""
        tails = self._tails.get(self.of(call), ())
        while tails and self._tail_of.get(tails[0][1]) != -tails[0][0]:
            heapq.heappop(tails)
        return -tails[0][0] if tails else 0.0

    def clear(self) -> None:
        """Forget everything."""
        self._leader.clear()
        self._tails.clear()
        self._tail_of.clear()

    def _find(self, call_id: int) -> int:
        while (above := self._leader[call_id]) != call_id:
            self._leader[call_id] = self._leader[above]
            call_id = above
        return call_id

    def _unite(self, a: int, b: int) -> int:
        if a == b:
            return a
        first, second = min(a, b), max(a, b)
        self._leader[second] = first
        into, other = self._tails.pop(first, []), self._tails.pop(second, [])
        if len(into) < len(other):
            into, other = other, into
        for item in other:
            heapq.heappush(into, item)
        if into:
            self._tails[first] = into
        return first
