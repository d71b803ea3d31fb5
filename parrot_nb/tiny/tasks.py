"""Tasks of parrot-tiny: each as a maker of cases, and the exercises that teach what the tasks have in common."""

from __future__ import annotations

from collections.abc import Callable

from parrot_nb.tiny import meetings, messages, programs
from parrot_nb.tiny.cases import Case
from parrot_nb.tiny.words import ADJECTIVES, NAMES, OBJECTS, VERBS, Draw

Maker = Callable[[Draw, int], Case]

TASKS: dict[str, Maker] = {
    "summarize": meetings.summarize,
    "combine": meetings.combine,
    "refine": meetings.refine,
    "ask": meetings.ask,
    "extract": meetings.extract,
    "urgency": messages.urgency,
    "sentiment": messages.sentiment,
    "translate": messages.translate,
    "plan": programs.plan,
    "write_code": programs.write_code,
    "write_test": programs.write_test,
    "review": programs.review,
    "revise": programs.revise,
}

_WORDS = (*NAMES, *OBJECTS, *ADJECTIVES, *VERBS)


def repeat(draw: Draw, size: int) -> Case:
    """Random words, word by word again: it is copying that all the other tasks are made of."""
    count = draw.between(*((3, 12), (8, 30), (20, 80), (60, 250))[size])
    text = " ".join(draw.choice(_WORDS) for _ in range(count))
    return Case("repeat", "Repeat: {{input:text}}\nAgain: {{output:again}}", {"text": text}, {"again": text})


EXERCISES: dict[str, Maker] = {
    "repeat": repeat,
    "quiz": meetings.quiz,
    "checklist": programs.checklist,
    "sums": programs.sums,
}
