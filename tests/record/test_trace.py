"""Trace files: what Perfetto asks of them, and our own record in them."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from typing import get_args

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.engine.loads import LoadProgress
from parrot_nb.record import read_trace, trace_of, write_trace
from parrot_nb.record.codec import from_json, to_json
from parrot_nb.runtime.events import Event, ModelLoading

KINDS = {kind.__name__: kind for kind in get_args(Event)}


@pytest.fixture(scope="module")
def trace(recorded):
    return json.loads(json.dumps(trace_of(recorded.log)))


def test_every_event_has_what_the_format_asks_for(trace):
    """The Trace Event Format, by its own description."""
    threads = {(e["pid"], e["tid"]) for e in trace["traceEvents"] if e["ph"] == "M" and e["name"] == "thread_name"}
    assert {e["ph"] for e in trace["traceEvents"]} == {"M", "X", "C", "s", "f"}
    for event in trace["traceEvents"]:
        assert isinstance(event["name"], str)
        assert isinstance(event["pid"], int)
        assert isinstance(event["tid"], int)
        if event["ph"] == "M":
            assert event["args"]
            continue
        assert isinstance(event["ts"], int)
        assert event["ts"] >= 0
        if event["ph"] == "X":
            assert event["dur"] >= 0
            assert (event["pid"], event["tid"]) in threads
        if event["ph"] == "C":
            assert all(isinstance(value, int) and value >= 0 for value in event["args"].values())


def test_slices_of_a_thread_nest(trace):
    threads = defaultdict(list)
    for event in trace["traceEvents"]:
        if event["ph"] == "X":
            threads[event["pid"], event["tid"]].append((event["ts"], event["ts"] + event["dur"]))
    for slices in threads.values():
        open_until: list[int] = []
        for begin, end in sorted(slices, key=lambda s: (s[0], -s[1])):
            while open_until and open_until[-1] <= begin:
                open_until.pop()
            assert not open_until or end <= open_until[-1]
            open_until.append(end)


def test_arrows_lead_forward_from_slice_to_slice(trace):
    begins = {e["id"]: e for e in trace["traceEvents"] if e["ph"] == "s"}
    ends = {e["id"]: e for e in trace["traceEvents"] if e["ph"] == "f"}
    assert begins.keys() == ends.keys()
    assert begins
    assert all(begins[i]["ts"] <= ends[i]["ts"] for i in begins)


def test_counters_agree_with_the_steps(trace, recorded):
    decoded = sum(e["args"]["decode"] for e in trace["traceEvents"] if e["ph"] == "C" and "decode" in e["args"])
    first_tokens = sum(u.decoded_tokens > 0 and not u.from_memo for u in recorded.usages)
    assert decoded == sum(u.decoded_tokens for u in recorded.usages) - first_tokens
    pages = [e["args"] for e in trace["traceEvents"] if e["name"] == "KV pages"]
    assert len({sum(p.values()) for p in pages}) == 1
    assert max(p["cached"] for p in pages) > 0


def test_what_is_read_is_what_was_recorded(recorded, tmp_path):
    write_trace(tmp_path / "t.json", recorded.log)
    assert read_trace(tmp_path / "t.json") == recorded.log
    assert {type(e).__name__ for e in recorded.log} >= {"CallAdded", "CallChanged", "StepRan", "VariableChanged", "ModelChanged"}


def test_a_replay_gives_the_events_in_their_time(recorded, tmp_path):
    write_trace(tmp_path / "t.json", recorded.log)
    replay = P.replay(tmp_path / "t.json", speed=20)
    began = time.monotonic()
    assert list(replay) == recorded.log
    assert time.monotonic() - began >= replay.duration_s > 0
    assert len(list(P.replay(tmp_path / "t.json", speed=math.inf))) == len(replay)
    assert replay.timeline.calls
    assert "events" in repr(replay)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (None, "no file"),
        ("{", "does not hold JSON"),
        ("\udcff", "does not hold JSON"),
        ("[1, 2]", "not written by parrot_nb"),
        ('{"traceEvents": []}', "not written by parrot_nb"),
        ('{"parrot_nb": {"format": 99, "events": []}}', "format 99"),
        ('{"parrot_nb": {"format": 1, "events": [{"event": "StepRan"}]}}', "event 1"),
        ('{"parrot_nb": {"format": 1, "events": [{"event": "CallAdded", "time_s": "soon"}]}}', "event 1"),
        ('{"parrot_nb": {"format": 1, "events": ' + "[" * 100_000 + "}}", "does not hold JSON"),
    ],
)
def test_a_bad_file_is_refused_in_a_sentence(tmp_path, content, told):
    path = tmp_path / "t.json"
    if content is not None:
        path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(P.TraceError, match=told) as caught:
        P.replay(path)
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_trace(tmp_path):
    with pytest.raises(P.TraceError, match="cannot be read"):
        P.replay(tmp_path)


@pytest.mark.parametrize("speed", [0, -1, math.nan, True, "2"])
def test_an_unusable_speed_is_refused(speed):
    with pytest.raises(P.OptionError, match="speed"):
        P.replay("t.json", speed=speed)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_anything_is_read_exactly_or_refused(kind, data):
    names = [field.name for field in msgspec.structs.fields(KINDS[kind])]
    record = {"event": kind, **data.draw(st.dictionaries(st.sampled_from(names), values))}
    try:
        event = from_json(record)
    except ValueError:
        return
    assert from_json(json.loads(json.dumps(to_json(event)))) == event


# Numbers that clocks and counters can have; tests/attacks has the others.
st.register_type_strategy(float, st.floats(-1e12, 1e12))
st.register_type_strategy(int, st.integers(-(2**53), 2**53))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from(sorted(KINDS)), st.data())
def test_whatever_an_event_says_is_read_back(kind, data):
    event = KINDS[kind](**{field.name: data.draw(st.from_type(field.type)) for field in msgspec.structs.fields(KINDS[kind])})
    again = from_json(json.loads(json.dumps(to_json(event))))
    assert again == event


@pytest.mark.parametrize(
    "record",
    [
        {"event": "SessionReset", "time_s": 1.0, "more": 2},
        {"event": "ModelLoading", "time_s": 1.0, "model": "m", "progress": {"phase": "reading", "more": 2}},
        {"event": "SessionReset", "time_s": True},
        {"event": "SessionReset"},
        {"event": "Answer", "number": 1},
        {"time_s": 1.0},
        [],
        None,
    ],
    ids=repr,
)
def test_what_is_no_event_is_refused(record):
    with pytest.raises(ValueError, match=r"."):
        from_json(record)


def test_a_load_in_progress_is_read_back():
    """Its type is of another module than the event."""
    event = ModelLoading(1.5, "acme/smol", LoadProgress("downloading", 1, 4, 10, 40, 2.5))
    assert from_json(json.loads(json.dumps(to_json(event)))) == event
