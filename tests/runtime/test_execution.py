"""What calls resolve to, and in which state everything is left, whatever happens on the way."""

from __future__ import annotations

import asyncio
import threading

import pytest
from hash_engine import expected_text
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P
from parrot_nb.runtime.events import GroupDeduced


def test_a_pair_of_calls_resolves_to_what_the_prompts_say(session):
    write_code = f("Write {{input:task}}.\nCode: {{output:code}}")
    write_test = f("Test {{input:task}}.\nCode: {{input:code}}\nTest: {{output:test, max_tokens=5}}\n")
    code = write_code("a snake game")
    test = write_test("a snake game", code)
    assert code.state == "pending"
    value = test.get(perf=P.LATENCY, timeout=WAIT_S)
    expected_code, _ = expected_text(b"Write a snake game.\nCode: ", 12)
    expected, finish = expected_text(f"Test a snake game.\nCode: {expected_code}\nTest: ".encode(), 5)
    assert (code.get(), value, test.finish) == (expected_code, expected, finish)
    assert test.usage.decoded_tokens == len(expected)


def test_several_outputs_of_one_prompt_see_each_other(session):
    joke = f("Joke: {{output:joke}}\nExplain {{input:joke}}: {{output:why}} end")
    result = joke()
    first, _ = expected_text(b"Joke: ", 12)
    second, _ = expected_text(f"Joke: {first}\nExplain {first}: ".encode(), 12)
    assert (result.joke.get(timeout=WAIT_S), result.why.get(timeout=WAIT_S)) == (first, second)


def test_values_are_never_read_as_placeholders(session):
    echo = f("Say {{input:x}}: {{output:y}}")
    evil = "{{output:z}} {{input:x}} \\{{"
    assert echo(evil).get(timeout=WAIT_S) == expected_text(f"Say {evil}: ".encode(), 12)[0]


def test_a_map_and_its_join(session):
    part = f("Part {{input:x}}: {{output:y}}")
    whole = f("All:\n{{input:parts}}\n-> {{output:y}}")
    parts = part.map(["a", "b", "c"])
    values = [expected_text(f"Part {x}: ".encode(), 12)[0] for x in "abc"]
    assert whole(parts).get(timeout=WAIT_S) == expected_text(f"All:\n{chr(10).join(values)}\n-> ".encode(), 12)[0]
    assert parts.get(timeout=WAIT_S) == values
    assert (("<" + parts[0]) + ">").get(timeout=WAIT_S) == f"<{values[0]}>"
    assert whole(P.join(parts, " | ")).get(timeout=WAIT_S) == expected_text(f"All:\n{' | '.join(values)}\n-> ".encode(), 12)[0]


def test_intermediate_results_of_plus_never_enter_the_graph(session):
    part = f("Part {{input:x}}: {{output:y}}")
    joined = "a" + part("1") + "b" + part("2") + "c"
    joined.get(timeout=WAIT_S)
    assert [call.kind for call in session.calls()].count("join") == 1


def test_native_functions_run_by_reference_off_the_runtime_thread(session):
    seen = []
    table = {"rows": 3}

    @P.native_function
    def count(text, table, *more, sep="-"):
        seen.append((threading.current_thread().name, table))
        return f"{text}{sep}{table['rows']}{sep}{len(more)}"

    @P.native_function
    async def shout(text):
        await asyncio.sleep(0.01)
        return text.upper()

    value = shout(count(f("X{{output:x}}")(), table, 1, 2, sep="+")).get(timeout=WAIT_S)
    assert value == f"{expected_text(b'X', 12)[0]}+3+2".upper()
    assert seen[0][1] is table
    assert "native" in seen[0][0]


def test_a_native_function_may_call_and_return_variables(session):
    inner = f("In {{input:x}}: {{output:y}}")

    @P.native_function
    def choose(x):
        return inner(x + "!")

    @P.native_function
    def wait_for_it(x):
        return inner(x).get(timeout=WAIT_S).upper()

    @P.native_function
    async def await_it(x):
        return await inner(x)

    expected = expected_text(b"In a!: ", 12)[0]
    assert choose("a").get(timeout=WAIT_S) == expected
    assert wait_for_it("a!").get(timeout=WAIT_S) == expected.upper()
    assert await_it("a!").get(timeout=WAIT_S) == expected


def test_more_waiting_native_functions_than_threads(session):
    gate = P.variable(name="gate")
    pass_on = P.native_function(lambda x: x)

    @P.native_function
    def wait(i):
        return pass_on(gate).get(timeout=WAIT_S) + str(i)

    waits = wait.map(range(100))
    session.flush()
    gate.set("g")
    assert waits.get(timeout=WAIT_S) == [f"g{i}" for i in range(100)]


