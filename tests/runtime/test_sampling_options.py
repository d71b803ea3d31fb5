"""Penalties and log-probabilities from where they are said to where they are read, on the model of the package."""

from __future__ import annotations

import dataclasses
import math
import pickle

import pytest

import parrot_nb as P
from parrot_nb.engine.protocol import Constraint, ModelInfo, Sampling
from parrot_nb.language import Options, parse_line
from parrot_nb.runtime.memo import _key

WAIT_S = 60
PROMPT = "Translate the sentence into Spanish.\nSentence: {{input:x}}\nSpanish: {{output:y%s}}"


def f(said: str = "", **options) -> P.SemanticFunction:
    return P.SemanticFunction(PROMPT % said, name="f", options=Options.checked(max_tokens=12, **options))


@pytest.fixture(scope="module")
def tiny():
    with P.Session(model="parrot-tiny", dtype="float32", kv_memory="64MB") as session:
        yield session


def test_logprobs_tell_the_value_token_by_token(tiny):
    v = f(logprobs=3)("Anna sells the red car.")
    assert v.logprobs is None, "while pending"
    value = v.get(timeout=WAIT_S)
    assert "".join(token.text for token in v.logprobs) == value
    for token in v.logprobs:
        assert isinstance(token, P.TokenLogprob)
        assert len(token.others) == 3
        assert math.fsum(map(math.exp, [token.logprob, *(p for _, p in token.others)])) <= 1 + 1e-5
    assert v.logprobs[0].logprob > v.logprobs[0].others[0][1], "greedy takes the likeliest"
    assert pickle.loads(pickle.dumps(v.logprobs)) == v.logprobs


def test_they_survive_the_memo_and_are_never_missing_from_it(tiny):
    sentence = "Ben opens the green box."
    plain = f()(sentence)
    assert plain.get(timeout=WAIT_S) == f()(sentence).get(timeout=WAIT_S)
    asked = f(logprobs=1)(sentence)
    asked.get(timeout=WAIT_S)
    assert (plain.logprobs, asked.usage.from_memo) == (None, False)
    again = f(logprobs=1)(sentence)
    again.get(timeout=WAIT_S)
    assert again.usage.from_memo
    assert again.logprobs == asked.logprobs
    more = f(logprobs=2)(sentence)
    more.get(timeout=WAIT_S)
    assert [len(token.others) for token in more.logprobs] == [2] * len(asked.logprobs)
    followers = [f(logprobs=4)("Emma closes the blue door.") for _ in range(3)]
    P.gather(*followers).get(timeout=WAIT_S)
    assert sum(v.usage.from_memo for v in followers) == 2
    assert followers[0].logprobs == followers[1].logprobs == followers[2].logprobs is not None


@pytest.mark.parametrize("option", ["repetition_penalty", "presence_penalty", "frequency_penalty"])
def test_a_penalty_counts_wherever_it_is_said(tiny, option):
    value, prompt = 2.0, "1 2 1 2 1 2{{output:y%s}}"  # the model goes on without end

    def g(said: str = "", line: str = "", **options) -> P.SemanticVariable:
        whole = parse_line(f"g --max-tokens 24 --raw --ignore-eos {line}").options
        return P.SemanticFunction(prompt % said, name="g", options=Options.checked(**options).over(whole))()

    plain = g().get(timeout=WAIT_S)
    found = [
        g(f", {option}={value}").get(timeout=WAIT_S),
        g(line=f"--{option.replace('_', '-')} {value}").get(timeout=WAIT_S),
        g(**{option: value}).get(timeout=WAIT_S),
    ]
    assert len(set(found)) == 1
    assert found[0] != plain, "an equal generation without the penalty must not be served"
    with P.Session(model="parrot-tiny", dtype="float32", kv_memory="64MB", **{option: value}):
        assert g().get(timeout=WAIT_S) == found[0]


