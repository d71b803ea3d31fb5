"""A prompt as the model would get it, segment by segment."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import accumulate

from parrot_nb.engine.codec import Codec
from parrot_nb.graph.records import ValueRecord
from parrot_nb.language.host import RenderedSegment
from parrot_nb.language.options import DEFAULTS, Options
from parrot_nb.language.template import Constant, Segment
from parrot_nb.runtime import prompt
from parrot_nb.runtime.fitting import fit_known
from parrot_nb.runtime.stretches import PromptWriter


@dataclass(slots=True)
class _Part:
    """Part of a prompt shown as one segment. `place` is that of the template's segment, None for what stands in none."""

    kind: str
    name: str | None
    place: int | None
    text: str = ""
    token_ids: list[int] = field(default_factory=list)
    taken_back: str = ""


def render(
    name: str,
    segments: tuple[Segment, ...],
    nodes: Mapping[str, ValueRecord],
    codec: Codec,
    options: Options,
    most_context_tokens: int,
) -> tuple[RenderedSegment, ...]:
    """Render a template for these inputs.

    A token that spans two segments is shown with the one in which it begins. The ids of all segments together are what is
    filled: those of what is taken back at a healed seam are left out.

    Args:
        name: of the function, for errors.
        segments: of the template.
        nodes: inputs, by placeholder name; one without value yet has no text and no ids, and so has an output.
        codec: the tokenizer.
        options: of the function and the session.
        most_context_tokens: to which inputs with `fit` are cut.

    Raises:
        OptionError, EngineError, InputValueError: as `prompt.compile_prompt` and `prompt.variable_spans`.
        ContextLengthError: such an input has no room at all.
    """
    written = [segment.name for segment in segments if not isinstance(segment, Constant)]
    known = {each: nodes.get(each) or ValueRecord(0, each) for each in written}
    options = options.over(DEFAULTS)
    operations = prompt.operations_of(name, segments, codec, options)
    page = _Page(codec)
    end = 0
    for i_operation, operation in enumerate(operations):
        match operation:
            case prompt.FillVariable(source, place):
                if operation.fit is not None and known[source].state == "done":
                    sizes = {"num_tokens": page.num_tokens, "most_context_tokens": most_context_tokens}
                    fit_known(operations[i_operation:], known, codec, **sizes)
                page.add_value(known[source], place)
            case prompt.Think(output):
                for mark in operation.opens:
                    page.fill(mark)
                page.end_prompt(heals=False)
                page.parts.append(_Part("thinking", output, None))
                for mark in operation.closes(cut=False):
                    page.fill(mark)
            case prompt.Generate(output, _, heals, _, place):
                taken_back = page.end_prompt(heals=heals)
                page.parts.append(_Part("output", output, place, taken_back=taken_back))
                end = place + 1
            case prompt.FillIds() | prompt.FillText():
                page.fill(operation)
            case _:
                page.add(operation)
    for place, segment in enumerate(segments[end:], start=end):  # nothing is generated after it
        if isinstance(segment, Constant):
            page.add(prompt.FillText(segment.text, "constant", place))
        else:
            page.add_value(known[segment.name], place)
    page.close()
    return tuple(RenderedSegment(p.kind, p.name, p.text, tuple(p.token_ids), p.taken_back) for p in page.parts)


class _Page:
    """Collects the parts of a prompt, and shares out the ids of each stretch among those that it goes through."""

    def __init__(self, codec: Codec) -> None:
        self.parts: list[_Part] = []
        self._codec = codec
        self._writer = PromptWriter(codec)
        self._stretch: list[tuple[_Part, str]] = []

    @property
    def num_tokens(self) -> int:
        """Tokens so far, if the open text stays as it is."""
        return sum(len(part.token_ids) for part in self.parts) + self._writer.num_open_tokens

    def fill(self, operation: prompt.FillIds | prompt.FillText) -> None:
        """Append control tokens or plain text."""
        if isinstance(operation, prompt.FillIds):
            self.add_controls(operation)
        else:
            self.add(operation)

    def add(self, operation: prompt.FillText | prompt.Content | prompt.Feedback) -> None:
        """Append plain text, or the border of a trimmed content; of attempts there is nothing to say yet."""
        if isinstance(operation, prompt.FillText):
            self._text(self._part(operation.kind, operation.name, operation.segment), self._writer.add_text(operation.text))
        else:
            prompt.add(operation, self._writer)

    def add_controls(self, operation: prompt.FillIds) -> None:
        """Append control tokens."""
        self.close()
        part = self._part("frame" if operation.segment is None else "constant", None, operation.segment)
        part.text += self._codec.decode(operation.token_ids)
        part.token_ids += operation.token_ids
        prompt.add(operation, self._writer)
        self._writer.take()

    def add_value(self, node: ValueRecord, place: int) -> None:
        """Append a variable's value, as far as there is one."""
        part = self._part("input", node.name, place)
        if node.state != "done":
            self.close()
            return
        for span in prompt.variable_spans(node):
            if span.token_ids is not None and span.codec == self._codec.key:
                self.close()
                self._writer.add_ids(span.token_ids)
                part.text += span.text
                part.token_ids += span.token_ids
                self._writer.take()
            else:
                self._text(part, self._writer.add_text(span.text))

    def close(self) -> None:
        """End the stretch at a hard boundary."""
        self._share_out(self._writer.close())

    def end_prompt(self, *, heals: bool) -> str:
        """End the stretch before an output; returns the text that is taken back."""
        seam = self._writer.end(heals=heals)
        self._share_out(seam.token_ids)
        return seam.text

    def _share_out(self, token_ids: Sequence[int]) -> None:
        """Give each part of the stretch the ids that begin in it."""
        ends = list(accumulate(len(text.encode()) for _, text in self._stretch))
        offset = 0
        for token_id in token_ids:
            if self._stretch:
                i_part = min(bisect_right(ends, offset), len(self._stretch) - 1)
                self._stretch[i_part][0].token_ids.append(token_id)
            offset += len(self._codec.token_bytes(token_id) or b"")
        self._stretch.clear()

    def _part(self, kind: str, name: str | None, place: int | None) -> _Part:
        last = self.parts[-1] if self.parts else None
        if last is None or (last.kind, last.place) != (kind, place):
            last = _Part(kind, name, place)
            self.parts.append(last)
        return last

    def _text(self, part: _Part, text: str) -> None:
        part.text += text
        self._stretch.append((part, text))
