"""How a model thinks before it answers, found from what its chat template writes and from its tokenizer's tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from parrot_nb.engine.codec import Part, Thinking

# Marks that models put around their thoughts; of a pair that a template knows, the first.
TAGS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<seed:think>", "</seed:think>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
)
CHANNEL = "<|channel|>{}<|message|>"
# What Qwen's makers write where a budget ends the thinking of Qwen3 (and QwQ, which has the same marks).
QWEN_SENTENCE = "Considering the limited time by the user, I have to give the solution based on the thinking directly now."
QWEN_TURN, QWEN_CLOSES = "<|im_start|>", "</think>\n\n"


@dataclass(frozen=True, slots=True)
class Openings:
    """Texts with which a chat template opens an answer, behind the user's content.

    Attributes:
        plain: where it is told not to think.
        thinking: where it is told to.
        answered: before the answer of a conversation that ends with it; None where that is not known.
        template: the template's text.
    """

    plain: str
    thinking: str
    answered: str | None
    template: str


@dataclass(frozen=True, slots=True)
class Found:
    """How a model thinks.

    Attributes:
        thinking: for whoever writes prompts.
        opening: the end of `Openings.thinking` that opens the thoughts; it is left to `Thinking.opens`.
    """

    thinking: Thinking
    opening: str


def find_thinking(openings: Openings, split: Callable[[str], list[Part]], has_token: Callable[[str], bool]) -> Found | None:
    """How a model thinks; None if its template says nothing of it.

    A template that can switch thinking off writes an empty block of thoughts then, or the mark that ends one. One that
    cannot opens the block itself. If it does neither, but knows the mark (it takes thoughts out of earlier answers), the
    model can think, and is taken to do so only where it is asked to. Channels (harmony) are written before every answer.

    Args:
        openings: of its template.
        split: reads template text as the tokenizer does.
        has_token: whether the vocabulary has a token of this content.
    """
    answer = CHANNEL.format("final")
    if openings.answered is not None and openings.answered.endswith(answer) and has_token("<|channel|>"):
        start = openings.answered.removesuffix(answer)
        turn = start[start.rfind("<|start|>") :] if "<|start|>" in start else ""
        final = tuple(split(answer))
        closes = tuple(split("<|end|>" + turn + answer))
        opens = tuple(split(CHANNEL.format("analysis")))
        return Found(Thinking(opens, closes, closes, empty=final, past=final, stop="<|end|>", always=True), "")
    for begin, end in TAGS:
        if end in openings.template or begin in openings.template:
            return _tagged(openings, split, has_token, begin, end)
    return None


def _tagged(
    openings: Openings, split: Callable[[str], list[Part]], has_token: Callable[[str], bool], begin: str, end: str
) -> Found | None:
    """How a model thinks between two marks; None if its template never says where thoughts end."""
    opening = _open_end(openings.thinking, begin)
    always = bool(_open_end(openings.plain, begin))
    switched = not always and end in openings.plain
    if switched:
        block = openings.plain[openings.plain.rindex(begin) if begin in openings.plain else openings.plain.rindex(end) :]
        inside, _, after = block.removeprefix(begin).partition(end)
        opens = opening or begin + inside[: inside.startswith("\n")]
        before = openings.thinking.removesuffix(opening)
        empty = openings.plain.removeprefix(before) if openings.plain.startswith(before) else block
    elif opening or end in openings.template:
        opens = opening or begin + "\n"
        after = "\n\n" if opens.endswith("\n") else ""
        empty = f"{opens}{after[:1]}{end}{after}" if always else ""
    else:
        return None
    closes = end + after
    is_qwen = closes == QWEN_CLOSES and has_token(QWEN_TURN)
    cut = f"\n\n{QWEN_SENTENCE}\n" if is_qwen else "\n" if opens.endswith("\n") else ""
    thinking = Thinking(
        opens=tuple(split(opens)),
        closes=tuple(split(closes)),
        closes_cut=tuple(split(cut + closes)),
        empty=tuple(split(empty)),
        past=(),
        stop=end,
        always=always,
    )
    return Found(thinking, opening)


def _open_end(text: str, begin: str) -> str:
    """The end of a text that opens thoughts, from the mark on; empty if the text does not end so."""
    return text[text.rindex(begin) :] if text.rstrip().endswith(begin) else ""
