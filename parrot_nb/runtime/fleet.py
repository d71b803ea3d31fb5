"""The engines of one model as the scheduler sees them: what each was given, and what it probably still has to do."""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from parrot_nb.engine.protocol import Pace, Speed
from parrot_nb.graph.records import CallRecord
from parrot_nb.language.nodes import LATENCY
from parrot_nb.runtime.costs import Size

MANY_HOLDERS = 32
FEW = 8  # engines that are all looked at
MOST_ENTRIES = 16  # of a heap for each engine
LEAST_ROOM = 0.05  # of a step: who must not starve gets so much even where there is none
KEPT_PREFIXES = 256  # of each engine: about as many as its cache will hold


@dataclass(slots=True)
class _Open:
    """A call that runs on an engine."""

    prefill_tokens: float
    output_tokens: float
    hurried: bool
    pace: Pace | None


@dataclass(eq=False)
class Slot:
    """One engine.

    Attributes:
        model: what it runs.
        index: which of that model's engines.
        speed: asked anew for each decision.
        lost: it has ended; nothing is placed here, unless it comes back.
    """

    model: str
    index: int
    speed: Callable[[], Speed] = Speed
    lost: bool = False
    prefill_tokens: float = 0.0  # of prompts whose first token has not come yet
    output_tokens: float = 0.0  # of those that are being written
    num_hurried: int = 0  # calls of which a reader waits for each by itself
    _open: dict[int, _Open] = field(default_factory=dict)
    _prefixes: OrderedDict[str, None] = field(default_factory=OrderedDict)

    @property
    def num_open(self) -> int:
        """Calls that run here."""
        return len(self._open)

    def room_for_others(self) -> float:
        """The share of each step that is left to other work by those who want their tokens within some time."""
        if not self.num_hurried:
            return 1.0
        step_s = min((part.pace.tpot_s for part in self._open.values() if part.pace is not None), default=math.inf)
        return max(LEAST_ROOM, 1.0 - self.speed().step_s(self.num_hurried) / step_s)

    def load_s(self) -> float:
        """Predicted seconds until all that is here now is done, side by side."""
        speed, n = self.speed(), len(self._open)
        return self.prefill_tokens * speed.prefill_s + (self.output_tokens / n * speed.step_s(n) if n else 0.0)

    def cached_tokens(self, prefixes: Sequence[tuple[str, float]]) -> float:
        """Return how many tokens of a prompt with these boundaries are probably cached here."""
        for digest, num_tokens in reversed(prefixes):
            if digest in self._prefixes:
                return num_tokens
        return 0.0

    def forget_prefixes(self) -> None:
        """Forget the prefixes, since the engine's cache was cleared."""
        self._prefixes.clear()

    def give(self, call: CallRecord, size: Size, prefixes: Sequence[tuple[str, float]], pace: Pace | None) -> list[str]:
        """A call starts here. Returns the hashes of prefixes that the engine will keep no longer."""
        hurried = is_hurried(call)
        part = _Open(max(0.0, size.prompt_tokens - self.cached_tokens(prefixes)), size.output_tokens, hurried, pace)
        self._open[call.id] = part
        self.prefill_tokens += part.prefill_tokens
        self.output_tokens += part.output_tokens
        self.num_hurried += hurried
        for digest, _ in prefixes:
            self._prefixes[digest] = None
            self._prefixes.move_to_end(digest)
        return [self._prefixes.popitem(last=False)[0] for _ in range(len(self._prefixes) - KEPT_PREFIXES)]

    def writes(self, call_id: int) -> None:
        """A call's first token has come."""
        if (part := self._open.get(call_id)) is not None:
            self.prefill_tokens -= part.prefill_tokens
            part.prefill_tokens = 0.0

    def take_back(self, call_id: int) -> None:
        """A call has ended, or leaves."""
        if (part := self._open.pop(call_id, None)) is not None:
            self.prefill_tokens -= part.prefill_tokens
            self.output_tokens -= part.output_tokens
            self.num_hurried -= part.hurried


def is_hurried(call: CallRecord) -> bool:
    """Whether a reader waits for a call by itself, and not for a task group together."""
    return call.objective is LATENCY and call.group is None


