"""Streaming edges: a prompt is filled while its input is still being written, and what comes out is the same."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from shorthand import WAIT_S, f, text_of, until
from test_random_dags import applications, built, interpreted

import parrot_nb as P
from parrot_nb.engine.protocol import Kind
from parrot_nb.runtime import events, running


@pytest.fixture(autouse=True, scope="module")
def every_token_at_once():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(running, "STREAM_TOKENS", 1)
        yield


def warm(session) -> None:
    f("warm {{output:y}}")().get(timeout=WAIT_S)


def phases(session, variable) -> list[str]:
    call = variable.node.producer.id
    return [e.phase for e in session.events.since(0) if isinstance(e, events.CallChanged) and e.call_id == call]


def test_a_prompt_is_begun_while_its_input_is_written(session):
    warm(session)
    source = f("HANG {{output:y}}")()
    after = f("Before {{input:x}} after: {{output:y}}")(source)
    session.read([after.node], P.LATENCY)
    until(lambda: b"Before " in map(bytes, session.engine.contexts.values()), "the beginning")
    ahead = next(c for c, ids in session.engine.contexts.items() if bytes(ids) == b"Before ")
    assert session.engine._priorities[ahead].kind == Kind.AHEAD
    assert (after.producer.state, after.state) == ("running", "pending"), "the call runs, its output has not begun"
    session.release()
    assert after.get(timeout=WAIT_S) == text_of(f"Before {text_of('HANG ')} after: ")
    assert session.engine._priorities[ahead].kind == Kind.LATENCY, "as urgent as whatever somebody waits for"
    assert "streaming" in phases(session, after)


def test_tokens_cross_as_they_come(session, monkeypatch):
    warm(session)
    fills: list[tuple[int, bytes, int]] = []
    engine = session.engine
    fill = engine.fill

    def spy(context: int, ids) -> None:
        fills.append((context, bytes(ids), len(engine.order)))
        fill(context, ids)

    monkeypatch.setattr(engine, "fill", spy)
    source = f("Long {{output:y}}")()
    after = f("{{input:x}}{{output:y}}")(source)
    text = text_of("Long ")
    assert after.get(timeout=WAIT_S) == text_of(text)
    mine = [ids for context, ids, _ in fills if context == fills[-1][0]]
    assert b"".join(mine) == text.encode()
    assert len(mine) > len(text) // 2 > 2, "more than a few pieces"
    generated_before = {n for context, _, n in fills if context == fills[-1][0]}
    assert generated_before == {2}, "all while the one before was the last to have begun generating"


def test_two_inputs_are_waited_for_until_both_are_written(session):
    warm(session)
    one, two = f("HANG one{{output:y}}")(), f("HANG two{{output:y}}")()
    after = f("{{input:a}}+{{input:b}}:{{output:y}}")(one, two)
    session.read([after.node], P.LATENCY)
    until(lambda: after.producer.state == "running", "the beginning")
    assert len(session.engine.order) == 3, "both write"
    session.release()
    assert after.get(timeout=WAIT_S) == text_of(f"{text_of('HANG one')}+{text_of('HANG two')}:")


def test_what_stands_before_an_input_is_filled_while_nothing_of_it_is_there(session):
    """Begun before its input is, and streamed from then on; a Python function in between changes nothing of the first."""
    warm(session)
    source = f("HANG {{output:y}}")()
    between = f("Second {{input:x}}: {{output:y}}")(source)
    after = f("Before {{input:x}}: {{output:y}}")(between)
    last = f("Last {{input:x}}: {{output:y}}")(P.native_function(lambda text: text.upper())(after))
    session.read([last.node], P.LATENCY)
    beginnings = {b"HANG ", b"Second ", b"Before ", b"Last "}
    until(lambda: beginnings == set(map(bytes, session.engine.contexts.values())), "four beginnings")
    assert (between.state, after.state, last.state) == ("pending", "pending", "pending")
    session.release()
    text = text_of("Before " + text_of("Second " + text_of("HANG ") + ": ") + ": ")
    assert last.get(timeout=WAIT_S) == text_of(f"Last {text.upper()}: ")
    assert "streaming" in phases(session, after)
    assert "streaming" not in phases(session, last)
    until(lambda: not session.engine.contexts, "freeing")


def test_that_can_be_switched_off(make_session):
    with make_session(max_tokens=12, off=("prefill_ahead",)) as session:
        warm(session)
        source = f("HANG {{output:y}}")()
        after = f("Before {{input:x}}: {{output:y}}")(f("Between {{input:x}}: {{output:y}}")(source))
        session.read([after.node], P.LATENCY)
        until(lambda: len(session.engine.contexts) == 2, "the beginning of the one whose input is being written")
        assert after.producer.state == "pending"
        session.release()
        after.get(timeout=WAIT_S)


def test_a_python_function_in_between_breaks_the_stream(session):
    warm(session)
    source = f("HANG {{output:y}}")()
    after = f("{{input:x}}:{{output:y}}")(P.native_function(lambda text: text.upper())(source))
    session.read([after.node], P.LATENCY)
    until(lambda: source.state == "running", "the start")
    assert (after.producer.state, len(session.engine.contexts)) == ("pending", 1)
    session.release()
    assert after.get(timeout=WAIT_S) == text_of(f"{text_of('HANG ').upper()}:")


def test_another_model_does_not_stream(session):
    warm(session)
    f("warm {{output:y}}", model="other")().get(timeout=WAIT_S)
    session.engines["other"].codec.key = "another vocabulary"
    source = f("HANG {{output:y}}")()
    after = f("{{input:x}}:{{output:y}}", model="other")(source)
    session.read([after.node], P.LATENCY)
    until(lambda: source.state == "running", "the start")
    assert after.producer.state == "pending"
    session.release()
    assert after.get(timeout=WAIT_S) == text_of(f"{text_of('HANG ')}:")


def test_a_source_that_fails_takes_its_reader_along_and_frees_both(session):
    warm(session)
    after = f("{{input:x}}:{{output:y}}")(f("FAIL {{output:y}}")())
    with pytest.raises(P.UpstreamError, match="told to fail"):
        after.get(timeout=WAIT_S)
    until(lambda: not session.engine.contexts, "freeing")


def test_cancelling_the_source(session):
    warm(session)
    source = f("HANG {{output:y}}")()
    after = f("After {{input:x}}:{{output:y}}")(source)
    session.read([after.node], P.LATENCY)
    until(lambda: len(session.engine.contexts) == 2, "the beginning")
    source.cancel()
    with pytest.raises(P.UpstreamError):
        after.get(timeout=WAIT_S)
    until(lambda: not session.engine.contexts, "freeing")


def test_nothing_is_begun_ahead_while_others_wait_for_a_place(make_session):
    with make_session(max_tokens=4) as session:
        warm(session)
        session.runtime._executor._scheduler.policy.max_open = 2
        source = f("HANG {{output:y}}")()
        after = f("{{input:x}}:{{output:y}}")(source)
        session.read([after.node], P.LATENCY)
        until(lambda: source.state == "running", "the start")
        assert (after.producer.state, len(session.engine.contexts)) == ("pending", 1)
        session.release()
        assert after.get(timeout=WAIT_S)


def test_a_session_can_do_without(make_session):
    with make_session(max_tokens=12, off=("streaming",)) as session:
        warm(session)
        source = f("HANG {{output:y}}")()
        after = f("{{input:x}}:{{output:y}}")(source)
        session.read([after.node], P.LATENCY)
        until(lambda: source.state == "running", "the start")
        assert after.producer.state == "pending"
        session.release()
        assert after.get(timeout=WAIT_S) == text_of(f"{text_of('HANG ')}:")


@settings(max_examples=60, deadline=None)
@given(applications())
def test_any_application_computes_what_the_interpreter_does(make_session, steps):
    with make_session() as session:
        warm(session)
        results = built(steps)
        assert P.gather(*results).get(perf=P.LATENCY, timeout=WAIT_S) == interpreted(steps)
        until(lambda: session.idle, "the end")
        assert all(not engine.contexts for engine in session.engines.values())
