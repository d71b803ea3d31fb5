"""On what parrot-tiny has learnt the benchmark's applications come out right, whoever computes them."""

from __future__ import annotations

import pytest

from parrot_nb import Session
from parrot_nb.bench import WORKLOADS, Sizes
from parrot_nb.bench.mastered import APPLICATIONS, DEFAULT_SIZES
from parrot_nb.bench.worker import open_session, run_checked

SMALL = Sizes(users=5, shared=200, chunks=4, chunk=100, files=3, rounds=1, turns=3)
READ = {
    "single": 1,
    "unshared": 5,
    "copilot": 5,
    "gpts": 5,
    "chain": 1,
    "map_reduce": 1,
    "multi_agent": 3,
    "pipeline": 5,
    "mixed": 4,
}


@pytest.fixture(scope="module")
def session():
    with Session(dtype="float32", device="cpu", off=("memo",)) as opened:
        yield opened


def test_every_workload_has_a_checked_twin():
    assert list(APPLICATIONS) == list(WORKLOADS) == list(DEFAULT_SIZES) == list(READ)


@pytest.mark.parametrize("name", READ)
def test_answers_are_right(session, name):
    session.reset()
    found = run_checked(session, name, SMALL)
    assert len(found["texts"]) == READ[name]
    assert found["right"] >= 0.8 * READ[name], "nearly all, as the card says"
    again = run_checked(session, name, SMALL)
    assert again["texts"] == found["texts"]
    assert again["decoded"] == found["decoded"]
    other = run_checked(session, name, SMALL.but(seed=1))
    assert other["texts"] != found["texts"]


def test_a_wrong_answer_is_seen(session, monkeypatch):
    from parrot_nb.bench import mastered

    monkeypatch.setattr(mastered, "draw_question", lambda _draw, _items: ("Who will win?", "nobody at all"))
    session.reset()
    assert run_checked(session, "copilot", SMALL)["right"] == 0


def test_the_application_shares_its_transcript(session):
    session.reset()
    found = run_checked(session, "copilot", SMALL.but(shared=400, users=8))
    assert found["prefilled"] < 400 * 1.2 + 8 * 40
    assert found["reused"] > 7 * 300


@pytest.mark.parametrize("name", ["unshared", "multi_agent"])
def test_peers_are_right_as_well(name):
    with open_session("hf", model="default", dtype="float32", device="cpu") as theirs:
        found = run_checked(theirs, name, SMALL)
    assert found["right"] >= 0.8 * READ[name]


def test_applications_at_once_requests_over_time_and_targets_are_those_asked_for(session):
    session.reset()
    one, two = (run_checked(session, "chain", SMALL.but(apps=apps)) for apps in (1, 2))
    assert (len(two["texts"]), two["texts"][0]) == (2, one["texts"][0])
    assert two["right"] == 2
    at_once, over_time = (run_checked(session, "gpts", SMALL.but(rate=rate)) for rate in (0, 50))
    assert over_time["texts"] == at_once["texts"]
    assert "arrived" in {call.name for call in session.calls()}
    session.reset()
    chats = run_checked(session, "mixed", SMALL.but(apps=2, target=30))
    assert chats["latencies"]["chat"]["calls"] == 2 * SMALL.turns
    targets = {call.name: call.outputs[0].target for call in session.calls() if call.outputs[0].target is not None}
    assert set(targets) == {"chat"}
    assert targets["chat"].tpot_s == pytest.approx(0.03)
