"""A semantic call as operations on one context: what to fill, and what to generate with which sampling.

Operations name variables by their placeholders, so that a function's prompt is compiled once for all its calls.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar
from weakref import WeakKeyDictionary

from parrot_nb.engine.codec import Codec, Part, Thinking, encode_parts
from parrot_nb.engine.protocol import Constraint, Engine, Sampling
from parrot_nb.engine.scoring import Scoring
from parrot_nb.errors import EngineError, OptionError
from parrot_nb.graph.chains import Chain, chains
from parrot_nb.graph.records import CallRecord, Prompt, ValueRecord
from parrot_nb.language.nodes import Span
from parrot_nb.language.options import DEFAULTS, Options
from parrot_nb.language.placeholder import Fit
from parrot_nb.language.template import Constant, Input, Output, Retry, Segment
from parrot_nb.runtime.recent import Recent
from parrot_nb.runtime.shortest import too_long
from parrot_nb.runtime.stretches import LONG_TEXT_CHARS, PromptWriter

THINKING_SEED = 0x5EED_7417_1199_2024  # below 2**63
MAX_COMPILED = 1_000  # prompts of each tokenizer that need not be compiled again
RETRY_SEED = 0x1E37_79B9_7F4A_7C15  # as far as can be from the seeds that people choose
RETRY_TEMPERATURE = 0.7  # of what was greedy, and would come out the same
# Texts about attempts that were refused, where the author of a prompt gives none: after one, and in a user's turn.
RAW_FEEDBACK = "{{attempt}}\nThis will not do: {{error}}.\n"
CHAT_FEEDBACK = "\n\nAn earlier answer of yours was:\n{{attempt}}\nThis will not do: {{error}}. Answer again."

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
    """Fill the value of the variable of that name, once it is there; with `fit`, as much of it as there is room for."""

    name: str
    segment: int
    fit: Fit | None = None


@dataclass(frozen=True, slots=True)
class Content:
    """The content of a turn begins, or ends, of a chat template that trims contents."""

    begins: bool


@dataclass(frozen=True, slots=True)
class Feedback:
    """Say of each attempt at an output that was refused what was written and why it would not do; nothing before there are any.

    Attributes:
        name: of the output's variable.
        retry: what is said.
        again: what is filled once more after it.
    """

    name: str
    retry: Retry
    again: tuple[FillIds | FillText | FillVariable, ...] = ()


@dataclass(frozen=True, slots=True)
class Think:
    """Have the model think before it writes a variable's value.

    Attributes:
        name: of that variable.
        sampling: of the thoughts; `max_tokens` is left to whoever knows how much room the context has.
        budget: the most tokens to think; None for what the context has room for.
        kept_free: tokens to leave for the answer: its `max_tokens`.
        marks: what is written around thoughts.
        begin: text that the value begins with.
    """

    name: str
    sampling: Sampling
    budget: int | None
    kept_free: int
    marks: Thinking
    begin: str

    @property
    def opens(self) -> list[FillIds | FillText]:
        """Fill the marks before the thoughts."""
        return written(self.marks.opens)

    def closes(self, *, cut: bool) -> list[FillIds | FillText]:
        """Fill the marks behind them; `cut` where the budget ended them."""
        return written(self.marks.closes_cut if cut else self.marks.closes)

    def bounded(self, codec: Codec, num_tokens: int, max_context_tokens: int) -> Sampling:
        """How to sample the thoughts in a context that holds so many tokens: so that the closing marks and an answer of
        `max_tokens` have room behind them, or where that is more than half of what is free, half of it."""
        marks = encode_parts(codec, [*self.marks.closes_cut, self.begin], first=False)
        free = max_context_tokens - num_tokens - len(marks)
        room = max(1, free - min(self.kept_free, free // 2))
        return replace(self.sampling, max_tokens=room if self.budget is None else min(self.budget, room))


@dataclass(frozen=True, slots=True)
class Generate:
    """Generate a variable's value.

    Attributes:
        name: of that variable.
        heals: whether the prompt's last token is taken back if it is plain text (`Options.heal`).
        begin: text that the value begins with; it was filled.
        segment: place of the output in the template.
        retries: how often it may be written again.
        feedback: whether its prompt then says why (`Feedback`).
    """

    name: str
    sampling: Sampling
    heals: bool
    begin: str
    segment: int
    retries: int = 0
    feedback: bool = False

    def attempt(self, number: int) -> Sampling:
        """Return the sampling of that attempt, from 0: each after the first has a seed of its own, and none is greedy."""
        if not number:
            return self.sampling
        greedy = self.sampling.temperature == 0
        seed = 0 if greedy and self.sampling.seed is None else self.sampling.seed
        seed = None if seed is None else (seed + number * RETRY_SEED) % 2**63
        return replace(self.sampling, seed=seed, temperature=RETRY_TEMPERATURE if greedy else self.sampling.temperature)


Fill = FillIds | FillText | FillVariable
Operation = FillIds | FillText | FillVariable | Content | Feedback | Think | Generate


class Compiler:
    """Compiles prompts, each once for all calls of a function that have the same options. Lives on the runtime loop.

    Args:
        options: the session's defaults.
    """

    def __init__(self, options: Options) -> None:
        self._options = options
        self._limits: Recent[Prompt, tuple[int | None, ...]] = Recent(MAX_COMPILED)
        self._compiled: WeakKeyDictionary[Codec, Recent[Hashable, tuple[Operation, ...]]] = WeakKeyDictionary()

    def compiled(self, call: CallRecord, engine: Engine, defaults: Mapping[str, float]) -> tuple[Operation, ...]:
        """The operations of a call on an engine with these defaults; see `compile_prompt`."""
        known = self._compiled.get(engine.codec) or self._compiled.setdefault(engine.codec, Recent(MAX_COMPILED))
        key = call.prompt, engine.model.heals, tuple(defaults.items())
        if (operations := known.get(key)) is None:
            options = self._options.over(Options.checked(**defaults)).over(Options(heal=engine.model.heals))
            operations = known.keep(key, compile_prompt(call, engine.codec, options))
        return operations

    def limits(self, call: CallRecord) -> tuple[int | None, ...]:
        """The most tokens that each output of a call may have, in order; None where no model writes it."""
        if call.kind != "semantic":
            return (None,) * len(call.outputs)
        if (limits := self._limits.get(call.prompt)) is None:
            options = call.options.over(self._options).over(DEFAULTS)
            said = {segment.name: segment.options for segment in call.segments if isinstance(segment, Output)}
            limits = self._limits.keep(call.prompt, tuple(said[name].over(options).max_tokens for name in call.output_names))
        return limits

    def system_of(self, call: CallRecord) -> str | None:
        """The system text of a call, if it has one."""
        return call.options.system if call.options.system is not None else self._options.system

    def is_fresh(self, call: CallRecord) -> bool:
        """Whether a call is to be generated anew whatever is known."""
        own = call.options.fresh
        return (self._options.fresh if own is None else own) is True


def compile_prompt(call: CallRecord, codec: Codec, session_options: Options) -> tuple[Operation, ...]:
    """The operations of a call, in order; text after its last output is not filled, since nothing follows from it.

    Raises:
        OptionError: `chat` was asked for and the tokenizer has no chat template, `system` without chat, or `thinking` of a
            model that cannot.
        EngineError: the chat template cannot be used.
    """
    return operations_of(call.name, call.segments, codec, call.options.over(session_options).over(DEFAULTS))


def nodes_of(call: CallRecord) -> dict[str, ValueRecord]:
    """The inputs and outputs of a call, by the names that its operations have for them."""
    nodes = dict(call.inputs)
    nodes.update(zip(call.output_names, call.outputs, strict=True))
    return nodes


def operations_of(name: str, segments: Sequence[Segment], codec: Codec, options: Options) -> tuple[Operation, ...]:
    """The operations of a template, in order; see `compile_prompt`.

    Args:
        name: of the function, for errors.
        segments: of the template.
        codec: the tokenizer.
        options: complete.
    """
    turns = chains(tuple(segments))
    thinks = [_thinks(name, turn.output.options.over(options), codec) for turn in turns]
    frame = _frame(name, thinks, codec, options)
    operations: list[Operation] = []
    place = 0
    for i_turn, turn in enumerate(turns):
        said = turn.output.options.over(options)
        begin = said.begin or ""
        if frame is not None:
            operations += written(frame.pieces[2 * i_turn])
            operations += [Content(begins=True)] if frame.trims[i_turn][0] else []
        scored = _scored(name, turn.output, said)
        retries = 0 if scored else said.retries or 0  # its likeliest choice would be the same again
        tells = _tells(name, turn.output, said)
        raw = None if frame is not None else codec
        operations += _with_feedback(turn, place, raw) if tells else _filled(turn.fills, place, raw)
        place += len(turn.fills)
        if frame is not None:
            operations += [Content(begins=False)] if frame.trims[i_turn][1] else []
            operations += written(frame.pieces[2 * i_turn + 1])
            if frame.marks is not None and thinks[i_turn]:
                operations.append(_think(turn.output.name, said, frame.marks))
            elif frame.marks is not None:
                operations += written(frame.marks.empty)
        if begin:
            operations.append(FillText(begin, "begin", place, turn.output.name))
        heals = said.heal is not False and (frame is None or bool(begin))
        sampling = scored or _constrained(name, turn.output, _sampling(said), begin, codec)
        operations.append(Generate(turn.output.name, sampling, heals, begin, place, retries, tells and not scored))
        place += 1
    return tuple(operations if frame is not None else _opened(operations, codec.opening_ids))


def _filled(segments: Iterable[Constant | Input], place: int, codec: Codec | None) -> list[Fill]:
    """The operations of segments from a place on; in a raw prompt, whose `codec` is given, its author may write control tokens."""
    found: list[Fill] = []
    for i_segment, segment in enumerate(segments, place):
        if not isinstance(segment, Constant):
            found.append(FillVariable(segment.name, i_segment, segment.fit))
        elif segment.text:
            found += written([segment.text] if codec is None else codec.split_controls(segment.text), i_segment)
    return found


def _tells(name: str, output: Output, options: Options) -> bool:
    """Whether an output that is written again is told why. Raises OptionError where that was asked for and it never is."""
    asked = output.retry is not None if options.feedback is None else options.feedback
    if asked and not options.retries:
        raise OptionError(f"'{output.name}' of '{name}' asks for feedback, but is not written again: say retries=N too.")
    return asked


def _with_feedback(turn: Chain, place: int, codec: Codec | None) -> list[Operation]:
    """Operations before an output, with what is said of attempts at it: where the prompt has a block for that, else at the
    end; a raw prompt's last line, of `codec`, follows on that once more."""
    name, retry = turn.output.name, turn.output.retry
    if retry is None:
        fills = _filled(turn.fills, place, codec)
        again = () if codec is None else tuple(_last_line(fills))
        return [*fills, Feedback(name, Retry(CHAT_FEEDBACK if codec is None else RAW_FEEDBACK), again)]
    *others, last = turn.fills or (Constant(""),)
    if not isinstance(last, Constant):
        return [*_filled(turn.fills, place, codec), Feedback(name, retry)]
    cut = len(last.text) - retry.chars_after  # in the source: control tokens have other lengths
    before, after = Constant(last.text[:cut]), Constant(last.text[cut:])
    return [*_filled([*others, before], place, codec), Feedback(name, retry), *_filled([after], place + len(others), codec)]