def test_get_in_an_async_native_function_is_refused_not_a_deadlock(session):
    inner = f("In: {{output:y}}")

    @P.native_function
    async def wrong():
        return inner().get()

    with pytest.raises(P.SessionError, match="await"):
        wrong().get(timeout=WAIT_S)


def test_a_failed_native_function_fails_what_depends_on_it_and_nothing_else(session):
    @P.native_function
    def broken(x):
        raise KeyError("gone")

    after = f("After {{input:x}}: {{output:y}}")
    bad = broken("a")
    chained = after(after(bad))
    fine = after("ok")
    with pytest.raises(P.UpstreamError) as caught:
        chained.get(timeout=WAIT_S)
    assert isinstance(caught.value.__cause__, P.NativeFunctionError)
    assert isinstance(caught.value.__cause__.__cause__, KeyError)
    with pytest.raises(P.NativeFunctionError, match="broken"):
        bad.get(timeout=WAIT_S)
    assert (bad.state, chained.state) == ("failed", "failed")
    assert fine.get(timeout=WAIT_S) == expected_text(b"After ok: ", 12)[0]


def test_an_engine_failure_keeps_earlier_outputs_and_frees_the_context(session):
    two = f("A{{output:a}}{{input:x}}{{output:b}}")
    result = two("FAIL")
    with pytest.raises(P.EngineError, match="told to fail"):
        result.b.get(timeout=WAIT_S)
    assert result.a.get(timeout=WAIT_S) == expected_text(b"A", 12)[0]
    until(lambda: not session.engine.contexts, "freeing the context")


def opaque():
    return object()


def test_a_native_value_without_text_fails_its_reader(session):
    bad = f("X {{input:x}}: {{output:y}}")(P.native_function(opaque)())
    with pytest.raises(P.InputValueError, match="object"):
        bad.get(timeout=WAIT_S)


def half_a_character():
    return "ab\ud83e"


def test_text_that_is_none_fails_the_function_that_returned_it(session):
    half = P.native_function(half_a_character)()
    reader = f("X {{input:x}}: {{output:y}}")(half)
    with pytest.raises(P.UpstreamError):
        reader.get(timeout=WAIT_S)
    with pytest.raises(
        P.InputValueError, match=r"^the text that native function 'half_a_character' returned holds .* position 2"
    ):
        half.get(timeout=WAIT_S)
    cleaned = P.native_function(lambda text: text.encode("utf-8", "replace").decode(), name="clean")("ab\ud83e")
    assert cleaned.get(timeout=WAIT_S) == "ab?"


def test_later_inputs_may_come_after_the_first_output(session):
    b = P.variable(name="b")
    both = f("{{input:a}}{{output:x}}{{input:b}}{{output:y}}")("start", b)
    first = both.x.get(timeout=WAIT_S)
    assert both.y.state == "pending"
    b.set(first[::-1])
    assert both.y.get(timeout=WAIT_S) == expected_text(f"start{first}{first[::-1]}".encode(), 12)[0]


def test_an_empty_variable_is_waited_for_and_set_once(session):
    task = P.variable(name="task")
    code = f("Write {{input:task}}: {{output:code}}")(task)
    with pytest.raises(P.GetTimeoutError, match="code"):
        code.get(timeout=0.05)
    threading.Timer(0.05, task.set, ["x"]).start()
    assert code.get(timeout=WAIT_S) == expected_text(b"Write x: ", 12)[0]
    with pytest.raises(P.AlreadySetError):
        task.set("y")
    with pytest.raises(P.AlreadySetError):
        code.set("y")


def test_cancel_frees_the_context_and_fails_what_depends_on_it(session):
    hang = f("{{input:x}}{{output:y}}")
    first = hang("HANG")
    second = hang(first)
    session.flush()
    until(lambda: session.engines and session.engine.order, "the start")
    first.cancel()
    with pytest.raises(P.CallCancelledError):
        first.get(timeout=WAIT_S)
    with pytest.raises(P.UpstreamError) as caught:
        second.get(timeout=WAIT_S)
    assert isinstance(caught.value.__cause__, P.CallCancelledError)
    assert (first.state, second.state) == ("cancelled", "cancelled")
    until(lambda: not session.engine.contexts, "freeing the context")
    assert hang("go").get(timeout=WAIT_S) == expected_text(b"go", 12)[0]


