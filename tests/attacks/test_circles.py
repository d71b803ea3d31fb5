"""Functions that wait for themselves, through any number of others, choices and sessions: told at once, and nobody else is."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import pytest
from attacking import hash_session, native, outcome_of
from shorthand import WAIT_S, f

import parrot_nb as P

both_kinds = pytest.mark.parametrize("kind", ["plain", "async"])


def _in_ring(kinds: tuple[str, ...], box: dict[str, P.SemanticVariable], *, returns: bool) -> Callable[[int], None]:
    """Makes functions of a ring by number, each of which waits for the next once all run: `kinds` says how each is run."""
    together = threading.Barrier(len(kinds))

    def make(i: int) -> None:
        def waits() -> Any:
            together.wait(WAIT_S)
            following = box[str((i + 1) % len(kinds))]
            return following if returns else following.get()

        async def awaits() -> Any:
            await asyncio.to_thread(together.wait, WAIT_S)
            following = box[str((i + 1) % len(kinds))]
            return following if returns else await following

        box[str(i)] = P.NativeFunction(awaits if kinds[i] == "async" else waits, name=f"ring{i}")()

    return make


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "reads"])
@pytest.mark.parametrize(
    "kinds",
    [("plain",), ("async",), ("plain", "plain"), ("async", "async"), ("plain", "async"), ("plain", "async") * 3],
    ids="-".join,
)
def test_functions_that_wait_for_each_other_are_told_at_once(either, kinds, returns):
    for _ in range(5):
        box: dict[str, P.SemanticVariable] = {}
        make = _in_ring(kinds, box, returns=returns)
        for i in range(len(kinds)):
            make(i)
        either.flush()
        errors = []
        for one in box.values():
            with pytest.raises(P.ParrotError) as raised:
                one.get(timeout=WAIT_S)
            errors.append(str(raised.value))
        assert any("it would never end" in error for error in errors)


def test_a_function_that_reads_what_a_model_makes_of_its_output_is_told_at_once(either):
    box: dict[str, P.SemanticVariable] = {}
    box["own"] = native(lambda: f("Say {{input:x}} {{output:y}}")(box["own"]).get())()
    with pytest.raises(P.SessionError, match="'attack' waits for 'y', which waits for 'attack': it would never end"):
        box["own"].get(timeout=WAIT_S)


def test_a_choice_between_its_own_output_and_another_is_no_circle(session):
    box: dict[str, P.SemanticVariable] = {}
    other = native(lambda: "other")()
    box["own"] = native(lambda: P.first(box["own"], other).get(timeout=WAIT_S))()
    assert box["own"].get(timeout=WAIT_S) == "other"


def test_a_choice_between_ones_own_outputs_is_a_circle(session):
    box: dict[str, P.SemanticVariable] = {}
    box["own"] = native(lambda: P.first(box["own"], f("{{input:x}} {{output:y}}")(box["own"])).get())()
    with pytest.raises(P.SessionError, match="it would never end"):
        box["own"].get(timeout=WAIT_S)


@both_kinds
def test_who_has_stopped_waiting_is_in_no_circle(session, kind):
    """The first gives up waiting for the second, which waits for the first only then."""
    box: dict[str, P.SemanticVariable] = {}
    gave_up = threading.Event()

    def first() -> str:
        with pytest.raises(P.GetTimeoutError):
            box["second"].get(timeout=0.05)
        gave_up.set()
        asked.wait(WAIT_S)
        return "first"

    async def first_async() -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(box["second"].aget(), 0.05)
        gave_up.set()
        await asyncio.to_thread(asked.wait, WAIT_S)
        return "first"

    def second() -> str:
        gave_up.wait(WAIT_S)
        threading.Timer(0.05, asked.set).start()
        return box["first"].get(timeout=WAIT_S) + " second"

    asked = threading.Event()
    box["second"] = P.NativeFunction(second)()
    box["first"] = P.NativeFunction(first if kind == "plain" else first_async)()
    session.flush()
    assert box["second"].get(timeout=WAIT_S) == "first second"


# Through several sessions


@pytest.mark.parametrize("made_in", ["outer first", "inner first"])
@pytest.mark.parametrize("returns", [True, False], ids=["returns", "reads"])
@pytest.mark.parametrize("kinds", [("plain", "plain"), ("async", "async"), ("plain", "async"), ("async", "plain")], ids="-".join)
def test_functions_of_two_sessions_that_wait_for_each_other_are_told_at_once(session, kinds, returns, made_in):
    box: dict[str, P.SemanticVariable] = {}
    with hash_session() as inner, contextlib.ExitStack() as again:
        make = _in_ring(kinds, box, returns=returns)
        if made_in == "inner first":
            make(0)
        again.enter_context(session)  # once more
        make(1)
        again.close()
        if made_in == "outer first":
            make(0)
        for one in (session, inner):
            one.flush()
        errors = [outcome_of(one) for one in box.values()]
    assert all(isinstance(error, P.ParrotError) for error in errors)
    assert any("it would never end" in str(error) for error in errors)


def test_a_function_reads_one_of_another_session(session):
    """Also one that nobody has submitted yet, and by returning it."""
    with hash_session():
        made = native(lambda: "inner")()
        session.__enter__()
        try:
            reads, returns = native(made.get)(), native(lambda: "(" + made + ")")()
            assert [reads.get(timeout=WAIT_S), returns.get(timeout=WAIT_S)] == ["inner", "(inner)"]
        finally:
            session.__exit__(None, None, None)


# Through many choices


def _doubled(variable: P.SemanticVariable, levels: int) -> P.SemanticVariable:
    for _ in range(levels):
        variable = P.first(native(lambda x: x)(variable), native(lambda x: x)(variable))
    return variable


def test_a_circle_through_many_doubled_choices_is_told_at_once(either):
    """As many ways lead back as 2 ** 40; a function beside does not wait for the search either."""
    box: dict[str, P.SemanticVariable] = {}
    go = threading.Event()
    box["own"] = native(lambda: go.wait(WAIT_S) and box["last"].get())()
    box["last"] = _doubled(box["own"], 40)
    box["last"].submit()
    either.flush()
    go.set()
    assert native(lambda: "beside")().get(timeout=WAIT_S) == "beside"
    with pytest.raises(P.SessionError, match="'attack' waits for 'first', which waits for 'attack': it would never end"):
        box["own"].get(timeout=WAIT_S)


def test_doubled_choices_of_something_else_are_no_circle(session):
    go = threading.Event()
    last = _doubled(native(lambda: go.wait(WAIT_S) and "base")(), 40)
    reads = native(last.get)()
    session.flush()
    go.set()
    assert reads.get(timeout=WAIT_S) == "base"


@pytest.mark.slow
def test_a_function_reads_a_long_chain_of_choices(session):
    go = threading.Event()
    last = native(lambda: go.wait(WAIT_S) and "base")()
    for _ in range(5_000):
        last = P.first(last)
    reads = native(last.get)()
    reads.submit()
    session.flush()
    go.set()
    assert reads.get(timeout=WAIT_S) == "base"


def test_a_choice_whose_other_source_has_failed_is_a_circle(session):
    box: dict[str, P.SemanticVariable] = {}
    failed = native(lambda: 1 / 0)()
    with pytest.raises(P.NativeFunctionError):
        failed.get(timeout=WAIT_S)
    box["own"] = native(lambda: P.first(box["own"], failed).get())()
    with pytest.raises(P.SessionError, match="it would never end"):
        box["own"].get(timeout=WAIT_S)


# Closed only when other choices have gone


def _choosing(
    how: str, box: dict[str, P.SemanticVariable], waits: threading.Event, choose: Callable[[], P.SemanticVariable]
) -> None:
    """A function that waits, in one of three ways, for a choice that has its own output in it."""

    def reads() -> Any:
        chosen = choose()
        chosen.submit()
        waits.set()
        return chosen if how == "returns" else chosen.get()

    async def awaits() -> Any:
        waits.set()
        return await choose()

    box["own"] = P.NativeFunction(awaits if how == "awaits" else reads, name="own")()


@pytest.mark.parametrize("how", ["reads", "awaits", "returns"])
def test_a_circle_that_closes_when_the_other_choice_fails_is_told(either, how):
    box: dict[str, P.SemanticVariable] = {}
    waits, fails = threading.Event(), threading.Event()
    other = native(lambda: fails.wait(WAIT_S) and 1 / 0)()
    _choosing(how, box, waits, lambda: P.first(box["own"], other))
    either.flush()
    waits.wait(WAIT_S)
    assert box["own"].state == "running"
    fails.set()
    with pytest.raises(P.ParrotError, match="'own' waits for 'first', which waits for 'own': it would never end"):
        box["own"].get(timeout=WAIT_S)
    assert native(lambda: "after")().get(timeout=WAIT_S) == "after"


@pytest.mark.parametrize("how", ["reads", "awaits", "returns"])
def test_a_circle_that_closes_when_the_other_choice_is_refused_is_told(session, how):
    box: dict[str, P.SemanticVariable] = {}
    waits, refuses = threading.Event(), threading.Event()
    _choosing(how, box, waits, lambda: P.first(box["own"], P.variable(value="other"), where=lambda _: not refuses.wait(WAIT_S)))
    session.flush()
    waits.wait(WAIT_S)
    refuses.set()
    with pytest.raises(P.ParrotError, match="it would never end"):
        box["own"].get(timeout=WAIT_S)


def test_a_circle_that_closes_when_the_other_choice_is_cancelled_is_told(session):
    box: dict[str, P.SemanticVariable] = {}
    waits, ends = threading.Event(), threading.Event()
    other = native(lambda: ends.wait(WAIT_S))()
    _choosing("reads", box, waits, lambda: P.first(box["own"], other))
    session.flush()
    waits.wait(WAIT_S)
    session.cancel(other)
    with pytest.raises(P.ParrotError, match="it would never end"):
        box["own"].get(timeout=WAIT_S)
    ends.set()


def test_a_circle_through_two_sessions_that_closes_when_another_choice_fails_is_told(session):
    """A function chooses between another that fails and one that reads a function of the inner session, which reads the first."""
    box: dict[str, P.SemanticVariable] = {}
    waits, fails = threading.Event(), threading.Event()
    other = native(lambda: fails.wait(WAIT_S) and 1 / 0)()
    back = native(lambda: box["back"].get() + "!")()
    _choosing("reads", box, waits, lambda: P.first(back, other))
    with hash_session() as inner:
        box["back"] = native(lambda: waits.wait(WAIT_S) and box["own"].get())()
        for one in (session, inner):
            one.flush()
        waits.wait(WAIT_S)
        fails.set()
        errors = [outcome_of(one) for one in (box["own"], back, box["back"])]
    assert all(isinstance(error, P.ParrotError) for error in errors)
    assert any("it would never end" in str(error) for error in errors)


def test_many_functions_whose_choices_close_circles_are_all_told(session):
    """Each has a choice of its own besides itself, the one before and what all share; these fail one after another."""
    box: dict[str, P.SemanticVariable] = {}
    fails = threading.Event()
    shared = native(lambda: fails.wait(WAIT_S) and 1 / 0)()

    def reads(i: int) -> Any:
        own = native(lambda: fails.wait(WAIT_S) and 1 / 0)()
        return P.first(box[str(i)], box[str(max(0, i - 1))], own, shared)

    for i in range(60):
        box[str(i)] = P.NativeFunction(lambda i=i: reads(i))()
    session.flush()
    fails.set()
    errors = [outcome_of(one) for one in box.values()]
    assert all(isinstance(error, P.ParrotError) for error in errors)
    assert any("it would never end" in str(error) for error in errors)


def test_a_choice_that_fails_while_another_still_comes_ends_nobody(session):
    box: dict[str, P.SemanticVariable] = {}
    waits, fails, comes = threading.Event(), threading.Event(), threading.Event()
    failing = native(lambda: fails.wait(WAIT_S) and 1 / 0)()
    coming = native(lambda: comes.wait(WAIT_S) and "came")()
    _choosing("reads", box, waits, lambda: P.first(box["own"], failing, coming))
    session.flush()
    waits.wait(WAIT_S)
    fails.set()
    with pytest.raises(P.NativeFunctionError):
        failing.get(timeout=WAIT_S)
    comes.set()
    assert box["own"].get(timeout=WAIT_S) == "came"
