"""Variables as a user holds them: reading, waiting, setting, misuse."""

from __future__ import annotations

import asyncio
import gc
import threading
import traceback
import weakref

import pytest

import parrot_nb as P
from parrot_nb.language.nodes import Span, VariableNode
from parrot_nb.language.reading import Countdown

WAIT_S = 30


@pytest.fixture
def echo(host) -> P.SemanticFunction:
    return P.SemanticFunction("{{input:x}}{{output:y}}", name="echo")


def test_a_plain_value_is_there_at_once(host):
    variable = P.SemanticVariable([1, 2], name="xs")
    assert (variable.get(), variable.state, variable.done(), variable.name) == ([1, 2], "done", True, "xs")
    assert variable.node.spans == (Span("[1, 2]"),)
    assert (variable.producer, variable.consumers, variable.error, variable.finish) == (None, (), None, None)
    assert variable.usage.decoded_tokens == 0
    assert not host.reads, "no host is asked for what is known"


def test_get_says_what_it_wants(echo, host):
    variable = echo("a")
    assert (variable.state, variable.done()) == ("pending", False)
    assert variable.get(perf=P.THROUGHPUT, timeout=WAIT_S) == "[a]"
    assert host.reads == [(("y",), P.THROUGHPUT)]
    assert (variable.state, variable.finish, variable.producer) == ("done", "stop", host.calls[0])
    assert host.calls[0].inputs["x"].consumers == host.calls


def test_an_empty_variable_is_waited_for(host):
    variable = P.variable("task")
    with pytest.raises(P.GetTimeoutError):
        variable.get(timeout=0)
    threading.Timer(0.01, variable.set, ["now"]).start()
    assert variable.get(timeout=WAIT_S) == "now"


@pytest.mark.parametrize("timeout", [-1, float("nan"), "1", True, 1j])
def test_a_timeout_is_a_number_of_seconds(timeout):
    with pytest.raises(P.OptionError, match="timeout"):
        P.variable().get(timeout=timeout)


@pytest.mark.parametrize("perf", ["latency", 1, True])
def test_perf_is_an_objective(perf, host):
    with pytest.raises(P.OptionError, match=r"P\.LATENCY"):
        P.variable().get(perf=perf)
    with pytest.raises(P.OptionError, match=r"P\.LATENCY"):
        asyncio.run(P.variable().aget(perf=perf))


def test_set_is_once_and_for_values(echo):
    variable = P.variable("v", "first")
    with pytest.raises(P.AlreadySetError, match="'v' is already done"):
        variable.set("second")
    assert variable.get() == "first"
    with pytest.raises(P.AlreadySetError, match=r"written by echo\(\)"):
        echo("a").set("b")
    for wrong in (variable, P.gather(variable)):
        with pytest.raises(P.UsageError, match="another variable"):
            P.variable().set(wrong)
    with pytest.raises(P.InputValueError, match="variable 'n' is None"):
        P.SemanticVariable(None, name="n")
    empty = P.variable()
    with pytest.raises(P.InputValueError):
        empty.set(b"x")
    empty.set("a refused value leaves it empty")


MISUSES = {
    "bool": bool,
    "iter": list,
    "in": lambda v: "a" in v,
    "f-string": lambda v: f"{v}",
    "format": "{:>5}".format,
    "index": lambda v: v[0],
    "len": len,
    "compare": lambda v: v < "a",
    "add a number": lambda v: v + 1,
    "join": lambda v: ", ".join([*"ab", v]),
    "int": int,
}


@pytest.mark.parametrize("misuse", MISUSES.values(), ids=MISUSES)
@pytest.mark.parametrize("value", ["text", None], ids=["done", "empty"])
def test_a_variable_is_not_its_value(misuse, value):
    variable = P.variable("v") if value is None else P.variable("v", value)
    with pytest.raises(TypeError) as caught:
        misuse(variable)
    if isinstance(caught.value, P.ParrotError):
        assert "get()" in str(caught.value)


