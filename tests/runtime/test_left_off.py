"""What nobody can read any more is left off; `P.first` takes the first acceptable value and ends the rest."""

from __future__ import annotations

import gc
import threading

import pytest
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P
from parrot_nb.runtime import events


def hanging(session):
    """A function whose calls end when the session says `release`; the model is there."""
    f("warm {{output:y}}")().get(timeout=WAIT_S)
    return f("HANG {{input:x}}: {{output:y}}")


# Dead work


def test_a_dropped_variable_takes_along_what_ran_for_it_alone(session):
    step = hanging(session)
    kept = step("a")
    dropped = step(step(kept))
    calls = [dropped.node.producer, dropped.node.producer.inputs["x"].producer, kept.node.producer]
    session.flush()
    until(lambda: kept.state == "running", "the start")
    del dropped
    session.flush()
    until(lambda: calls[0].state == calls[1].state == "cancelled", "the end")
    assert "nobody could read it any more" in str(calls[0].error)
    session.release()
    assert kept.get(timeout=WAIT_S) == text_of("HANG a: ")


def test_a_running_generation_that_is_dropped_frees_its_context(session):
    step = hanging(session)
    dropped = step("a")
    session.flush()
    until(lambda: session.engine.contexts, "the start")
    del dropped
    session.flush()
    until(lambda: not session.engine.contexts, "the end")


def test_what_a_text_of_several_reads_is_not_dropped(session):
    step = hanging(session)
    text = "before " + step("a") + " after"  # a node that is submitted when it is first read
    gc.collect()
    session.flush()
    session.release()
    assert text.get(timeout=WAIT_S) == f"before {text_of('HANG a: ')} after"


def test_python_functions_run_though_nobody_keeps_what_they_return(session):
    seen = threading.Event()

    @P.native_function
    def save(text: str) -> None:
        assert text == text_of("Say a: ")
        seen.set()

    save(f("Say {{input:x}}: {{output:y}}")("a"))
    session.flush()
    assert seen.wait(WAIT_S)


def test_a_cell_that_runs_again_while_it_runs_takes_over_what_was_begun(session):
    step = hanging(session)
    value = step("a")
    session.flush()
    until(lambda: session.engine.contexts, "the start")
    value = step("a")  # the name now means this one
    session.flush()
    until(lambda: value.state == "running", "the second")
    session.flush()
    session.release()
    assert value.get(timeout=WAIT_S) == text_of("HANG a: ")
    assert value.usage.from_memo


def test_a_session_can_do_without(make_session):
    with make_session(max_tokens=12, off=("dead_work",)) as session:
        step = hanging(session)
        dropped = step("a")
        call = dropped.node.producer
        session.flush()
        until(lambda: session.engine.contexts, "the start")
        del dropped
        session.flush()
        session.release()
        until(lambda: call.state == "done", "the end")


def test_a_failure_ends_what_ran_for_it_alone(session):
    step = hanging(session)
    fails = f("FAIL{{output:y}}")()
    both = f("{{input:a}}{{input:b}}{{output:y}}")(fails, step("a"))
    with pytest.raises(P.UpstreamError):
        both.get(timeout=WAIT_S)
    until(lambda: not session.engine.contexts, "the end of what nobody reads")


# P.first


def test_the_first_value_wins_and_the_rest_are_ended(session):
    step = hanging(session)
    slow = [step("a"), step(step("b"))]
    quick = f("Say {{output:y}}")()
    winner = P.first(slow, quick)
    assert winner.get(timeout=WAIT_S) == text_of("Say ")
    until(lambda: all(v.state == "cancelled" for v in slow), "the end of the others")
    until(lambda: not session.engine.contexts, "their contexts' end")
    assert "P.first had an answer" in str(slow[0].error)
    assert session.idle


def test_token_ids_cross_it(session):
    winner = P.first(f("Say {{output:y}}")())
    after = f("After {{input:x}}: {{output:y}}")(winner)
    assert after.get(timeout=WAIT_S) == text_of(f"After {text_of('Say ')}: ")
    assert winner.node.spans[0].token_ids is not None


def test_a_condition_chooses(session):
    drafts = f("Draft {{input:i}}: {{output:y}}").map([str(i) for i in range(8)])
    texts = [text_of(f"Draft {i}: ") for i in range(8)]
    wanted = texts[5]
    seen: list[str] = []

    def accepts(text: str) -> bool:
        seen.append(text)
        return text == wanted

    assert P.first(drafts, where=accepts).get(timeout=WAIT_S) == wanted
    assert seen[-1] == wanted
    assert set(seen) <= set(texts)


