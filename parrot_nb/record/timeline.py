"""Who did what when: spans of calls and steps of engines, folded from the event log alone.

A call's phases are in the log as they begin. What a phase was, and what a call waited for, often shows only later: from
when its inputs were there, from how long its generation says that it was queued, or from what came of it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Literal, get_args

from parrot_nb.engine.protocol import StepRecord
from parrot_nb.language.nodes import CallKind, State, Usage
from parrot_nb.runtime import events
from parrot_nb.runtime.events import Event, Phase

SpanKind = Literal["inputs", "unread", "model", "memo", "queued", "prefill", "streaming", "decode", "reused", "native"]
SPAN_KINDS: tuple[SpanKind, ...] = get_args(SpanKind)
SPAN_WORDS: dict[SpanKind, str] = {
    "inputs": "waiting for inputs",
    "unread": "waiting to be read",
    "model": "waiting for the model",
    "memo": "waiting for an equal call",
    "queued": "queued for the engine",
    "prefill": "prefill",
    "streaming": "prefill while the input is written",
    "decode": "decode",
    "reused": "reused",
    "native": "native function or check",
}
IDLE: frozenset[SpanKind] = frozenset({"inputs", "unread", "model"})  # nothing is computed for a call then
MAX_NAMED = 3  # inputs that a wait names


@dataclass(frozen=True, slots=True)
class Span:
    """Activity of a call from `start_s` to `end_s`; `detail` says for what it waited, or which output it wrote."""

    kind: SpanKind
    start_s: float
    end_s: float
    detail: str = ""

    @property
    def duration_s(self) -> float:
        """Duration of the span."""
        return self.end_s - self.start_s


@dataclass(frozen=True, slots=True)
class CallTimes:
    """A call's spans, one after the other, and what it took.

    Attributes:
        critical: on the chain of calls that each waited for the one before, and of which the last one ended last.
        usage: of all its outputs together.
    """

    id: int
    function: str
    kind: CallKind
    state: State
    spans: tuple[Span, ...]
    usage: Usage
    sources: tuple[int, ...]
    cell: int | None
    error: str | None
    critical: bool

    @property
    def start_s(self) -> float:
        """Time at which the call was made."""
        return self.spans[0].start_s if self.spans else 0.0

    @property
    def end_s(self) -> float:
        """Time at which the call ended, or until when it is known."""
        return self.spans[-1].end_s if self.spans else 0.0

    def seconds(self, *kinds: SpanKind) -> float:
        """Return how long the call was in spans of these kinds."""
        return sum(span.duration_s for span in self.spans if span.kind in kinds)


@dataclass(frozen=True, slots=True)
class Timeline:
    """All calls in the order in which they were made, and the steps of each engine in the order in which they ran."""

    calls: tuple[CallTimes, ...]
    engines: Mapping[str, tuple[StepRecord, ...]]
    loads: tuple[tuple[str, float, float], ...]  # (model, from, to) of each time a model was loaded

    @property
    def steps(self) -> tuple[StepRecord, ...]:
        """The steps of all engines."""
        return tuple(step for steps in self.engines.values() for step in steps)

    @property
    def busy(self) -> list[tuple[float, float]]:
        """Times at which anything was computed, as intervals (from, to) that do not touch."""
        parts = [(s.start_s, s.end_s) for call in self.calls for s in call.spans if s.kind not in IDLE]
        parts += [(step.start_s, step.start_s + step.duration_s) for step in self.steps]
        return merged(parts)

    @property
    def busy_s(self) -> float:
        """Seconds in which anything was computed."""
        return sum(end - start for start, end in self.busy)


@dataclass
class _Change:
    time_s: float
    phase: Phase
    engine: str | None
    output: int | None  # that is being written


@dataclass
class _Call:
    added: events.CallAdded
    state: State = "pending"
    error: str | None = None
    changes: list[_Change] = field(default_factory=list)
    output: int | None = None


class TimelineFold:
    """Takes in events as they come; `timeline` is what they say so far."""

    def __init__(self) -> None:
        self._calls: dict[int, _Call] = {}
        self._names: dict[int, str] = {}
        self._producers: dict[int, int] = {}
        self._final_s: dict[int, float] = {}  # when variables got their value, or failed
        self._usages: dict[int, Usage] = {}
        self._steps: dict[str, list[StepRecord]] = {}
        self._loads: list[tuple[str, float, float]] = []
        self._loading: dict[str, float] = {}
        self.num_events = 0
        self.last_s = 0.0

    @classmethod
    def of(cls, news: Iterable[Event]) -> TimelineFold:
        """The fold of all these events."""
        fold = cls()
        fold.add(news)
        return fold

    @property
    def settled(self) -> bool:
        """Whether no call is under way."""
        return all(call.state in ("done", "failed", "cancelled") for call in self._calls.values())

    def add(self, news: Iterable[Event], position: int | None = None) -> None:
        """Take in the events that come next, up to the one before `position`; a log may have let go of some in between."""
        for event in news:
            self.num_events += 1
            self.last_s = max(self.last_s, event.time_s)
            self._add(event)
        if position is not None:
            self.num_events = position

    def _add(self, event: Event) -> None:
        match event:
            case events.CallAdded():
                self._calls[event.call_id] = _Call(event)
            case events.VariableAdded():
                self._names[event.variable_id] = event.name
                if event.producer_id is not None:
                    self._producers[event.variable_id] = event.producer_id
            case events.CallChanged() if event.call_id in self._calls:
                call = self._calls[event.call_id]
                call.state, call.error = event.state, event.error
                call.changes.append(_Change(event.time_s, event.phase, event.engine, call.output))
            case events.VariableChanged():
                self._variable_changed(event)
            case events.StepRan():
                self._steps.setdefault(event.engine, []).append(event.step)
                self.last_s = max(self.last_s, event.step.start_s + event.step.duration_s)
            case events.ModelChanged(model=model):
                if event.state == "loading":
                    self._loading[model] = event.time_s
                elif model in self._loading:
                    self._loads.append((model, self._loading.pop(model), event.time_s))
            case events.SessionReset():
                for kept in (self._calls, self._names, self._producers, self._final_s, self._usages, self._steps, self._loads):
                    kept.clear()
            case _:
                pass  # text, objectives and groups take no time

    def _variable_changed(self, event: events.VariableChanged) -> None:
        producer = self._calls.get(self._producers.get(event.variable_id, -1))
        if event.state == "running" and producer is not None:
            producer.output = event.variable_id
        elif event.state in ("done", "failed", "cancelled"):
            self._final_s[event.variable_id] = event.time_s
            if event.usage is not None:
                self._usages[event.variable_id] = event.usage

    def timeline(self, until_s: float | None = None) -> Timeline:
        """Return the timeline so far; calls under way are drawn until then, or until the last event."""
        end_s = self.last_s if until_s is None else max(until_s, self.last_s)
        loads = [*self._loads, *((model, start_s, end_s) for model, start_s in self._loading.items())]
        spans = {call_id: _joined(self._spans(call, end_s, loads)) for call_id, call in self._calls.items()}
        critical = self._critical()
        calls = []
        for call_id, call in self._calls.items():
            usages = [self._usages[v] for v in call.added.outputs if v in self._usages]
            calls.append(
                CallTimes(
                    call_id, call.added.function, call.added.kind, call.state, tuple(spans[call_id]), summed(usages),
                    self._sources(call), call.added.cell, call.error, call_id in critical,
                )
            )  # fmt: skip
        return Timeline(tuple(calls), {name: tuple(steps) for name, steps in self._steps.items()}, tuple(loads))

    def _sources(self, call: _Call) -> tuple[int, ...]:
        found = dict.fromkeys(self._producers.get(variable) for _, variable in call.added.inputs)
        return tuple(source for source in found if source is not None and source in self._calls)

    def _spans(self, call: _Call, end_s: float, loads: list[tuple[str, float, float]]) -> list[Span]:
        spans: list[Span] = []
        begin = _Change(call.added.time_s, "waiting", None, None)
        changes = [begin, *call.changes]
        for now, after in zip(changes, [*changes[1:], None], strict=True):
            if now.phase == "ended":
                break
            start_s, stop_s = now.time_s, end_s if after is None else after.time_s
            match now.phase:
                case "waiting":
                    spans += self._waiting(call, start_s, stop_s, started=now is not begin)
                case "prefill" if now.engine is None:
                    loading = [m for m, t0, t1 in loads if t0 < stop_s and t1 > start_s]
                    spans.append(Span("model" if loading else "queued", start_s, stop_s, ", ".join(loading)))
                case "prefill" if after is not None and after.phase == "reused":
                    spans.append(Span("memo", start_s, stop_s))
                case "prefill":
                    name, usage = self._output(now.output)
                    begun_s = min(stop_s, start_s + (usage.queued_s if usage is not None else 0.0))
                    spans += [Span("queued", start_s, begun_s), Span("prefill", begun_s, stop_s, name)]
                case _:
                    name, _ = self._output(now.output)
                    spans.append(Span(now.phase, start_s, stop_s, name))
        return spans

    def _output(self, variable: int | None) -> tuple[str, Usage | None]:
        return ("", None) if variable is None else (self._names.get(variable, ""), self._usages.get(variable))

    def _waiting(self, call: _Call, start_s: float, stop_s: float, *, started: bool) -> list[Span]:
        """A wait, cut where the last of the inputs came that were missing at its beginning."""
        missing = {
            variable: self._final_s.get(variable, stop_s)
            for variable in dict.fromkeys(v for _, v in call.added.inputs)
            if self._final_s.get(variable, stop_s) > start_s
        }
        if not missing:
            return [Span("inputs" if started else "unread", start_s, stop_s)]
        ready_s = min(stop_s, max(missing.values()))
        latest = sorted(missing, key=lambda v: -missing[v])
        names = ", ".join([self._names.get(v, "") for v in latest[:MAX_NAMED]] + (["..."] if len(latest) > MAX_NAMED else []))
        return [Span("inputs", start_s, ready_s, names), Span("inputs" if started else "unread", ready_s, stop_s)]

    def _critical(self) -> set[int]:
        """The chain of calls that ends last, each with the input that came to it last."""
        ends = {call_id: c.changes[-1].time_s for call_id, c in self._calls.items() if c.changes and c.state == "done"}
        here = max(ends, key=lambda call_id: ends[call_id], default=None)
        found: set[int] = set()
        while here is not None:
            found.add(here)
            sources = [s for s in self._sources(self._calls[here]) if s in ends and s not in found]
            here = max(sources, key=lambda call_id: ends[call_id], default=None)
        return found if len(found) > 1 else set()


def summed(usages: Iterable[Usage]) -> Usage:
    """Return the usage of several variables together; from the memo where all of them are."""
    total = list(usages)
    if not total:
        return Usage()
    return Usage(
        sum(u.prefilled_tokens for u in total),
        sum(u.reused_tokens for u in total),
        sum(u.decoded_tokens for u in total),
        sum(u.queued_s for u in total),
        sum(u.prefill_s for u in total),
        sum(u.decode_s for u in total),
        all(u.from_memo for u in total),
        sum(u.guessed_tokens for u in total),
    )


def merged(parts: Iterable[tuple[float, float]]) -> list[tuple[float, float]]:
    """Intervals (from, to) in order, those that touch as one."""
    found: list[tuple[float, float]] = []
    for start_s, end_s in sorted(parts):
        if found and start_s <= found[-1][1]:
            found[-1] = found[-1][0], max(found[-1][1], end_s)
        else:
            found.append((start_s, end_s))
    return found


def _joined(spans: Iterable[Span]) -> list[Span]:
    """Without what took no time, neighbours of one kind as one; a call taken over at once keeps its mark."""
    kept: list[Span] = []
    for span in spans:
        if span.end_s <= span.start_s and span.kind != "reused":
            continue
        if kept and (kept[-1].kind, kept[-1].detail) == (span.kind, span.detail):
            kept[-1] = Span(span.kind, kept[-1].start_s, span.end_s, span.detail)
        else:
            kept.append(span)
    return kept
