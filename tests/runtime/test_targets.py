"""`P.latency(ttft=..., tpot=...)`: what is asked, what the engine is told, and what is said when it cannot be had."""

from __future__ import annotations

import math

import pytest
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P
from parrot_nb.engine.protocol import Pace


def test_it_is_latency_with_figures():
    target = P.latency(ttft=0.5, tpot=0.05)
    assert (target.ttft_s, target.tpot_s) == (0.5, 0.05)
    assert repr(target) == "P.latency(ttft=0.5, tpot=0.05)"
    assert repr(P.latency(tpot=0.1)) == "P.latency(tpot=0.1)"


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf, "1", True])
@pytest.mark.parametrize("name", ["ttft", "tpot"])
def test_figures_must_be_seconds(name, value):
    with pytest.raises(P.OptionError, match=f"{name} must be a positive number of seconds"):
        P.latency(**{name: value})


def test_without_figures_there_is_another_name_for_it():
    with pytest.raises(P.OptionError, match=r"without figures it is P\.LATENCY"):
        P.latency()


@pytest.mark.parametrize("perf", ["latency", 1, {"ttft": 1}])
def test_what_perf_must_be(session, perf):
    with pytest.raises(P.OptionError, match=r"P\.LATENCY, P\.THROUGHPUT or P\.latency\(\.\.\.\)"):
        f("a {{output:y}}")().get(perf=perf)


def test_everything_behind_it_is_latency_and_it_alone_has_a_pace(session):
    before = f("HANG {{output:y}}")()
    after = f("2 {{input:x}} {{output:y}}")(before)
    session.read([after.node], P.latency(ttft=100, tpot=50))
    until(lambda: before.state == "running" and after.objective is P.LATENCY, "the start")
    assert (before.objective, after.objective) == (P.LATENCY, P.LATENCY)
    assert session.describe(before.producer).path.due
    assert session.describe(after.producer).path.due
    assert session.describe(before.producer).target is None
    session.release()
    assert after.get(timeout=WAIT_S) == text_of(f"2 {text_of('HANG ')} ")
    assert Pace(50) in session.engine.paces.values()
    assert "Target: P.latency(ttft=100, tpot=50), met." in P.explain(after)


def test_the_stricter_of_two_readers_counts(session):
    one = f("HANG {{output:y}}")()
    session.read([one.node], P.latency(tpot=5))
    session.read([one.node], P.latency(ttft=9, tpot=7))
    until(lambda: session.describe(one.producer).target == P.latency(ttft=9, tpot=5), "both to be taken in")
    until(lambda: session.engines and Pace(5) in session.engine.paces.values(), "the engine to be told")
    session.release()
    one.get(timeout=WAIT_S)


def test_who_reads_an_equal_call_sets_the_pace_of_the_one_that_runs(session):
    """Of two equal calls one runs and the other waits for it: a pace that is asked of the second holds for the first."""
    leader, follower = f("HANG {{output:y}}")(), f("HANG {{output:y}}")()
    session.read([leader.node], P.LATENCY)
    until(lambda: leader.state == "running", "the start")
    assert Pace(50) not in session.engine.paces.values()
    session.read([follower.node], P.latency(tpot=50))
    until(lambda: Pace(50) in session.engine.paces.values(), "the engine to be told")
    assert len(session.engine.contexts) == 1
    session.release()
    assert leader.get(timeout=WAIT_S) == follower.get(timeout=WAIT_S)
    assert follower.usage.from_memo


def test_what_cannot_be_had_is_run_and_said(session):
    one = f("Some text {{output:y}}")()
    assert one.get(perf=P.latency(ttft=1e-9), timeout=WAIT_S) == text_of("Some text ")
    assert "target missed: first token after" in one.node.note
    assert "hashes, not language" in one.node.note, "what the engine has to say is said too"
    assert "Target: P.latency(ttft=1e-09), target missed: first token after" in P.explain(one)


def test_who_has_figures_starts_by_the_earliest_time(make_session):
    with make_session(max_tokens=3) as session:
        session.runtime._executor._scheduler.policy.max_open = 1
        step = f("{{input:x}}{{output:y}}")
        blocker = step("HANG")
        session.flush()
        until(lambda: session.engines and session.engine.order, "the start")
        plain, late, soon = step("plain"), step("late"), step("soon")
        session.read([plain.node], P.LATENCY)
        session.read([late.node], P.latency(ttft=1000))
        session.read([soon.node], P.latency(ttft=1))
        until(lambda: session.describe(soon.producer).path is not None, "the analysis")
        session.release()
        for one in (plain, late, soon, blocker):
            one.get(timeout=WAIT_S)
        assert [prompt for _, prompt in session.engine.order] == [b"HANG", b"soon", b"late", b"plain"]


def test_why_a_call_is_where_it_is(session):
    short, first = f("s {{output:y}}")(), f("a {{output:y}}", max_tokens=12)()
    second = f("b {{input:x}} {{output:y}}")(first)
    end = f("{{input:a}} {{input:b}} {{output:y}}")(short, second)
    end.get(timeout=WAIT_S)
    assert "Critical path: on it" in P.explain(first)
    assert "Critical path: on it" in P.explain(second)
    assert "Critical path: beside it; it may start" in P.explain(short)
