"""Clearing the cache while a step runs: the pages that it uses are free as soon as it has ended."""

from __future__ import annotations

import asyncio

import transformers as hf
from checkpoints import PRIORITY, SHAPE, random_checkpoint, run

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling


def test_pages_of_contexts_that_leave_are_not_cached(tmp_path):
    engine = load_engine(str(random_checkpoint(tmp_path, hf.LlamaConfig(**SHAPE))), device="cpu", kv_memory="2MB")

    async def main(engine):
        while True:  # until a context was freed while a step held its pages
            context = engine.open(PRIORITY)
            engine.fill(context, range(5, 5 + 3 * engine.load().page_size_tokens))
            pieces = engine.generate(context, Sampling(max_tokens=50, ignore_eos=True))
            await anext(pieces)
            while not engine.load().running_contexts:  # noqa: ASYNC110 - no engine tells when a step begins or ends
                await asyncio.sleep(0)
            engine.free(context)
            engine.clear_cache()
            await pieces.aclose()
            if engine.load().owned_pages:
                break
        while engine.load().owned_pages:  # noqa: ASYNC110
            await asyncio.sleep(0.001)
        load = engine.load()
        assert (load.free_pages, load.cached_pages) == (load.num_pages, 0)

    run(engine, main)
