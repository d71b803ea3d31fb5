"""State of a view, folded from the event log: a pure function of the events, linear in their number."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from typing import Literal

from parrot_nb.engine.loads import LoadProgress
from parrot_nb.language.nodes import CallKind, Objective, State, TaskGroup
from parrot_nb.runtime import events
from parrot_nb.runtime.events import Event, Phase

Shown = State | Literal["not run"]  # what a view says of a call: one that failed because what it reads had failed did not run
ENDED: frozenset[State] = frozenset({"done", "failed", "cancelled"})
WORKING: frozenset[Phase] = frozenset({"prefill", "streaming", "decode", "native"})
KEPT_CALLS = 4_000  # of a session's, some 7 MB: more are not read one by one
TAIL_CHARS = 400  # of a text that is being written: what a card can show, and a little more


@dataclass(frozen=True, slots=True)
class VariableView:
    """A variable as shown. `text` is its beginning when done, its end while it is written; `like` is the one of several whose value
    it has."""

    id: int
    name: str
    producer: int | None
    state: State = "pending"
    text: str = ""
    num_chars: int = 0
    num_tokens: int = 0
    num_thinking_tokens: int = 0
    finish: str | None = None
    error: str | None = None
    note: str | None = None
    from_memo: bool = False
    max_tokens: int | None = None
    like: int | None = None

    @property
    def shown(self) -> str:
        """The text, or in words that the model still thinks."""
        thinks = self.state == "running" and not self.text and self.num_thinking_tokens
        return f"thinking, {self.num_thinking_tokens} tokens so far" if thinks else self.text


@dataclass(frozen=True, slots=True)
class CallView:
    """A call as shown. `phases` are those it went through, each with the time at which it began."""

    id: int
    function: str
    kind: CallKind
    inputs: tuple[tuple[str, int], ...]
    outputs: tuple[int, ...]
    cell: int | None
    state: State = "pending"
    phase: Phase = "waiting"
    objective: Objective | None = None
    error: str | None = None
    group: TaskGroup | None = None
    phases: tuple[tuple[Phase, float], ...] = ()

    @property
    def ran(self) -> bool:
        """Whether something worked for it, or it failed or was cancelled; joins and what was reused did not run."""
        if self.kind in ("join", "first"):
            return False
        phases = {phase for phase, _ in self.phases}
        reused = "reused" in phases and "decode" not in phases  # its prompt was begun before that was known
        return self.state in ("failed", "cancelled") or (not reused and bool(phases & WORKING))

    @property
    def first_s(self) -> float:
        """Time at which the call's first work began, on the log's clock."""
        return next((begun_s for phase, begun_s in self.phases if phase in WORKING), self.last_s)

    @property
    def last_s(self) -> float:
        """Time at which the call's last phase began: for a call that has ended, its end."""
        return self.phases[-1][1] if self.phases else 0.0


