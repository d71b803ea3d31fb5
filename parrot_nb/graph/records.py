"""The runtime's records of the calls and variables of a session: one each, on its own side of the wire.

A user's handles (`parrot_nb.language.nodes`) live in the notebook's process and learn of changes by events; what changes while
calls run is written here, and here alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from parrot_nb.errors import InputValueError, is_cancelled
from parrot_nb.language.nodes import (
    FINAL_STATES,
    NO_USAGE,
    CallKind,
    LatencyTarget,
    Objective,
    Path,
    Span,
    State,
    TaskGroup,
    TokenLogprob,
    Usage,
)
from parrot_nb.language.options import Options
from parrot_nb.language.template import Constant, Segment


class Prompt:
    """A template as the runtime sees it; one object for all calls whose templates and options are equal.

    Args:
        segments: of the template.
    """

    def __init__(self, segments: tuple[Segment, ...]) -> None:
        self.segments = segments

    @cached_property
    def constant_chars(self) -> int:
        """Characters of its constants."""
        return sum(len(segment.text) for segment in self.segments if isinstance(segment, Constant))


NO_PROMPT = Prompt(())
_simulated_ids = itertools.count(1)


@dataclass(eq=False, slots=True)
class ValueRecord:
    """A variable as the runtime sees it; written on the runtime loop alone.

    Attributes:
        id: of the variable, as the notebook counts them.
        producer: the call that writes it, or None for a value from outside.
        consumers: calls that read it, in order of creation.
        num_gone: consumers that the graph has forgotten, and that still stand in the list.
        reachable: whether a user may still read it.
        objective: what it was read for, the strictest; None where nobody asked.
        target: the figures that came with that, if any.
        read_s: when it was first read with figures, on the clock of `time.monotonic`.
        num_thinking_tokens: tokens that the model thought before the text.
        pieces: the text as it streamed in.
        spans: the value as text with token ids, or None where it is not text.
        written: text that stands for a value that is not text, as far as the notebook has told.
        refusal: why such a value has no text.
        shown: a few words for a value that is not text.
        finish: why generation ended, "stop" or "length"; None for what no model generated.
        scores: the choices that it was chosen from, each with its probability; None where none were scored.
        note: what must be said wherever the value is shown.
        streamed_ids: while it is generated, the token ids that are certain already.
        streamed_lead: the text before them, which no ids spell alone.
        codec: names their vocabulary; None where no model generates it.
        taken_back: text of the prompt's last token, which the model wrote again before the value.
    """

    id: int
    name: str
    producer: CallRecord | None = None
    consumers: list[CallRecord] = field(default_factory=list)
    num_gone: int = 0
    reachable: bool = True
    state: State = "pending"
    objective: Objective | None = None
    target: LatencyTarget | None = None
    read_s: float | None = None
    pieces: list[str] = field(default_factory=list)
    thinking_pieces: list[str] | None = None
    num_thinking_tokens: int = 0
    spans: tuple[Span, ...] | None = None
    written: str | None = None
    refusal: str | None = None
    shown: str = ""
    error: BaseException | None = None
    finish: str | None = None
    usage: Usage = NO_USAGE
    logprobs: tuple[TokenLogprob, ...] | None = None
    scores: tuple[tuple[str, float], ...] | None = None
    note: str | None = None
    streamed_ids: list[int] = field(default_factory=list)
    streamed_lead: str = ""
    codec: str | None = None
    taken_back: str = ""

    def __repr__(self) -> str:
        return f"<record of variable {self.name} #{self.id} {self.state}>"

    @property
    def final(self) -> bool:
        """Whether nothing about it will change any more."""
        return self.state in FINAL_STATES

    @property
    def text(self) -> str:
        """The text so far; the whole of it once done."""
        if self.spans is not None:
            return "".join(span.text for span in self.spans)
        return "".join(self.pieces)

    @property
    def begun(self) -> bool:
        """True if some of its text, or of what is thought before it, is out."""
        return bool(self.pieces or self.thinking_pieces)

    def as_spans(self) -> tuple[Span, ...]:
        """A value as text.

        Raises:
            InputValueError: it has none.
        """
        if self.spans is not None:
            return self.spans
        if self.written is None:
            raise InputValueError(self.refusal or f"variable '{self.name}' has no text: turn it into a string first.")
        return (Span(self.written),)

    def forget_consumer(self) -> None:
        """One of its consumers was forgotten; the list is swept when half of it is."""
        self.num_gone += 1
        if 2 * self.num_gone >= len(self.consumers):
            self.consumers = [reader for reader in self.consumers if not reader.forgotten]
            self.num_gone = 0

    def begin(self) -> None:
        """Note that the variable's producer has started."""
        if self.state == "pending":
            self.state = "running"

    def think(self, piece: str) -> None:
        """The model thinks, and more of that has come."""
        self.thinking_pieces = [] if self.thinking_pieces is None else self.thinking_pieces
        if piece:
            self.thinking_pieces.append(piece)

    def resolve(
        self, spans: tuple[Span, ...] | None, *, shown: str = "", finish: str | None = None, usage: Usage | None = None
    ) -> None:
        """Give the value."""
        assert not self.final, f"{self} is given a second value"
        self.spans, self.shown, self.finish = spans, shown, finish
        self.usage = usage or self.usage
        self.state = "done"
        self.streamed_ids = []

    def fail(self, error: BaseException) -> bool:
        """End without a value. Returns False, and changes nothing, where it had already ended."""
        if self.final:
            return False
        self.error = error
        self.state = "cancelled" if is_cancelled(error) else "failed"
        self.streamed_ids = []
        return True


