"""What types and checks of the user's do to the outputs of models: their call fails, or waits until it is cancelled, and no other."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import pytest
from attacking import assert_usable, native, outcome_of, raiser
from shorthand import WAIT_S, f
from wrongdoers import RAISED, ChangesItsMind

import parrot_nb as P


@pytest.fixture
def typed():
    """A session on parrot-tiny in a thread, which writes what types demand."""
    with P.Session(isolate=False, device="cpu", kv_memory="8MB", max_tokens=40) as s:
        yield s
        assert_usable(s)


@pytest.mark.parametrize("name", RAISED)
def test_what_a_class_raises_that_changes_its_mind_ends_its_call_alone(typed, name):
    @dataclass
    class Answer(metaclass=ChangesItsMind):
        yes: bool

    function = P.SemanticFunction("Say {{input:x}} {{output:y: Answer}}", namespace={"Answer": Answer})
    assert isinstance(function("a").get(timeout=WAIT_S), Answer)
    Answer.error = RAISED[name]
    refused = function("b")
    with pytest.raises(P.CheckError):
        refused.get(timeout=WAIT_S)
    assert native(lambda: "after")().get(timeout=WAIT_S) == "after"
    Answer.error = None
    assert isinstance(function("c").get(timeout=WAIT_S), Answer)


@pytest.mark.parametrize("name", RAISED)
def test_what_a_check_raises_ends_its_call_alone(either, name):
    beside = f("Beside {{output:y}}")()
    checked = P.SemanticFunction("Say {{output:y}}", check=raiser(RAISED[name]))()
    with pytest.raises(P.CheckError):
        checked.get(timeout=WAIT_S)
    assert beside.get(timeout=WAIT_S) is not None


@pytest.mark.parametrize("name", RAISED)
def test_what_the_truth_of_a_checks_answer_raises_ends_its_call_alone(either, name):
    answer = type("Answer", (), {"__bool__": raiser(RAISED[name])})
    with pytest.raises(P.CheckError):
        P.SemanticFunction("Say {{output:y}}", check=lambda _: answer())().get(timeout=WAIT_S)


def test_a_check_that_reads_its_own_output_is_told_at_once(either):
    box: dict[str, P.SemanticVariable] = {}
    made = threading.Event()

    def check(_: str) -> bool:
        made.wait(WAIT_S)
        return bool(box["own"].get())

    box["own"] = P.SemanticFunction("Say {{output:y}}", check=check)()
    made.set()
    with pytest.raises(P.CheckError, match="it would never end"):
        box["own"].get(timeout=WAIT_S)


@pytest.mark.parametrize("how", ["cancel", "reset"])
def test_a_check_that_never_returns_waits_until_it_is_cancelled(either, how):
    over, begun = threading.Event(), threading.Event()
    try:
        hanging = P.SemanticFunction("Say {{output:y}}", check=lambda _: begun.set() or over.wait())()
        hanging.submit()
        either.flush()
        assert begun.wait(WAIT_S)
        assert f("Others {{output:y}}")().get(timeout=WAIT_S) is not None
        assert P.SemanticFunction("Others checked {{output:y}}", check=lambda _: True)().get(timeout=WAIT_S) is not None
        getattr(either, how)()
        assert isinstance(outcome_of(hanging), P.CallCancelledError)
    finally:
        over.set()
