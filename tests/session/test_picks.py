"""Votes and picks among variables, in a runtime apart and in a thread."""

from __future__ import annotations

import enum

import pytest

import parrot_nb as P


class Day(enum.Enum):
    monday = 0
    friday = 1


def given(*values):
    """A variable for each value, of calls of a native function."""
    return P.native_function(lambda value: value, name="give").map(value=list(values))


@pytest.mark.parametrize(
    ("values", "winner", "share"),
    [
        (["a", "b", "b"], "b", 2 / 3),
        (["b", "a", "a", "b"], "b", 1 / 2),
        (["c"], "c", 1.0),
        ([{"n": 1}, {"n": 2}, {"n": 1}], {"n": 1}, 2 / 3),
        ([Day.friday, Day.monday, Day.friday], Day.friday, 2 / 3),
    ],
)
def test_the_majority_wins_and_of_equals_the_earliest(session, values, winner, share):
    elected = P.vote(given(*values))
    assert elected.share is None
    assert elected.get() == winner
    assert elected.share == pytest.approx(share)


def test_a_vote_may_look_at_a_part_of_each_value(session):
    elected = P.vote(given(" yes", "no", "Yes "), key=lambda text: text.strip().lower())
    assert elected.get() == " yes"
    assert elected.share == pytest.approx(2 / 3)


def test_the_best_has_the_greatest_figure(session):
    assert P.best(given("aa", "bbb", "ccc"), key=len).get() == "bbb"
    assert P.best(*given(3, 1, 2), key=lambda n: -n).get() == 1


def test_a_key_may_ask_a_model(session):
    grade = P.SemanticFunction("Grade {{input:text}}: {{output:n: int[0..9]}}")
    asked = []

    def key(text: str) -> int:
        asked.append(grade(text))
        return asked[-1].get()

    found = P.best(given("a", "b", "c"), key=key)
    grades = []
    value = found.get()
    grades = [each.get() for each in asked]
    assert value == "abc"[grades.index(max(grades))]


def test_samples_of_a_prompt_are_voted_on_and_the_winner_is_read_on_in_its_own_tokens(session):
    ask = P.SemanticFunction('Who? {{output:who: "Finn" | "Emma", temperature=2.0}}')
    samples = [ask.options(seed=seed)() for seed in range(5)]
    elected = P.vote(samples)
    follow = P.SemanticFunction("{{input:who}} is {{output:rest, max_tokens=3}}")(elected)
    assert follow.get() == P.SemanticFunction("{{input:who}} is {{output:rest, max_tokens=3}}")(elected.get()).get()
    values = [sample.get() for sample in samples]
    assert elected.get() == max(values, key=values.count)
    assert elected.text == elected.get()
    assert elected.node.spans == samples[values.index(elected.get())].node.spans
    assert elected.producer.kind == "native"


def test_a_voter_without_value_leaves_the_vote_without(session):
    def fails():
        raise RuntimeError("no")

    elected = P.vote(P.native_function(fails)(), *given("a", "a"))
    with pytest.raises(P.UpstreamError, match="vote"):
        elected.get()
    assert elected.share is None


def test_a_key_that_raises_fails_the_pick_alone(session):
    with pytest.raises(P.NativeFunctionError, match="'best'"):
        P.best(given("a"), key=lambda text: text.nothing).get()
    with pytest.raises(P.NativeFunctionError, match="'vote'"):
        P.vote(given("a"), key=lambda text: text.nothing).get()


def test_what_cannot_be_picked_from_is_refused():
    with pytest.raises(P.UsageError, match=r"P\.vote\(\) needs at least one"):
        P.vote([])
    with pytest.raises(P.UsageError, match=r"P\.best\(\) takes variables"):
        P.best(["a"], key=len)
    with pytest.raises(P.ArgumentError, match="function of a value, not int"):
        P.vote(P.variable(value="a"), key=3)
    with pytest.raises(P.ArgumentError, match="not NoneType"):
        P.best(P.variable(value="a"), key=None)

    async def key(value):
        return value

    with pytest.raises(P.ArgumentError, match="not an async one"):
        P.best(P.variable(value="a"), key=key)