@dataclass
class GraphState:
    """Calls and variables, in order of creation.

    Attributes:
        models: state of each model: "loading", "ready", "failed" or "closed".
        progress: how far each model that is loading has come, as far as it told.
        num_events: number of the next event in the log.
        structure: changes whenever there is another call or task group, or one less.
        num_earlier: calls that have ended and are not in it any more.
    """

    calls: dict[int, CallView] = field(default_factory=dict)
    variables: dict[int, VariableView] = field(default_factory=dict)
    models: dict[str, str] = field(default_factory=dict)
    num_events: int = 0
    structure: int = 0
    num_earlier: int = 0
    progress: dict[str, LoadProgress] = field(default_factory=dict)

    def add(self, news: Iterable[Event]) -> None:
        """Take in the events that come next."""
        for event in news:
            self.num_events += 1
            self._add(event)

    def let_go(self, keep: int = KEPT_CALLS) -> None:
        """Let go of the oldest calls that have ended, of those that failed last, if there are a quarter more than are to be kept; and
        of values that no other call reads or writes."""
        surplus = len(self.calls) - keep
        if surplus <= keep // 4:
            return
        done = [call.id for call in self.calls.values() if call.state == "done"]
        others = (
            call.id for call in self.calls.values() if call.state in ENDED and call.state != "done"
        )  # people look for these
        for call_id in list(islice(chain(done, others), surplus)):
            del self.calls[call_id]
            self.num_earlier += 1
        kept = {v for call in self.calls.values() for v in (*call.outputs, *(variable for _, variable in call.inputs))}
        newest = max(self.variables, default=0)  # an input that was just made has no reader yet
        self.variables = {v: view for v, view in self.variables.items() if v in kept or v > newest - keep}
        self.structure += 1

    def _add(self, event: Event) -> None:
        match event:
            case events.VariableAdded():
                self.variables[event.variable_id] = VariableView(
                    event.variable_id, event.name, event.producer_id, max_tokens=event.max_tokens
                )
                self.structure += 1
            case events.CallAdded():
                self.calls[event.call_id] = CallView(
                    event.call_id, event.function, event.kind, event.inputs, event.outputs, event.cell
                )
                self.structure += 1
            case events.CallChanged() if event.call_id in self.calls:
                call = self.calls[event.call_id]
                phases = (*call.phases, (event.phase, event.time_s))
                self.calls[event.call_id] = replace(call, state=event.state, phase=event.phase, error=event.error, phases=phases)
            case events.GroupDeduced():
                for call_id in event.group.call_ids:
                    call_view = self.calls.get(call_id)
                    if call_view is not None and call_view.group != event.group:  # every read finds the groups again
                        self.calls[call_id] = replace(call_view, group=event.group)
                        self.structure += 1
            case events.ObjectiveDeduced() if event.call_id in self.calls:
                self.calls[event.call_id] = replace(self.calls[event.call_id], objective=event.objective)
            case events.TextAppended() if event.variable_id in self.variables:
                self._append(self.variables[event.variable_id], event)
            case events.ThinkingAppended() if event.variable_id in self.variables:
                thinks = self.variables[event.variable_id]
                count = thinks.num_thinking_tokens + event.num_tokens
                self.variables[thinks.id] = replace(thinks, num_thinking_tokens=count)
            case events.VariableChanged() if event.variable_id in self.variables:
                self._change(self.variables[event.variable_id], event)
            case events.ModelChanged():
                self.models[event.model] = event.state
                self.progress.pop(event.model, None)
            case events.ModelLoading():
                self.progress[event.model] = event.progress
            case events.SessionReset():
                self.calls.clear()
                self.variables.clear()
                self.num_earlier = 0
                self.structure += 1
            case _:
                pass  # steps are the timeline's; what a reset forgot is nobody's

    def _append(self, variable: VariableView, event: events.TextAppended) -> None:
        self.variables[variable.id] = replace(
            variable,
            text=(variable.text + event.text)[-TAIL_CHARS:],
            num_chars=variable.num_chars + len(event.text),
            num_tokens=variable.num_tokens + event.num_tokens,
        )

    def _change(self, variable: VariableView, event: events.VariableChanged) -> None:
        changed = replace(
            variable,
            state=event.state,
            finish=event.finish,
            error=event.error,
            note=event.note,
            from_memo=event.from_memo,
            like=event.like,
        )
        if event.text is not None:
            changed = replace(
                changed,
                text=event.text[:TAIL_CHARS],
                num_chars=len(event.text),
                num_tokens=event.decoded_tokens or variable.num_tokens,
            )
        self.variables[variable.id] = changed

    def winner(self, call: CallView) -> int | None:
        """The input whose value a `P.first` has; None for another call, and before one has won."""
        views = (self.variables.get(output) for output in call.outputs if call.kind == "first")
        return next((view.like for view in views if view is not None), None)

    def runs_since(self, begun_s: float) -> bool:
        """Whether a call runs or ran since then, on the log's clock: a model or a function worked for it, or it failed or was
        cancelled."""
        return any(call.ran and (call.state == "running" or call.last_s >= begun_s) for call in self.calls.values())

    @property
    def seconds(self) -> float:
        """Seconds from when the first of its calls ran until the last one ended; 0 where none ran."""
        ran = [call for call in self.calls.values() if call.ran]
        return max((call.last_s for call in ran), default=0.0) - min((call.first_s for call in ran), default=0.0)

    def part(self, call_ids: Iterable[int]) -> GraphState:
        """Return these calls and all they depend on, as a state of its own."""
        return self.of(*self.closure(call_ids))

    def closure(self, call_ids: Iterable[int]) -> tuple[list[int], list[int]]:
        """The ids of these calls and all they depend on, and of the variables they read and write; in order of creation."""
        wanted: set[int] = set()
        pending = [call_id for call_id in call_ids if call_id in self.calls]
        while pending:
            call_id = pending.pop()
            if call_id in wanted:
                continue
            wanted.add(call_id)
            pending += [source for source in self.sources(self.calls[call_id]) if source not in wanted]
        calls = [call for call_id, call in self.calls.items() if call_id in wanted]
        shown = {v for call in calls for v in (*call.outputs, *(variable for _, variable in call.inputs))}
        return [call.id for call in calls], [v for v in self.variables if v in shown]

    def of(self, call_ids: Iterable[int], variable_ids: Iterable[int]) -> GraphState:
        """Return these calls and variables, as a state of its own."""
        calls = {call_id: self.calls[call_id] for call_id in call_ids}
        variables = {v: self.variables[v] for v in variable_ids}
        return GraphState(calls, variables, dict(self.models), self.num_events, self.structure)

    def of_cell(self, cell: int | None) -> GraphState:
        """The calls that a cell made, and all they depend on."""
        return self.part(call.id for call in self.calls.values() if call.cell == cell)

    def sources(self, call: CallView) -> Iterator[int]:
        """The calls that a call reads from."""
        for _, variable in call.inputs:
            producer = self.variables[variable].producer if variable in self.variables else None
            if producer is not None and producer in self.calls:
                yield producer

    def shown(self, call: CallView) -> Shown:
        """The state of a call as a view says it."""
        failed = call.state == "failed" and call.kind != "first"
        read = (self.variables[variable].state for _, variable in call.inputs if variable in self.variables)
        return "not run" if failed and any(state in ("failed", "cancelled") for state in read) else call.state

    def distinction(self, call: CallView) -> str:
        """The input by which a call differs from others of its function, with its name; empty where there is none."""
        if call.kind in ("join", "first"):
            return ""
        peer = next((other for other in self.calls.values() if other.function == call.function and other.id != call.id), None)
        if peer is None:
            return ""
        its = dict(peer.inputs)
        differs = [own for own in call.inputs if its.get(own[0]) != own[1] and own[1] in self.variables]
        given = next((own for own in differs if self.variables[own[1]].producer is None), differs[0] if differs else None)
        text = "" if given is None else self.variables[given[1]].text
        return f"{given[0]}: {text}" if given is not None and text else ""

    def causes(self, call: CallView) -> list[CallView]:
        """The calls that failed or were cancelled, and because of which this one did not run; in order of creation."""
        found: dict[int, CallView] = {}
        seen, pending = set[int](), [call]
        while pending:
            here = pending.pop()
            for source in self.sources(here):
                if source in seen or (earlier := self.calls[source]).state not in ("failed", "cancelled"):
                    continue
                seen.add(source)
                if self.shown(earlier) == "not run":
                    pending.append(earlier)
                else:
                    found[source] = earlier
        return [found[key] for key in sorted(found)]

    @property
    def notes(self) -> list[str]:
        """Notes to be shown beside the text: from the models that wrote it, each once, and how many calls are left out."""
        notes = dict.fromkeys(view.note for view in self.variables.values() if view.note is not None)
        return [*notes, *([f"{self.num_earlier:,} earlier calls are not shown"] if self.num_earlier else [])]

    @property
    def loading(self) -> bool:
        """True while calls wait and a model is being loaded. A settled graph says nothing of it: it is drawn no more, and would
        say so for good."""
        return not self.settled and "loading" in self.models.values()

    @property
    def settled(self) -> bool:
        """Whether nothing in it will change by itself."""
        return all(call.state in ENDED for call in self.calls.values())
