"""Texts cut by tokens: an input to what a context has room for, and a long text into pieces."""

from __future__ import annotations

import json
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from parrot_nb.engine.codec import Codec
from parrot_nb.engine.protocol import Engine
from parrot_nb.errors import ContextLengthError
from parrot_nb.graph.records import ValueRecord
from parrot_nb.language.nodes import Span
from parrot_nb.language.placeholder import Fit
from parrot_nb.runtime.prompt import (
    Feedback,
    FillIds,
    FillText,
    FillVariable,
    Generate,
    Operation,
    Think,
    off_loop_if,
    variable_spans,
)
from parrot_nb.runtime.stretches import MAX_SEAM_TOKENS

THINKING_SHARE = 0.25  # of a context that is left to thoughts without a budget of their own
MARK = "\n…\n"  # where the middle of a text is left out
SPARE_TOKENS = 16  # texts that are tokenized one by one have a few tokens less than together
LEAST_TOKENS = 16  # to which an input may be cut
NEAR_CHARS = 60  # a cut moves back so far to come between two words
ENDS = (r"\n\s*\n", r"\n", r"[.!?…。！？][\"')\]]*\s", r"[;:,]\s", r"\s")  # where a piece may end, the best first
BEST_SHARE = 0.5  # of a piece that must be before its end, so that a better end costs no more than twice the pieces


@dataclass(frozen=True, slots=True)
class Cut:
    """An input that did not fit, and was cut."""

    name: str
    before_tokens: int
    after_tokens: int

    def __str__(self) -> str:
        return f"'{self.name}' was cut from {self.before_tokens:,} to {self.after_tokens:,} tokens, which is what the context has room for"


async def fit_input(
    operations: Sequence[Operation],
    nodes: dict[str, ValueRecord],
    codec: Codec,
    arrived: Callable[[ValueRecord], Awaitable[None]],
    *,
    num_tokens: int,
    most_context_tokens: int,
) -> list[Cut]:
    """Have the first of these operations, which fills an input, fill what fits; returns what was cut, which is one or none.

    Args:
        operations: that one, and those after it.
        nodes: inputs and outputs of the call, by name; one that is cut is replaced.
        codec: the tokenizer.
        arrived: waits for a variable, as far as the input's turn goes: what stands beside it counts.
        num_tokens: of the prompt before it.
        most_context_tokens: of the engine.

    Raises:
        ContextLengthError: the rest leaves no room for it.
        InputValueError: a value has no text.
        UpstreamError: another variable of the turn will have no value.
    """
    operation = operations[0]
    assert isinstance(operation, FillVariable), "inputs are filled"
    for other in operations[1:]:
        if isinstance(other, Generate):
            break
        if isinstance(other, FillVariable):
            await arrived(nodes[other.name])
    fit = partial(fit_known, operations, nodes, codec, num_tokens=num_tokens, most_context_tokens=most_context_tokens)
    return await off_loop_if(sum(len(span.text) for span in variable_spans(nodes[operation.name])), fit)


def fit_known(
    operations: Sequence[Operation], nodes: dict[str, ValueRecord], codec: Codec, *, num_tokens: int, most_context_tokens: int
) -> list[Cut]:
    """Do as `fit_input` for an input that has its value; what has none yet does not count."""
    operation, *rest = operations
    assert isinstance(operation, FillVariable), "inputs are filled"
    spans, cut = _fitted(operation, rest, nodes, codec, num_tokens=num_tokens, most_context_tokens=most_context_tokens)
    if cut is None:
        return []
    node = nodes[operation.name]
    nodes[operation.name] = replacement = ValueRecord(node.id, node.name)
    replacement.resolve(spans)
    return [cut]


def most_context_tokens(engine: Engine) -> int:
    """Return the longest context of an engine, in tokens: of its model, and of its KV cache."""
    load = engine.load()
    return min(engine.model.max_context_tokens, max(load.num_pages, load.most_pages) * load.page_size_tokens)


