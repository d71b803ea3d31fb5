"""Typed outputs of SmolLM2: values, at healed seams and in chat, and the same text where it obeys anyway."""

from __future__ import annotations

import dataclasses
from typing import Literal

import pytest
import torch

import parrot_nb as P

WAIT_S = 120


@dataclasses.dataclass
class Person:
    name: str
    age: int
    hobbies: list[str] = dataclasses.field(default_factory=list)


@pytest.fixture(scope="module")
def session(smollm2_folder):
    with P.Session(model=smollm2_folder, device="cpu", dtype="float32", max_context=1024) as session:
        yield session


def test_a_record_is_read_out_of_a_text(session):
    text = "Maria is 34 years old. She likes chess and sailing."
    prompt = "{{input:text}}\nThe person as JSON with name, age and hobbies:\n{{output:person: Person, max_tokens=90}}"
    person = P.SemanticFunction(prompt)(text).get(timeout=WAIT_S)
    assert (person.name.split()[0], person.age) == ("Maria", 34)


def test_a_choice_after_a_seam_is_the_word_alone(session):
    """Where the prompt ends in a space, the likeliest token is the word with that space; the value is the word."""
    prompt = "The capital of {{input:country}} is {{output:city: Cities}}"
    capital = P.SemanticFunction(prompt, namespace={"Cities": Literal["Paris", "Rome", "Berlin", "Madrid"]})
    pairs = {"France": "Paris", "Italy": "Rome", "Germany": "Berlin", "Spain": "Madrid"}
    assert capital.options(chat=False).map(list(pairs)).get(timeout=WAIT_S) == list(pairs.values())


def test_scores_of_choices_are_those_of_transformers(session, smollm2_peer):
    model, tokenizer = smollm2_peer.model, smollm2_peer.tokenizer
    prompt, cities = "The capital of Italy is", ["Paris", "Rome", "Antananarivo"]
    chosen = P.choose(f"{prompt} ", cities, chat=False)
    assert chosen.get(timeout=WAIT_S) == "Rome"
    start = tokenizer(prompt).input_ids
    likelihoods = []
    for city in cities:
        ids = tokenizer(f"{prompt} {city}").input_ids
        assert ids[: len(start)] == start
        with torch.no_grad():
            logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        likelihoods.append(sum(float(logprobs[i - 1, ids[i]]) for i in range(len(start), len(ids))))
    shares = torch.tensor(likelihoods).softmax(0).tolist()
    assert [chosen.scores[city] for city in cities] == pytest.approx(shares, abs=1e-4)


def test_a_text_that_obeys_anyway_is_the_same(session):
    prompt = "The first ten letters of the alphabet, separated by commas:{{{{output:letters{kind}, max_tokens=20}}}}"
    free = P.SemanticFunction(prompt.format(kind="")).options(chat=False)()
    bound = P.SemanticFunction(prompt.format(kind=": str[..400]")).options(chat=False)()
    assert bound.get(timeout=WAIT_S) == free.get(timeout=WAIT_S)
    assert bound.node.spans[0].token_ids == free.node.spans[0].token_ids
