"""Reproducible engines: the same tokens alone, in any crowd, in any order, shared, chunked, drafted and preempted."""

from __future__ import annotations

import asyncio
import random

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, SHAPE, all_pages_free, change_config, random_checkpoint, reference, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded import blocks, load_engine
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import ModelLoadError

NUM_TOKENS, NUM_PROMPTS = 10, 14
SAMPLINGS = {
    "greedy": Sampling(NUM_TOKENS, ignore_eos=True),
    "seeded": Sampling(NUM_TOKENS, temperature=1.0, top_p=0.95, seed=11, ignore_eos=True),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """So sensitive to rounding that, in bfloat16, a text depends on what it is computed with; wide enough for several kernels."""
    shape = SHAPE | {"num_hidden_layers": 4, "hidden_size": 192, "intermediate_size": 512, "num_attention_heads": 6}
    made = random_checkpoint(
        tmp_path_factory.mktemp("sensitive"), hf.LlamaConfig(**shape | {"head_dim": 32, "initializer_range": 0.2})
    )
    change_config(made, unheard_of=1)  # so that its fused decoder has been tried
    return made


TRUNK = [random.Random(5).randrange(256) for _ in range(40)]


def prompts() -> list[list[int]]:
    rng = random.Random(6)
    return [
        [*TRUNK[: rng.choice([0, 16, 33, 40])], *(rng.randrange(256) for _ in range(rng.randint(1, 12)))]
        for _ in range(NUM_PROMPTS)
    ]


async def one(engine, prompt, sampling):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    _, end = await write(engine, context, sampling)
    engine.free(context)
    return list(end.token_ids)


def texts(folder, order, *, together, sampling="greedy", **how):
    """What is written after the prompts, in their own order, though they are sent in another."""
    engine = load_engine(folder, **{"dtype": "bfloat16", "page_size": 4, **how})
    inputs = prompts()

    async def main(engine):
        if together:
            found = await asyncio.gather(*(one(engine, inputs[i], SAMPLINGS[sampling]) for i in order))
        else:
            found = [await one(engine, inputs[i], SAMPLINGS[sampling]) for i in order]
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return dict(zip(order, found, strict=True))

    found = run(engine, main)
    return [found[i] for i in sorted(found)]


IN_ORDER = range(NUM_PROMPTS)
CROWDS = {
    "a batch": {},
    "not shared": {"off": ("sharing", "dedup")},
    "no guesses": {"off": ("drafts",)},
    "chunks": {"max_step_tokens": 7},
    "preempted": {"kv_memory": 160 * 4 * 2 * 2 * 32 * 2},
    "larger pages": {"page_size": 16},
}


@pytest.mark.cpu_kinds
@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_alone_and_in_a_crowd_the_tokens_are_the_same(folder, sampling, dtype):
    alone = texts(folder, IN_ORDER, together=False, sampling=sampling, dtype=dtype, reproducible=True, off=("sharing",))
    assert len({tuple(text) for text in alone}) > NUM_PROMPTS // 2
    shuffled = random.Random(1).sample(IN_ORDER, NUM_PROMPTS)
    assert texts(folder, shuffled, together=True, sampling=sampling, dtype=dtype, reproducible=True) == alone


@pytest.mark.slow
def test_however_a_crowd_is_computed_the_tokens_are_the_same(folder):
    alone = texts(folder, IN_ORDER, together=False, reproducible=True)
    for name, how in CROWDS.items():
        assert texts(folder, IN_ORDER, together=True, reproducible=True, **how) == alone, name


def test_in_float32_they_are_those_of_generate(folder):
    found = texts(folder, IN_ORDER, together=True, dtype="float32", reproducible=True)
    assert found == [[t for t in reference(folder, prompt, NUM_TOKENS) if t < 256] for prompt in prompts()]


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
def test_bounds_and_windows_of_gemma_are_computed_row_by_row_too(checkpoints, name):
    found = texts(checkpoints(name), IN_ORDER, together=True, dtype="float32", reproducible=True)
    assert found == [[t for t in reference(checkpoints(name), prompt, NUM_TOKENS) if t < 256] for prompt in prompts()]


@settings(max_examples=8, deadline=None)
@given(data=st.data())
def test_logits_do_not_depend_on_the_other_rows(folder, data):
    """To the last bit, wherever the rows are cut and whatever lies between them."""
    engine = load_engine(folder, dtype="bfloat16", page_size=4, reproducible=True, kv_memory="4MB")
    worker = engine._model._blocks
    prompt = prompts()[data.draw(st.integers(0, NUM_PROMPTS - 1))]
    pages = list(range(20))

    def computed(cuts, others):
        rows = []
        with torch.inference_mode():
            for start, end in zip([0, *cuts], [*cuts, len(prompt)], strict=True):
                mine = blocks.BlockRows(prompt[start:end], start, pages, end - start)
                before = [blocks.BlockRows([7 * i % 256] * others, 0, range(20 + 5 * i, 25 + 5 * i), 0) for i in range(others)]
                rows.append(worker.logits([*before, mine]))
        return torch.cat(rows)

    expected = computed([], 0)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(prompt) - 1), max_size=5))) if len(prompt) > 1 else []
    assert torch.equal(computed(cuts, data.draw(st.integers(0, 5))).view(torch.uint8), expected.view(torch.uint8))
    asyncio.run(engine.close())


def test_a_context_finds_what_another_computes_in_the_same_step(folder):
    """Whatever the order in which they are given: one goes on after pages of the other, whose rows fill more than a block."""
    engine = load_engine(folder, dtype="bfloat16", page_size=4, reproducible=True, kv_memory="4MB")
    worker, tokens = engine._model._blocks, TRUNK
    whole = blocks.BlockRows(tokens, 0, range(20, 30), 1)
    after = blocks.BlockRows([1, 2, 3], 36, [*range(20, 29), 0], 2)
    with torch.inference_mode():
        first, then = worker.logits([whole]), worker.logits([after])
        for memory in (*engine._model._memory.keys.values(), *engine._model._memory.values.values()):
            memory.zero_()
        assert torch.equal(worker.logits([after, whole]), torch.cat([then, first]))
    asyncio.run(engine.close())


def test_what_cannot_be_reproduced_is_refused(folder, checkpoints, monkeypatch):
    with pytest.raises(ModelLoadError, match=r"Only fused decoders on a CPU .* GPT2LMHeadModel.*without --reproducible"):
        load_engine(checkpoints("gpt2"), reproducible=True)
    real = blocks.Blocks._block
    monkeypatch.setattr(
        blocks.Blocks, "_block", lambda self, block: real(self, block) + 1e-3 * sum(part[0].token_ids[0] for part in block)
    )
    with pytest.raises(ModelLoadError, match="depend on their other rows on this machine"):
        load_engine(folder, reproducible=True)
