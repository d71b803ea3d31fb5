"""The evaluation counts rightly, and parrot-tiny is as good as its card says."""

from __future__ import annotations

import re

import pytest

from parrot_nb.tiny import default_model
from parrot_nb.tiny.evaluate import Model, Score, fresh_cases, good_enough, score, score_map_reduce, table
from parrot_nb.tiny.tasks import TASKS

SAMPLE = 40


def perfect(cases):
    return [case.turns()[0].answer for case, _ in cases]


def test_a_perfect_model_is_perfect():
    scores = [score(perfect, task, 20) for task in TASKS]
    assert all(s.accuracy == 1.0 and s.examples == () for s in scores)
    assert {s.task for s in scores if s.runs is not None} == {"write_code", "write_test", "revise"}
    assert all(s.runs in {None, 20} for s in scores)
    assert good_enough(scores)


def test_one_wrong_character_counts():
    for task in ("ask", "write_code"):
        found = score(lambda cases: [answer + (" " if i == 3 else "") for i, answer in enumerate(perfect(cases))], task, 10)
        assert found.exact == 9
        assert len(found.examples) == 1


def test_code_that_does_not_run_counts():
    found = score(
        lambda cases: ["def broken(:" if i < 4 else answer for i, answer in enumerate(perfect(cases))], "write_code", 10
    )
    assert (found.exact, found.runs) == (6, 6)


def test_map_reduce_counts_items():
    def forgetful(cases):
        return [
            "\n".join(answer.split("\n")[1:]) if "parts" in case.inputs else reading(case)
            for case, answer in zip([case for case, _ in cases], perfect(cases), strict=True)
        ]

    def reading(case):
        from test_cases import agreed, lines

        return lines(agreed(case.inputs["part"]))

    found = score_map_reduce(forgetful, 2)
    assert found.exact == found.cases - 2
    assert found.cases > 40


def test_thresholds():
    good = [Score(task, 100, 99) for task in TASKS]
    assert good_enough(good)
    assert not good_enough([*good[1:], Score("ask", 100, 94)])
    assert not good_enough([Score(task, 100, 97) for task in TASKS])
    assert not good_enough([*good, Score("map_reduce", 100, 90)])
    assert not good_enough([*good[1:], Score("write_code", 100, 99, runs=90)])


def test_evaluation_cases_are_the_same_each_time_and_of_both_forms():
    assert fresh_cases("ask", 16) == fresh_cases("ask", 16)
    assert {chat for _, chat in fresh_cases("ask", 4)} == {True, False}


@pytest.fixture(scope="module")
def model():
    return Model(default_model())


@pytest.mark.slow
def test_parrot_tiny_is_as_good_as_promised(model):
    scores = [score(model.answers, task, SAMPLE) for task in TASKS]
    assert good_enough(scores), table(scores)


@pytest.mark.slow
def test_a_map_reduce_over_forty_parts_finds_the_action_items(model):
    assert score_map_reduce(model.answers, 1).accuracy >= 0.95


def test_the_card_has_the_table():
    card = (default_model() / "README.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| \d+ \| ([\d.]+)% ", card, re.MULTILINE))
    assert set(rows) == {*TASKS, "map_reduce"}
    assert all(float(share) >= 95 for share in rows.values())
