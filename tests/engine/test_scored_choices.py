"""Scored choices on the real engine: the log-likelihoods are those of transformers, whatever is shared, and nothing is left behind."""

from __future__ import annotations

import asyncio
import itertools
import json
import math

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, all_pages_free, audit, open_engine, random_checkpoint, run
from hypothesis import given
from hypothesis import strategies as st
from test_seams import bpe_tokenizer, reference_model

from parrot_nb.engine.embedded import EmbeddedEngine
from parrot_nb.engine.embedded.choices import chains_of
from parrot_nb.engine.protocol import Constraint, GenerationEnd, Sampling
from parrot_nb.errors import ContextLengthError, EngineError

PROMPT = "the cat sat on the mat: "
CHOICES = ["yes", "the cat", "the cats sat", "no", "naïve 🙂", "the mat", "n"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("scored") / "model"
    tokenizer = bpe_tokenizer()
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=96, initializer_range=0.35, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    random_checkpoint(path, config)
    tokenizer.save_pretrained(path)
    return path


def scoring(choices: list[str], how: str = "total") -> Sampling:
    return Sampling(1, constraint=Constraint("choices", json.dumps(choices)), scoring=how)


async def scored(engine: EmbeddedEngine, context: int, sampling: Sampling, taken_back=()) -> tuple[str, GenerationEnd]:
    (piece,) = [piece async for piece in engine.generate(context, sampling, taken_back=taken_back)]
    return piece.text, piece.end


async def all_free(engine: EmbeddedEngine) -> None:
    """Wait for the step that reads pages of a context which was given up."""
    while engine.load().owned_pages:  # noqa: ASYNC110 - no engine tells anybody
        await asyncio.sleep(0.001)


def by_hand(folder, prompt: list[int], ids: list[int]) -> float:
    """The log-likelihood of tokens after a prompt, by transformers."""
    with torch.no_grad():
        logits = reference_model(folder)(torch.tensor([[*prompt, *ids]])).logits[0].log_softmax(-1)
    return sum(float(logits[len(prompt) - 1 + i, token]) for i, token in enumerate(ids))


@pytest.mark.parametrize("off", [(), ("sharing",), ("drafts", "dedup")], ids=["as it is", "unshared", "without guesses"])
@pytest.mark.parametrize("num_back", [0, 1])
def test_likelihoods_are_those_of_transformers(folder, off, num_back):
    async def main(engine: EmbeddedEngine):
        ids = engine.codec.encode(PROMPT, first=True)
        prompt, back = ids[: len(ids) - num_back], ids[len(ids) - num_back :]
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        text, end = await scored(engine, context, scoring(CHOICES), back)
        audit(engine)
        spelled = [engine.codec.encode(engine.codec.decode(back) + choice) for choice in CHOICES]
        engine.fill(context, engine.codec.encode(" and"))  # what comes after it sees the prompt and the text
        rest = [piece async for piece in engine.generate(context, Sampling(6, ignore_eos=True))][-1].end
        engine.free(context)
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return prompt, spelled, text, end, [*engine.codec.encode(" and"), *rest.token_ids]

    prompt, spelled, text, end, rest = run(open_engine(folder, off=off), main)
    want = [by_hand(folder, prompt, ids) for ids in spelled]
    assert [choice.text for choice in end.choices] == CHOICES
    assert [choice.logprob for choice in end.choices] == pytest.approx(want, abs=1e-4)
    assert [choice.num_tokens for choice in end.choices] == [len(ids) for ids in spelled]
    weights = [math.exp(each) for each in want]
    assert [choice.probability for choice in end.choices] == pytest.approx([w / sum(weights) for w in weights], abs=1e-4)
    best = want.index(max(want))
    assert text == CHOICES[best]
    assert (end.finish, end.complete, list(end.context_ids)) == ("stop", True, spelled[best])
    assert end.lead + "".join(bpe_tokenizer().decode(list(end.token_ids))) == text
    held = [*prompt, *spelled[best]]
    model = reference_model(folder)
    with torch.no_grad():
        greedy = model(torch.tensor([[*held, *rest]])).logits[0].argmax(-1).tolist()
    assert greedy[len(held) + len(rest) - 7 : -1] == rest[-6:]


def test_the_mean_is_of_each_choices_own_tokens(folder):
    async def main(engine: EmbeddedEngine):
        found = []
        for score in ("total", "mean"):
            context = engine.open(PRIORITY)
            engine.fill(context, engine.codec.encode(PROMPT, first=True))
            found.append(await scored(engine, context, scoring(CHOICES, score)))
            engine.free(context)
        return found

    (_, total), (text, mean) = run(open_engine(folder), main)
    assert [c.logprob for c in mean.choices] == pytest.approx([c.logprob for c in total.choices], abs=1e-5)
    weights = [math.exp(c.logprob / c.num_tokens) for c in mean.choices]
    assert [c.probability for c in mean.choices] == pytest.approx([w / sum(weights) for w in weights], abs=1e-5)
    assert text == max(mean.choices, key=lambda c: c.probability).text


def test_the_prompt_is_computed_once_and_the_choices_in_two_steps(folder):
    steps = []

    async def main(engine: EmbeddedEngine):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt := engine.codec.encode(PROMPT * 2, first=True))
        _, end = await scored(engine, context, scoring(CHOICES))
        inner = {ids[:i] for ids in map(tuple, map(engine.codec.encode, CHOICES)) for i in range(len(ids))}
        single = engine.open(PRIORITY)
        engine.fill(single, prompt)
        before = len(steps)
        await scored(engine, single, scoring(["a", "b", "c"]))
        return prompt, end, len(inner), before, len(steps) - before

    prompt, end, num_inner, num_steps, of_single = run(open_engine(folder, on_step=steps.append), main)
    computed = sum(step.prefill_tokens + step.decode_tokens + step.guessed_tokens for step in steps[:num_steps])
    assert computed < len(prompt) + 2 * num_inner, "no choice has the prompt to itself"
    assert (num_steps, of_single) == (2, 1)
    assert end.prefilled_tokens >= len(prompt)
    assert end.decoded_tokens == len(end.context_ids)


