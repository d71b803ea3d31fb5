"""Whatever user code, a listener or a tokenizer does: who waits is answered, and the session goes on."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest
from attacking import assert_usable, native, outcome_of, raiser
from shorthand import WAIT_S, f
from wrongdoers import LOOP_DEEDS, RAISED, REFUSED_AT_ONCE, VALUES, Panic

import parrot_nb as P
from parrot_nb.session.functions import MAX_THREADS

NUM_STUCK = (3, MAX_THREADS + 8)


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


# Functions that never return


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
        for _ in range(min(num_stuck, MAX_THREADS)):
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


# Functions that wait for themselves


def _through(kinds: tuple[str, ...], session: P.Session, box: dict[str, P.SemanticVariable], *, returns: bool) -> None:
    """Functions in a ring, each of which waits for the next: `kinds` says how each is run."""

    def make(i: int) -> P.NativeFunction:
        def waits() -> Any:
            together.wait(WAIT_S)
            following = box[str((i + 1) % len(kinds))]
            return following if returns else following.get()

        async def awaits() -> Any:
            await asyncio.to_thread(together.wait, WAIT_S)
            following = box[str((i + 1) % len(kinds))]
            return following if returns else await following

        return P.NativeFunction(awaits if kinds[i] == "async" else waits, name=f"ring{i}")

    together = threading.Barrier(len(kinds))
    for i in range(len(kinds)):
        box[str(i)] = make(i)()


@pytest.mark.parametrize("returns", [True, False], ids=["returns", "reads"])
@pytest.mark.parametrize(
    "kinds",
    [("plain",), ("async",), ("plain", "plain"), ("async", "async"), ("plain", "async"), ("plain", "async") * 3],
    ids="-".join,
)
def test_functions_that_wait_for_each_other_are_told_at_once(either, kinds, returns):
    for _ in range(5):
        box: dict[str, P.SemanticVariable] = {}
        _through(kinds, either, box, returns=returns)
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
