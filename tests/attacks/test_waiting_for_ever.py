"""Whatever user code, a listener or a tokenizer does: who waits is answered, and the session goes on."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import pytest
from attacking import assert_usable, native, outcome_of, raiser
from shorthand import WAIT_S, f, until
from wrongdoers import LOOP_DEEDS, RAISED, REFUSED_AT_ONCE, VALUES, Panic

import parrot_nb as P
from parrot_nb.session import places
from parrot_nb.session.places import MAX_PLACES

NUM_STUCK = (3, MAX_PLACES + 8)


both_kinds = pytest.mark.parametrize("kind", ["plain", "async"])


# What functions and conditions raise


@both_kinds
@pytest.mark.parametrize("name", RAISED)
def test_what_a_function_raises_ends_its_call_alone(either, name, kind):
    gate = threading.Event()
    beside = [native(lambda: gate.wait(WAIT_S) and "beside")(), native(lambda: "beside", "async")()]
    failing = native(raiser(RAISED[name]), kind)()
    reader = f("{{input:x}} {{output:y}}")(failing)
    with pytest.raises(P.ParrotError):
        failing.get(timeout=WAIT_S)
    with pytest.raises(P.UpstreamError):
        reader.get(timeout=WAIT_S)
    gate.set()
    assert [one.get(timeout=WAIT_S) for one in beside] == ["beside", "beside"]


@both_kinds
@pytest.mark.parametrize("name", RAISED)
def test_what_a_condition_raises_ends_its_choice_alone(either, name, kind):
    value = native(lambda: "value")()
    chosen = P.first(value, where=native(raiser(RAISED[name]), kind).function)
    with pytest.raises(P.ParrotError):
        chosen.get(timeout=WAIT_S)
    assert value.get(timeout=WAIT_S) == "value"


@both_kinds
@pytest.mark.parametrize("name", RAISED)
def test_what_the_truth_of_an_answer_raises_ends_its_choice_alone(either, name, kind):
    answer = type("Answer", (), {"__bool__": raiser(RAISED[name])})
    value = native(lambda: "value")()
    with pytest.raises(P.ParrotError):
        P.first(value, where=native(lambda _: answer(), kind).function).get(timeout=WAIT_S)
    assert value.get(timeout=WAIT_S) == "value"


def test_a_condition_that_returns_a_variable_is_told_so(session):
    with pytest.raises(P.NativeFunctionError, match="returned a variable instead of True or False"):
        P.first(P.variable("x", value="1"), where=lambda _: P.variable("y")).get(timeout=WAIT_S)


# What they return, and are given


@both_kinds
@pytest.mark.parametrize("name", VALUES)
def test_a_value_with_methods_that_raise_reaches_functions(either, name, kind):
    made, seen = VALUES[name](), []
    given = native(lambda x: seen.append(x) or "seen", kind)(native(lambda: made, kind)())
    assert given.get(timeout=WAIT_S) == "seen"
    assert seen[0] is made


@both_kinds
@pytest.mark.parametrize("name", VALUES)
def test_a_value_with_methods_that_raise_is_an_argument(either, name, kind):
    made, seen = VALUES[name](), []
    assert native(lambda x: seen.append(x) or "seen", kind)(made).get(timeout=WAIT_S) == "seen"
    assert seen[0] is made


@pytest.mark.parametrize("name", VALUES)
def test_a_value_with_methods_that_raise_has_a_text_or_its_reader_fails(either, name):
    reader = f("{{input:x}} {{output:y}}")(native(VALUES[name])())
    outcome = outcome_of(reader)
    assert isinstance(outcome, str) or "attack" in str(outcome)


@both_kinds
@pytest.mark.parametrize("name", REFUSED_AT_ONCE)
def test_a_value_that_raises_whatever_is_asked_of_it_ends_its_call_alone(either, name, kind):
    made = REFUSED_AT_ONCE[name]()
    function = native(lambda *_: made, kind)
    with pytest.raises(Panic):
        function(made)  # on the user's own thread
    outcome = outcome_of(function())
    assert outcome is made or isinstance(outcome, P.NativeFunctionError)


@both_kinds
@pytest.mark.parametrize("way", ["argument", "result"])
def test_others_go_on_while_a_repr_takes_its_time(either, way, kind):
    """The repr ends only after other calls have: made, sent and read by another thread."""

    class Slow:
        def __repr__(self) -> str:
            begun.set()
            answered.append(others_are.wait(WAIT_S))
            return "slow"

    def others() -> None:
        begun.wait(WAIT_S)
        texts.extend(native(lambda: "beside", each)().get(timeout=WAIT_S) for each in ("plain", "async"))
        texts.append(isinstance(f("Others {{output:y}}")().get(timeout=WAIT_S), str))
        others_are.set()

    begun, others_are = threading.Event(), threading.Event()
    answered: list[bool] = []
    texts: list[Any] = []
    beside = threading.Thread(target=others)
    beside.start()
    slow = native(lambda _: "given", kind)(Slow()) if way == "argument" else native(Slow, kind)()
    assert slow.get(timeout=2 * WAIT_S) == "given" or way == "result"
    beside.join(WAIT_S)
    assert texts == ["beside", "beside", True]
    assert all(answered)


def _slow_kind(base: type[BaseException], ask: Callable[[], str]) -> type[BaseException]:
    return type("SlowError", (base,), {"__str__": lambda _: ask()})


@both_kinds
@pytest.mark.parametrize("where", ["raised", "its cause", "in its arguments"])
@pytest.mark.parametrize("base", [Exception, Panic, P.ParrotError, P.CallError], ids=lambda base: base.__name__)
def test_others_go_on_while_a_message_takes_its_time(either, base, where, kind):
    """The message comes only after other calls have: also one whose function runs beside it on the loop of async ones."""

    def ask() -> str:
        begun.set()
        answered.append(others_are.wait(WAIT_S))
        return "slow"

    def fails() -> None:
        if where == "in its arguments":
            raise base(_slow_kind(Exception, ask)())
        if where == "its cause":
            raise P.SessionError("quick") from _slow_kind(base, ask)()
        raise _slow_kind(base, ask)

    async def runs_beside() -> str:
        await asyncio.to_thread(begun.wait, WAIT_S)
        await asyncio.sleep(0.001)
        return "beside"

    begun, others_are = threading.Event(), threading.Event()
    answered: list[bool] = []
    beside = P.NativeFunction(runs_beside)()
    failing = native(fails, kind)()
    failing.submit()
    either.flush()
    assert beside.get(timeout=WAIT_S) == "beside"
    for each in ("plain", "async"):
        assert native(lambda: "after", each)().get(timeout=WAIT_S) == "after"
    assert isinstance(f("Others {{output:y}}")().get(timeout=WAIT_S), str)
    others_are.set()
    reader = f("{{input:x}} {{output:y}}")(failing)
    with pytest.raises(P.ParrotError, match="quick" if where == "its cause" else "slow"):
        failing.get(timeout=WAIT_S)
    with pytest.raises(P.UpstreamError):
        reader.get(timeout=WAIT_S)
    assert answered == [True], "it was asked once"


@both_kinds
@pytest.mark.parametrize("base", [str, type("Text", (str,), {})], ids=["str", "a subclass"])
def test_half_a_character_that_a_function_returns_is_refused_with_its_name(either, base, kind):
    half = native(lambda: base("a\ud800b"), kind)()
    reader = f("{{input:x}} {{output:y}}")(half)
    with pytest.raises(P.InputValueError, match=r"^the text that native function 'attack' returned holds half a character"):
        half.get(timeout=WAIT_S)
    with pytest.raises(P.UpstreamError, match="half a character"):
        reader.get(timeout=WAIT_S)


# Functions that never return


@pytest.mark.parametrize("num_stuck", NUM_STUCK)
def test_functions_that_never_return_starve_nobody(either, num_stuck, monkeypatch):
    """Nobody cancels them; their places go to others after a while."""
    monkeypatch.setattr(places, "LONG_S", 0.1)
    over, begun = threading.Event(), threading.Semaphore(0)
    try:
        stuck = [native(lambda: (begun.release(), over.wait()) and "over")() for _ in range(num_stuck)]
        either.flush()
        assert native(lambda x: x).map(list(range(50))).get(timeout=WAIT_S) == list(range(50))
        for _ in range(num_stuck):
            assert begun.acquire(timeout=WAIT_S)
        assert P.SemanticFunction("Others {{output:y}}", check=lambda _: True)().get(timeout=WAIT_S) is not None
        over.set()
        assert [one.get(timeout=WAIT_S) for one in stuck] == ["over"] * num_stuck
        assert_usable(either)
    finally:
        over.set()


def test_threads_of_functions_are_bounded(session, monkeypatch):
    """Once so many have given their places up, the next ones wait for them."""
    monkeypatch.setattr(places, "LONG_S", 0.01)
    monkeypatch.setattr(places, "MAX_LONG", 3)
    over, lock = threading.Event(), threading.Lock()
    running: list[int] = [0, 0]  # now, and at most

    def waits() -> None:
        with lock:
            running[0] += 1
            running[1] = max(running)
        over.wait(WAIT_S)
        with lock:
            running[0] -= 1

    stuck = [native(waits)() for _ in range(MAX_PLACES + 10)]
    session.flush()
    until(lambda: running[0] == MAX_PLACES + 3, "as many as there may be")
    over.set()
    for one in stuck:
        one.get(timeout=WAIT_S)
    assert running[1] == MAX_PLACES + 3


@pytest.mark.parametrize("how", ["cancel", "reset"])
@pytest.mark.parametrize("num_stuck", NUM_STUCK)
def test_functions_that_never_return_starve_nobody_once_they_are_cancelled(either, num_stuck, how):
    def hangs() -> None:
        begun.release()
        over.wait()

    over, begun = threading.Event(), threading.Semaphore(0)
    try:
        stuck = [native(hangs)() for _ in range(num_stuck)]
        either.flush()
        for _ in range(min(num_stuck, MAX_PLACES)):
            assert begun.acquire(timeout=WAIT_S)
        getattr(either, how)()
        for one in stuck:
            with pytest.raises(P.CallCancelledError):
                one.get(timeout=WAIT_S)
        assert native(lambda x: x, "plain").map(list(range(100))).get(timeout=WAIT_S) == list(range(100))
        assert_usable(either)
    finally:
        over.set()


@pytest.mark.parametrize("how", ["nothing", "cancel", "reset"])
@pytest.mark.parametrize("num_stuck", [1, 2])
def test_async_functions_that_never_yield_starve_nobody(either, num_stuck, how):
    async def hangs() -> None:
        begun.release()
        over.wait()

    over, begun = threading.Event(), threading.Semaphore(0)
    try:
        stuck = [P.NativeFunction(hangs)() for _ in range(num_stuck)]
        either.flush()
        for _ in stuck:  # each on a loop of its own, after a while
            assert begun.acquire(timeout=WAIT_S)
        if how != "nothing":
            getattr(either, how)()
            for one in stuck:
                with pytest.raises(P.CallCancelledError):
                    one.get(timeout=WAIT_S)
        assert native(lambda x: x, "async").map(list(range(100))).get(timeout=WAIT_S) == list(range(100))
        assert_usable(either)
    finally:
        over.set()


# Loops of async functions


@pytest.mark.parametrize("name", LOOP_DEEDS)
def test_what_an_async_function_does_to_its_loop_leaves_others_running(either, name):
    async def waits() -> str:
        begun.set()
        for _ in range(100):
            await asyncio.sleep(0.001)
        return "beside"

    async def does() -> str:
        await asyncio.to_thread(begun.wait, WAIT_S)
        LOOP_DEEDS[name]()
        await asyncio.sleep(0.01)
        return "did"

    async def comes_after() -> str:
        return "after"

    begun = threading.Event()
    beside, deed = P.NativeFunction(waits)(), P.NativeFunction(does)()
    outcomes = [outcome_of(deed), outcome_of(beside)]
    if name == "cancels all tasks":
        assert all("CancelledError" in str(outcome) for outcome in outcomes)
    else:
        assert outcomes == ["did", "beside"]
    assert P.NativeFunction(comes_after)().get(timeout=WAIT_S) == "after"


def test_a_task_that_is_cancelled_before_it_begins_is_answered(session):
    """Tasks that are made in one turn of the loop: the first that runs cancels those that have not begun."""

    async def cancels() -> None:
        while True:
            for task in asyncio.all_tasks():
                if task is not asyncio.current_task():
                    task.cancel()
            await asyncio.sleep(0)
            if over.is_set():
                return

    async def never_begins() -> str:
        return "begun"

    over = threading.Event()
    cancelling = P.NativeFunction(cancels)()
    others = [P.NativeFunction(never_begins)() for _ in range(50)]
    session.flush()
    outcomes = [outcome_of(one) for one in others]
    assert all(outcome == "begun" or "CancelledError" in str(outcome) for outcome in outcomes)
    over.set()
    assert cancelling.get(timeout=WAIT_S) is None
