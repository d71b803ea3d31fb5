"""Checks while a call runs: what they hold up, what is told of it, and what attempts that are refused took."""

from __future__ import annotations

import threading

import pytest
from shorthand import WAIT_S, f, text_of

import parrot_nb as P
from parrot_nb.record import TimelineFold, account
from parrot_nb.runtime import events


def at_second_sight():
    """A check that refuses each text but for the time before."""
    seen = set()

    def check(text: str) -> bool:
        known = text in seen
        seen.add(text)
        return known

    return check


@pytest.mark.parametrize("engines", [1, 2])
@pytest.mark.parametrize("retries", [0, 1])
def test_a_check_may_ask_a_model_though_every_place_is_taken(make_session, retries, engines):
    """Twice as many calls as the engines take at once, each of whose checks waits for a call on them."""
    judge = f("Judge {{input:text}}: {{output:verdict}}")
    accepts = at_second_sight()

    def check(text: str) -> bool:
        verdict = judge(text).get(timeout=WAIT_S)
        assert verdict == text_of(f"Judge {text}: ")
        return not retries or accepts(text)

    with make_session(max_tokens=12, policy="latency-centric", engines=engines):
        topics = [str(i) for i in range(8 * engines)]
        written = f("Write of {{input:topic}}: {{output:text}} and {{output:more}}").options(check=check, retries=retries)
        results = written.map(topics)
        assert results.text.get() == [text_of(f"Write of {topic}: ") for topic in topics]
        assert len(results.more.get()) == len(topics)
        assert max(node.usage.attempts for node in results.text) == retries + 1


def test_calls_that_wait_for_a_later_input_leave_their_places_to_what_writes_it(make_session):
    go_on = threading.Event()

    @P.native_function
    def topic() -> str:
        assert go_on.wait(WAIT_S)
        return "cats"

    with make_session(max_tokens=12, policy="latency-centric"):
        late = f("Write of {{input:topic}}: {{output:text}}")(topic())
        read = f("{{input:i}} {{output:first}} {{input:late}} {{output:second}}").map(i=list("abcdefgh"), late=late)
        assert read.first.get(timeout=WAIT_S) == [text_of(f"{i} ") for i in "abcdefgh"]
        go_on.set()
        assert late.get(timeout=WAIT_S) == text_of("Write of cats: ")
        assert len(read.second.get(timeout=WAIT_S)) == 8


def test_a_call_whose_check_waits_can_be_cancelled_and_leaves_no_place_taken(make_session):
    go_on = P.variable("go on")
    with make_session(max_tokens=12, policy="latency-centric") as session:
        waiting = f("Write of {{input:topic}}: {{output:text}}").options(check=lambda _: bool(go_on.get())).map(list("abcdef"))
        after = f("After: {{output:text}}")()
        assert after.get(timeout=WAIT_S)
        for node in waiting:
            node.cancel()
            with pytest.raises(P.CallCancelledError):
                node.get(timeout=WAIT_S)
        session.reset()
        assert session.runtime._executor._scheduler.num_open == 0


def test_the_phase_says_when_a_check_runs(session):
    written = f("Write: {{output:text}} and {{output:more}}").options(check=at_second_sight(), retries=1)()
    written.more.get()
    session.reset()  # all that happened has been told
    told = [event for event in session.events.since(0) if isinstance(event, events.CallChanged)]
    phases = [event.phase for event in told if event.call_id == written.text.producer.id]
    checks = [i for i, phase in enumerate(phases) if phase == "native"]
    assert [phases[i + 1] for i in checks] == ["queued", "queued", "queued", "ended"]  # two attempts at each of two outputs


def test_tokens_of_refused_attempts_are_accounted_for(session):
    refused = f("Write: {{output:text}}").options(check=lambda _: False, retries=2)()
    with pytest.raises(P.CheckError):
        refused.get()
    usage = refused.usage
    assert usage.attempts == 3
    assert usage.decoded_tokens >= 3
    (row,) = account(TimelineFold.of(session.events.since(0)).timeline())
    assert row.usage.decoded_tokens == usage.decoded_tokens


def test_a_missed_target_is_told_once_of_what_the_reader_saw(session):
    target = P.LatencyTarget(ttft_s=1e-9, tpot_s=60)
    written = f("Write: {{output:text}}").options(check=at_second_sight(), retries=1)()
    assert written.get(perf=target)
    assert written.usage.attempts == 2
    assert written.producer.outputs[0].note.count("target missed") == 1
