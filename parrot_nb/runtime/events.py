"""The event log: every state change of a session, in order, with a monotonic time. Views, timelines and benchmarks read it.

Append-only and written by the runtime thread alone; any thread may read it. All times are `time.monotonic()` seconds.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from parrot_nb.engine.loads import LoadProgress
from parrot_nb.engine.protocol import StepRecord
from parrot_nb.language.nodes import CallKind, Objective, State, TaskGroup, Usage, VariableNode

Phase = Literal["waiting", "queued", "prefill", "streaming", "decode", "reused", "native", "ended"]


@dataclass(frozen=True, slots=True)
class VariableAdded:
    """A variable entered the graph; `producer_id` is None for a value from outside, whose text is known at once.
    `max_tokens` is the most that a model may write, None where none writes."""

    time_s: float
    variable_id: int
    name: str
    producer_id: int | None
    max_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class CallAdded:
    """A call entered the graph. `inputs` pairs each parameter with its variable; `cell` numbers the cell that made it."""

    time_s: float
    call_id: int
    function: str
    kind: CallKind
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[int, ...]
    cell: int | None


@dataclass(frozen=True, slots=True)
class CallChanged:
    """A call's state or phase changed; `error` is its message when it failed, `engine` where it runs."""

    time_s: float
    call_id: int
    state: State
    phase: Phase
    engine: str | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class ObjectiveDeduced:
    """A call got its objective, or a stricter one."""

    time_s: float
    call_id: int
    objective: Objective


@dataclass(frozen=True, slots=True)
class GroupDeduced:
    """Parallel calls of one stage are wanted together; a later event for a call replaces an earlier one."""

    time_s: float
    group: TaskGroup


@dataclass(frozen=True, slots=True)
class TextAppended:
    """A variable's text grew."""

    time_s: float
    variable_id: int
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class ThinkingAppended:
    """What a model thinks before a variable's text grew; it is no part of the text."""

    time_s: float
    variable_id: int
    text: str
    num_tokens: int


@dataclass(frozen=True, slots=True)
class VariableChanged:
    """A variable's state changed; `text` is its whole text when done, `note` what must be said beside it,
    `decoded_tokens` counts those of that text,
    `from_memo` says that it was taken from an equal generation, `usage` what computing it took, once done."""

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

    @classmethod
    def of(cls, node: VariableNode) -> VariableChanged:
        """What is to be told of a variable now."""
        return cls(
            now_s(),
            node.id,
            node.state,
            text=None if node.state != "done" else node.text if node.spans is not None else repr(node.value),
            finish=node.finish,
            decoded_tokens=node.usage.decoded_tokens - node.usage.thinking_tokens,
            error=None if node.error is None else str(node.error),
            note=node.note,
            from_memo=node.usage.from_memo,
            usage=node.usage if node.state == "done" and node.finish is not None else None,
        )


@dataclass(frozen=True, slots=True)
class StepRan:
    """An engine ran one forward pass."""

    time_s: float
    engine: str
    step: StepRecord


@dataclass(frozen=True, slots=True)
class ModelChanged:
    """A model is loading, ready, failed or closed; `detail` says more, `note` what must be said beside its output."""

    time_s: float
    model: str
    state: Literal["loading", "ready", "failed", "closed"]
    detail: str = ""
    note: str | None = None


@dataclass(frozen=True, slots=True)
class ModelLoading:
    """A model that is loading has come this far."""

    time_s: float
    model: str
    progress: LoadProgress


@dataclass(frozen=True, slots=True)
class SessionReset:
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
    """What happened, oldest first. `since(n)` is the whole reading interface: keep `n`, ask again."""

    def __init__(self) -> None:
        self._events: list[Event] = []
        self._listeners: list[Callable[[], None]] = []

    def __len__(self) -> int:
        return len(self._events)

    def append(self, event: Event) -> None:
        """Record an event (runtime thread only)."""
        self._events.append(event)
        for listener in tuple(self._listeners):
            listener()

    def since(self, index: int) -> list[Event]:
        """The events from number `index` on."""
        return self._events[index:]

    def subscribe(self, listener: Callable[[], None]) -> Callable[[], None]:
        """Have `listener` called after every event, on the runtime thread; it may only hand a message over. Returns a
        function that ends the subscription."""
        self._listeners.append(listener)

        def unsubscribe() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return unsubscribe


def now_s() -> float:
    """The log's clock."""
    return time.monotonic()