def _last_line(fills: Sequence[Fill]) -> Iterator[Fill]:
    """The operations that fill a prompt's last line, in order."""
    start = next((i for i in reversed(range(len(fills))) if "\n" in getattr(fills[i], "text", "")), None)
    if start is not None:
        first = fills[start]
        assert isinstance(first, FillText), "it has a text"
        yield replace(first, text=first.text.rpartition("\n")[2])
    yield from fills[0 if start is None else start + 1 :]


def _opened(operations: list[Operation], opening_ids: tuple[int, ...]) -> list[Operation]:
    """A raw prompt with the tokenizer's opening before it, unless its author wrote that."""
    written = [operation.token_ids[0] for operation in operations[: len(opening_ids)] if isinstance(operation, FillIds)]
    return operations if not opening_ids or tuple(written) == opening_ids else [FillIds(opening_ids, opens=True), *operations]


def add(operation: FillIds | FillText | Content | Feedback, writer: PromptWriter) -> None:
    """Append what an operation says to the prompt that is being written."""
    match operation:
        case FillIds():
            writer.add_controls(operation.token_ids, opens=operation.opens)
        case FillText(text):
            writer.add_text(text)
        case Feedback():
            pass  # there has been no attempt
        case Content(begins):
            (writer.start_content if begins else writer.end_content)()