@pytest.mark.parametrize("misuse", [bool, list, "{}".format])
def test_the_message_of_a_misuse_names_variable_and_remedy(misuse):
    with pytest.raises(P.UsageError, match=r"'v' is a variable.*its get\(\)"):
        misuse(P.variable("v"))


def test_equality_is_identity():
    a, b = P.variable("v", "x"), P.variable("v", "x")
    assert a != b
    assert a == a
    assert len({a, b}) == 2


def test_repr_never_blocks_and_stays_short(echo):
    variable = echo("a" * 1000)
    assert repr(variable) == "<variable y pending>"
    variable.node.begin()
    variable.node.append("so far")
    assert repr(variable) == "<variable y running 'so far'>"
    assert len(repr(P.variable("v", "a" * 1000))) < 100
    assert repr(P.gather(variable, P.variable("v", 1))) == "<2 variables: 1 running, 1 done>"
    assert repr(P.gather()) == "<0 variables>"


def test_errors_are_raised_anew_without_a_growing_traceback(host):
    broken = P.native_function(lambda: 1 / 0)()
    lengths = []
    for _ in range(3):
        with pytest.raises(ZeroDivisionError) as caught:
            broken.get(timeout=WAIT_S)
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert len(set(lengths)) == 1
    assert (broken.state, broken.error) == ("failed", caught.value)


def test_cancel(echo, host):
    variable = echo(P.variable("never"))
    variable.cancel()
    with pytest.raises(P.CallCancelledError):
        variable.get(timeout=WAIT_S)
    assert variable.state == "cancelled"
    variable.cancel()
    P.variable("no producer").cancel()


def test_cancel_reaches_a_join_that_nothing_has_used(echo):
    joined = echo(P.variable("never")) + "."
    joined.cancel()
    assert joined.state == "cancelled"


def test_await_and_stream(echo, host):
    async def main():
        variable = echo("a")
        pieces = [piece async for piece in variable.stream()]
        again = [piece async for piece in variable.stream()]
        plain = [piece async for piece in P.variable("v", [1]).stream()]
        return pieces, again, plain, await variable, await variable.aget(P.LATENCY), await P.variable("v", "now")

    assert asyncio.run(main()) == (["[", "a", "]"], ["[", "a", "]"], ["[1]"], "[a]", "[a]", "now")
    assert host.reads == [(("y",), None)]
    assert not host.given_up


def test_pieces_come_before_the_error(host):
    variable = P.variable("v")

    async def main():
        seen = []
        variable.node.append("begun")
        with pytest.raises(P.EngineError, match="broke"):
            async for piece in variable.stream():
                seen.append(piece)
                variable.node.fail(P.EngineError("It broke."))
        return seen

    assert asyncio.run(main()) == ["begun"]
    assert not variable.node._listeners


def test_a_cancelled_await_is_reported_and_leaves_the_loop_usable(host):
    variable = P.variable("v")

    async def drain():
        return [piece async for piece in variable.stream()]

    async def main():
        tasks = [asyncio.ensure_future(variable.aget()), asyncio.ensure_future(drain())]
        while len(host.reads) < 2:  # noqa: ASYNC110 - the host has no event for it
            await asyncio.sleep(0.001)
        for task in tasks:
            task.cancel()
        done = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(isinstance(end, asyncio.CancelledError) for end in done)
        variable.set("late")
        return await variable

    assert asyncio.run(main()) == "late"
    assert host.given_up == [variable.node, variable.node]
    assert not variable.node._listeners


def test_many_awaits_at_once(echo):
    async def main():
        return await asyncio.gather(*(echo(str(i)).aget() for i in range(100)))

    assert asyncio.run(main()) == [f"[{i}]" for i in range(100)]


