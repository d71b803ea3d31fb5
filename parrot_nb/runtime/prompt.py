"""A semantic call as operations on one context: what to fill, and what to generate with which sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from weakref import WeakKeyDictionary

from parrot_nb.engine.protocol import Codec, Sampling
from parrot_nb.errors import EngineError, OptionError
from parrot_nb.graph.chains import chains
from parrot_nb.language.host import RenderedSegment
from parrot_nb.language.nodes import Call, Span, VariableNode
from parrot_nb.language.options import DEFAULTS, Options
from parrot_nb.language.template import Constant, Output, Segment
from parrot_nb.language.text import to_text

SHORT_TEXT_CHARS, SHORT_TEXTS = 4096, 4096  # what is remembered of a codec: texts up to this length, and how many of them
LONG_TEXT_CHARS = 20_000  # tokenizing more than this on the loop would hold up everybody's tokens


@dataclass(frozen=True, slots=True)
class FillIds:
    """Fill what the prompt's opening or the chat template writes."""

    token_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class FillText:
    """Fill constant text; `first` where the prompt begins with it."""

    text: str
    first: bool


@dataclass(frozen=True, slots=True)
class FillVariable:
    """Fill a variable's value, once it is there."""

    node: VariableNode
    first: bool


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate a variable's value."""

    node: VariableNode
    sampling: Sampling


Operation = FillIds | FillText | FillVariable | Generate


def compile_prompt(call: Call, codec: Codec, session_options: Options) -> tuple[Operation, ...]:
    """The operations of a call, in order; text after its last output is not filled, since nothing follows from it.

    Raises:
        OptionError: `chat` was asked for and the tokenizer has no chat template, or `system` without chat.
        EngineError: the chat template cannot be used.
    """
    options = call.options.over(session_options).over(DEFAULTS)
    nodes = {**call.inputs, **dict(zip(call.output_names, call.outputs, strict=True))}
    turns = chains(call.function.template.segments)
    frame = _frame(call.name, len(turns), codec, options)
    operations: list[Operation] = []
    first = True
    if frame is None and codec.opening_ids:
        operations.append(FillIds(codec.opening_ids))
    for i_turn, turn in enumerate(turns):
        if frame is not None:
            operations.append(FillIds(frame[2 * i_turn]))
            first = False
        for segment in turn.fills:
            if isinstance(segment, Constant):
                operations.append(FillText(segment.text, first))
            else:
                operations.append(FillVariable(nodes[segment.name], first))
            first = False
        if frame is not None:
            operations.append(FillIds(frame[2 * i_turn + 1]))
        sampling = _sampling(turn.output.options.over(options))
        operations.append(Generate(nodes[turn.output.name], sampling))
        first = False
    return tuple(operations)


def limits(call: Call, session_options: Options) -> tuple[int | None, ...]:
    """The most tokens that each output of a call may have, in order; None where no model writes it."""
    if call.kind != "semantic":
        return (None,) * len(call.outputs)
    options = call.options.over(session_options).over(DEFAULTS)
    said = {segment.name: segment.options for segment in call.function.template.segments if isinstance(segment, Output)}
    return tuple(said[name].over(options).max_tokens for name in call.output_names)


def variable_ids(node: VariableNode, codec: Codec, *, first: bool) -> list[int]:
    """The token ids of a resolved variable: those a model wrote, where they are of this tokenizer, else the text's.

    Raises:
        InputValueError: the value has no text (a native function returned something else).
    """
    ids: list[int] = []
    for span in variable_spans(node):
        if span.token_ids is not None and span.codec == codec.key:
            ids += span.token_ids
        elif span.text:
            ids += encode(codec, span.text, first=first and not ids)
    return ids


def variable_spans(node: VariableNode) -> tuple[Span, ...]:
    """A resolved variable as text. Raises InputValueError where it has none."""
    if node.spans is not None:
        return node.spans
    return (Span(to_text(node.value, f"variable '{node.name}'")),)


def render(
    segments: tuple[Segment, ...], nodes: Mapping[str, VariableNode], codec: Codec, options: Options
) -> tuple[RenderedSegment, ...]:
    """What the model would be given, segment by segment; a variable without value yet has no text and no ids."""
    options = options.over(DEFAULTS)
    turns = chains(segments)
    frame = _frame("render", len(turns), codec, options)
    rendered: list[RenderedSegment] = []

    def add_frame(ids: tuple[int, ...]) -> None:
        if ids:
            rendered.append(RenderedSegment("frame", None, codec.decode(ids), tuple(ids)))

    trailing = segments[sum(len(turn.fills) + 1 for turn in turns) :]
    if frame is None:
        add_frame(codec.opening_ids)
    first = frame is None
    for i_turn, turn in enumerate(turns):
        if frame is not None:
            add_frame(frame[2 * i_turn])
        for segment in turn.fills:
            rendered.append(_rendered(segment, nodes, codec, first=first))
            first = False
        if frame is not None:
            add_frame(frame[2 * i_turn + 1])
        rendered.append(RenderedSegment("output", turn.output.name, "", ()))
        first = False
    rendered += [_rendered(segment, nodes, codec, first=False) for segment in trailing]
    return tuple(rendered)


def _rendered(segment: Segment, nodes: Mapping[str, VariableNode], codec: Codec, *, first: bool) -> RenderedSegment:
    if isinstance(segment, Constant):
        return RenderedSegment("constant", None, segment.text, tuple(encode(codec, segment.text, first=first)))
    node = nodes.get(segment.name)
    if node is None or node.state != "done":
        return RenderedSegment("input", segment.name, "", ())
    text = "".join(span.text for span in variable_spans(node))
    return RenderedSegment("input", segment.name, text, tuple(variable_ids(node, codec, first=first)))


def encode(codec: Codec, text: str, *, first: bool) -> list[int]:
    """`codec.encode`, remembering short stretches: a map's calls all share their constants."""
    if len(text) > SHORT_TEXT_CHARS:
        return codec.encode(text, first=first)
    known = _short_texts.setdefault(codec, {})
    ids = known.get((text, first))
    if ids is None:
        if len(known) >= SHORT_TEXTS:
            known.clear()
        ids = known[text, first] = tuple(codec.encode(text, first=first))
    return list(ids)


async def off_loop_if(size_chars: int, encode: Callable[[], list[int]]) -> list[int]:
    """Tokenize a text of so many characters, in a thread if that takes long."""
    return await asyncio.to_thread(encode) if size_chars > LONG_TEXT_CHARS else encode()


# By codec, and gone with it: the vocabulary of one takes up to half a gigabyte.
_short_texts: WeakKeyDictionary[Codec, dict[tuple[str, bool], tuple[int, ...]]] = WeakKeyDictionary()


def _frame(name: str, num_turns: int, codec: Codec, options: Options) -> tuple[tuple[int, ...], ...] | None:
    """The chat template's ids around each turn, or None for raw text."""
    if options.chat and not codec.has_chat_template:
        raise OptionError(f"'{name}' asks for chat, but the model's tokenizer has no chat template: use --raw or chat=False.")
    if options.chat is False or not codec.has_chat_template:
        if options.system is not None:
            raise OptionError(f"'{name}' has a system text, but runs without chat template: put the text into the prompt.")
        return None
    frame = codec.chat_frame(num_turns, options.system)
    if len(frame) != 2 * num_turns:
        raise EngineError(f"The chat template made {len(frame)} stretches for {num_turns} turns: use --raw.")
    return frame


def _sampling(options: Options) -> Sampling:
    said = options.said()
    return Sampling(**{name: said[name] for name in Sampling.__dataclass_fields__ if name in said})