def test_false_undoes_what_a_less_specific_level_asks_for(tiny):
    asks = f(logprobs=True)
    undone, kept = asks.options(logprobs=False)("Anna sells the red car."), asks("Anna sells the red car.")
    P.gather(undone, kept).get(timeout=WAIT_S)
    assert undone.logprobs is None
    assert [token.others for token in kept.logprobs] == [()] * len(kept.logprobs)


def test_the_memo_looks_at_every_field_that_matters():
    """A field that is new in Sampling must be in the key, or be known to have no effect on greedy texts."""
    other = {
        "max_tokens": 9, "temperature": 0.5, "top_p": 0.5, "top_k": 5, "min_p": 0.5, "seed": 5, "stop": ("x",), "ignore_eos": True,
        "repetition_penalty": 1.1, "presence_penalty": 0.5, "frequency_penalty": 0.5, "logprobs": 2,
            "constraint": Constraint("regex", "a+"), "scoring": "mean",
    }  # fmt: skip
    without_effect = {"top_p", "top_k", "min_p", "seed"}
    greedy = Sampling(max_tokens=5)
    for field in dataclasses.fields(Sampling):
        changed = dataclasses.replace(greedy, **{field.name: other[field.name]}) if field.name in other else None
        assert changed is not None, f"say here whether {field.name} matters to greedy texts"
        assert (_key(b"", changed) == _key(b"", greedy)) is (field.name in without_effect), field.name
        seeded = dataclasses.replace(greedy, temperature=1.0, seed=1)
        if field.name not in ("temperature", "seed"):
            changed = dataclasses.replace(seeded, **{field.name: other[field.name]})
            assert _key(b"", changed) != _key(b"", seeded), field.name


# What the model's makers recommend


def sampling_of(make_session, recommended, **settings) -> list[Sampling]:
    """What the engine was asked for, by a session's calls: one that says nothing, one that says a temperature."""
    seen: list[Sampling] = []
    with make_session(max_tokens=2, **settings) as session:
        warm = P.SemanticFunction("warm {{output:y}}", name="warm")()
        warm.get(timeout=WAIT_S)
        engine = session.engine
        engine.model = dataclasses.replace(engine.model, recommended=recommended)
        generate = engine.generate

        def noted(context, sampling, **more):
            seen.append(sampling)
            return generate(context, sampling, **more)

        engine.generate = noted
        for i, options in enumerate(({}, {"temperature": 0.2})):
            P.SemanticFunction(f"{i} {{{{output:y}}}}", name="g", options=Options.checked(**options))().get(timeout=WAIT_S)
    return seen


def test_recommendations_hold_where_nobody_says_anything(make_session):
    recommended = (("temperature", 0.6), ("top_k", 20), ("top_p", 0.95), ("repetition_penalty", 1.05))
    silent, warmer = sampling_of(make_session, recommended, sampling="model", top_p=0.5)
    assert (silent.temperature, silent.top_k, silent.top_p, silent.repetition_penalty) == (0.6, 20, 0.5, 1.05)
    assert (warmer.temperature, warmer.top_k, warmer.top_p) == (0.2, 20, 0.5)
    silent, _ = sampling_of(make_session, recommended)
    assert silent == Sampling(2)


def test_another_word_is_refused():
    with pytest.raises(P.SessionError, match="sampling must be 'greedy' or 'model'"):
        P.Session(sampling="beam")
    assert ModelInfo("id", "A", 1, "cpu", "float32", 8).recommended == ()


def test_templates_that_differ_only_in_false_and_0_are_two(tiny):
    reported, not_reported = (
        P.SemanticFunction(f"Anna sells {{{{output:y, max_tokens=2, logprobs={said}}}}}", name="f") for said in ("0", "False")
    )
    with_them, without = reported(), not_reported()
    P.gather(with_them, without).get(timeout=WAIT_S)
    assert with_them.logprobs
    assert without.logprobs is None


def test_options_that_say_different_things_are_different():
    assert Options(logprobs=False) != Options(logprobs=0)
    assert Options(thinking=True) != Options(thinking=1)
    assert Options(seed=1) == Options(seed=1) != Options()
    assert len({Options(thinking=True), Options(thinking=1), Options(thinking=1)}) == 2