def test_giving_up_cancels_only_what_runs_for_this_reader(session):
    hang = f("{{input:x}}{{output:y}}")
    shared = hang("HANG shared")
    mine = hang(hang(shared))
    other = hang(shared)
    session.flush()
    until(lambda: session.engines and session.engine.order, "the start")
    session.cancel_reading([mine.node])
    with pytest.raises(P.ParrotError):
        mine.get(timeout=WAIT_S)
    assert mine.state == "cancelled"
    session.release()
    assert other.get(timeout=WAIT_S)
    assert shared.state == "done"


def test_two_hundred_calls_at_once_leave_nothing_behind(session):
    many = f("Item {{input:x}}: {{output:y}}").map(range(200))
    assert many.get(timeout=WAIT_S) == [expected_text(f"Item {i}: ".encode(), 12)[0] for i in range(200)]
    assert session.engine.most_open > 1
    until(lambda: not session.engine.contexts, "freeing the contexts")
    assert session.idle


def test_reset_frees_everything_and_the_session_goes_on(session):
    hang = f("{{input:x}}{{output:y}}")
    waiting = hang.map(["HANG"] * 20)
    session.flush()
    until(lambda: session.engines and session.engine.order, "the start")
    session.reset()
    assert not session.engine.contexts
    assert not session.calls()
    assert {v.state for v in waiting} == {"cancelled"}
    assert hang("again").get(timeout=WAIT_S) == expected_text(b"again", 12)[0]


def test_a_model_that_cannot_be_loaded_fails_its_calls_only(session):
    bad = f("X{{output:y}}", model="missing")()
    with pytest.raises(P.ModelLoadError, match="missing"):
        bad.get(timeout=WAIT_S)
    assert f("X{{output:y}}")().get(timeout=WAIT_S)


def test_each_function_may_name_its_model(session):
    assert f("X{{output:y}}", model="other")().get(timeout=WAIT_S)
    assert set(session.engines) == {"other"}
    assert [info.id for info in session.models()] == ["other"]


def test_text_longer_than_the_context(session):
    with pytest.raises(P.ContextLengthError):
        f("{{input:x}}{{output:y}}")("x" * 200_000).get(timeout=WAIT_S)
    assert f("X{{output:y}}")().get(timeout=WAIT_S)


def test_eager_and_lazy_sessions(make_session):
    with make_session(max_tokens=3):
        unread, read = f("A{{output:y}}")(), f("B{{output:y}}")()
        read.get(timeout=WAIT_S)
        until(lambda: unread.state == "done", "the eager call")
        assert unread.objective is P.THROUGHPUT
        until(lambda: read.objective is P.LATENCY, "the deduction")  # it may be done before its reader is heard
    with make_session(max_tokens=3, eager=False) as lazy:
        unread, read = f("A{{output:y}}")(), f("B{{output:y}}")()
        read.get(timeout=WAIT_S)
        assert unread.state == "pending"
        assert lazy.idle
        assert unread.get(timeout=WAIT_S)


def test_latency_goes_first_and_raises_what_it_depends_on(make_session):
    with make_session(max_tokens=2) as session:
        session.runtime._executor._scheduler.policy.max_open = 1
        step = f("{{input:x}}{{output:y}}")
        blocker = step("HANG")
        session.flush()
        until(lambda: session.engines and session.engine.order, "the start")
        bulk = step.map([f"bulk{i}" for i in range(5)])
        urgent = step("|" + step("urgent"))
        session.flush()
        session.read([urgent.node], P.LATENCY)
        session.release()
        urgent.get(timeout=WAIT_S)
        bulk.get(perf=P.THROUGHPUT, timeout=WAIT_S)
        prompts = [prompt for _, prompt in session.engine.order]
        assert prompts[0] == b"HANG"
        assert prompts[1] == b"urgent"
        assert prompts[2].startswith(b"|")
        assert blocker.get(timeout=WAIT_S)


def test_a_closed_session_refuses_and_leaves_nobody_waiting(make_session):
    session = make_session()
    hang = f("{{input:x}}{{output:y}}")
    with session:
        variable = hang("HANG")
        session.flush()
        until(lambda: session.engines and session.engine.order, "the start")
    assert variable.state == "cancelled"
    assert session.engine.closed
    with pytest.raises(P.CallCancelledError):
        variable.get()
    with pytest.raises(P.SessionError, match="closed"), session:
        pass


def test_variables_of_another_session_are_refused(make_session):
    with make_session() as first:
        pending = f("HANG{{output:y}}")()
        with make_session(), pytest.raises(P.SessionError, match="another session"):
            f("{{input:x}}{{output:y}}")(pending)
        first.cancel()


