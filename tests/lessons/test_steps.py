"""A run told decision by decision: in the words of `P.explain`, in the order of the log, and each call to its end."""

from __future__ import annotations

import pytest

import parrot_nb as P
from parrot_nb.errors import UsageError
from parrot_nb.lessons import steps


@pytest.fixture(scope="module")
def ran():
    code = P.SemanticFunction("Write python code of {{input:task}}.\nCode: {{output:code}}", name="write_code")
    test = P.SemanticFunction("Write an assert for this code.\n{{input:code}}\nAssert: {{output:test}}", name="write_test")

    @P.native_function
    def broken(text):
        raise LookupError("no such file")

    with P.Session() as session:
        codes = code.map([f"a function add_{name} that adds 1 to x" for name in ("score", "level", "total")])
        tests = test.map(codes)
        both = P.join(tests, "\n")
        both.get(perf=P.LATENCY)
        told = steps(session)
        since = len(session.events)
        with pytest.raises(P.NativeFunctionError):
            broken("price.py").get()
        yield session, codes, tests, both, told, steps(session, since=since)


def test_decisions_say_what_explain_says(ran):
    _, codes, tests, _, told, _ = ran
    words = {decision.words for decision in told}
    for variable in (codes[0], tests[1]):
        lines = str(P.explain(variable)).splitlines()
        assert next(line for line in lines if line.startswith("Objective")) in words
        assert next(line for line in lines if line.startswith("Task group")) in words


def test_decisions_stand_in_the_order_of_the_log_and_end_every_call(ran):
    session, _, _, _, told, _ = ran
    times = [decision.at_s for decision in told]
    assert times[0] == 0
    assert times == sorted(times)
    ended = [call for decision in told if decision.words == "Its value is there." for call in decision.call_ids]
    assert sorted(ended) == [call.id for call in session.calls()[:7]]
    objectives, engines = ([i for i, each in enumerate(told) if each.words.startswith(word)] for word in ("Objective", "Engine"))
    assert max(objectives) < min(engines)


def test_calls_of_one_function_are_one_decision(ran):
    _, codes, *_, told, _ = ran
    first = codes[0].node.producer.id
    (group,) = [each for each in told if each.words.startswith("Task group") and each.function == "write_code"]
    assert group.call_ids == (first, first + 1, first + 2)
    assert group.who == f"write_code (calls {first} to {first + 2})"


def test_a_failure_is_told_with_its_error_and_from_where_it_was_asked(ran):
    *_, later = ran
    assert later[0].at_s == 0
    assert {decision.function for decision in later} == {"broken"}
    assert later[-1].words.startswith("It failed: ")
    assert "no such file" in later[-1].words


def test_steps_are_played_one_by_one(ran):
    told = steps(ran[0])
    assert repr(told.next()).startswith(f"Decision 1 of {len(told)}\n")
    assert repr(told.next(2)).startswith(f"Decisions 2 to 3 of {len(told)}\n")
    assert told[1].who in repr(told)
    told.next(10_000)
    assert "rewind()" in repr(told.next())
    told.rewind()
    assert "Decision 1 of" in told.next()._repr_html_()


@pytest.mark.parametrize("count", [0, -1, True, 1.5, "2"])
def test_a_count_that_is_none_is_refused(ran, count):
    with pytest.raises(UsageError, match="number of decisions above 0"):
        ran[-2].next(count)


def test_nothing_to_tell_is_said():
    with P.Session() as session, pytest.raises(UsageError, match="run some calls first"):
        steps(session)
