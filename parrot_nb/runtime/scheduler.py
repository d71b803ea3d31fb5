"""Choice of the ready call that starts next, and of its engine."""

from __future__ import annotations

import asyncio
import heapq
from collections import deque
from collections.abc import Callable

from parrot_nb.engine.protocol import Pace, Priority
from parrot_nb.graph.records import CallRecord
from parrot_nb.runtime.costs import Costs
from parrot_nb.runtime.fleet import Fleet, Slot
from parrot_nb.runtime.policies import Policy

FAIR_EVERY = 8  # every so many starts it is the turn of who has waited longest: see `Scheduler`


class _Queue:
    """The ready calls of one model."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.heap: list[tuple[Priority, int, CallRecord]] = []
        self.arrived: deque[CallRecord] = deque()
        self.num_started = 0


class Scheduler:
    """The ready calls, most urgent first. Lives on the runtime loop.

    Nobody starves: of every `FAIR_EVERY` starts of a model's calls one is the call that has waited longest, so a call before
    which k others wait starts within `FAIR_EVERY * (k + 1)` starts, whatever comes in meanwhile.

    Args:
        policy: the order, and which engine.
        costs: of calls.
        fleet_of: the engines of a model.
        model_of: the model of a call.
    """

    def __init__(
        self, policy: Policy, costs: Costs, fleet_of: Callable[[str], Fleet], model_of: Callable[[CallRecord], str]
    ) -> None:
        self.policy = policy
        self._costs = costs
        self._fleet_of = fleet_of
        self._model_of = model_of
        self._queues: dict[str, _Queue] = {}
        self._queued: dict[int, Priority] = {}
        self._slots: dict[int, Slot] = {}  # of the calls that run
        self._aside: dict[int, Slot] = {}  # of those whose place others may take, by where they were
        self._returning: dict[int, tuple[CallRecord, asyncio.Future[None]]] = {}  # who waits for a place again, the longest first

    def __len__(self) -> int:
        return len(self._queued)

    @property
    def num_open(self) -> int:
        """Calls that run."""
        return len(self._slots)

    def fleet(self, model: str) -> Fleet:
        """The engines of a model."""
        return self._queue(model).fleet

    def add(self, call: CallRecord) -> None:
        """A call is ready. Adding it again, after it became more urgent, moves it forward."""
        queue = self._queue(self._model_of(call))
        priority = self.policy.priority(call)
        if call.id not in self._queued:
            queue.arrived.append(call)
        elif self._queued[call.id] == priority:
            return
        self._queued[call.id] = priority
        heapq.heappush(queue.heap, (priority, call.id, call))

    def raised(self, call: CallRecord) -> None:
        """A call became more urgent; matters only while it is queued."""
        if call.id in self._queued:
            self.add(call)

    def discard(self, call: CallRecord) -> None:
        """A call will not start."""
        self._queued.pop(call.id, None)

    def ended(self, call: CallRecord) -> None:
        """A call that was started has left its engine."""
        if (slot := self._slots.pop(call.id, None)) is not None:
            self._leave(slot, call)
        elif self._aside.pop(call.id, None) is None:
            return
        self.policy.ended(call)

    def step_aside(self, call: CallRecord) -> None:
        """Give a running call's place to others while it waits for what may need one: an input, or a check that makes calls.
        Doing it twice is harmless."""
        if (slot := self._slots.pop(call.id, None)) is not None:
            self._aside[call.id] = slot
            self._leave(slot, call)

    def is_aside(self, call: CallRecord) -> bool:
        """Whether a running call has given up its place."""
        return call.id in self._aside

    async def come_back(self, call: CallRecord) -> None:
        """Wait until a call that stepped aside has a place again on its engine; it comes before those that have not started."""
        if self._has_room(slot := self._aside[call.id]):
            self._return(slot, call)
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._returning[call.id] = call, future
        try:
            await future
        finally:
            self._returning.pop(call.id, None)

    def forget_engines(self) -> None:
        """Ask anew which engines there are; nothing may run or wait."""
        assert not self._slots
        assert not self._aside
        assert not self._queued
        self._queues.clear()

    def forget_prefixes(self) -> None:
        """The engines' caches were cleared."""
        for queue in self._queues.values():
            queue.fleet.forget_prefixes()

    def writes(self, call: CallRecord) -> None:
        """A call's first token has come."""
        if (slot := self._slots.get(call.id)) is not None:
            slot.writes(call.id)

    def pace(self, call: CallRecord) -> Pace | None:
        """Return how fast a call that runs wants its tokens."""
        slot = self._slots.get(call.id)
        return None if slot is None else self.policy.pace(call, slot)

    def next(self) -> tuple[CallRecord, Slot] | None:
        """Take the call to start now, and where; None for "not now"."""
        for queue in self._queues.values():
            started = self._next_of(queue)
            if started is not None:
                return started
        return None

    def start(self, call: CallRecord) -> Slot | None:
        """Start a call that is not queued, where there is room; None where there is none."""
        return self._place(call, self._queue(self._model_of(call)).fleet)

    def _next_of(self, queue: _Queue) -> tuple[CallRecord, Slot] | None:
        while (call := self._first_of(queue)) is not None:
            if call.id not in self._queued:
                self._drop(queue, call)
                continue
            slot = self._place(call, queue.fleet)
            if slot is None:
                return None
            self._drop(queue, call)
            del self._queued[call.id]
            queue.num_started += 1
            return call, slot
        return None

    def _first_of(self, queue: _Queue) -> CallRecord | None:
        """Whose turn it is; it stays in the queue."""
        while queue.arrived and queue.arrived[0].id not in self._queued:
            queue.arrived.popleft()
        if queue.num_started % FAIR_EVERY == FAIR_EVERY - 1 and queue.arrived:
            return queue.arrived[0]
        while queue.heap and self._queued.get(queue.heap[0][1]) is not queue.heap[0][0]:  # raised, started or discarded since
            heapq.heappop(queue.heap)
        return queue.heap[0][2] if queue.heap else None

    def _drop(self, queue: _Queue, call: CallRecord) -> None:
        if queue.heap and queue.heap[0][2] is call:
            heapq.heappop(queue.heap)
        if queue.arrived and queue.arrived[0] is call:
            queue.arrived.popleft()

    def _place(self, call: CallRecord, fleet: Fleet) -> Slot | None:
        if len(fleet.slots) == 1:
            slot = fleet.slots[0]
            if slot.lost or not self._has_room(slot):
                return None
            size, prefixes = self._costs.size(call), []
        else:
            if fleet.num_open >= self.policy.max_open * len(fleet.slots):
                return None
            prefixes = self._costs.prefixes(call)
            slots = fleet.candidates(prefixes, self.policy.max_open)
            if not slots:
                return None
            size = self._costs.size(call)
            slot, call.placed = self.policy.place(call, size, prefixes, slots)
        self._slots[call.id] = slot
        fleet.give(slot, call, size, prefixes, self.policy.pace(call, slot))
        return slot

    def _has_room(self, slot: Slot) -> bool:
        return slot.lost or slot.num_open < self.policy.max_open  # whoever was on a lost one must be told so

    def _leave(self, slot: Slot, call: CallRecord) -> None:
        """Take a call off its engine, and let back the first that waits for its place."""
        self._queue(slot.model).fleet.take_back(slot, call.id)
        for back, future in list(self._returning.values()):
            if not future.done() and self._has_room(home := self._aside[back.id]):
                self._return(home, back)
                future.set_result(None)

    def _return(self, slot: Slot, call: CallRecord) -> None:
        fleet = self._queue(slot.model).fleet
        prefixes = self._costs.prefixes(call) if len(fleet.slots) > 1 else []
        self._slots[call.id] = self._aside.pop(call.id)
        fleet.give(slot, call, self._costs.size(call), prefixes, self.policy.pace(call, slot))

    def _queue(self, model: str) -> _Queue:
        if model not in self._queues:
            self._queues[model] = _Queue(self._fleet_of(model))
        return self._queues[model]
