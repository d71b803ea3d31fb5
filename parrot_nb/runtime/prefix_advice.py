"""Advice on the order of a prompt's parts: what changes from call to call, and stands before what does not, keeps prompts from
sharing it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.template import Constant, Input, Output
from parrot_nb.runtime.costs import CHARS_PER_TOKEN

MIN_CALLS = 3  # a pair gains too little to turn a prompt around
MIN_TOKENS = 256  # that must be saved in all
MIN_TOKENS_EACH = 32  # and by each call: a few last words, such as "Answer:", belong where they are
MIN_SHARE = 0.3  # of what is filled


@dataclass(slots=True)
class _Part:
    """A part of the prompts of a group of calls.

    Attributes:
        input: name of the placeholder; None for the template's own text.
        values: of each call: equal where the texts are.
        chars: of each call.
    """

    input: str | None
    values: list[object]
    chars: list[int]

    @property
    def num_values(self) -> int:
        return len(set(self.values))


def advise(calls: Sequence[CallRecord], tokens: Mapping[int, int], tokens_of: Callable[[ValueRecord], float]) -> str | None:
    """Return a sentence of advice for calls of one template; None where another order would gain little.

    Args:
        calls: that run on a model; all of one `Prompt`.
        tokens: prompt tokens of each call, by its id.
        tokens_of: likely tokens of a variable that has no text yet.
    """
    parts = _parts(calls, tokens_of)
    first = next((i for i, part in enumerate(parts) if part.num_values > 1), None)
    if len(calls) < MIN_CALLS or first is None:
        return None
    num_chars = sum(sum(part.chars) for part in parts)
    per_char = sum(tokens[call.id] for call in calls) / num_chars if num_chars else 0.0
    better = sorted(parts, key=lambda part: part.num_values)  # stable: parts that change alike keep their order
    now, then = round(_filled_chars(parts) * per_char), round(_filled_chars(better) * per_char)
    if now - then < max(MIN_TOKENS, MIN_TOKENS_EACH * len(calls), MIN_SHARE * now):
        return None
    name = parts[first].input
    behind = [part for part in parts[first + 1 :] if part.num_values < parts[first].num_values]
    names = [f"'{part.input}'" for part in behind if part.input is not None]
    what = " and ".join(names) if names else "the text behind it"
    less = "these change less" if len(names) > 1 else "that changes less"
    return (
        f"{calls[0].name}: the prompts part at '{name}', which stands before {what}, and {less}: put '{name}' behind, and "
        f"{len(calls)} calls fill {then:,} tokens instead of {now:,}."
    )


def _parts(calls: Sequence[CallRecord], tokens_of: Callable[[ValueRecord], float]) -> list[_Part]:
    """The parts before the first output."""
    parts: list[_Part] = []
    for segment in calls[0].segments:
        match segment:
            case Output():
                break
            case Constant(text):
                parts.append(_Part(None, [text] * len(calls), [len(text)] * len(calls)))
            case Input(name):
                nodes = [call.inputs[name] for call in calls]
                texts = [node.text if node.spans is not None else node.written for node in nodes]
                values: list[object] = [node.id if text is None else text for node, text in zip(nodes, texts, strict=True)]
                chars = [
                    round(CHARS_PER_TOKEN * tokens_of(node)) if text is None else len(text)
                    for node, text in zip(nodes, texts, strict=True)
                ]
                parts.append(_Part(name, values, chars))
    return parts


def _filled_chars(parts: Sequence[_Part]) -> int:
    """Return the characters that must be filled for all calls, those of equal beginnings once."""
    filled = 0
    prefixes: list[object] = [None] * (len(parts[0].values) if parts else 0)
    for part in parts:
        prefixes = [hash((before, value)) for before, value in zip(prefixes, part.values, strict=True)]
        filled += sum(dict(zip(prefixes, part.chars, strict=True)).values())
    return filled
