"""How ready calls are ordered and which engine they go to: small classes, chosen by name.

`parrot` is what the project is about. The others are what it is measured against: what serving systems do that see requests
and no applications.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from parrot_nb.engine.protocol import Priority
from parrot_nb.errors import SessionError
from parrot_nb.graph import Applications
from parrot_nb.language.nodes import LATENCY, Call
from parrot_nb.runtime.costs import Size
from parrot_nb.runtime.fleet import Slot

MAX_OPEN = 256  # contexts of an engine: beyond, a larger batch no longer fills it better and only holds more pages
LATENCY_OPEN = 4  # what an engine that serves for latency takes at once, in the paper's prototype
GROUP_PATIENCE = 1.25  # a task group leaves its engine for one that would be done so much sooner

Prefixes = Sequence[tuple[str, float]]


class Policy(Protocol):
    """Lives on the runtime loop.

    Attributes:
        name: how a user asks for it.
        max_open: most calls on one engine at once.
    """

    name: str
    max_open: int

    def priority(self, call: Call) -> Priority:
        """How urgent a ready call is, among those that wait and inside its engine; smaller is more urgent."""

    def place(self, call: Call, size: Size, prefixes: Prefixes, slots: Sequence[Slot]) -> Slot:
        """Which of some engines with room it goes to; there is at least one."""

    def ended(self, call: Call) -> None:
        """A call needs nothing any more."""


class Fifo:
    """In order of arrival, to the engine with the fewest calls."""

    name = "fifo"
    max_open = MAX_OPEN

    def __init__(self, applications: Applications) -> None:
        self._applications = applications

    def priority(self, call: Call) -> Priority:
        """See `Policy.priority`."""
        return (0, call.id)

    def place(self, call: Call, size: Size, prefixes: Prefixes, slots: Sequence[Slot]) -> Slot:
        """See `Policy.place`."""
        return min(slots, key=lambda slot: (slot.num_open, slot.index))

    def ended(self, call: Call) -> None:
        """See `Policy.ended`."""


class AppFifo(Fifo):
    """Applications in order of arrival; inside one, the calls nearest to what was read first (the paper's prototype)."""

    name = "app-fifo"

    def priority(self, call: Call) -> Priority:
        """See `Policy.priority`."""
        tail_ms = 0 if call.path is None else round(call.path.tail_s * 1000)
        return (0, self._applications.of(call), tail_ms, call.id)


class LatencyCentric(Fifo):
    """Few calls on each engine, so that each is fast; whatever they are for."""

    name = "latency-centric"
    max_open = LATENCY_OPEN


class ThroughputCentric(Fifo):
    """As many calls on each engine as there are, so that all together are fast; whoever waits for one."""

    name = "throughput-centric"
    max_open = 99_999


class Parrot:
    """By what each call is for.

    Order: calls with a target by the time at which they must start; then what readers wait for, then the rest: each the
    application first that has least left to do, so that it finishes and frees its pages, and in it the call with least slack.

    Engine (the paper's Algorithm 1, with predicted seconds in place of its order of preference): where the call would be
    done soonest, counting what it must still prefill there, plus the delay that it is to calls that readers wait for.
    A task group stays on the engine of its first call while that is nearly as good as any.
    """

    name = "parrot"
    max_open = MAX_OPEN

    def __init__(self, applications: Applications) -> None:
        self._applications = applications
        self._group_slots: dict[int, tuple[Slot, set[int]]] = {}  # of running task groups: the engine, and its calls there

    def priority(self, call: Call) -> Priority:
        """See `Policy.priority`."""
        path = call.path
        if path is None:
            return (2 if call.objective is not LATENCY else 1, 0, 0, call.id)
        start_by_ms = round(path.start_by_s * 1000)
        if path.due or call.target is not None:
            return (0, 0, start_by_ms, call.id)
        remaining_ms = round(self._applications.remaining_s(call) * 1000)
        return (1 if call.objective is LATENCY else 2, remaining_ms, start_by_ms, call.id)

    def place(self, call: Call, size: Size, prefixes: Prefixes, slots: Sequence[Slot]) -> Slot:
        """See `Policy.place`."""
        if len(slots) == 1:
            return slots[0]
        scored = {slot: _seconds(size, prefixes, slot) for slot in slots}
        best = min(slots, key=lambda slot: (scored[slot], slot.index))
        if call.group is None:
            return best
        home, members = self._group_slots.get(call.group.id, (best, set()))
        if home is not best and (home not in scored or scored[home] > GROUP_PATIENCE * scored[best]):
            return best  # it would not have room, or wait long: this one goes elsewhere
        members.add(call.id)
        self._group_slots[call.group.id] = home, members
        return home

    def ended(self, call: Call) -> None:
        """See `Policy.ended`."""
        if call.group is not None and (known := self._group_slots.get(call.group.id)) is not None:
            known[1].discard(call.id)
            if not known[1]:
                del self._group_slots[call.group.id]


def _seconds(size: Size, prefixes: Prefixes, slot: Slot) -> float:
    """Until a call would be done on an engine, and what it would cost those there whom readers wait for."""
    speed = slot.speed()
    prefill_s = max(0.0, size.prompt_tokens - slot.cached_tokens(prefixes)) * speed.prefill_s
    own_s = slot.prefill_tokens * speed.prefill_s + prefill_s + size.output_tokens * speed.step_s(slot.num_open + 1)
    return own_s + slot.num_latency * (prefill_s + size.output_tokens * speed.row_s)


POLICIES: dict[str, type[Fifo | Parrot]] = {
    policy.name: policy for policy in (Parrot, Fifo, AppFifo, LatencyCentric, ThroughputCentric)
}


def make_policy(name: str, applications: Applications) -> Policy:
    """The policy of that name.

    Raises:
        SessionError: there is none.
    """
    if name not in POLICIES:
        raise SessionError(f"There is no scheduling policy '{name}': choose from {', '.join(POLICIES)}.")
    return POLICIES[name](applications)