def add_past(operations: Iterable[Operation], nodes: Mapping[str, ValueRecord], writer: PromptWriter) -> None:
    """Append turns that are over as the turns after them see them: without what was thought."""
    for operation in operations:
        match operation:
            case FillVariable(name):
                writer.add_spans(variable_spans(nodes[name]))
            case Generate(name):
                writer.add_spans(nodes[name].spans or ())
            case Think(marks=marks):
                for mark in written(marks.past):
                    add(mark, writer)
            case FillText(kind="begin"):
                pass  # the value begins with it
            case _:
                add(operation, writer)


def variable_spans(node: ValueRecord) -> tuple[Span, ...]:
    """A resolved variable as text. Raises InputValueError where it has none."""
    return node.as_spans()


async def off_loop_if(size_chars: int, function: Callable[[], T]) -> T:
    """Call what tokenizes a text of so many characters, in a thread if that takes long."""
    return await asyncio.to_thread(function) if size_chars > LONG_TEXT_CHARS else function()


def written(parts: Iterable[Part], segment: int | None = None) -> list[FillIds | FillText]:
    """Operations that fill what a chat template says, or a raw prompt's constant at this place of the template."""
    kind = "frame" if segment is None else "constant"
    return [FillIds((part,), segment) if isinstance(part, int) else FillText(part, kind, segment) for part in parts]