@dataclass(eq=False, slots=True)
class CallRecord:
    """A call as the runtime sees it; written on the runtime loop alone.

    Attributes:
        id: of the call, as the notebook counts them; ids are topological.
        name: of its function.
        kind: "semantic", "native", "join" or "first".
        inputs: parameter name -> variable, in order of the function's signature.
        outputs: the variables it writes, in order of the function's signature.
        options: the call's own options over its function's (the session's defaults are not in it).
        prompt: of a semantic call.
        parts: of a join of texts: None stands for the next input. None where a join is a list of values.
        has_condition: whether a "first" asks the notebook which value will do.
        checked: names of the outputs whose values the notebook is asked about.
        forgotten: the graph has it no more.
        placed: why it runs on that engine and no other, in words; None where there was no choice.
    """

    id: int
    name: str
    kind: CallKind
    inputs: Mapping[str, ValueRecord]
    output_names: tuple[str, ...]
    options: Options
    outputs: tuple[ValueRecord, ...] = ()
    prompt: Prompt = NO_PROMPT
    parts: tuple[str | None, ...] | None = None
    has_condition: bool = False
    checked: tuple[str, ...] = ()
    state: State = "pending"
    objective: Objective | None = None
    target: LatencyTarget | None = None
    group: TaskGroup | None = None
    path: Path | None = None
    engine: str | None = None
    placed: str | None = None
    error: BaseException | None = None
    forgotten: bool = False

    def link(self) -> None:
        """Become a consumer of its inputs; done once."""
        for node in unique(self.inputs.values()):
            node.consumers.append(self)

    @property
    def segments(self) -> tuple[Segment, ...]:
        """Segments of the call's template; none where no model runs it."""
        return self.prompt.segments

    @property
    def final(self) -> bool:
        """Whether it has ended."""
        return self.state in FINAL_STATES

    def __repr__(self) -> str:
        return f"<record of call {self.name} #{self.id} {self.state}>"


def unique(nodes: Iterable[ValueRecord]) -> list[ValueRecord]:
    """Each once, in order."""
    return list({node.id: node for node in nodes}.values())


def new_call(
    name: str, kind: CallKind, inputs: Mapping[str, ValueRecord], output_names: tuple[str, ...], options: Options, **others: Any
) -> CallRecord:
    """A call that no notebook made, such as one of a simulation, with ids of its own; `others` are fields of `CallRecord`."""
    call = CallRecord(next(_simulated_ids), name, kind, inputs, output_names, options, **others)
    call.outputs = tuple(ValueRecord(next(_simulated_ids), output, call) for output in output_names)
    return call
