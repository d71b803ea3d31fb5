"""The paper's applications: what they call, on which sizes, and that every length is as forced."""

from __future__ import annotations

import pytest

from parrot_nb import Session
from parrot_nb.bench import WORKLOADS, Sizes
from parrot_nb.bench.worker import counter, run_once
from parrot_nb.bench.workloads import text_writer
from parrot_nb.errors import UsageError

SMALL = Sizes(users=5, shared=40, own=3, out=4, chunks=3, chunk=20, files=2, rounds=2, turns=2)
CALLS = {
    "single": 1,
    "unshared": 5,
    "copilot": 5,
    "gpts": 5,
    "chain": 3,
    "map_reduce": 4,
    "multi_agent": 1 + 2 + 2 * 4,
    "pipeline": 5 * 3,
    "mixed": 2 + 4,
}


@pytest.fixture(scope="module")
def session():
    with Session(dtype="float32", device="cpu", off=("memo",)) as opened:
        yield opened


def test_every_workload_is_tested():
    assert set(CALLS) == set(WORKLOADS)


@pytest.mark.parametrize("name", CALLS)
def test_calls_and_lengths(session, name):
    session.reset()
    write = text_writer(counter(session), 0)
    first = run_once(session, name, SMALL, write)
    made = [call for call in session.calls() if call.kind == "semantic" and call.name != "count"]
    assert len(made) == CALLS[name]
    outputs = [node for call in made for node in call.outputs]
    assert all(node.usage.decoded_tokens == SMALL.out for node in outputs)
    assert first["decoded"] == SMALL.out * CALLS[name]
    assert first["prefilled"] > 0
    again = run_once(session, name, SMALL, write)
    assert again["texts"] == first["texts"]
    assert again["decoded"] == first["decoded"]
    assert again["prefilled"] < first["prefilled"] or name == "single"
    session.reset()
    cold = run_once(session, name, SMALL, write)
    assert [cold[key] for key in ("prefilled", "reused", "texts")] == [first[key] for key in ("prefilled", "reused", "texts")]


def test_texts_have_the_length_that_was_asked_for(session):
    count = counter(session)
    write = text_writer(count, 3)
    for num_tokens in (1, 2, 17, 100):
        assert num_tokens - 1 <= count(write(num_tokens, "a")) <= num_tokens  # a token may not begin at every character
    assert write(30, "a") == write(30, "a")
    assert write(30, "a") != write(30, "b")
    assert text_writer(count, 4)(30, "a") != write(30, "a")


def test_unshared_prompts_differ_from_their_first_token_on(session):
    session.reset()
    run_once(session, "unshared", SMALL.but(users=40, out=1), text_writer(counter(session), 0))
    prompts = [c.inputs["prompt"].future.result() for c in session.calls() if c.name == "ask"]
    assert len(prompts) == 40 == len({str(prompt)[:1] for prompt in prompts})


def test_copilot_computes_its_prompt_once(session):
    session.reset()
    found = run_once(session, "copilot", SMALL.but(shared=200, users=6), text_writer(counter(session), 0))
    assert found["prefilled"] < 200 + 6 * 40
    assert found["reused"] > 5 * 150


def test_sizes_are_checked():
    with pytest.raises(UsageError, match="--users must be at least 1"):
        Sizes().but(users=0)
