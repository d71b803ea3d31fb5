"""Draws are the same everywhere and for ever, and what is held out stays out."""

from __future__ import annotations

import re
from itertools import product

import pytest

from parrot_nb.tiny import meetings
from parrot_nb.tiny.cases import NUM_SIZES
from parrot_nb.tiny.tasks import TASKS
from parrot_nb.tiny.words import NAMES, OBJECTS, Draw, is_held_out

ITEM = re.compile(r"- (\w+): \w+ the \w+ (\w+) by ")


def test_draws_do_not_change():
    draw = Draw("a seed")
    found = [
        draw.below(10),
        draw.between(3, 5),
        draw.chance(0.5),
        draw.choice("abc"),
        draw.some("abcdef", 3),
        draw.made_up_name(),
    ]
    again = Draw("a seed")
    assert found == [
        again.below(10), again.between(3, 5), again.chance(0.5), again.choice("abc"), again.some("abcdef", 3), again.made_up_name()
    ]  # fmt: skip
    assert Draw("another").below(1 << 30) != Draw("a seed").below(1 << 30)


def test_bounds():
    draw = Draw(1)
    assert {draw.between(2, 4) for _ in range(200)} == {2, 3, 4}
    assert {draw.below(3) for _ in range(200)} == {0, 1, 2}
    assert sorted(draw.some(range(5), 5)) == [0, 1, 2, 3, 4]


def test_an_eighth_of_the_combinations_is_held_out():
    share = sum(is_held_out(name, thing) for name, thing in product(NAMES, OBJECTS)) / (len(NAMES) * len(OBJECTS))
    assert 0.1 < share < 0.15


def test_there_are_more_than_a_thousand_million_action_items_in_two():
    deadlines = len(meetings.DAYS) + 28 * len(meetings.MONTHS)
    items = len(NAMES) * len(meetings.VERBS) * len(meetings.ADJECTIVES) * len(OBJECTS) * deadlines
    assert items**2 > 10**9
    assert items > 10**9


@pytest.mark.parametrize("held_out", [False, True])
@pytest.mark.parametrize("task", ["summarize", "combine", "refine"])
def test_items_are_on_their_side_of_the_hold_out(task, held_out):
    draw = Draw(task, held_out=held_out)
    seen = 0
    for i in range(200):
        case = TASKS[task](draw, i % NUM_SIZES)
        for answer in case.answers.values():
            for who, thing in ITEM.findall(answer):
                assert is_held_out(who, thing) == held_out
                seen += 1
    assert seen > 100
