"""A reproducible engine writes each text of SmolLM2 the same in bfloat16, whatever is computed beside it."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from checkpoints import PRIORITY, all_pages_free, run, write
from questions import EXAMPLES

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling

SAMPLING = Sampling(max_tokens=6, ignore_eos=True)
STEP_TOKENS = 12  # of the engine that computes in chunks
TRUNK = "A fisherman lived in a village by the sea, and every morning before the sun came up he rowed out to the same place."
# Their last words leave open what follows, so that the likeliest tokens are near to one another.
OPEN_ENDED = (
    "The",
    "Once upon a time",
    "My favourite thing about the",
    "Ideas for a rainy day:\n-",
    f"{TRUNK} One day",
    f"{TRUNK} He",
    f"{TRUNK} The other people of the village thought that",
    f"{EXAMPLES}Some other countries and",
)


async def one(engine, prompt: Sequence[int]) -> tuple[tuple[int, ...], int]:
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    try:
        end = (await write(engine, context, SAMPLING))[1]
    finally:
        engine.free(context)
    return end.token_ids, end.reused_tokens


async def together(engine, prompts: Sequence[Sequence[int]]) -> list[tuple[tuple[int, ...], int]]:
    """The texts, written side by side; the prompts are sent with the longest first."""
    order = sorted(range(len(prompts)), key=lambda i: -len(prompts[i]))
    found = dict(zip(order, await asyncio.gather(*(one(engine, prompts[i]) for i in order)), strict=True))
    await asyncio.sleep(0)
    assert all_pages_free(engine)
    return [found[i] for i in range(len(prompts))]


def loaded(folder, **how):
    return load_engine(folder, device="cpu", dtype="bfloat16", max_context=256, kv_memory="32MB", reproducible=True, **how)


@pytest.mark.slow
def test_alone_batched_shared_and_chunked_the_tokens_are_the_same(smollm2_folder):
    """Without `reproducible` the texts after two of these prompts depend on what is computed beside them (on an Intel Xeon with AMX)."""
    first = loaded(smollm2_folder)
    prompts = [first.codec.encode(text, first=True) for text in OPEN_ENDED]
    assert len(set(map(len, prompts))) == len(prompts)
    assert prompts[4][:20] == prompts[5][:20] == prompts[6][:20]
    assert max(map(len, prompts)) > 2 * STEP_TOKENS

    async def main(engine):
        alone = []
        for prompt in prompts:
            engine.clear_cache()
            alone.append(await one(engine, prompt))
        engine.clear_cache()
        return alone, await together(engine, prompts), await together(engine, prompts)

    alone, batched, again = run(first, main)
    assert [reused for _, reused in alone] == [0] * len(prompts)
    assert sum(reused for _, reused in batched) >= 32, "nothing was shared"
    assert sum(reused for _, reused in again) > 2 * sum(reused for _, reused in batched)
    apart = loaded(smollm2_folder, off=("sharing", "dedup"), max_step_tokens=STEP_TOKENS)
    chunked = run(apart, lambda engine: together(engine, prompts))
    assert [reused for _, reused in chunked] == [0] * len(prompts)
    expected = [ids for ids, _ in alone]
    assert len(set(expected)) == len(prompts)
    for found in (batched, again, chunked):
        assert [ids for ids, _ in found] == expected
