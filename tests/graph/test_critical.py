"""Critical paths and applications, against walking every way through random DAGs."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_stages import a_call, dags, plain

from parrot_nb.graph import Applications, Cost, Reading, critical_paths, stages
from parrot_nb.graph.records import CallRecord
from parrot_nb.language import LatencyTarget

FIRST = 0.25  # of a call's seconds pass before its first token


def cost(call: CallRecord) -> Cost:
    seconds = 1.0 + call.id * 7 % 5
    return Cost(FIRST * seconds, seconds)


def unfinished_before(call: CallRecord) -> list[CallRecord]:
    found = {n.producer.id: n.producer for n in call.inputs.values() if n.producer is not None and n.producer.state != "done"}
    return list(found.values())


def ways_to(call: CallRecord, targets: list[CallRecord]) -> list[list[CallRecord]]:
    """Every way from a call to something that is read, the call itself first."""
    ways = [[call]] if call in targets else []
    for reader in {r.id: r for r in call.outputs[0].consumers if r.state != "done"}.values():
        ways += [[call, *way] for way in ways_to(reader, targets)]
    return ways


def length(way: list[CallRecord]) -> float:
    return sum(cost(call).whole_s for call in way)


def earliest(call: CallRecord) -> float:
    return max((earliest(before) + cost(before).whole_s for before in unfinished_before(call)), default=0.0)


@given(data=st.data())
@settings(deadline=None, max_examples=150)
def test_every_call_has_the_tail_slack_and_start_that_all_its_ways_say(data):
    calls = data.draw(dags())
    alive = [call for call in calls if call.state != "done"]
    read = data.draw(st.lists(st.sampled_from(calls), min_size=1, max_size=3, unique=True))
    ttfts = {call: data.draw(st.none() | st.floats(0.1, 20)) for call in read}
    at_s = 100.0
    readings = [
        Reading((call.outputs[0],), at_s, None if ttft is None else LatencyTarget(ttft_s=ttft)) for call, ttft in ttfts.items()
    ]
    paths = critical_paths(stages([call.outputs[0] for call in read]), readings, cost)
    targets = [call for call in read if call.state != "done"]
    assert set(paths) == {call for call in alive if ways_to(call, targets)}
    for call, path in paths.items():
        ways = ways_to(call, targets)
        assert path.tail_s == pytest.approx(max(map(length, ways)))
        ends = {way[-1]: earliest(way[-1]) + cost(way[-1]).whole_s for way in ways}
        assert path.slack_s == pytest.approx(min(ends[way[-1]] - length(way) - earliest(call) for way in ways), abs=1e-9)
        due = [
            at_s + ttft + (1 - FIRST) * cost(way[-1]).whole_s - length(way)
            for way in ways
            if (ttft := ttfts[way[-1]]) is not None
        ]
        assert path.due == bool(due)
        expected = min(due) if due else at_s + earliest(call) + path.slack_s
        assert path.start_by_s == pytest.approx(expected)


def test_something_is_always_critical():
    a = a_call([plain()])
    b, c = a_call([a.outputs[0]]), a_call([plain()])
    d = a_call([b.outputs[0], c.outputs[0]])
    paths = critical_paths(stages(d.outputs), [Reading(d.outputs, 0.0)], lambda call: Cost(1.0, 1.0))
    assert [paths[call].slack_s for call in (a, b, d)] == [0.0, 0.0, 0.0]
    assert paths[c].slack_s == 1.0, "it has the time in which the other two run, less its own"
    assert math.isclose(paths[a].tail_s, 3.0)


def test_neither_depth_nor_width_is_a_problem():
    call = a_call([plain()])
    for _ in range(20_000):
        call = a_call([call.outputs[0]])
    wide = a_call([a_call([plain()]).outputs[0] for _ in range(20_000)])
    for end, tail in ((call, 20_001), (wide, 2)):
        paths = critical_paths(stages(end.outputs), [Reading(end.outputs, 0.0)], lambda _: Cost(1.0, 1.0))
        assert max(path.tail_s for path in paths.values()) == tail


@given(dags())
@settings(deadline=None, max_examples=150)
def test_an_application_is_what_hangs_together(calls):
    applications = Applications()
    for call in calls:
        applications.add(call)
    for call in calls:
        together, frontier = {call.id}, [call]
        while frontier:
            here = frontier.pop()
            around = [n.producer for n in here.inputs.values() if n.producer is not None] + list(here.outputs[0].consumers)
            frontier += [other for other in around if other.id not in together]
            together |= {other.id for other in around}
        assert applications.of(call) == min(together)


@given(calls=dags(), data=st.data())
@settings(deadline=None, max_examples=100)
def test_what_an_application_has_left_is_its_longest_tail(calls, data):
    applications = Applications()
    for call in calls:
        applications.add(call)
    for call, path in critical_paths(
        stages(c.outputs[0] for c in calls), [Reading(tuple(c.outputs[0] for c in calls), 0.0)], cost
    ).items():
        call.path = path
        applications.planned(call)
    left = [call for call in calls if call.state != "done"]
    while left:
        call = data.draw(st.sampled_from(left))
        mine = [other for other in left if applications.of(other) == applications.of(call)]
        assert applications.remaining_s(call) == pytest.approx(max(other.path.tail_s for other in mine))
        left.remove(call)
        applications.ended(call)