@dataclass(frozen=True, slots=True)
class _Frame:
    """Text and control tokens of a chat template around the turns; see `Codec.chat_frame` and `Codec.chat_trims`."""

    pieces: tuple[tuple[Part, ...], ...]
    trims: tuple[tuple[bool, bool], ...]
    marks: Thinking | None  # around what is thought; None where the pieces say that nothing is


def _frame(name: str, thinks: Sequence[bool], codec: Codec, options: Options) -> _Frame | None:
    """Return the chat template's frame around each turn, or None for raw text."""
    num_turns = len(thinks)
    if options.chat and not codec.has_chat_template:
        raise OptionError(f"'{name}' asks for chat, but the model's tokenizer has no chat template: use --raw or chat=False.")
    if options.chat is False or not codec.has_chat_template:
        if options.system is not None:
            raise OptionError(f"'{name}' has a system text, but runs without chat template: put the text into the prompt.")
        return None
    marks = codec.thinking
    marks = marks if marks is not None and (marks.always or any(thinks)) else None
    pieces = codec.chat_frame(num_turns, options.system, thinking=marks is not None)
    if len(pieces) != 2 * num_turns:
        raise EngineError(f"The chat template made {len(pieces)} stretches for {num_turns} turns: use --raw.")
    return _Frame(pieces, codec.chat_trims(num_turns, options.system), marks)


def _thinks(name: str, options: Options, codec: Codec) -> bool:
    """Whether an output is to be thought about. Raises OptionError where that was asked for and cannot be."""
    is_chat = options.chat is not False and codec.has_chat_template
    marks = codec.thinking if is_chat else None
    if marks is None and options.thinking:
        why = "the model's chat template has no marks for it" if is_chat else "it runs without chat template"
        raise OptionError(f"'{name}' asks for thinking, but {why}: leave thinking out, or choose another model.")
    return marks is not None and (marks.always if options.thinking is None else bool(options.thinking))


def _think(name: str, options: Options, marks: Thinking) -> Think:
    sampling = _sampling(options)
    # Noise is drawn by the seed and a token's number in its generation: that of the answer is to be another.
    seed = None if sampling.seed is None else sampling.seed ^ THINKING_SEED
    sampling = replace(sampling, stop=(marks.stop,), seed=seed)
    budget = None if options.thinking is None or options.thinking is True else int(options.thinking)
    return Think(name, sampling, budget, sampling.max_tokens, marks, options.begin or "")


def _constrained(name: str, output: Output, sampling: Sampling, begin: str, codec: Codec) -> Sampling:
    """A sampling with the constraint of an output. Raises OptionError where no value can have so few tokens."""
    if output.form is None:
        return sampling
    if not begin and (found := too_long(output.form, sampling.max_tokens, codec)) is not None:
        least, num_tokens = found
        raise OptionError(
            f"'{output.name}' of '{name}' cannot be '{output.form.text}' in max_tokens={sampling.max_tokens}: its shortest text, "
            f"{least[:80]!r}, takes {num_tokens} tokens; raise max_tokens."
        )
    return replace(sampling, constraint=Constraint(output.form.kind, output.form.body, begin))


def _scored(name: str, output: Output, options: Options) -> Sampling | None:
    """The sampling of an output whose choices are scored; None of any other. Raises OptionError where it has text to begin with."""
    if not options.score or output.form is None or output.form.kind != "choices":
        return None
    if options.begin:
        raise OptionError(
            f"'{output.name}' of '{name}' is scored, each choice as a whole: leave begin={options.begin!r} out, or put it into the prompt."
        )
    scoring: Scoring = "mean" if options.score == "mean" else "total"
    return Sampling(max_tokens=1, constraint=Constraint("choices", output.form.body), scoring=scoring)


def _sampling(options: Options) -> Sampling:
    said = options.said()
    if said.get("logprobs") is False:  # said so as to undo what a less specific level asks for
        del said["logprobs"]
    return Sampling(**{name: said[name] for name in Sampling.__dataclass_fields__ if name in said})
