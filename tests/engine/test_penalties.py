"""Penalties in the engine: the tokens of `generate`, whatever is batched, guessed, preempted or cut into chunks."""

from __future__ import annotations

import asyncio
import random
from functools import lru_cache

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, _reference_model, all_pages_free, audit, open_engine, penalised_by_hand, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded.counts import TokenCounts
from parrot_nb.engine.protocol import Sampling

NUM_TOKENS = 30
PROMPT = [7, 50, 99, 200, 3, 18, 77, 50, 99]


@lru_cache(maxsize=256)
def penalised(folder, prompt: tuple[int, ...], penalty: float, num_tokens: int = NUM_TOKENS) -> list[int]:
    """What `generate` writes greedily with a repetition penalty."""
    config = hf.GenerationConfig(
        max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0, repetition_penalty=penalty
    )
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = _reference_model(folder).generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return out[0, len(prompt) :].tolist()


def text_ids(tokens: list[int]) -> list[int]:
    """Without control tokens, which a value does not hold."""
    return [token for token in tokens if token < 256]


async def ids_after(engine, prompt, sampling, likely=()):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    async for piece in engine.generate(context, sampling, likely=likely):
        audit(engine)
        end = piece.end
    engine.free(context)
    return end


@pytest.mark.parametrize("name", ["llama", "llama by modules", "gemma2", "gpt2", "phi3"])
@pytest.mark.parametrize("penalty", [1.3, 0.8])
def test_greedy_equals_generate_with_guesses(checkpoints, name, penalty):
    folder = checkpoints(name)
    expected = penalised(folder, tuple(PROMPT), penalty)
    wrong = [(token + 1) % 256 if i % 9 == 8 else token for i, token in enumerate(expected)]
    sampling = Sampling(NUM_TOKENS, ignore_eos=True, repetition_penalty=penalty)
    end = run(open_engine(folder), lambda engine: ids_after(engine, PROMPT, sampling, likely=wrong))
    assert list(end.token_ids) == text_ids(expected)
    assert end.guessed_tokens > NUM_TOKENS // 6
    plain = Sampling(NUM_TOKENS, ignore_eos=True)
    assert list(run(open_engine(folder), lambda engine: ids_after(engine, PROMPT, plain)).token_ids) != text_ids(expected)


def test_greedy_equals_generate_in_a_crowd(checkpoints):
    """Batched with rows without penalties, prompts in chunks, contexts preempted for want of pages, prefixes shared."""
    folder = checkpoints("qwen3")
    rng = random.Random(5)
    start = tuple(rng.randrange(256) for _ in range(12))
    prompts = [start * (i % 2) + tuple(rng.randrange(256) for _ in range(rng.randrange(1, 30))) for i in range(8)]
    penalties = [None, 1.2, 1.0, 1.5, 0.9, 1.2, None, 2.0]
    expected = [penalised(folder, prompt, penalty or 1.0) for prompt, penalty in zip(prompts, penalties, strict=True)]
    engine = open_engine(folder, kv_memory=100 * 768, max_step_tokens=12)

    async def main(engine):
        ends = await asyncio.gather(
            *(
                ids_after(engine, prompt, Sampling(NUM_TOKENS, ignore_eos=True, repetition_penalty=penalty), likely=tokens[:20])
                for prompt, penalty, tokens in zip(prompts, penalties, expected, strict=True)
            )
        )
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return ends

    for end, tokens in zip(run(engine, main), expected, strict=True):
        assert list(end.token_ids) == text_ids(tokens)


def test_what_an_earlier_output_wrote_counts_as_prompt(checkpoints):
    folder = checkpoints("llama")

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPT)
        both = Sampling(8, ignore_eos=True, repetition_penalty=1.4, presence_penalty=0.5, temperature=0.7, seed=3)
        _, first = await write(engine, context, both)
        engine.fill(context, [40, 41])
        _, second = await write(engine, context, both)
        return first, second, both

    first, second, both = run(open_engine(folder), main)
    assert list(first.token_ids) == penalised_by_hand(folder, tuple(PROMPT), both)
    assert list(second.token_ids) == penalised_by_hand(folder, (*PROMPT, *first.token_ids, 40, 41), both)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(20, presence_penalty=1.5, ignore_eos=True),
        Sampling(20, frequency_penalty=0.8, ignore_eos=True),
        Sampling(20, frequency_penalty=-1.0, temperature=0.9, seed=5, ignore_eos=True),
        Sampling(20, 0.8, 0.9, 50, seed=6, repetition_penalty=1.2, presence_penalty=0.4, frequency_penalty=0.3, ignore_eos=True),
    ],
)
def test_all_penalties_equal_a_reference_alone_and_in_a_crowd(checkpoints, sampling):
    folder = checkpoints("llama")
    expected = penalised_by_hand(folder, PROMPT, sampling)
    others = [Sampling(15, ignore_eos=True), Sampling(25, temperature=1.0, seed=9, repetition_penalty=1.3, ignore_eos=True)]

    async def main(engine):
        alone = await ids_after(engine, PROMPT, sampling, likely=expected)
        crowd = await asyncio.gather(
            *(ids_after(engine, PROMPT[i:], other) for i, other in enumerate(others)), ids_after(engine, PROMPT, sampling)
        )
        return alone, crowd[-1]

    alone, in_crowd = run(open_engine(folder), main)
    assert list(alone.token_ids) == list(in_crowd.token_ids) == expected
    assert alone.guessed_tokens > 0


@pytest.mark.parametrize("penalty", [2.0**-126, 1e-30, 1e30, 3.4e38])
def test_penalties_at_the_ends_of_float32_give_text(checkpoints, penalty):
    sampling = Sampling(6, ignore_eos=True, repetition_penalty=penalty, temperature=0.5, seed=1)
    end = run(open_engine(checkpoints("llama")), lambda engine: ids_after(engine, PROMPT, sampling))
    assert end.decoded_tokens == 6


@settings(max_examples=100, deadline=None)
@given(st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(0, 9), max_size=20), st.lists(st.integers(0, 9)))
def test_counts_are_those_of_the_tokens_and_copies_stay_as_they_are(prompt, chosen, later):
    counts = TokenCounts(prompt)
    for token in chosen:
        counts.add(token)
    copy = counts.copy()
    for token in later:
        counts.add(token)
    for found, added in ((copy, chosen), (counts, chosen + later)):
        assert len(found.ids) == len(found.counts) == len(set(found.ids))
        assert set(found.ids) == {*prompt, *added}
        assert dict(zip(found.ids, found.counts, strict=True)) == {token: added.count(token) for token in {*prompt, *added}}
