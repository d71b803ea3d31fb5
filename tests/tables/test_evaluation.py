"""Scores of functions on tables: metrics, what counts as wrong, confusion, and differences."""

from __future__ import annotations

import enum

import pandas as pd
import polars as pl
import pytest
from shorthand import WAIT_S

import parrot_nb as P
from parrot_nb.tables.metrics import metric_named


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


answers = P.native_function(lambda answer: answer, name="answers")
TABLE = {"answer": ["yes", "no", "yes", "no"], "label": ["yes", "yes", "yes", "no"]}


@pytest.mark.parametrize(
    "table", [pd.DataFrame(TABLE), pl.DataFrame(TABLE), pl.DataFrame(TABLE).to_dicts()], ids=["pandas", "polars", "dicts"]
)
def test_a_score_is_the_mean_over_all_rows(session, table):
    measured = P.evaluate(answers, table, expected="label")
    assert measured.scores == (1.0, 0.0, 1.0, 1.0)
    assert measured.score == 0.75
    assert (measured.interval.method, measured.interval.low < 0.75 < measured.interval.high) == ("exact", True)
    assert repr(measured) == "answers, exact: 0.750 [0.194, 0.994] (95%, exact) on 4 rows"
    (worst,) = measured.worst(1)
    assert (worst.row.position, worst.value, worst.expected, worst.score) == (1, "no", "yes", 0.0)


def test_an_iterable_is_read_once_for_all_that_is_asked_of_it(session):
    assert P.evaluate(answers, ({"answer": n, "label": n} for n in range(30)), "label").score == 1.0


def test_a_row_that_failed_is_wrong_and_comes_first_among_the_worst(session):
    def sometimes(text: str) -> str:
        if text == "bad":
            raise ValueError("no")
        return text

    frame = pd.DataFrame({"text": ["a", "b", "bad"], "label": ["a", "x", "y"]})
    measured = P.evaluate(P.native_function(sometimes), frame, "label")
    assert (measured.score, measured.num_failed) == (pytest.approx(1 / 3), 1)
    assert [each.row.position for each in measured.worst()] == [2, 1, 0]
    wide = measured.to_frame(prefix="own_")
    assert wide["own_score"].tolist() == [1.0, 0.0, 0.0]
    assert list(wide.columns) == ["text", "label", "own_sometimes", "own_error", "own_score"]


