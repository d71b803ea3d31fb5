"""The event log: every state change of a session, in order, with a monotonic time. Views, timelines and benchmarks read it.

Events are made by the runtime and kept on the notebook's side; what crosses the wire is what a trace records. All times are
`time.monotonic()` seconds, which all processes of a machine share.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import msgspec

from parrot_nb.engine.loads import LoadProgress
from parrot_nb.engine.protocol import StepRecord
from parrot_nb.language.nodes import CallKind, Objective, State, TaskGroup, Usage
from parrot_nb.language.notify import notified

Phase = Literal["waiting", "queued", "prefill", "streaming", "decode", "reused", "native", "ended"]


class Said(msgspec.Struct, frozen=True, tag=True, tag_field="event", omit_defaults=True, forbid_unknown_fields=True, gc=False):
    """Data that the runtime tells the notebook. Data is no part of a cycle, so that Python's collector need not look through what the
    log keeps."""


class VariableAdded(Said, frozen=True):
    """A variable entered the graph; `producer_id` is None for a value from outside, whose text is known at once.
    `max_tokens` is the most that a model may write, None where none writes."""

    time_s: float
    variable_id: int
    name: str
    producer_id: int | None
    max_tokens: int | None = None


class CallAdded(Said, frozen=True):
    """A call entered the graph. `inputs` pairs each parameter with its variable; `cell` numbers the cell that made it."""

    time_s: float
    call_id: int
    function: str
    kind: CallKind
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[int, ...]
    cell: int | None


class CallChanged(Said, frozen=True):
    """A call's state or phase changed; `error` is its message when it failed, `engine` where it runs."""

    time_s: float
    call_id: int
    state: State
    phase: Phase
    engine: str | None = None
    error: str | None = None


class ObjectiveDeduced(Said, frozen=True):
    """A call got its objective, or a stricter one."""

    time_s: float
    call_id: int
    objective: Objective


class GroupDeduced(Said, frozen=True):
    """Parallel calls of one stage are wanted together; a later event for a call replaces an earlier one."""

    time_s: float
    group: TaskGroup


class TextAppended(Said, frozen=True):
    """A variable's text grew."""

    time_s: float
    variable_id: int
    text: str
    num_tokens: int


class ThinkingAppended(Said, frozen=True):
    """Piece of a model's thinking before a variable's text grew; it is no part of the text."""

    time_s: float
    variable_id: int
    text: str
    num_tokens: int


class VariableChanged(Said, frozen=True):
    """A variable's state changed; `text` is its whole text when done, `note` what must be said beside it,
    `decoded_tokens` counts those of that text,
    `from_memo` says that it was taken from an equal generation, `usage` what computing it took, once final, refused attempts included, `scores` the choices that it was chosen from with their
    probabilities, `like` the variable whose value it has, where that was the first of several to come."""

    time_s: float
    variable_id: int
    state: State
    text: str | None = None
    finish: str | None = None
    decoded_tokens: int = 0
    error: str | None = None
    note: str | None = None
    from_memo: bool = False
    usage: Usage | None = None
    scores: tuple[tuple[str, float], ...] | None = None
    like: int | None = None


class StepRan(Said, frozen=True):
    """An engine ran one forward pass."""

    time_s: float
    engine: str
    step: StepRecord


class ModelChanged(Said, frozen=True):
    """A model is loading, ready, failed or closed; `detail` says more, `note` what must be said beside its output."""

    time_s: float
    model: str
    state: Literal["loading", "ready", "failed", "closed"]
    detail: str = ""
    note: str | None = None


class ModelLoading(Said, frozen=True):
    """A model that is loading has come this far."""

    time_s: float
    model: str
    progress: LoadProgress


class SessionReset(Said, frozen=True):
    """Everything before this is forgotten."""

    time_s: float


Event = (
    VariableAdded
    | CallAdded
    | CallChanged
    | ObjectiveDeduced
    | GroupDeduced
    | TextAppended
    | ThinkingAppended
    | VariableChanged
    | StepRan
    | ModelChanged
    | ModelLoading
    | SessionReset
)


class EventLog:
    """Log of events, oldest first. `since(n)` is the whole reading interface for one look; who looks again and again keeps the
    number that `news` gives.

    Args:
        capacity: events to keep; of more, the oldest fourth is let go. None keeps all.
    """

    def __init__(self, capacity: int | None = None) -> None:
        self._capacity = capacity
        self._events: list[Event] = []
        self._first = 0
        self._listeners: list[Callable[[], None]] = []

    def __len__(self) -> int:
        """Return the number of events there have been."""
        return self._first + len(self._events)

    @property
    def first(self) -> int:
        """Number of the oldest event that is kept."""
        return self._first

    def append(self, event: Event) -> None:
        """Record an event (one thread only)."""
        self._events.append(event)
        if self._capacity is not None and len(self._events) > self._capacity:
            self._drop(self._capacity // 4)
        for listener in tuple(self._listeners):
            notified(listener)

    def forget(self, keep: int) -> None:
        """Let go of all but the last events; numbers go on."""
        self._drop(max(0, len(self._events) - keep))

    def _drop(self, count: int) -> None:
        # One assignment of both, for whoever reads meanwhile: `news` looks at the number before and after.
        self._events, self._first = self._events[count:], self._first + count

    def since(self, index: int) -> list[Event]:
        """The events from number `index` on, as far as they are kept."""
        return self.news(index)[0]

    def news(self, index: int) -> tuple[list[Event], int]:
        """The events from number `index` on, as far as they are kept, and the number to ask for next."""
        while True:
            first, events = self._first, self._events
            found = events[max(0, index - first) :]
            if first == self._first and events is self._events:
                return found, max(index, first) + len(found)

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after every event, on the thread that records it; it may only hand a message over. Returns a
        function that ends the subscription."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe


now_s = time.monotonic  # the log's clock; as a function of ours it would be called through another, several times a call
