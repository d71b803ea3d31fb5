"""The user's own functions and conditions, and errors that pass through them, with a runtime in a process and in a thread."""

from __future__ import annotations

import asyncio

import pytest
from side import WAIT_S, write

import parrot_nb as P


def test_native_functions_get_and_give_the_user_s_own_objects(session):
    given, made = object(), object()
    seen = []

    @P.native_function
    def give():
        return given

    @P.native_function
    def swap(x):
        seen.append(x)
        return made

    @P.native_function
    async def later(x):
        await asyncio.sleep(0)
        return x

    result = swap(later(give()))
    assert result.get(timeout=WAIT_S) is made
    assert seen == [given]


def test_native_functions_read_texts_and_are_read(session):
    @P.native_function
    def shout(x):
        return x.upper()

    @P.native_function
    def number(x):
        return len(x)

    text = write()("a")
    assert write()(shout(text)).get(timeout=WAIT_S) == write()(text.get().upper()).get(timeout=WAIT_S)
    assert write()(number(text)).get(timeout=WAIT_S) == write()(len(text.get())).get(timeout=WAIT_S)


def test_a_native_function_may_return_variables(session):
    step = write()

    @P.native_function
    def one(x):
        return step(x)

    @P.native_function
    def several(x):
        return step.map([x, x + "!"])

    assert one("a").get(timeout=WAIT_S) == step("a").get(timeout=WAIT_S)
    assert several("a").get(timeout=WAIT_S) == step.map(["a", "a!"]).get(timeout=WAIT_S)


def test_a_native_function_may_wait_for_calls_of_its_own(session):
    step = write()

    @P.native_function
    def twice(x):
        return step(step(x).get(timeout=WAIT_S)).get(timeout=WAIT_S)

    assert twice("a").get(timeout=WAIT_S) == step(step("a")).get(timeout=WAIT_S)


@pytest.mark.parametrize(
    "raised", [ValueError("bad"), KeyboardInterrupt(), SystemExit(3), StopIteration(), GeneratorExit()], ids=repr
)
@pytest.mark.parametrize("is_async", [False, True])
def test_whatever_a_native_function_raises_belongs_to_its_call(session, raised, is_async):
    def fail(x):
        raise raised

    async def fail_async(x):
        raise raised

    failed = P.native_function(fail_async if is_async else fail)("a")
    behind = write()(failed)
    beside = write()("b")
    with pytest.raises(P.NativeFunctionError, match=type(raised).__name__) as told:
        failed.get(timeout=WAIT_S)
    cause = told.value.__cause__
    assert cause is raised or (is_async and isinstance(cause, (RuntimeError, type(raised))))
    with pytest.raises(P.UpstreamError, match="did not run"):
        behind.get(timeout=WAIT_S)
    assert behind.error.__cause__ is failed.error
    assert beside.get(timeout=WAIT_S)


def test_an_error_that_passes_through_many_is_one_object(session):
    long = write()("x" * 20_000)
    behind = [write()(long)]
    for _ in range(3):
        behind.append(P.native_function(lambda x: x)(behind[-1]))
    with pytest.raises(P.UpstreamError):
        behind[-1].get(timeout=WAIT_S)
    assert isinstance(long.error, P.ContextLengthError)
    assert all(variable.error.__cause__ is long.error for variable in behind)
    again = write()(behind[-1])
    with pytest.raises(P.UpstreamError):
        again.get(timeout=WAIT_S)
    assert again.error.__cause__ is long.error, "also where the error was told before the call was made"


def test_the_first_acceptable_value(session):
    asked = []

    def where(value):
        asked.append(value)
        return value == "b"

    async def never(value):
        return False

    def broken(value):
        raise ValueError(value)

    values = [P.native_function(lambda x: x)(x) for x in ("a", "b")]
    assert P.first(*values, where=where).get(timeout=WAIT_S) == "b"
    assert "b" in asked
    assert P.first(*write().map(["a", "b"])).get(timeout=WAIT_S) in write().map(["a", "b"]).get(timeout=WAIT_S)
    with pytest.raises(P.CallError):
        P.first(*values, where=never).get(timeout=WAIT_S)
    with pytest.raises(P.CallError, match="ValueError"):
        P.first(*values, where=broken).get(timeout=WAIT_S)