def test_values_that_are_there_are_tried_in_order(session):
    drafts = f("Draft {{input:i}}: {{output:y}}").map(["a", "b", "c"])
    values = drafts.get(timeout=WAIT_S)
    assert P.first(drafts).get(timeout=WAIT_S) == values[0]
    assert P.first(drafts, where=lambda text: text != values[0]).get(timeout=WAIT_S) == values[1]


def test_an_async_condition(session):
    async def accepts(text: str) -> bool:
        return text == "two"

    assert P.first(P.variable(value="one"), P.variable(value="two"), where=accepts).get(timeout=WAIT_S) == "two"


def test_one_that_fails_is_passed_over(session):
    winner = P.first(f("FAIL{{output:y}}")(), f("Say {{output:y}}")())
    assert winner.get(timeout=WAIT_S) == text_of("Say ")


def test_a_loser_that_something_else_reads_goes_on(session):
    step = hanging(session)
    wanted, read_by_another, held = step("a"), step("b"), step("c")
    other = f("After {{input:x}}: {{output:y}}")(read_by_another)
    session.read([wanted.node], P.LATENCY)
    assert P.first(wanted, read_by_another, held, f("Say {{output:y}}")()).get(timeout=WAIT_S) == text_of("Say ")
    until(lambda: held.state == "cancelled", "the end of the loser that is merely held")
    session.release()
    assert wanted.get(timeout=WAIT_S) == text_of("HANG a: ")
    assert other.get(timeout=WAIT_S) == text_of(f"After {text_of('HANG b: ')}: ")


def test_none_is_acceptable(session):
    drafts = f("Draft {{input:i}}: {{output:y}}").map(["a", "b"])
    with pytest.raises(P.CallError, match=r"None of the 3 values of P.first was acceptable: 2 refused.*, 1 without value"):
        P.first(drafts, f("FAIL{{output:y}}")(), where=lambda text: False).get(timeout=WAIT_S)


def test_all_fail(session):
    with pytest.raises(P.UpstreamError, match="told to fail"):
        P.first(f("FAIL{{output:y}}")(), f("FAIL {{output:y}}")()).get(timeout=WAIT_S)


def test_a_condition_that_raises(session):
    with pytest.raises(P.NativeFunctionError, match=r"condition of P\.first raised ZeroDivisionError") as caught:
        P.first(f("Say {{output:y}}")(), where=lambda text: 1 / 0).get(timeout=WAIT_S)
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_condition_that_asks_a_prompt(session):
    judge = f("Judge {{input:x}}: {{output:y}}")
    with pytest.raises(P.NativeFunctionError, match="variable instead of True or False"):
        P.first(P.variable(value="a"), where=judge).get(timeout=WAIT_S)
    reads = P.first(P.variable(value="a"), where=lambda text: judge(text).get() == text_of("Judge a: "))
    assert reads.get(timeout=WAIT_S) == "a"


def test_mistakes(session):
    with pytest.raises(P.UsageError, match="at least one"):
        P.first([])
    with pytest.raises(P.UsageError, match="takes variables"):
        P.first("text")
    with pytest.raises(P.ArgumentError, match="callable"):
        P.first(P.variable(value="a"), where=3)


def test_cancelling_and_a_variable_by_hand(session):
    empty = P.variable("empty")
    winner = P.first(empty, f("HANG{{output:y}}")())
    winner.cancel()
    with pytest.raises(P.CallCancelledError):
        winner.get(timeout=WAIT_S)
    until(lambda: session.idle, "the end of what ran for it")
    again = P.first(empty)
    empty.set("by hand")
    assert again.get(timeout=WAIT_S) == "by hand"


def test_the_log_tells_of_it(session):
    winner = P.first(f("Say {{output:y}}")())
    winner.get(timeout=WAIT_S)
    call = winner.node.producer
    assert [e.kind for e in session.events.since(0) if isinstance(e, events.CallAdded)] == ["semantic", "first"]
    states = [e.state for e in session.events.since(0) if isinstance(e, events.CallChanged) and e.call_id == call.id]
    assert states[-1] == "done"
    assert "Objective: LATENCY" in str(P.explain(winner))


def test_ten_thousand_values(session):
    items = [P.variable(value=str(i)) for i in range(10_000)]
    assert P.first(items, where=lambda text: text == "99").get(timeout=WAIT_S) == "99"