METRICS = [
    ("exact", " yes\n", "yes", 1), ("exact", 3, "3", 1), ("exact", 3.0, 3, 1), ("exact", Mood.GOOD, "good", 1), ("exact", "Yes", "yes", 0),
    ("exact", [1, 2], [1, 2], 1), ("contains", "It is Rome.", "rome", 1), ("contains", "Oslo", "Rome", 0),
    ("number", "3.14", 3.1, 1), ("number", 3.3, 3.1, 0), ("number", "three", 3, 0), ("number", float("inf"), 3, 0),
    ("regex", "on 2026-03-01", r"\d{4}-\d\d-\d\d", 1), ("regex", "never", r"^\d", 0),
    ("f1", "the red car", "red car", 0.8), ("f1", ["a", "b"], {"b", "c"}, 0.5), ("f1", [], [], 1), ("f1", "x", "y", 0),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value", "expected", "score"), METRICS)
def test_metrics(name, value, expected, score):
    assert metric_named(name, tolerance=0.1)(value, expected) == pytest.approx(score)


def test_functions_of_every_kind_are_metrics(session):
    def near(value: str, expected: str) -> float:
        return 0.5 if value != expected else 1.0

    frame = pd.DataFrame(TABLE)
    for metric in (near, P.native_function(near)):
        measured = P.evaluate(answers, frame, "label", metric)
        assert (measured.score, measured.metric, measured.interval.method) == (0.875, "near", "bootstrap")
    both = P.native_function(lambda answer, value, expected: answer == value, name="both")
    assert P.evaluate(answers, frame, "label", both).score == 1.0, "a judge may read the row's own columns"


def test_a_prompt_is_a_metric(tiny):
    with tiny:
        judge = P.SemanticFunction("{{input:value}} or {{input:expected}}? {{output:same: bool}}")
        measured = P.evaluate(answers, pd.DataFrame(TABLE), "label", judge)
    assert set(measured.scores) <= {0.0, 1.0}
    assert len(measured.scores) == 4


def test_choices_have_a_confusion_matrix(tiny):
    with tiny:
        mood = P.SemanticFunction('{{input:text}} is {{output:mood: "good" | "bad"}}', name="mood")
        frame = pd.DataFrame({"text": ["a", "b", None], "label": ["good", "bad", "bad"]}, dtype=object)
        measured = P.evaluate(mood, frame, "label")
        moods = measured.rows.get(timeout=WAIT_S)
    confusion = measured.confusion
    assert list(confusion) == ["good", "bad"]
    assert list(confusion["good"]) == ["good", "bad", "(failed)"]
    assert confusion["good"][moods[0]] == 1
    assert confusion["bad"][moods[1]] == 1
    assert confusion["bad"]["(failed)"] == 1
    assert sum(map(sum, (row.values() for row in confusion.values()))) == 3
    assert repr(measured).splitlines()[1].split() == ["expected", "\\", "value", "good", "bad", "(failed)"]


def test_text_has_no_confusion_matrix_and_bools_have_one(session):
    assert P.evaluate(answers, pd.DataFrame(TABLE), "label").confusion is None
    yes = P.native_function(lambda answer: answer == "yes", name="is_yes")
    measured = P.evaluate(yes, pd.DataFrame({**TABLE, "label": [True, True, True, False]}), "label")
    assert measured.confusion == {"True": {"True": 2, "False": 1}, "False": {"True": 0, "False": 1}}


REFUSED = {
    "no such column": (lambda frame: P.evaluate(answers, frame, "truth"), "no column 'truth'"),
    "a gap": (lambda frame: P.evaluate(answers, frame.assign(label=["yes", None, "no", "no"]), "label"), "Row 1 has no 'label'"),
    "no such metric": (lambda frame: P.evaluate(answers, frame, "label", "bleu"), "'exact', 'contains'"),
    "no function": (lambda frame: P.evaluate(len, frame, "label"), "decorate it"),
    "a score of three": (lambda frame: P.evaluate(answers, frame, "label", lambda *_: 3), r"gave 3 for row 0: give True, False"),
    "a text": (lambda frame: P.evaluate(answers, frame, "label", lambda *_: "1"), "gave '1'"),
    "no number": (lambda frame: P.evaluate(answers, frame, "label", "number"), "expects numbers, not 'yes'"),
    "no expression": (lambda frame: P.evaluate(answers, frame.assign(label="("), "label", "regex"), "regular expressions"),
    "no confidence": (lambda frame: P.evaluate(answers, frame, "label", confidence=95), "such as 0.95"),
    "no such output": (lambda frame: P.evaluate(answers, frame, "label", output="x"), "no output 'x'"),
    "one function": (lambda frame: P.compare([answers], frame, "label"), "two functions"),
    "no parameter": (lambda frame: P.compare([answers, answers], frame, "label", word="answer"), "none of the functions"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_measured_is_refused(session, case):
    attempt, remedy = REFUSED[case]
    with pytest.raises(P.ArgumentError, match=remedy):
        attempt(pd.DataFrame(TABLE))


def test_a_difference_is_told_from_chance(session):
    labels = ["yes"] * 20
    frame = pd.DataFrame({"low": ["no"] * 12 + ["yes"] * 8, "high": ["no"] + ["yes"] * 19, "label": labels})
    low = P.native_function(lambda low: low, name="copy")
    high = P.native_function(lambda high: high, name="copy")
    compared = P.compare([low, high, low], frame, "label")
    assert list(compared.evaluations) == ["copy", "copy #2", "copy #3"]
    better, same = compared.differences["copy #2"], compared.differences["copy #3"]
    assert (better.num_better, better.num_worse, better.test, better.is_real) == (11, 0, "McNemar", True)
    assert better.p_value == pytest.approx(2 * 2 * 0.5**11), "adjusted for two comparisons"
    assert better.interval.low > 0
    assert (same.mean, same.p_value, same.is_real) == (0.0, 1.0, False)
    assert same.interval.low < 0 < same.interval.high
    lines = repr(compared).splitlines()
    assert lines[0] == "3 functions on 20 rows"
    assert "+0.550" in lines[3]
    assert "(chance)" in lines[4]


def test_functions_may_be_named_and_differ_in_parameters(session):
    frame = pd.DataFrame({**TABLE, "other": ["yes", "yes", "yes", "no"]})
    mine = P.native_function(lambda text: text, name="mine")
    compared = P.compare({"before": answers, "after": mine}, frame, "label", "f1", text="other")
    assert [each.score for each in compared.evaluations.values()] == [0.75, 1.0]
    assert compared.differences["after"].mean == 0.25
