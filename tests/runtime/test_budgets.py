"""Budgets: what the calls of a block may take, and what becomes of those that exceed it."""

from __future__ import annotations

import asyncio
import contextlib
import threading

import pytest
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P


def watchers() -> int:
    return sum(thread.name == "parrot-budget" for thread in threading.enumerate())


def test_what_exceeds_the_tokens_is_cancelled_and_what_was_before_has_its_value(session):
    ask = f("Of {{input:x}}: {{output:y}}")
    before = ask("before")
    with P.budget(tokens=1) as budget:
        first = ask("HANG one")
        free = ask("two")
        with pytest.raises(P.CallCancelledError, match=r"'f' was cancelled, since .* budget of 1 tokens: call it again"):
            first.get(timeout=WAIT_S)
        assert free.state in ("done", "cancelled")  # it may have been over before anybody saw how much it wrote
        assert budget.spent_tokens > 1
        with pytest.raises(P.CallCancelledError, match="budget of 1 tokens"):
            ask("HANG three").get(timeout=WAIT_S)
    assert before.get() == text_of("Of before: ")
    assert ask("after").get() == text_of("Of after: ")
    until(lambda: not watchers(), "the end of the watching")


def test_a_budget_that_is_kept_changes_nothing(session):
    ask = f("Of {{input:x}}: {{output:y}}")
    with P.budget(tokens=12 * 3, seconds=600) as budget:
        found = ask.map(["a", "b", "c"])
    assert found.get() == [text_of(f"Of {x}: ") for x in "abc"]
    session.reset()  # all that happened has been told
    assert budget.spent_tokens == sum(v.usage.decoded_tokens for v in found)
    until(lambda: not watchers(), "the end of the watching")


def test_what_takes_longer_is_cancelled_with_what_depends_on_it(session):
    with P.budget(seconds=0.05):
        late = f("HANG {{output:y}}")()
        reader = f("{{input:late}} {{output:y}}")(late)
    with pytest.raises(P.CallCancelledError, match=r"its budget of 0\.05 s"):
        late.get(timeout=WAIT_S)
    with pytest.raises((P.CallCancelledError, P.UpstreamError), match=r"0\.05 s"):
        reader.get(timeout=WAIT_S)
    until(lambda: not watchers(), "the end of the watching")


def test_refused_attempts_count(session):
    with P.budget(tokens=10_000) as budget:
        refused = f("Say: {{output:y}}").options(check=lambda _: False, retries=2)()
        with pytest.raises(P.CheckError):
            refused.get()
        session.reset()  # all that happened has been told
        assert budget.spent_tokens == refused.usage.decoded_tokens > 0


def test_refused_attempts_count_as_they_are_written(session):
    def check(text: str) -> bool:
        raise ValueError("HANG")

    with P.budget(tokens=1):
        told = f("Of two: {{output:y}}").options(check=check, retries=1, feedback=True)()  # the second attempt hangs
        with pytest.raises(P.CallCancelledError, match="budget of 1 tokens"):
            told.get(timeout=WAIT_S)


def test_calls_that_nobody_reads_are_watched_once_somebody_does(session):
    with P.budget(tokens=1):
        hanging, other = f("HANG {{output:y}}")(), f("Of two: {{output:y}}")()
    until(lambda: not watchers(), "the end of the watching")
    assert (hanging.state, other.state) == ("pending", "pending")
    with contextlib.suppress(P.CallCancelledError):  # it may be over before anybody sees how much it wrote
        other.get(timeout=WAIT_S)
    with pytest.raises(P.CallCancelledError, match="budget of 1 tokens"):
        hanging.get(timeout=WAIT_S)
    until(lambda: not watchers(), "the end of the watching")


def test_a_budget_is_that_of_its_own_task(session):
    async def bounded() -> P.SemanticVariable:
        with P.budget(tokens=1):
            await asyncio.sleep(0)
            return f("HANG {{output:y}}")(), f("Of two: {{output:y}}")()

    async def free() -> P.SemanticVariable:
        await asyncio.sleep(0)
        return f("Of three: {{output:y}}")()

    async def main():
        (hanging, other), third = await asyncio.gather(bounded(), free())
        await asyncio.gather(other, return_exceptions=True)
        with pytest.raises(P.CallCancelledError, match="1 tokens"):
            await hanging
        return await third

    assert asyncio.run(main()) == text_of("Of three: ")


def test_budgets_within_each_other_both_hold(session):
    with P.budget(seconds=600) as outer, P.budget(tokens=1) as inner:
        hanging, other = f("HANG {{output:y}}")(), f("Of two: {{output:y}}")()
        with pytest.raises(P.CallCancelledError, match="1 tokens"):
            hanging.get(timeout=WAIT_S)
    session.reset()
    assert other.done()
    assert outer.spent_tokens == inner.spent_tokens > 1


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ({}, "needs a bound"),
        ({"tokens": 0}, "at least 1, not 0"),
        ({"tokens": True}, "at least 1, not True"),
        ({"tokens": 1.5}, "at least 1, not 1.5"),
        ({"seconds": 0}, "above 0, and finite, not 0"),
        ({"seconds": float("inf")}, "and finite, not inf"),
        ({"seconds": "1"}, "and finite, not '1'"),
    ],
)
def test_a_bound_that_bounds_nothing_is_refused(bounds, message):
    with pytest.raises(P.OptionError, match=message):
        P.budget(**bounds)


def test_a_budget_is_entered_once():
    bound = P.budget(tokens=1)
    with bound, pytest.raises(P.UsageError, match="make another"), bound:
        pass
