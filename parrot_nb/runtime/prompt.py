"""A semantic call as operations on one context: what to fill, and what to generate with which sampling."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from parrot_nb.engine.codec import Codec, Part
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineError, OptionError
from parrot_nb.graph.chains import chains
from parrot_nb.language.nodes import Call, Span, VariableNode
from parrot_nb.language.options import DEFAULTS, Options
from parrot_nb.language.template import Constant, Output, Segment
from parrot_nb.language.text import to_text
from parrot_nb.runtime.stretches import PromptWriter

LONG_TEXT_CHARS = 20_000  # tokenizing more than this on the loop would hold up everybody's tokens

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class FillIds:
    """Fill control tokens: of the prompt's opening, of the chat template, or written by a raw prompt's author.

    Attributes:
        segment: place of the constant that holds them in the template; None where none does.
        opens: True if these are the tokenizer's opening, so that the prompt's text begins after them.
    """

    token_ids: tuple[int, ...]
    segment: int | None = None
    opens: bool = False


@dataclass(frozen=True, slots=True)
class FillText:
    """Fill plain text.

    Attributes:
        kind: "constant" for the template's own text, "frame" for the chat template's, "begin" for what an output begins with.
        segment: place in the template of the constant or of that output; None for a frame.
        name: of that output.
    """

    text: str
    kind: str = "frame"
    segment: int | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class FillVariable:
    """Fill a variable's value, once it is there."""

    node: VariableNode
    segment: int


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a turn begins, or ends, of a chat template that trims contents."""

    begins: bool


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate a variable's value.

    Attributes:
        heals: whether the prompt's last token is taken back if it is plain text (`Options.heal`).
        begin: text that the value begins with; it was filled.
        segment: place of the output in the template.
    """

    node: VariableNode
    sampling: Sampling
    heals: bool
    begin: str
    segment: int


Operation = FillIds | FillText | FillVariable | Content | Generate


def compile_prompt(call: Call, codec: Codec, session_options: Options) -> tuple[Operation, ...]:
    """The operations of a call, in order; text after its last output is not filled, since nothing follows from it.

    Raises:
        OptionError: `chat` was asked for and the tokenizer has no chat template, or `system` without chat.
        EngineError: the chat template cannot be used.
    """
    options = call.options.over(session_options).over(DEFAULTS)
    nodes = {**call.inputs, **dict(zip(call.output_names, call.outputs, strict=True))}
    return operations_of(call.name, call.function.template.segments, nodes, codec, options)


def operations_of(
    name: str, segments: Sequence[Segment], nodes: Mapping[str, VariableNode], codec: Codec, options: Options
) -> tuple[Operation, ...]:
    """The operations of a template, in order; see `compile_prompt`.

    Args:
        name: of the function, for errors.
        segments: of the template.
        nodes: inputs and outputs, by placeholder name.
        codec: the tokenizer.
        options: complete.
    """
    turns = chains(tuple(segments))
    frame = _frame(name, len(turns), codec, options)
    operations: list[Operation] = []
    place = 0
    for i_turn, turn in enumerate(turns):
        said = turn.output.options.over(options)
        begin = said.begin or ""
        if frame is not None:
            operations += _written(frame.pieces[2 * i_turn])
            operations += [Content(begins=True)] if frame.trims[i_turn][0] else []
        for segment in turn.fills:
            if not isinstance(segment, Constant):
                operations.append(FillVariable(nodes[segment.name], place))
            elif frame is None:
                operations += _written(codec.split_controls(segment.text), place)
            else:
                operations.append(FillText(segment.text, "constant", place))
            place += 1
        if frame is not None:
            operations += [Content(begins=False)] if frame.trims[i_turn][1] else []
            operations += _written(frame.pieces[2 * i_turn + 1])
        if begin:
            operations.append(FillText(begin, "begin", place, turn.output.name))
        heals = said.heal is not False and (frame is None or bool(begin))
        operations.append(Generate(nodes[turn.output.name], _sampling(said), heals, begin, place))
        place += 1
    return tuple(operations if frame is not None else _opened(operations, codec.opening_ids))


def _opened(operations: list[Operation], opening_ids: tuple[int, ...]) -> list[Operation]:
    """A raw prompt with the tokenizer's opening before it, unless its author wrote that."""
    written = [operation.token_ids[0] for operation in operations[: len(opening_ids)] if isinstance(operation, FillIds)]
    return operations if not opening_ids or tuple(written) == opening_ids else [FillIds(opening_ids, opens=True), *operations]


def add(operation: FillIds | FillText | Content, writer: PromptWriter) -> None:
    """Append what an operation says to the prompt that is being written."""
    match operation:
        case FillIds():
            writer.add_controls(operation.token_ids, opens=operation.opens)
        case FillText(text):
            writer.add_text(text)
        case Content(begins):
            (writer.start_content if begins else writer.end_content)()


def limits(call: Call, session_options: Options) -> tuple[int | None, ...]:
    """The most tokens that each output of a call may have, in order; None where no model writes it."""
    if call.kind != "semantic":
        return (None,) * len(call.outputs)
    options = call.options.over(session_options).over(DEFAULTS)
    said = {segment.name: segment.options for segment in call.function.template.segments if isinstance(segment, Output)}
    return tuple(said[name].over(options).max_tokens for name in call.output_names)


def variable_spans(node: VariableNode) -> tuple[Span, ...]:
    """A resolved variable as text. Raises InputValueError where it has none."""
    if node.spans is not None:
        return node.spans
    return (Span(to_text(node.value, f"variable '{node.name}'")),)


async def off_loop_if(size_chars: int, function: Callable[[], T]) -> T:
    """Call what tokenizes a text of so many characters, in a thread if that takes long."""
    return await asyncio.to_thread(function) if size_chars > LONG_TEXT_CHARS else function()


def _written(parts: Iterable[Part], segment: int | None = None) -> list[Operation]:
    kind = "frame" if segment is None else "constant"
    return [FillIds((part,), segment) if isinstance(part, int) else FillText(part, kind, segment) for part in parts]


@dataclass(frozen=True, slots=True)
class _Frame:
    """What a chat template writes around the turns; see `Codec.chat_frame` and `Codec.chat_trims`."""

    pieces: tuple[tuple[Part, ...], ...]
    trims: tuple[tuple[bool, bool], ...]


def _frame(name: str, num_turns: int, codec: Codec, options: Options) -> _Frame | None:
    """What the chat template writes around each turn, or None for raw text."""
    if options.chat and not codec.has_chat_template:
        raise OptionError(f"'{name}' asks for chat, but the model's tokenizer has no chat template: use --raw or chat=False.")
    if options.chat is False or not codec.has_chat_template:
        if options.system is not None:
            raise OptionError(f"'{name}' has a system text, but runs without chat template: put the text into the prompt.")
        return None
    pieces = codec.chat_frame(num_turns, options.system)
    if len(pieces) != 2 * num_turns:
        raise EngineError(f"The chat template made {len(pieces)} stretches for {num_turns} turns: use --raw.")
    return _Frame(pieces, codec.chat_trims(num_turns, options.system))


def _sampling(options: Options) -> Sampling:
    said = options.said()
    if said.get("logprobs") is False:  # said so as to undo what a less specific level asks for
        del said["logprobs"]
    return Sampling(**{name: said[name] for name in Sampling.__dataclass_fields__ if name in said})