def test_scores_beside_other_work_are_the_same(folder):
    async def main(engine: EmbeddedEngine):
        prompt = engine.codec.encode(PROMPT, first=True)

        async def of(extra: str) -> GenerationEnd:
            context = engine.open(PRIORITY)
            engine.fill(context, [*engine.codec.encode(extra), *prompt])
            try:
                return (await scored(engine, context, scoring(CHOICES)))[1]
            finally:
                engine.free(context)

        async def writes() -> None:
            context = engine.open(PRIORITY)
            engine.fill(context, prompt)
            async for _ in engine.generate(context, Sampling(30, ignore_eos=True)):
                pass
            engine.free(context)

        alone = [await of(extra) for extra in ("", "on ", "the cat ")]
        crowd = await asyncio.gather(of(""), writes(), of("on "), writes(), of("the cat "))
        assert all_pages_free(engine)
        return alone, [end for end in crowd if end is not None]

    alone, crowd = run(open_engine(folder, kv_memory="60kB"), main)
    for one, other in zip(alone, crowd, strict=True):
        assert [c.logprob for c in other.choices] == pytest.approx([c.logprob for c in one.choices], abs=1e-4)


def test_whoever_gives_up_leaves_no_page_behind(folder):
    async def main(engine: EmbeddedEngine):
        for num_turns in range(12):
            context = engine.open(PRIORITY)
            engine.fill(context, engine.codec.encode(f"{num_turns} {PROMPT}", first=True))
            task = asyncio.create_task(scored(engine, context, scoring(CHOICES)))
            for _ in range(num_turns):
                await asyncio.sleep(0.0005)
            task.cancel()
            await asyncio.wait([task])
            engine.free(context)
        await all_free(engine)
        audit(engine)
        assert engine.load().num_contexts == 0

    run(open_engine(folder), main)


def test_choices_beyond_the_context_are_refused_before_anything_is_computed(folder):
    async def main(engine: EmbeddedEngine):
        context = engine.open(PRIORITY)
        engine.fill(context, engine.codec.encode(PROMPT, first=True))
        with pytest.raises(ContextLengthError, match="shorten it"):
            await scored(engine, context, scoring(["a", "the cat 🙂 " * 30]))
        engine.free(context)
        assert all_pages_free(engine)

    run(open_engine(folder), main)


def test_a_step_that_fails_fails_the_scoring_alone(folder, monkeypatch):
    async def main(engine: EmbeddedEngine):
        step, count = engine._model.step, itertools.count()

        def failing(batch):
            if any(part.script is not None for part in batch.contexts) and next(count):
                raise RuntimeError("no")
            return step(batch)

        monkeypatch.setattr(engine._model, "step", failing)
        context = engine.open(PRIORITY)
        engine.fill(context, engine.codec.encode(PROMPT, first=True))
        with pytest.raises(EngineError, match="RuntimeError"):
            await scored(engine, context, scoring(CHOICES))
        engine.free(context)
        await all_free(engine)
        audit(engine)

    run(open_engine(folder), main)


@given(st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=5).map(tuple), min_size=1, max_size=8))
def test_chains_go_through_every_inner_node_once(spelled):
    chains = chains_of(spelled)
    inner = {ids[:i] for ids in spelled for i in range(len(ids))}
    visited = [node for chain in chains for node in chain.nodes]
    assert sorted(visited) == sorted(inner)
    asked = {
        (node, token) for chain in chains for node, place in zip(chain.nodes, chain.script, strict=True) for token in place.asked
    }
    assert asked == {(ids[:i], ids[i]) for ids in spelled for i in range(len(ids))}
    assert chains[0].filled == ()
    assert len(chains[0].script) == max(map(len, spelled))