def test_redefining_a_function_leaves_calls_in_flight_alone(session):
    g = f("HANG one {{input:x}}{{output:y}}")
    first = g("a")
    session.flush()
    g = f("two {{input:x}}{{output:y}}")
    second = g("a")
    assert second.get(timeout=WAIT_S) == expected_text(b"two a", 12)[0]
    session.release()
    assert first.get(timeout=WAIT_S) == expected_text(b"HANG one a", 12)[0]


def test_await_stream_and_gather(session):
    step = f("{{input:x}}{{output:y}}")

    async def main():
        variable = step("a")
        pieces = [piece async for piece in variable.stream()]
        both = await P.gather(step("b"), step("c"), perf=P.THROUGHPUT)
        return pieces, await variable, both

    pieces, value, both = asyncio.run(main())
    assert "".join(pieces) == value == expected_text(b"a", 12)[0]
    assert both == [expected_text(b"b", 12)[0], expected_text(b"c", 12)[0]]


def test_deep_chains_do_not_recurse(session):
    step = f("{{input:x}}{{output:y, max_tokens=1}}")
    broken = P.native_function(lambda: 1 / 0)()
    good = step("a")
    for _ in range(3000):
        broken, good = step(broken), step(good)
    with pytest.raises(P.UpstreamError) as caught:
        broken.get(timeout=120)
    assert isinstance(caught.value.__cause__, P.NativeFunctionError)
    assert isinstance(good.get(timeout=120), str)


def test_render_shows_what_the_model_would_get(session):
    rendered = f("A {{input:x}}\n{{output:y}} tail").render(x="v")
    assert [(s.kind, s.name, s.text) for s in rendered] == [
        ("constant", None, "A "),
        ("input", "x", "v"),
        ("constant", None, "\n"),
        ("output", "y", ""),
        ("constant", None, " tail"),
    ]
    assert rendered[0].token_ids == tuple(b"A ")
    assert not session.calls()


def test_a_crash_in_the_runtime_leaves_nobody_waiting(session, monkeypatch):
    variable = f("HANG{{output:y}}")()
    session.flush()
    until(lambda: session.engines and session.engine.order, "the start")
    session.on_loop(lambda: 1 / 0)
    with pytest.raises(P.EngineError, match="ZeroDivisionError"):
        variable.get(timeout=WAIT_S)
    assert f("X{{output:y}}")().get(timeout=WAIT_S)


def test_calls_that_are_waited_for_together_are_a_group_and_can_be_explained(make_session):
    with make_session(max_tokens=12, eager=False) as session:
        part = f("Part {{input:x}}: {{output:y}}")
        whole = f("All:\n{{input:parts}}\n-> {{output:y}}")
        parts = part.map(["a", "b", "c"])
        summary = whole(parts)
        alone = part("alone")
        assert "Objective: none yet" in P.explain(alone)
        summary.get(perf=P.LATENCY, timeout=WAIT_S)
        alone.get(perf=P.THROUGHPUT, timeout=WAIT_S)
        (group,) = {variable.node.producer.group for variable in parts}
        assert group.call_ids == tuple(variable.node.producer.id for variable in parts)
        assert [e.group for e in session.events.since(0) if isinstance(e, GroupDeduced)] == [group]
        assert summary.node.producer.group is None
        told = P.explain(parts[0])
        assert "one of 3 parallel calls, 1 model call before what was read" in told
        assert f"'y' of f (call {summary.node.producer.id}) was read as such and depends on it through" in told
        assert "tokens prefilled" in told
        assert "was read with perf=P.LATENCY" in P.explain(alone)


def test_a_plain_list_of_variables_is_a_list_of_their_values(session):
    """To a Python function as to a prompt; what is plain in it stays what it is."""
    one, two = f("1 {{output:y}}")(), f("2 {{output:y}}")()
    texts = [text_of("1 "), text_of("2 ")]
    count = P.native_function(lambda items: [len(item) for item in items])
    assert count([one, two]).get(timeout=WAIT_S) == [len(text) for text in texts]
    assert count([one, "three"]).get(timeout=WAIT_S) == [len(texts[0]), 5]
    assert f("All: {{input:xs}}. {{output:y}}")([one, two]).get(timeout=WAIT_S) == text_of(f"All: {texts[0]}\n{texts[1]}. ")
    with pytest.raises(P.InputValueError):
        count([one, None])
    with pytest.raises(P.ArgumentError, match="argument 'items' is a tuple of variables: choose one, or give a list of them"):
        count((one, two))