class Fleet:
    """All engines of one model, with the few that a call should be compared on.

    Looking at every engine for every call would make a thousand engines a thousand times slower than one, so they lie in a
    heap by their load, brought up to date as calls start and end.

    Args:
        slots: the engines.

    Attributes:
        num_open: calls that run on them.
    """

    def __init__(self, slots: Sequence[Slot]) -> None:
        self.slots = list(slots)
        self.num_open = 0
        self._holders: dict[str, dict[int, Slot]] = {}  # by prefix hash
        self._by_load: list[tuple[float, int, int]] = []
        self._version = [0] * len(self.slots)
        self._quiet: list[tuple[float, int, int]] = []  # those with nobody who is hurried
        self._busy: list[tuple[float, int, int]] = []  # those with somebody
        for slot in self.slots:
            self._changed(slot)

    def candidates(self, prefixes: Sequence[tuple[str, float]], max_open: int, count: int = 4) -> list[Slot]:
        """Engines with room: the `count` least loaded, the least loaded of those with nobody and of those with somebody who is
        hurried, and some that hold a prefix of the call."""
        if len(self.slots) <= FEW:
            return [slot for slot in self.slots if slot.num_open < max_open and not slot.lost]
        found = {
            slot.index: slot for heap in (self._by_load, self._quiet, self._busy) for slot in self._least(heap, max_open, count)
        }
        for digest, _ in reversed(prefixes):
            known = self._holders.get(digest, {})
            if len(known) > MANY_HOLDERS:
                break  # nearly everybody has it: so have those found above
            holders = [slot for slot in known.values() if slot.num_open < max_open and not slot.lost]
            if holders:
                found.update((slot.index, slot) for slot in heapq.nsmallest(count, holders, key=lambda s: s.num_open))
                break
        return list(found.values())

    def give(
        self, slot: Slot, call: CallRecord, size: Size, prefixes: Sequence[tuple[str, float]], pace: Pace | None = None
    ) -> None:
        """A call starts on an engine."""
        for digest in slot.give(call, size, prefixes, pace):
            if (holders := self._holders.get(digest)) is not None:
                holders.pop(slot.index, None)
                if not holders:
                    del self._holders[digest]
        for digest, _ in prefixes:
            self._holders.setdefault(digest, {})[slot.index] = slot
        self.num_open += 1
        self._changed(slot)

    def take_back(self, slot: Slot, call_id: int) -> None:
        """A call on an engine has ended."""
        slot.take_back(call_id)
        self.num_open -= 1
        self._changed(slot)

    def lose(self, lost: Collection[int]) -> None:
        """These engines, by index, and no others, are not there now. Where that leaves none all count as there: what is placed
        on one must be told why it cannot run."""
        for slot in self.slots:
            was_lost, slot.lost = slot.lost, slot.index in lost and len(lost) < len(self.slots)
            if was_lost and not slot.lost:
                self._changed(slot)

    def forget_prefixes(self) -> None:
        """The engines' caches were cleared."""
        self._holders.clear()
        for slot in self.slots:
            slot.forget_prefixes()

    def _changed(self, slot: Slot) -> None:
        if len(self.slots) <= FEW:
            return
        self._version[slot.index] += 1
        entry = slot.load_s(), self._version[slot.index], slot.index
        for heap in (self._by_load, self._busy if slot.num_hurried else self._quiet):
            heapq.heappush(heap, entry)
            if len(heap) > MOST_ENTRIES * len(self.slots):  # most of them out of date
                heap[:] = [kept for kept in heap if kept[1] == self._version[kept[2]]]
                heapq.heapify(heap)

    def _least(self, heap: list[tuple[float, int, int]], max_open: int, count: int) -> list[Slot]:
        """The least loaded engines with room. Entries that are out of date are dropped on the way, and so are engines without
        room: they come back when a call on them ends."""
        kept = []
        found: list[Slot] = []
        while heap and len(found) < count:
            entry = heapq.heappop(heap)
            slot = self.slots[entry[2]]
            if entry[1] == self._version[slot.index] and not slot.lost and slot.num_open < max_open:
                kept.append(entry)
                found.append(slot)
        for entry in kept:
            heapq.heappush(heap, entry)
        return found