def test_gather_reads_together(echo, host):
    a, b = echo("a"), echo("b")
    assert P.gather(a, [b, (a,)], P.gather(b), perf=P.THROUGHPUT).get(timeout=WAIT_S) == ["[a]", "[b]", "[a]", "[b]"]
    assert host.reads[0] == (("y", "y", "y", "y"), P.THROUGHPUT)

    async def main():
        return await P.gather(a, b, perf=P.LATENCY), await P.gather()

    assert asyncio.run(main()) == (["[a]", "[b]"], [])
    assert P.gather().get() == []
    with pytest.raises(P.UsageError, match="not str"):
        P.gather(a, "b")


def test_gather_raises_what_the_first_without_value_raises(echo):
    fine, bad, worse = echo("a"), P.native_function(lambda: 1 / 0)(), P.native_function(lambda: int("x"))()
    with pytest.raises(ZeroDivisionError):
        P.gather(fine, bad, worse).get(timeout=WAIT_S)
    assert fine.get() == "[a]"


def test_a_list_of_variables_is_a_sequence(echo):
    row = echo.map(["a", "b", "c"])
    assert isinstance(row, P.VariableList)
    assert isinstance(row[1:], P.VariableList)
    assert (len(row), row[-1].get(timeout=WAIT_S), row[1:].get(timeout=WAIT_S)) == (3, "[c]", ["[b]", "[c]"])
    assert [v.get(timeout=WAIT_S) for v in reversed(row)] == ["[c]", "[b]", "[a]"]
    assert row[0] in row
    assert (row + row[:1]).get(timeout=WAIT_S) == ["[a]", "[b]", "[c]", "[a]"]
    assert row.done()
    with pytest.raises(P.UsageError, match=r"P\.join"):
        f"{row}"
    with pytest.raises(P.UsageError, match="not str"):
        P.VariableList(["a"])


def test_cancelling_a_list_leaves_what_is_done(echo):
    row = P.VariableList([P.variable("done", "x"), echo(P.variable("never")), P.variable("empty")])
    row.cancel()
    assert [v.state for v in row] == ["done", "cancelled", "pending"]


def test_dropping_the_handle_keeps_the_work(echo, host):
    handle = echo("a")
    node, gone = handle.node, weakref.ref(handle)
    del handle
    gc.collect()
    assert gone() is None
    host.read([node], None)
    assert node.future.result(timeout=WAIT_S) == "[a]"


def test_who_waits_for_many_is_told_once_and_at_the_last():
    nodes, told = [VariableNode(str(i)) for i in range(3)], []
    countdown = Countdown(nodes, lambda: told.append([node.state for node in nodes]))
    nodes[2].resolve("c")
    nodes[0].fail(P.CallError("a"))
    assert (countdown.over, told) == (False, [])
    nodes[1].resolve("b")
    assert (countdown.over, told) == (True, [["failed", "done", "done"]])
    again = Countdown(nodes, lambda: told.append("again"))
    assert (again.over, told[1:]) == (True, ["again"])
    assert Countdown([], lambda: told.append("none")).over
    assert told[2:] == []


def test_who_waits_no_longer_is_not_told(host):
    node, told = VariableNode("x"), []
    countdown = Countdown([node, node], lambda: told.append(True))
    countdown.stop()
    node.resolve("a")
    assert (countdown.over, told) == (False, [])


def test_reads_that_time_out_leave_nothing_on_what_they_waited_for():
    empty = P.variable("empty")
    with P.Session():
        for _ in range(3):
            with pytest.raises(P.GetTimeoutError, match="'empty' is still pending"):
                empty.get(timeout=0.001)
        assert empty.node._when_final == ()


def test_a_future_is_that_of_the_end_whenever_it_is_asked_for():
    early, late, failed = VariableNode("early"), VariableNode("late"), VariableNode("failed")
    future = early.future
    early.resolve("a")
    late.resolve("b")
    failed.fail(P.CallError("c"))
    assert early.future is future
    assert (future.result(timeout=0), late.future.result(timeout=0)) == ("a", "b")
    assert isinstance(failed.future.exception(timeout=0), P.CallError)
