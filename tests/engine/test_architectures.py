"""Greedy text equals transformers' `generate`, token by token, whatever is batched, chunked and preempted."""

from __future__ import annotations

import asyncio
import random

import pytest
from checkpoints import BY_MODULES, CONFIGS, PRIORITY, all_pages_free, audit, reference, run, write
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from parrot_kernels import Costs
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Kind, Priority, Sampling

NUM_TOKENS = 20
PAGE_SIZE = 4


def prompts(seed: int) -> list[list[int]]:
    rng = random.Random(seed)
    return [[rng.randrange(256) for _ in range(length)] for length in (3, 17, 40, 9, 26, 1)]


BYTES_PER_TOKEN: dict[str, int] = {}


def bytes_per_token(folder) -> int:
    probe = load_engine(folder, kv_memory="1MB", page_size=PAGE_SIZE)
    asyncio.run(probe.close())
    return probe._model.bytes_per_token()


def crowded(folder, num_tokens_of_memory: int, steps: list | None = None):
    """An engine that must chunk (8 rows a step) and preempt (memory for about two of the contexts)."""
    per_token = bytes_per_token(folder)
    return load_engine(
        folder,
        kv_memory=per_token * num_tokens_of_memory,
        page_size=PAGE_SIZE,
        max_step_tokens=8,
        on_step=None if steps is None else steps.append,
    )


@pytest.mark.cpu_kinds
@pytest.mark.parametrize("name", [*CONFIGS, *BY_MODULES])
def test_greedy_text_equals_generate(checkpoints, name):
    folder = checkpoints(name)
    inputs = prompts(7)
    expected = [reference(folder, prompt, NUM_TOKENS) for prompt in inputs]
    assert len({tuple(e) for e in expected}) > 3, "the checkpoint must write different texts"
    steps: list = []
    engine = crowded(folder, 100, steps)
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)

    async def one(prompt):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        _, end = await write(engine, context, sampling)
        engine.free(context)
        return end

    async def main(engine):
        ends = await asyncio.gather(*(one(prompt) for prompt in inputs))
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return ends

    ends = run(engine, main)
    for prompt, end, tokens in zip(inputs, ends, expected, strict=True):
        assert list(end.token_ids) == [token for token in tokens if token < 256]
        assert end.prefilled_tokens + end.reused_tokens == len(prompt)
        assert end.finish == "length"
    computed = sum(step.prefill_tokens + step.decode_tokens for step in steps) + sum(end.guessed_tokens for end in ends)
    assert computed > sum(map(len, inputs)) + len(inputs) * (NUM_TOKENS - 1), "none was preempted"
    assert max(step.prefill_tokens + step.decode_tokens for step in steps) <= 8


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
def test_fill_after_generate_equals_one_prompt(checkpoints, name):
    folder = checkpoints(name)
    first, second = prompts(3)[1], prompts(4)[3]

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, first)
        _, a = await write(engine, context, Sampling(max_tokens=7, ignore_eos=True))
        engine.fill(context, second[:4])
        engine.fill(context, second[4:])
        _, b = await write(engine, context, Sampling(max_tokens=7, ignore_eos=True))
        engine.free(context)
        return list(a.token_ids), list(b.token_ids)

    a, b = run(crowded(folder, 100), main)
    assert a == [t for t in reference(folder, first, 7) if t < 256]
    assert b == [t for t in reference(folder, [*first, *a, *second], 7) if t < 256]


