"""The curriculum: which cases come when, packed into batches of one length.

Copying is what every task is made of, and a model of this size learns it from short texts within minutes and from long
ones alone not at all. So texts start short and grow, and the short ones stay in the mix.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from parrot_nb.tiny.tasks import EXERCISES, TASKS
from parrot_nb.tiny.tokens import SYSTEMS, Encoded, Encoder
from parrot_nb.tiny.words import Draw

BATCH_TOKENS = 4_096
LENGTHS = (64, 96, 128, 192, 256, 384, 512, 768, 1_024, 2_048)


_WEIGHTS = {
    "summarize": 2.0, "combine": 1.5, "refine": 1.5, "ask": 1.8, "extract": 1.0, "urgency": 0.4, "sentiment": 0.4,
    "translate": 1.0, "plan": 0.6, "write_code": 0.7, "write_test": 1.2, "review": 1.2, "revise": 1.0,
}  # fmt: skip
# Once copying is there, what needs more than copying comes more often.
_LATER_WEIGHTS = _WEIGHTS | {"ask": 2.6, "extract": 0.6, "urgency": 0.25, "write_test": 1.4, "review": 2.4, "revise": 0.7}

# In the end, what is long, and then what is hardest.
_LAST_WEIGHTS = _LATER_WEIGHTS | {"combine": 2.0, "refine": 2.0, "plan": 0.9, "translate": 1.1, "sentiment": 0.3, "review": 1.6}
_HARDEST_WEIGHTS = _LATER_WEIGHTS | {"ask": 5.0, "summarize": 4.0}


@dataclass(frozen=True, slots=True)
class Stage:
    """Stage of training, which lasts until so many tokens have been trained on.

    Attributes:
        until_tokens: that many; infinity for the last stage.
        exercise_share: how many cases are exercises.
        exercises: which of them; each as often as the others.
        sizes: how often each size of case.
        weights: how often each task.
        rejoined_share: how often what is an input in a prompt is part of its text, as in one that asks a question itself.
    """

    until_tokens: float
    exercise_share: float
    exercises: tuple[str, ...]
    sizes: tuple[float, float, float, float]
    weights: Mapping[str, float]
    rejoined_share: float = 0.0


_COPYING = ("repeat",)
_FINDING = ("repeat", "quiz", "quiz", "checklist", "checklist", "sums", "sums")
_ASKING = ("repeat", "quiz", "quiz", "quiz", "quiz", "checklist", "sums")
_LONG = ("repeat", "repeat", "quiz", "quiz", "sums", "checklist")
STAGES = (
    Stage(1_920_000, 0.40, _COPYING, (1.0, 0.0, 0.0, 0.0), _WEIGHTS),
    Stage(6_720_000, 0.15, _COPYING, (0.5, 0.5, 0.0, 0.0), _WEIGHTS),
    Stage(13_107_200, 0.08, _COPYING, (0.25, 0.35, 0.40, 0.0), _WEIGHTS),
    Stage(24_000_000, 0.35, _FINDING, (0.30, 0.35, 0.35, 0.0), _LATER_WEIGHTS),
    Stage(26_214_400, 0.20, _FINDING, (0.15, 0.25, 0.40, 0.20), _LATER_WEIGHTS),
    Stage(39_321_600, 0.30, _ASKING, (0.15, 0.25, 0.40, 0.20), _LATER_WEIGHTS),
    Stage(59_998_208, 0.15, _LONG, (0.10, 0.20, 0.35, 0.35), _LAST_WEIGHTS),
    Stage(87_998_464, 0.25, ("quiz",), (0.05, 0.20, 0.35, 0.40), _HARDEST_WEIGHTS),
    Stage(107_995_136, 0.25, ("quiz",), (0.05, 0.10, 0.35, 0.50), _HARDEST_WEIGHTS | {"ask": 9.0}),
    Stage(math.inf, 0.20, ("quiz",), (0.10, 0.20, 0.35, 0.35), _HARDEST_WEIGHTS, rejoined_share=0.5),
)

_RAW_SHARE = 0.4
_SYSTEM_SHARE = 0.15
_SPLIT_SHARE = 0.25


@dataclass(frozen=True, slots=True)
class Batch:
    """Cases of about one length.

    Attributes:
        length: tokens of each row, shorter cases padded.
        rows: the cases.
        labels: task and size of each row.
    """

    length: int
    rows: tuple[Encoded, ...]
    labels: tuple[str, ...]


def batches(encoder: Encoder, num_tokens: int, seed: int, stages: Sequence[Stage] = STAGES) -> Iterator[Batch]:
    """Batches of `BATCH_TOKENS` tokens each, until there are `num_tokens` of them, padding included."""
    draw = Draw(seed)
    tasks, makers = list(TASKS), TASKS | EXERCISES
    waiting: dict[int, list[tuple[Encoded, str]]] = {length: [] for length in LENGTHS}
    made = 0
    while made < num_tokens:
        stage = next(stage for stage in stages if made < stage.until_tokens)
        size = _weighted(draw, stage.sizes)
        if draw.chance(stage.exercise_share):
            task = stage.exercises[0] if len(stage.exercises) == 1 else draw.choice(stage.exercises)
        else:
            task = tasks[_weighted(draw, [stage.weights[task] for task in tasks])]
        case = makers[task](draw, size)
        chat = not draw.chance(_RAW_SHARE)
        system = draw.choice(SYSTEMS) if chat and draw.chance(_SYSTEM_SHARE) else None
        split = partial(_split, draw) if draw.chance(_SPLIT_SHARE) else None
        rejoin = partial(_rejoined, draw) if stage.rejoined_share and draw.chance(stage.rejoined_share) else None
        encoded = encoder.encode(case, chat=chat, system=system, split=split, rejoin=rejoin)
        length = next((length for length in LENGTHS if len(encoded.ids) <= length), None)
        if length is None:
            continue
        row = waiting[length]
        row.append((encoded, f"{task}/{size}"))
        if len(row) == BATCH_TOKENS // length:
            yield Batch(length, tuple(case for case, _ in row), tuple(label for _, label in row))
            row.clear()
            made += BATCH_TOKENS


def _weighted(draw: Draw, weights: Sequence[float]) -> int:
    point = draw.below(1 << 30) / (1 << 30) * sum(weights)
    for i, weight in enumerate(weights):
        point -= weight
        if point < 0:
            return i
    return max(i for i, weight in enumerate(weights) if weight)


def _rejoined(draw: Draw, fills: Sequence[str]) -> list[str]:
    """Stretches of text, some of them as one with the one before."""
    joined = list(fills[:1])
    for fill in fills[1:]:
        if draw.chance(0.5):
            joined[-1] += fill
        else:
            joined.append(fill)
    return joined


def _split(draw: Draw, text: str) -> list[str]:
    """A text in up to three pieces, cut before words: so a sentence comes out in which one word is an input."""
    places = [i + 1 for i, char in enumerate(text[:-1]) if char == " "]
    cuts = sorted(set(draw.some(places, min(len(places), draw.below(3)))))
    return [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