def _fitted(
    operation: FillVariable,
    rest: Sequence[Operation],
    nodes: Mapping[str, ValueRecord],
    codec: Codec,
    *,
    num_tokens: int,
    most_context_tokens: int,
) -> tuple[tuple[Span, ...], Cut | None]:
    """Return an input as text that fits, with the rest of its prompt, `max_tokens` of each output and what is told of attempts at it, and what was cut.

    Args:
        operation: fills it, and says where it may be cut.
        rest: operations after it; those of its own turn have their values.
        nodes: inputs and outputs of the call, by name.
        codec: the tokenizer.
        num_tokens: of the prompt before it.
        most_context_tokens: of the engine.

    Raises:
        ContextLengthError: the rest leaves no room for it.
        InputValueError: a value has no text.
    """
    assert operation.fit is not None, "only an input that says so is cut"
    spans = variable_spans(nodes[operation.name])
    text = "".join(span.text for span in spans)
    own = _count(codec, text)
    written = _most_written(rest, nodes, codec)
    others, also = (
        sum(_tokens_of(each, nodes, codec, most_context_tokens) for each in rest if _may_be_cut(each) is cut)
        for cut in (False, True)
    )
    free = most_context_tokens - num_tokens - others - SPARE_TOKENS
    room = free - min(written, free // 2)
    if own + also <= room:
        return spans, None
    room = room * own // (own + also)
    if room < LEAST_TOKENS:
        raise ContextLengthError(
            f"'{operation.name}' cannot be cut to what fits: what stands beside it leaves no room in a context of {most_context_tokens} "
            "tokens; shorten that, or lower max_tokens."
        )
    cut = _cut(text, operation.fit, room, codec)
    return (Span(cut),), Cut(operation.name, own, _count(codec, cut))


def _most_written(operations: Sequence[Operation], nodes: Mapping[str, ValueRecord], codec: Codec) -> int:
    """The most tokens that outputs have, and what the prompt says of attempts at them, reasons of an ordinary length included."""
    told = {each.name: each for each in operations if isinstance(each, Feedback)}
    total = 0
    for each in operations:
        if isinstance(each, Generate):
            total += _longest_value(each, codec)
        if isinstance(each, Generate) and each.feedback:
            again = [other for other in told[each.name].again if not _may_be_cut(other)]
            said = _count(codec, told[each.name].retry.told("", "")) + sum(_tokens_of(other, nodes, codec, 0) for other in again)
            total += each.retries * (each.sampling.max_tokens + said + SPARE_TOKENS)
    return total


def _longest_value(output: Generate, codec: Codec) -> int:
    """The most tokens that an output may have; one whose choices are scored has those of any of them."""
    if output.sampling.scoring is None or output.sampling.constraint is None:
        return output.sampling.max_tokens
    return MAX_SEAM_TOKENS + max(_count(codec, choice) for choice in json.loads(output.sampling.constraint.body))


def _may_be_cut(operation: Operation) -> bool:
    return isinstance(operation, FillVariable) and operation.fit is not None


def _tokens_of(operation: Operation, nodes: Mapping[str, ValueRecord], codec: Codec, most_context_tokens: int) -> int:
    match operation:
        case FillIds(token_ids):
            return len(token_ids)
        case FillText(text):
            return _count(codec, text)
        case FillVariable(name) if nodes[name].state == "done":
            return sum(
                len(s.token_ids) if s.token_ids is not None else _count(codec, s.text) for s in variable_spans(nodes[name])
            )
        case Think(budget=budget):
            return SPARE_TOKENS + (int(THINKING_SHARE * most_context_tokens) if budget is None else budget)
        case _:
            return 0


def _count(codec: Codec, text: str) -> int:
    return len(codec.encode(text))


def _cut(text: str, fit: Fit, room: int, codec: Codec) -> str:
    """A part of a text that has at most so many tokens."""
    match fit:
        case "end":
            return text[: _between_words(text, longest(len(text), room, lambda n: _count(codec, text[:n])))]
        case "start":
            return text[len(text) - longest(len(text), room, lambda n: _count(codec, text[len(text) - n :])) :]
        case "middle":
            marked = _count(codec, MARK) + 2
            first = longest(len(text), (room - marked) // 2, lambda n: _count(codec, text[:n]))
            last = longest(len(text) - first, (room - marked) // 2, lambda n: _count(codec, text[len(text) - n :]))
            return text[: _between_words(text, first)] + MARK + text[len(text) - last :]


def longest(most: int, room: int, count: Callable[[int], int]) -> int:
    """Return the greatest length up to `most` whose text has at most `room` tokens, about: none longer by one in a hundred has.

    `count` gives the tokens of a text of that length; it grows with it, nearly.
    """
    low, high = 0, most
    guess = most
    while high - low > max(1, low // 100):
        num_tokens = count(guess)
        if num_tokens <= room:
            low = guess
        else:
            high = guess
        if low == most:
            break
        linear = guess * room // max(1, num_tokens)
        guess = linear if low < linear < high else (low + high) // 2
    return low


def _between_words(text: str, end: int) -> int:
    """Move a cut back to the last white space, if one is near."""
    space = max((match.end() for match in re.finditer(r"\s", text[max(0, end - NEAR_CHARS) : end])), default=0)
    return max(0, end - NEAR_CHARS) + space if space and end < len(text) else end


def pieces(text: str, tokens: int, overlap: int, codec: Codec) -> list[str]:
    """Cut a text into pieces of at most so many tokens each, which end at paragraphs, sentences or words where that can be.

    Without overlap the pieces in a row are the text; with it, each begins with about so many last tokens of the one before.
    """
    found: list[str] = []
    start = fresh = 0  # where the next piece begins, and what of it no piece had yet
    per_token = 4.0
    while fresh < len(text):
        window = text[start : start + int(8 * per_token * tokens) + 16]
        most = longest(len(window), tokens, lambda n, window=window: _count(codec, window[:n]))  # type: ignore[misc]
        end = start + max(most, fresh - start + 1)
        if end < len(text):
            end = _good_end(text, start, max(fresh + 1, start + int(BEST_SHARE * (end - start))), end)
        found.append(text[start:end])
        per_token = max(1.0, (end - start) / tokens)
        fresh = end
        if fresh < len(text) and overlap:
            piece = text[start:end]
            back = longest(len(piece) - 1, overlap, lambda n, piece=piece: _count(codec, piece[len(piece) - n :]))  # type: ignore[misc]
            start = _word_start(text, end - back, end)
        else:
            start = end
    return found


def _good_end(text: str, start: int, least: int, end: int) -> int:
    """Return the best place for a piece to end, from `least` to `end`."""
    for pattern in ENDS:
        ends = [match.end() for match in re.finditer(pattern, text[start:end])]
        if ends and start + ends[-1] >= least:
            return start + ends[-1]
    return end


def _word_start(text: str, place: int, end: int) -> int:
    """Move the beginning of an overlap on to the next word, if one begins before its end."""
    match = re.search(r"\s+", text[max(0, place - 1) : end])
    return place if match is None or max(0, place - 1) + match.end() >= end else max(0, place - 1) + match.end()