@st.composite
def crowds(draw):
    """Prompts that form a tree, on an engine that must chunk, preempt and evict."""
    rng = random.Random(draw(st.integers(0, 2**32)))
    trunk = [rng.randrange(256) for _ in range(40)]
    prompts = []
    for _ in range(draw(st.integers(2, 7))):
        shared = draw(st.sampled_from([0, 1, 4, 7, 16, 23, 40]))
        own = draw(st.integers(0 if shared else 1, 12))
        prompts.append([*trunk[:shared], *(rng.randrange(256) for _ in range(own))])
    prompts += [prompts[0]] * draw(st.integers(0, 2))  # some the same
    return {
        "prompts": prompts,
        "delays": [draw(st.sampled_from([0, 0, 1, 5, 20])) for _ in prompts],  # in turns of the loop
        "second": [draw(st.one_of(st.none(), st.integers(0, 9))) for _ in prompts],  # fill so many more, and generate again
        "left": [draw(st.sampled_from([False, False, False, True])) for _ in prompts],  # its reader goes away
        "page_size": draw(st.sampled_from([1, 3, 4, 16])),
        "step_tokens": draw(st.sampled_from([3, 8, 64])),
        "memory_tokens": draw(st.sampled_from([90, 130, 400])),
        "off": draw(st.sampled_from([(), (), (), ("sharing",), ("dedup",), ("two_phase",), ("fused",)])),
        "always_shares": draw(st.booleans()),
        "looks_ahead": draw(st.booleans()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", CONFIGS)
@settings(max_examples=8, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(crowd=crowds())
def test_any_mix_of_sharing_chunking_preemption_and_eviction_equals_generate(checkpoints, name, crowd):
    folder, count = checkpoints(name), 6
    per_token = BYTES_PER_TOKEN.setdefault(name, bytes_per_token(folder))
    engine = load_engine(
        folder,
        kv_memory=per_token * crowd["memory_tokens"],
        page_size=crowd["page_size"],
        max_step_tokens=crowd["step_tokens"],
        off=crowd["off"],
        on_step=lambda _: audit(engine),
    )
    if crowd["always_shares"] and engine._model._costs is not None:  # short runs would not pay otherwise
        engine._model._costs = Costs(10**9, 0, 0)
    engine._looks_ahead = crowd["looks_ahead"]  # on a CPU it is off
    sampling = Sampling(max_tokens=count, ignore_eos=True)

    async def one(i, prompt):
        for _ in range(crowd["delays"][i]):
            await asyncio.sleep(0.001)
        context = engine.open(Priority(Kind(i % 2)))
        engine.fill(context, prompt)
        if crowd["left"][i]:
            stream = engine.generate(context, sampling)
            await anext(stream)
            await stream.aclose()
            engine.free(context)
            return
        _, end = await write(engine, context, sampling)
        assert list(end.token_ids) == [t for t in reference(folder, prompt, count) if t < 256]
        assert end.prefilled_tokens + end.reused_tokens == len(prompt)
        if crowd["second"][i] is not None:
            more = [(7 * i + j) % 256 for j in range(crowd["second"][i])]
            engine.fill(context, more)
            _, again = await write(engine, context, sampling)
            whole = [*prompt, *end.token_ids, *more]
            assert list(again.token_ids) == [t for t in reference(folder, whole, count) if t < 256]
        engine.free(context)

    async def main(engine):
        await asyncio.gather(*(one(i, prompt) for i, prompt in enumerate(crowd["prompts"])))
        while engine._num_running:  # noqa: ASYNC110 - the step that ran has to end; nobody is told when
            await asyncio.sleep(0.001)
        audit(engine)
        assert all_pages_free(engine)
        engine.clear_cache()
        assert engine.load().free_pages == engine.load().num_pages

    run(engine, main)


def test_two_hundred_contexts_end_and_leave_all_pages_free(checkpoints):
    engine = crowded(checkpoints("qwen3"), 600)
    rng = random.Random(0)

    async def one():
        context = engine.open(Priority(Kind(rng.randrange(2)), (rng.randrange(5),)))
        engine.fill(context, [rng.randrange(256) for _ in range(rng.randrange(1, 40))])
        await asyncio.sleep(rng.random() * 0.05)
        _, end = await write(engine, context, Sampling(max_tokens=rng.randrange(1, 8), ignore_eos=True))
        engine.free(context)
        return end

    async def main(engine):
        ends = await asyncio.gather(*(one() for _ in range(200)))
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return ends

    assert len(run(engine, main)) == 200


def test_a_seeded_sample_is_its_own(checkpoints):
    folder = checkpoints("qwen3")
    sampling = Sampling(max_tokens=12, temperature=1.5, top_p=0.95, seed=11, ignore_eos=True)
    prompt = prompts(1)[1]

    async def one(engine, prompt, sampling):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        _, end = await write(engine, context, sampling)
        engine.free(context)
        return end.token_ids

    alone = run(load_engine(folder), lambda engine: one(engine, prompt, sampling))

    async def crowd(engine):
        others = [one(engine, p, Sampling(max_tokens=15, temperature=2.0, ignore_eos=True)) for p in prompts(5)]
        return (await asyncio.gather(*others[:3], one(engine, prompt, sampling), *others[3:]))[3]

    assert run(crowded(folder, 120), crowd) == alone
    other_seed = Sampling(max_tokens=12, temperature=1.5, top_p=0.95, seed=12, ignore_eos=True)
    assert run(load_engine(folder), lambda engine: one(engine, prompt, other_seed)) != alone
