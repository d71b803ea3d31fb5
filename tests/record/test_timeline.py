"""Who did what when, from the log of a real run."""

from __future__ import annotations

import msgspec
import pytest
from drawn_pictures import drawn
from record_logs import run_application

from parrot_nb.notebook.timeline import render_timeline_html
from parrot_nb.record import TimelineFold, trace_of
from parrot_nb.runtime import events


@pytest.fixture(scope="module")
def timeline(recorded):
    return TimelineFold.of(recorded.log).timeline()


def of(timeline, function):
    return [call for call in timeline.calls if call.function == function]


def test_spans_follow_each_other_from_the_calls_beginning_to_its_end(timeline, recorded):
    added = {e.call_id: e.time_s for e in recorded.log if isinstance(e, events.CallAdded)}
    ended = {e.call_id: e.time_s for e in recorded.log if isinstance(e, events.CallChanged) and e.phase == "ended"}
    assert len(timeline.calls) == len(added)
    for call in timeline.calls:
        assert call.spans[0].start_s >= added[call.id]
        assert call.spans[-1].end_s <= ended[call.id]
        for before, after in zip(call.spans, call.spans[1:], strict=False):
            assert before.start_s <= before.end_s == pytest.approx(after.start_s, abs=1e-9)
        assert sum(s.duration_s for s in call.spans) == pytest.approx(ended[call.id] - added[call.id], abs=1e-6)


def test_a_wait_says_for_what(timeline):
    (check, _) = of(timeline, "check")
    assert [(s.kind, s.detail) for s in check.spans if s.kind == "inputs"] == [("inputs", "louder")]
    (louder,) = of(timeline, "louder")
    assert {s.kind for s in louder.spans} >= {"inputs", "native"}
    assert louder.seconds("native") > 0.04
    assert "model" in {s.kind for s in of(timeline, "write")[0].spans}
    assert timeline.loads[0][0] == "parrot-tiny"


def test_an_output_is_prefilled_then_decoded(timeline):
    (check, _) = of(timeline, "check")
    written = [(s.kind, s.detail) for s in check.spans if s.kind in ("prefill", "decode")]
    assert written == [("prefill", "note"), ("decode", "note"), ("prefill", "verdict"), ("decode", "verdict")]


def test_an_equal_call_is_reused_and_a_failure_is_told(timeline):
    again = of(timeline, "write")[1]
    assert "reused" in {s.kind for s in again.spans}
    assert again.usage.from_memo
    assert again.seconds("prefill", "decode") == 0
    (broken,) = of(timeline, "broken")
    assert (broken.state, "KeyError" in broken.error) == ("failed", True)
    assert of(timeline, "write")[-1].state == "failed"


def test_the_critical_path_leads_from_a_first_call_to_what_ended_last(timeline):
    critical = [call for call in timeline.calls if call.critical]
    by_id = {call.id: call for call in timeline.calls}
    assert [call.function for call in critical][-1] == "check"
    assert {"write", "check"} <= {call.function for call in critical}
    for call in critical:
        sources = [by_id[s] for s in call.sources if by_id[s].state == "done"]
        if sources:
            assert max(sources, key=lambda c: c.end_s).critical


def test_tokens_of_variables_are_tokens_of_steps(timeline, recorded):
    """What the variables say that they took is what the engine computed: every token in exactly one step."""
    used = [u for u in recorded.usages if not u.from_memo]
    steps = timeline.steps
    assert sum(s.prefill_tokens for s in steps) == sum(u.prefilled_tokens for u in used)
    first_tokens = sum(u.decoded_tokens > 0 for u in used)  # sampled by the step that ends the prompt
    assert sum(s.decode_tokens for s in steps) == sum(u.decoded_tokens for u in used) - first_tokens
    assert sum(c.usage.decoded_tokens for c in timeline.calls) == sum(u.decoded_tokens for u in recorded.usages)
    assert sum(c.usage.reused_tokens for c in timeline.calls) > 12 * 10, "the map shares its beginning"


def test_a_token_that_was_guessed_right_took_no_step_of_its_own():
    recorded = run_application(off=())
    used = [u for u in recorded.usages if not u.from_memo]
    steps = TimelineFold.of(recorded.log).timeline().steps
    alone = sum(u.decoded_tokens - u.guessed_tokens for u in used) - sum(u.decoded_tokens > 0 for u in used)
    assert sum(s.decode_tokens for s in steps) == alone
    assert sum(s.guessed_tokens for s in steps) >= sum(u.guessed_tokens for u in used), "not every guess is right"


def test_steps_are_told_apart_by_engine(make_calls):
    more = [msgspec.structs.replace(e, engine="other") if isinstance(e, events.StepRan) else e for e in make_calls(4)]
    timeline = TimelineFold.of([*make_calls(3), *more]).timeline()
    assert {name: len(steps) for name, steps in timeline.engines.items()} == {"tiny": 3, "other": 4}
    assert len(timeline.steps) == 7
    html = drawn(render_timeline_html(timeline))
    assert ">other<" in html
    assert ">tiny<" in html
    names = [e["args"]["name"] for e in trace_of([*make_calls(3), *more])["traceEvents"] if e["name"] == "process_name"]
    assert names == ["calls", "engine tiny", "engine other"]


def test_seconds_of_variables_are_spans_of_calls(timeline):
    for call in timeline.calls:
        if call.state == "done" and call.usage.decoded_tokens and not call.usage.from_memo:
            assert call.usage.prefill_s == pytest.approx(call.seconds("prefill"), abs=0.1)
            assert call.usage.decode_s == pytest.approx(call.seconds("decode"), abs=0.1)


def test_folding_in_parts_is_folding_at_once(recorded):
    for cut in (0, 7, len(recorded.log) // 2, len(recorded.log)):
        fold = TimelineFold.of(recorded.log[:cut])
        fold.timeline()
        fold.add(recorded.log[cut:])
        assert fold.timeline() == TimelineFold.of(recorded.log).timeline()


def test_what_runs_is_drawn_until_now():
    log = [
        events.CallAdded(1.0, 1, "f", "semantic", (), (2,), 1),
        events.VariableAdded(1.0, 2, "y", 1),
        events.CallChanged(2.0, 1, "pending", "queued"),
        events.CallChanged(3.0, 1, "running", "prefill", "tiny"),
    ]
    fold = TimelineFold.of(log)
    (call,) = fold.timeline(until_s=5.0).calls
    assert [(s.kind, s.start_s, s.end_s) for s in call.spans] == [("unread", 1, 2), ("queued", 2, 3), ("prefill", 3, 5)]
    assert not fold.settled


def test_a_reset_forgets_the_calls_and_steps_before_it(make_calls):
    timeline = TimelineFold.of([*make_calls(5), events.SessionReset(9.0)]).timeline()
    assert (timeline.calls, timeline.steps, timeline.busy) == ((), (), [])
