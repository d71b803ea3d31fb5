"""How ready calls are ordered and which engine they go to: small classes, chosen by name.

`parrot` is what the project is about. The others are what it is measured against: what serving systems do that see requests
and no applications.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from parrot_nb.engine.protocol import Kind, Pace, Priority
from parrot_nb.errors import SessionError
from parrot_nb.graph import Applications
from parrot_nb.graph.records import CallRecord
from parrot_nb.language.nodes import LATENCY
from parrot_nb.runtime.costs import Size
from parrot_nb.runtime.fleet import Slot, is_hurried

MAX_OPEN = 256  # contexts of an engine: beyond, a larger batch no longer fills it better and only holds more pages
LATENCY_OPEN = 4  # what an engine that serves for latency takes at once, in the paper's prototype
COMPANY_PATIENCE = 1.25  # so much longer may what is hurried take for being together with its like
GROUP_PATIENCE = 1.25  # a task group leaves its engine for one that would be done so much sooner
SHARERS = 56  # contexts in a step by which it is judged how much sharing steps saves

Prefixes = Sequence[tuple[str, float]]


class Policy(Protocol):
    """Lives on the runtime loop.

    Attributes:
        name: how a user asks for it.
        max_open: most calls on one engine at once.
    """

    name: str
    max_open: int

    def priority(self, call: CallRecord) -> Priority:
        """Return the urgency of a ready call, among those that wait and inside its engine; smaller is more urgent."""

    def place(self, call: CallRecord, size: Size, prefixes: Prefixes, slots: Sequence[Slot]) -> tuple[Slot, str]:
        """Choose among some engines with room, and say why, in words; there is at least one."""

    def pace(self, call: CallRecord, slot: Slot) -> Pace | None:
        """Return how fast a call wants its tokens there; None where others need not give way to it."""

    def ended(self, call: CallRecord) -> None:
        """A call needs nothing any more."""


class Fifo:
    """Policy that starts calls in order of arrival, on the engine with the fewest calls."""

    name = "fifo"
    max_open = MAX_OPEN

    def __init__(self, applications: Applications) -> None:
        self._applications = applications

    def priority(self, call: CallRecord) -> Priority:
        """See `Policy.priority`."""
        return Priority(Kind.THROUGHPUT, (call.id,))

    def place(self, call: CallRecord, size: Size, prefixes: Prefixes, slots: Sequence[Slot]) -> tuple[Slot, str]:
        """See `Policy.place`."""
        return min(slots, key=lambda slot: (slot.num_open, slot.index)), "the fewest calls were running there"

    def pace(self, call: CallRecord, slot: Slot) -> Pace | None:
        """See `Policy.pace`: here nobody gives way."""
        return None

    def ended(self, call: CallRecord) -> None:
        """See `Policy.ended`."""


class AppFifo(Fifo):
    """Applications in order of arrival; inside one, the calls nearest to what was read first (the paper's prototype)."""

    name = "app-fifo"

    def priority(self, call: CallRecord) -> Priority:
        """See `Policy.priority`."""
        tail_ms = 0 if call.path is None else round(call.path.tail_s * 1000)
        return Priority(Kind.THROUGHPUT, (self._applications.of(call), tail_ms, call.id))


class LatencyCentric(Fifo):
    """Few calls on each engine, so that each is fast; whatever they are for."""

    name = "latency-centric"
    max_open = LATENCY_OPEN


class ThroughputCentric(Fifo):
    """Policy that puts as many calls on each engine as there are, so that all together are fast; whoever waits for one."""

    name = "throughput-centric"
    max_open = 99_999


class Parrot:
    """Policy by what each call is for.

    Order: calls with a target by the time at which they must start; then what readers wait for, then the rest: each the
    application first that has least left to do, so that it finishes and frees its pages, and in it the call with least slack.

    Engine (the paper's Algorithm 1, with predicted seconds in place of its order of preference): where the call would be
    done soonest, counting what it must still prefill there, plus the delay that it is to those who are hurried: calls that
    a reader waits for one by one. These keep together while that costs them little, so that the other engines are free for large
    batches. A task group stays on the engine of its first call while that is nearly as good as any.
    """

    name = "parrot"
    max_open = MAX_OPEN

    def __init__(self, applications: Applications) -> None:
        self._applications = applications
        self._group_slots: dict[int, tuple[Slot, set[int]]] = {}  # of running task groups: the engine, and its calls there

    def priority(self, call: CallRecord) -> Priority:
        """See `Policy.priority`."""
        path, kind = call.path, Kind.LATENCY if call.objective is LATENCY else Kind.THROUGHPUT
        if path is None:
            return Priority(kind, (0, 0, call.id))
        start_by_ms = round(path.start_by_s * 1000)
        if path.due or call.target is not None:
            return Priority(Kind.TARGET, (0, start_by_ms, call.id))
        remaining_ms = round(self._applications.remaining_s(call) * 1000)
        return Priority(kind, (remaining_ms, start_by_ms, call.id))

    def place(self, call: CallRecord, size: Size, prefixes: Prefixes, slots: Sequence[Slot]) -> tuple[Slot, str]:
        """See `Policy.place`."""
        if len(slots) == 1:
            return slots[0], "no other had room"
        hurried = is_hurried(call)
        scored = {slot: _seconds(size, prefixes, slot, hurried=hurried) for slot in slots}
        if hurried and (company := [slot for slot in slots if slot.num_hurried and _is_roomy(slot)]):
            best = min(company, key=lambda slot: (scored[slot], slot.index))
            if scored[best] <= COMPANY_PATIENCE * min(scored.values()):
                return best, "others that readers wait for one by one are there too"
        best = min(slots, key=lambda slot: (scored[slot], slot.index))
        cached = best.cached_tokens(prefixes)
        why = f"about {cached:.0f} tokens of its prompt were there" if cached else "it would be done soonest there"
        if call.group is None:
            return best, why
        home, members = self._group_slots.get(call.group.id, (best, set()))
        if home is not best and (home not in scored or scored[home] > GROUP_PATIENCE * scored[best]):
            return best, "where its task group is it would have waited"
        members.add(call.id)
        self._group_slots[call.group.id] = home, members
        return home, why if home is best and len(members) == 1 else "its task group is there"

    def pace(self, call: CallRecord, slot: Slot) -> Pace | None:
        """See `Policy.pace`: as it was asked for; else what is hurried shares its steps in so far as that saves time."""
        if call.target is not None and call.target.tpot_s is not None:
            return Pace(call.target.tpot_s)
        if not is_hurried(call):
            return None
        # Others who are in its steps save the base time of steps of their own. The larger a share of a step that is, the more
        # they may add: nearly as much again where rows cost little, as on a GPU; much less where each takes its time.
        speed = slot.speed()
        return Pace(speed.step_s(1) + speed.base_s**2 / max(speed.step_s(SHARERS), 1e-9), firm=False)

    def ended(self, call: CallRecord) -> None:
        """See `Policy.ended`."""
        if call.group is not None and (known := self._group_slots.get(call.group.id)) is not None:
            known[1].discard(call.id)
            if not known[1]:
                del self._group_slots[call.group.id]


def _seconds(size: Size, prefixes: Prefixes, slot: Slot, *, hurried: bool) -> float:
    """Return the time until a call would be done on an engine, and the delay that it would be to those there who are hurried."""
    speed, room = slot.speed(), slot.room_for_others()
    prefill_s = max(0.0, size.prompt_tokens - slot.cached_tokens(prefixes)) * speed.prefill_s
    before_s = 0.0 if hurried else slot.prefill_tokens * speed.prefill_s  # who is hurried goes before the others' prompts
    own_s = (before_s + prefill_s) / room + size.output_tokens * speed.step_s(slot.num_open + 1)
    delay_s = size.output_tokens * speed.row_s + (prefill_s if room == 1.0 else 0.0)  # else its prefill takes what is left
    return own_s + slot.num_hurried * delay_s


def _is_roomy(slot: Slot) -> bool:
    """Whether one more who is hurried makes the steps of an engine hardly longer."""
    speed = slot.speed()
    return speed.step_s(slot.num_hurried + 1) <= COMPANY_PATIENCE * speed.step_s(1)


POLICIES: dict[str, type[Fifo | Parrot]] = {
    policy.name: policy for policy in (Parrot, Fifo, AppFifo, LatencyCentric, ThroughputCentric)
}


def check_policy(name: str) -> str:
    """Return the name of a policy.

    Raises:
        SessionError: there is none of that name.
    """
    if name not in POLICIES:
        raise SessionError(f"There is no scheduling policy '{name}': choose from {', '.join(POLICIES)}.")
    return name


def make_policy(name: str, applications: Applications) -> Policy:
    """The policy of that name.

    Raises:
        SessionError: there is none.
    """
    return POLICIES[check_policy(name)](applications)
