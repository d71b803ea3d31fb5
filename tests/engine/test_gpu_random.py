"""Two engines on one stand-in for a GPU, with errors at random places, memory that runs out, readers that leave, caches that grow."""

from __future__ import annotations

import asyncio
import contextlib
import random

import pytest
import torch
from checkpoints import PRIORITY, audit, reference
from standin import StandIn

from parrot_nb.engine.embedded import graphs, load_engine, placement
from parrot_nb.engine.embedded import model as models
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineError

PLACES = ("launch", "allocate", "copy", "fetch", "event", "wait", "replay", "begin", "end", "mm", "attention_tiled")
PROMPTS = [[number, *range(100, 100 + 9 * number)] for number in range(6)]


async def one(engine, folder, rng):
    """Read a text, or a part of it; returns whether it was right to its end, its error, or None where the reader left."""
    prompt, context = rng.choice(PROMPTS), engine.open(PRIORITY)
    leaves = rng.random() < 0.2
    try:
        engine.fill(context, prompt)
        stream = engine.generate(context, Sampling(max_tokens=6, ignore_eos=True))
        async with contextlib.aclosing(stream):
            async for piece in stream:
                if leaves:
                    return None
                if piece.end is not None:
                    return list(piece.end.token_ids) == reference(folder, prompt, 6)
    except EngineError as error:
        return str(error)
    finally:
        engine.free(context)


@pytest.mark.parametrize("seed", [0, 1, *(pytest.param(seed, marks=pytest.mark.minutes) for seed in range(2, 12))])
def test_texts_are_right_or_fail_whatever_happens(checkpoints, monkeypatch, seed):
    folder, rng = checkpoints("qwen3"), random.Random(seed)
    monkeypatch.setattr(graphs, "LADDER", (1, 4))
    monkeypatch.setattr(graphs, "MIXED", (16,))
    monkeypatch.setattr(models, "MANY_ROWS", 30)
    monkeypatch.setattr(placement, "AUTO_CUDA_SHARE", 0.02)

    async def main(standin, engines):
        found = []
        for _ in range(5):
            for _ in range(rng.randrange(3)):
                error = torch.OutOfMemoryError("CUDA out of memory") if rng.random() < 0.3 else RuntimeError("boom")
                standin.fail(rng.choice(PLACES), error, after=rng.randrange(60), times=rng.choice([1, 1, 3]))
            async with asyncio.timeout(60):  # nobody waits for ever
                found += await asyncio.gather(*(one(engine, folder, rng) for engine in engines for _ in range(4)))
        for plan in standin._plans:
            plan[4] = 0
        for engine in engines:
            while engine.load().running_contexts:  # noqa: ASYNC110 - freed contexts leave with the last step, of which nobody is told
                await asyncio.sleep(0.001)
            audit(engine)
            assert await one(engine, folder, random.Random(1)) is True
            await engine.close()
        assert False not in found
        assert all("boom" in error or "memory" in error for error in found if isinstance(error, str))
        assert found.count(True) > 10

    with StandIn(memory=4 * 2**20) as standin:
        engines = [load_engine(folder, device="cuda", dtype="float32", page_size=4) for _ in range(2)]
        asyncio.run(main(standin, engines))
    assert not standin.open_pools
