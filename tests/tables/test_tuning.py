"""Tuning: what is tried, on which rows it is chosen and measured, and what is said of it; statistics against brute force."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import Counter
from fractions import Fraction

import pandas as pd
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shorthand import f, text_of, until

import parrot_nb as P
from parrot_nb.tables.splits import example_sets, key_of, parts_of

PROMPT = "Old.\n{{input:q}} = {{output:a}}"


def answer(instruction: str, q: str) -> str:
    return text_of(f"{instruction}\n{q} = ")


def table(num_rows: int, instruction: str, num_right: int) -> list[dict[str, str]]:
    """Rows of which the prompt with that instruction has so many right, spread evenly."""
    right = {i * num_rows // num_right for i in range(num_right)}
    return [{"q": f"q{i}", "label": answer(instruction, f"q{i}") if i in right else "?"} for i in range(num_rows)]


def test_what_is_better_is_found_and_measured_on_rows_that_did_not_choose_it(session):
    rows = table(60, "Good.", 40)
    tuned = P.tune(f(PROMPT), rows, "label", variants=["Bad.", "Good.", "Worse."])
    assert [trial.name for trial in tuned.trials] == ["as it was", "variant 1", "variant 2", "variant 3"]
    assert [trial.kind for trial in tuned.trials] == ["start", *["variant"] * 3]
    assert (tuned.winner, tuned.is_better, tuned.best) == (tuned.trials[2], True, tuned.winner.function)
    choosing = {row.inputs["q"] for row in tuned.winner.choosing.rows}
    held_out = {row.inputs["q"] for row in tuned.winner.held_out.rows}
    assert (len(choosing), len(held_out), choosing & held_out) == (30, 30, set())
    for trial in tuned.trials:
        assert {row.inputs["q"] for row in trial.choosing.rows} == choosing, "all are chosen by the same rows"
        assert (trial.held_out is None) == (trial.kind != "start" and trial is not tuned.winner)

    labels = {row["q"]: row["label"] for row in rows}
    won = sum(answer("Good.", q) == labels[q] for q in held_out)  # nobody else has one right
    split = Counter(abs(2 * k - won) >= won for k in range(won + 1) for _ in range(math.comb(won, k)))
    difference = tuned.difference
    assert (difference.num_better, difference.num_worse, difference.test) == (won, 0, "McNemar")
    assert difference.mean == pytest.approx(won / 30)
    assert difference.p_value == pytest.approx(float(Fraction(split[True], 2**won)))
    assert tuned.summary.startswith(f"'variant 2' is better than the function as it was: {won / 30:+.3f} [")
    assert tuned.summary.endswith("(McNemar) on 30 rows held out.")


def test_nothing_is_called_better_that_is_not(session):
    tuned = P.tune(f(PROMPT), table(20, "Old.", 10), "label", variants=["One.", "Two."])
    assert (tuned.winner, tuned.difference, tuned.is_better) == (tuned.trials[0], None, False)
    assert tuned.best is tuned.trials[0].function
    assert tuned.summary == (
        "Nothing better was found: no trial scored higher than the function as it was on the 10 rows that choose."
    )


def test_chance_is_called_chance(session):
    """Scores that the prompt has no part in: of 20 searches over six variants each, about one may err."""

    def toss(value: str, expected: str) -> bool:
        return hashlib.sha256((value + expected).encode()).digest()[0] < 128

    called_better = highest = 0
    for seed in range(20):
        rows = [{"q": f"{seed} {i}", "label": str(i)} for i in range(24)]
        tuned = P.tune(f(PROMPT), rows, "label", toss, variants=["A.", "B.", "C.", "D.", "E.", "F."], seed=seed)
        called_better += tuned.is_better
        highest += tuned.winner is not tuned.trials[0]
        if tuned.difference is not None and not tuned.is_better:
            assert tuned.best is tuned.trials[0].function
            assert tuned.summary.startswith("Nothing is shown to be better: ") or tuned.difference.is_real
    assert highest >= 12, "where trials are chosen, most of these searches see something better"
    assert called_better <= 3


def test_scores_between_0_and_1_are_resampled(session):
    def near(value: str, expected: str) -> float:
        return 0.9 if value == expected else hashlib.sha256(value.encode()).digest()[0] / 1024

    tuned = P.tune(f(PROMPT), table(60, "Good.", 45), "label", near, variants=["Good."])
    assert (tuned.is_better, tuned.difference.test, tuned.difference.interval.method) == (True, "sign flips", "bootstrap")
    mine, theirs = tuned.trials[0].held_out.scores, tuned.winner.held_out.scores
    assert tuned.difference.mean == pytest.approx(sum(b - a for a, b in zip(mine, theirs, strict=True)) / 30)


def test_examples_come_before_the_best_instruction_and_are_never_scored(session):
    tuned = P.tune(f(PROMPT), table(40, "Good.", 30), "label", variants=["Good."], examples=2, sets=3)
    names = ["as it was", "variant 1", *(f"variant 1 + examples {i}" for i in (1, 2, 3))]
    assert [trial.name for trial in tuned.trials] == names
    assert [trial.num_examples for trial in tuned.trials] == [0, 0, 2, 2, 2]
    scored = {row.inputs["q"] for each in tuned.trials[0].evaluations for row in each.rows}
    shown = [
        {str(p.default) for p in trial.function.signature.parameters.values() if p.name.endswith("_q")}
        for trial in tuned.trials[2:]
    ]
    assert all(len(each) == 2 and not each & scored for each in shown)
    assert len({frozenset(each) for each in shown}) == 3
    prompt = "".join(s.text for s in tuned.trials[2].function.render("new"))
    assert prompt.count("Good.\n") == 3


def test_given_sets_leave_their_rows_out(session):
    rows = table(20, "Old.", 5)
    one, two = rows[:2], pd.DataFrame([{"q": "q3", "a": "x"}, {"q": "elsewhere", "a": "y"}])
    tuned = P.tune(f(PROMPT), rows, "label", examples=[one, two])
    assert [trial.num_examples for trial in tuned.trials] == [0, 2, 2]
    scored = {row.inputs["q"] for each in tuned.trials[0].evaluations for row in each.rows}
    assert scored == {f"q{i}" for i in range(20)} - {"q0", "q1", "q3"}
    assert tuned.num_left_out == 3


def test_a_held_out_table_is_measured_on_as_it_is(session):
    rows = table(30, "Good.", 25)
    tuned = P.tune(f(PROMPT), rows[:20], "label", variants=["Good."], held_out=rows[10:])
    assert [row.inputs["q"] for row in tuned.winner.held_out.rows] == [f"q{i}" for i in range(10, 30)]
    assert {row.inputs["q"] for row in tuned.winner.choosing.rows} == {f"q{i}" for i in range(10)}
    assert tuned.num_left_out == 10


def test_a_function_writes_instructions_and_they_are_data(session):
    seen = []

    def writer(prompt: str, cases: str) -> str:
        seen.append((prompt, cases))
        return ["Good.", "Good.", "", "Say {{output:x}}."][len(seen) - 1]

    rows = table(30, "Good.", 20)
    tuned = P.tune(f(PROMPT), rows, "label", write=4, writer=P.native_function(writer))
    assert sorted(trial.instruction for trial in tuned.trials[1:]) == ["Good.", "Say {{output:x}}."], "equal ones count once"
    assert {trial.kind for trial in tuned.trials[1:]} == {"written"}
    assert all(trial.function.template.outputs == ("a",) for trial in tuned.trials)
    assert all(prompt == PROMPT for prompt, _ in seen)
    scored = {row.inputs["q"] for each in tuned.trials[0].evaluations for row in each.rows}
    shown = {line.removeprefix("q: ") for line in seen[0][1].splitlines() if line.startswith("q: ")}
    assert shown
    assert not shown & scored, "the writer sees no row that is scored"
    assert tuned.winner.instruction == "Good."


def test_a_prompt_writes_instructions(session):
    writer = P.SemanticFunction("{{input:prompt}}{{input:cases}} {{output:better, temperature=1}}")
    tuned = P.tune(f(PROMPT), table(12, "Old.", 4), "label", write=2, writer=writer)
    assert [trial.kind for trial in tuned.trials] == ["start", "written"], "the hash engine writes the same for every seed"
    tuned = P.tune(f(PROMPT), table(12, "Old.", 4), "label", write=1)
    assert [trial.kind for trial in tuned.trials] == ["start", "written"], "the function's own model writes if none is named"


def test_a_writer_that_fails_is_no_trial(session):
    def fails(prompt: str, cases: str) -> str:
        raise ValueError("no")

    tuned = P.tune(f(PROMPT), table(12, "Old.", 4), "label", variants=["A."], write=2, writer=P.native_function(fails))
    assert [trial.kind for trial in tuned.trials] == ["start", "variant"]
    assert tuned.stopped.startswith("2 of 2 instructions could not be written: ")
    assert "ValueError: no" in tuned.stopped


def test_a_writer_that_cannot_be_called_is_refused_before_anything_is_measured(session):
    for writer in (
        P.native_function(lambda text: text),
        P.SemanticFunction("{{input:prompt}}{{input:cases}}{{output:a}}{{output:b}}"),
    ):
        with pytest.raises(P.ArgumentError, match="writer"):
            P.tune(f(PROMPT), table(12, "Old.", 4), "label", write=1, writer=writer)
    assert not session.calls()


def test_a_whole_prompt_keeps_the_defaults_of_the_function(session):
    @P.semantic_function
    def say(q, tone="old"):
        """Old {{input:tone}}. {{input:q}} {{output:a}}"""

    whole = "{{input:q}}, in a tone that is {{input:tone}}: {{output:a}}"
    tuned = P.tune(say, table(12, "Old old.", 4), "label", variants=[whole, "{{input:q}} {{output:a}}"])
    assert [trial.kind for trial in tuned.trials] == ["start", "variant", "variant"]
    assert tuned.trials[1].function.signature.parameters["tone"].default == "old"


def test_sets_that_are_left_out_are_told(session):
    shown = f(PROMPT).with_examples([{"q": "zz", "a": "zz"}])
    tuned = P.tune(f(PROMPT), table(24, "New.", 4), "label", variants=[shown], examples=1, sets=2, trials=4)
    told = "Sets of examples were left out" in tuned.stopped
    assert told == (tuned.trials[1].choosing.score > tuned.trials[0].choosing.score)


def test_variants_are_instructions_prompts_and_functions(session):
    say = P.SemanticFunction("Old.\n{{input:q}} = {{output:a: int}}", name="f")
    other = P.SemanticFunction("{{input:q}}? {{output:a}}")
    tuned = P.tune(
        say, table(12, "Old.", 4), "label", variants={"line": "New.", "whole": "{{input:q}} is {{output:a}}", "f": other}
    )
    line, whole, own = (trial.function for trial in tuned.trials[1:])
    assert line.template.source == "New.\n{{input:q}} = {{output:a: int}}"
    assert whole.template.types["a"].form == say.template.types["a"].form, "an output without a type keeps that of the function"
    assert own is other
    assert [trial.name for trial in tuned.trials[1:]] == ["line", "whole", "f"]


def test_the_number_of_trials_is_bounded_and_examples_get_their_share(session):
    rows = table(30, "Old.", 10)
    tuned = P.tune(f(PROMPT), rows, "label", variants=list("ABCDEFGH"), examples=1, sets=4, trials=6)
    assert [trial.kind for trial in tuned.trials] == ["start", "variant", "variant", *["examples"] * 3]
    assert tuned.summary.endswith("Further trials were left out, since there may be 6.")


def test_a_budget_of_tokens_keeps_enough_to_measure_the_choice(session):
    rows = table(20, "Good.", 18)
    variants = ["Good.", *(f"{i}." for i in range(20))]
    budget = P.budget(tokens=12 * 20 * 3)
    tuned = P.tune(f(PROMPT), rows, "label", variants=variants, budget=budget)
    assert 2 <= len(tuned.trials) < 21
    assert tuned.winner.name == "variant 1"
    assert tuned.difference is not None
    assert budget.spent_tokens <= 12 * 20 * 3
    assert tuned.stopped == "Further trials were left out, since the budget has no room for them."


def test_a_budget_that_leaves_no_room_for_a_trial_says_so(session):
    tuned = P.tune(f(PROMPT), table(200, "Good.", 180), "label", variants=["Good."], budget=P.budget(tokens=150))
    assert (len(tuned.trials), tuned.is_better) == (1, False)
    assert "The search ended before any trial: the budget is used up." in tuned.summary or "has no room" in tuned.summary


def test_a_budget_of_seconds_ends_what_hangs(session):
    rows = [{"q": f"HANG {i}", "label": "x"} for i in range(12)]
    tuned = P.tune(f(PROMPT), rows, "label", variants=["Good."], budget=P.budget(seconds=0.2))
    assert (len(tuned.trials), tuned.difference, tuned.is_better) == (1, None, False)
    assert tuned.summary == "Nothing was measured. The search ended before any trial: the budget is used up."
    assert tuned.to_dicts()[0]["score"] is None


@pytest.mark.parametrize("first", ["Good.", "HANG."])
def test_a_trial_that_is_cut_off_does_not_count(session, first):
    """Somebody cancels it; what was measured before stands."""
    hanging = P.SemanticFunction("HANG.\n{{input:q}} = {{output:a}}", name="hanging")

    def cancel() -> None:
        until(lambda: any(call.name == "hanging" and call.state == "running" for call in session.calls()), "a call")
        session.cancel()

    thread = threading.Thread(target=cancel)
    thread.start()
    tuned = P.tune(f(PROMPT), table(20, "Good.", 18), "label", variants=[*(["Good."] * (first == "Good.")), hanging, "More."])
    thread.join()
    cut = tuned.trials[-1]
    assert (cut.function, cut.choosing, cut is tuned.winner) == (hanging, None, False)
    assert tuned.stopped == f"The search ended during '{cut.name}': its calls were cancelled."
    assert tuned.winner.name == ("variant 1" if first == "Good." else "as it was")
    assert tuned.is_better == (first == "Good.")


def test_trials_are_rows_of_one_table(session):
    rows = table(30, "Good.", 25)
    for frame, library in ((pd.DataFrame(rows), pd), (pl.DataFrame(rows), pl)):
        tuned = P.tune(f(PROMPT), frame, "label", variants=["Bad.", "Good."])
        found = tuned.to_frame()
        assert isinstance(found, library.DataFrame)
        assert list(found["trial"]) == ["as it was", "variant 1", "variant 2"]
        assert list(found["instruction"]) == ["Old.", "Bad.", "Good."]
        assert list(found["chosen"]) == [False, False, True]
        assert found["held_out_score"][2] == tuned.winner.held_out.score
    assert list(tuned.to_frame(backend="pandas")["kind"]) == ["start", "variant", "variant"]
    lines = repr(tuned).splitlines()
    assert lines[0] == tuned.summary
    assert [line.split("  ")[0].strip() for line in lines[2:]] == ["as it was", "variant 1", "variant 2 (chosen)"]


ROWS = [{"q": f"q{i}", "label": "x"} for i in range(12)]
REFUSED = {
    "nothing to try": ({}, "nothing to try"),
    "too few rows": ({"examples": 5}, "4 rows to choose by|are too few"),
    "a share of one": ({"variants": ["A."], "held_out": 1.0}, "share between 0 and 1"),
    "one trial": ({"variants": ["A."], "trials": 1}, "trials must be a whole number, at least 2"),
    "a budget of a number": ({"variants": ["A."], "budget": 100}, r"P\.budget\(tokens=N"),
    "a variant with other outputs": ({"variants": [P.SemanticFunction("{{input:q}}{{output:b}}")]}, "outputs the same names"),
    "a variant that is no prompt": ({"variants": [3]}, "text or a semantic function"),
    "one variant": ({"variants": "A."}, "in brackets"),
    "a writer that is no function": ({"write": 1, "writer": 3}, "model's id or a function"),
    "a text of examples": ({"examples": "ab"}, "a number or a list of tables"),
    "fewer than no examples": ({"examples": -1}, "at least 0"),
    "examples of an expression": ({"examples": 1, "metric": "regex"}, "no column 'a'"),
    "no such column": ({"variants": ["A."], "expected": "truth"}, "no column 'truth'"),
    "no parameter": ({"variants": ["A."], "word": "q"}, "no parameter 'word'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_tuned_is_refused(session, case):
    given, remedy = REFUSED[case]
    rows = ROWS[:9] if "few" in case else ROWS
    with pytest.raises(P.ArgumentError, match=remedy):
        P.tune(f(PROMPT), rows, **{"expected": "label", **given})


def test_only_a_prompt_without_examples_is_tuned(session):
    with pytest.raises(P.ArgumentError, match="only a prompt"):
        P.tune(P.native_function(lambda q: q, name="own"), ROWS, "label", variants=["A."])
    with pytest.raises(P.ArgumentError, match=r"that with_examples\(\) was called on"):
        P.tune(f(PROMPT).with_examples([{"q": "a", "a": "b"}]), ROWS, "label", variants=["A."])


@settings(deadline=None, max_examples=60)
@given(
    keys=st.lists(st.integers(0, 30), min_size=1, max_size=60),
    share=st.floats(0.1, 0.9),
    pool_rows=st.integers(0, 5),
    shown=st.sets(st.integers(0, 5)),
    seed=st.integers(0, 99),
)
def test_no_row_and_no_equal_row_is_in_two_parts(keys, share, pool_rows, shown, seed):
    rows = [{"q": key, "n": i} for i, key in enumerate(keys)]
    given_keys = {key_of([key]) for key in shown}
    try:
        parts = parts_of(rows, lambda row: [row["q"]], held_out=share, shown=given_keys, pool_rows=pool_rows, seed=seed)
    except P.ArgumentError:
        return
    each = [parts.choosing, parts.held_out, parts.pool]
    inputs = [{row["q"] for row in part} for part in each]
    assert sum(map(len, inputs)) == len(set().union(*inputs))
    assert not shown & set().union(*inputs)
    assert sum(map(len, each)) + parts.num_left_out == len(rows)
    assert len({row["n"] for part in each for row in part}) == sum(map(len, each))
    assert len(parts.pool) >= pool_rows
    assert parts.num_left_out == sum(key in shown for key in keys)


@settings(deadline=None, max_examples=60)
@given(labels=st.lists(st.sampled_from("abc"), min_size=1, max_size=12), size=st.integers(1, 5), seed=st.integers(0, 99))
def test_sets_are_different_and_show_as_many_labels_as_they_can(labels, size, seed):
    pool = [{"n": i, "label": label} for i, label in enumerate(labels)]
    sets = example_sets(pool, lambda row: row["label"], size, 4, seed)
    assert 1 <= len(sets) <= 4
    assert len({frozenset(row["n"] for row in rows) for rows in sets}) == len(sets)
    for rows in sets:
        assert len(rows) == min(size, len(pool))
        assert len({row["label"] for row in rows}) == min(size, len(set(labels)))
    assert sets == example_sets(pool, lambda row: row["label"], size, 4, seed)
