"""A timeline's picture: whole, readable, and small however many calls there are."""

from __future__ import annotations

import itertools
import re
from xml.etree import ElementTree as ET

import pytest
from drawn_pictures import drawn
from hypothesis import given, settings
from hypothesis import strategies as st
from record_logs import many_calls

from parrot_nb.notebook.timeaxis import TimeAxis, duration, nice
from parrot_nb.notebook.timeline import MAX_ROWS, render_timeline_html, render_timeline_text
from parrot_nb.record import SPAN_WORDS, TimelineFold
from parrot_nb.record.timeline import merged
from parrot_nb.runtime import events

nasty = st.text(st.sampled_from("ab<>&\"'\n✓é漢\x07 "), min_size=1, max_size=60)
times = st.floats(0, 100, allow_nan=False)
PHASES = ["waiting", "queued", "prefill", "streaming", "decode", "reused", "native"]


@st.composite
def logs(draw) -> list[events.Event]:
    """A call or several, each with phases in random order and at random times."""
    found: list[events.Event] = []
    for call in range(1, draw(st.integers(1, 15)) + 1):
        moments = sorted(draw(st.lists(times, min_size=2, max_size=6)))
        inputs = ((draw(nasty), 100 + call - 1),) if call > 1 and draw(st.booleans()) else ()
        kind = draw(st.sampled_from(["semantic", "native", "join", "first"]))
        found.append(events.CallAdded(moments[0], call, draw(nasty), kind, inputs, (100 + call,), 1))
        found.append(events.VariableAdded(moments[0], 100 + call, draw(nasty), call))
        for moment in moments[1:-1]:
            engine = draw(st.sampled_from([None, "tiny"]))
            found.append(events.CallChanged(moment, call, "running", draw(st.sampled_from(PHASES)), engine))
        state = draw(st.sampled_from(["done", "failed", "cancelled", "running"]))
        if state != "running":
            found.append(events.VariableChanged(moments[-1], 100 + call, state, error=draw(st.none() | nasty)))
            found.append(events.CallChanged(moments[-1], call, state, "ended", error=draw(st.none() | nasty)))
    return found


def parsed(html: str) -> list[ET.Element]:
    return [ET.fromstring(picture) for picture in re.findall(r"<svg.*?</svg>", html, re.DOTALL)]


@settings(max_examples=150, deadline=None)
@given(logs())
def test_any_log_gives_a_well_formed_picture_within_its_frame(log):
    html = render_timeline_html(TimelineFold.of(log).timeline(), inline=True)
    chart = parsed(html)[0]
    assert {element.tag.rpartition("}")[2] for element in chart.iter()} <= {"svg", "g", "title", "rect", "text", "path"}
    assert set(re.findall(r"https?://[^\"]*", html)) == {"http://www.w3.org/2000/svg"}
    width, height = float(chart.get("width")), float(chart.get("height"))
    for rect in chart.iter("{http://www.w3.org/2000/svg}rect"):
        x, y, w, h = (float(rect.get(k)) for k in ("x", "y", "width", "height"))
        assert -0.1 <= x <= x + w <= width + 2
        assert -0.1 <= y <= y + h <= height + 0.1
    assert "<script" not in html
    assert render_timeline_text(TimelineFold.of(log).timeline())


@pytest.mark.parametrize(("count", "functions"), [(1, 1), (8, 1), (500, 1), (500, 20), (500, 500)])
def test_it_stays_readable_and_small(count, functions):
    timeline = TimelineFold.of(many_calls(count, functions)).timeline()
    html = render_timeline_html(timeline)
    assert len(html) < 300_000
    chart = parsed(drawn(html))[0]
    assert float(chart.get("height")) < 22 * 66 + 200
    names = [t for t in chart.iter("{http://www.w3.org/2000/svg}text") if "summarize" in "".join(t.itertext())]
    assert 1 <= len(names) <= MAX_ROWS
    assert f"{count:,} call" in chart.get("aria-label")


def test_what_a_reader_is_told(recorded):
    timeline = TimelineFold.of(recorded.log).timeline()
    html, text = drawn(render_timeline_html(timeline, "A run")), render_timeline_text(timeline)
    for shown in (
        "A run",
        "write ×",
        "waiting for inputs louder",
        "decode of verdict",
        "reused",
        "KV pages",
        "critical path",
        "KeyError",
    ):
        assert shown in html, shown
    for kind in ("prefill", "decode", "native", "model"):
        assert SPAN_WORDS[kind] in html
    assert "to load parrot-tiny left out" in html
    assert re.search(r"write\s+15\s", text), text
    assert "decoded" in text.splitlines()[0]


def test_no_calls_is_said():
    assert "No call" in render_timeline_html(TimelineFold().timeline())
    assert "No call" in render_timeline_text(TimelineFold().timeline())


intervals = st.lists(st.tuples(times, times), min_size=1, max_size=12).map(
    lambda pairs: merged([(min(p), max(p)) for p in pairs])
)


@given(intervals, st.lists(times, min_size=2, max_size=20))
def test_later_is_further_right_and_all_is_on_the_axis(busy, moments):
    axis = TimeAxis(busy, 100.0, 500.0)
    places = [axis.x(t) for t in sorted(moments)]
    assert all(a <= b + 1e-6 for a, b in itertools.pairwise(places))
    assert all(100 - 1e-6 <= x <= 600 + 1e-6 for x in places)
    ticks = list(axis.ticks())
    assert all(a.x < b.x for a, b in itertools.pairwise(ticks))


@given(intervals)
def test_a_pause_is_cut_out_but_work_is_to_scale(busy):
    axis = TimeAxis(busy, 0.0, 500.0)
    for start, end in busy:
        assert axis.x(end) - axis.x(start) == pytest.approx((end - start) * axis.px_per_s, abs=1e-6)
        if end - start > 1e-3:
            middle = (start + end) / 2
            assert axis.time_s(axis.x(middle)) == pytest.approx(middle, abs=1e-6)
    assert sum(end - start for start, end in busy) * axis.px_per_s <= 500 + 1e-6


@given(st.floats(1e-6, 1e6))
def test_steps_of_ticks_are_round(step):
    chosen = nice(step)
    assert step * (1 - 1e-6) <= chosen <= step * 5.01
    assert f"{chosen:e}"[0] in "125"


def test_several_axes_can_have_one_scale():
    short, long = (TimeAxis([(0, s)], 0.0, 500.0, least_s=4.0) for s in (1.0, 4.0))
    assert short.px_per_s == long.px_per_s
    assert short.x(1.0) == long.x(1.0) == 125


def test_durations_are_read_at_a_glance():
    assert [duration(s) for s in (0.00042, 0.0123, 0.25, 1.5, 75)] == ["0.42 ms", "12.3 ms", "250 ms", "1.50 s", "1 min 15 s"]
