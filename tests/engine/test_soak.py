"""Random work for a while: every page accounted for at every step, all free at the end, memory flat.

Twelve seconds by default; `PARROT_SOAK_S=600 pytest tests/engine/test_soak.py` for ten minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import random
import time
from itertools import pairwise
from pathlib import Path

import pytest
from checkpoints import all_pages_free, audit, run, write

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Kind, Priority, Sampling
from parrot_nb.errors import ContextLengthError

SOAK_S = float(os.environ.get("PARROT_SOAK_S", "12"))
NUM_USERS = 24


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
@pytest.mark.timeout(int(SOAK_S) + 300)
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads the resident memory from /proc")
def test_random_work_leaves_nothing_behind(checkpoints):
    rng = random.Random(1)
    trunks = [[rng.randrange(256) for _ in range(60)] for _ in range(3)]
    steps = [0]

    def on_step(_record):
        steps[0] += 1
        if steps[0] % 10 == 0:
            audit(engine)

    engine = load_engine(checkpoints("qwen3"), kv_memory="300KB", page_size=4, max_step_tokens=24, on_step=on_step)

    engine._looks_ahead = True  # as on a GPU: the harder case

    async def one(number: int) -> None:
        context = engine.open(Priority(rng.choice([Kind.LATENCY, Kind.THROUGHPUT]), (number,)))
        try:
            for _ in range(rng.choice([1, 1, 2, 3])):
                trunk = rng.choice(trunks)
                engine.fill(
                    context, trunk[: rng.randrange(1, len(trunk))] + [rng.randrange(256) for _ in range(rng.randrange(8))]
                )
                temperature = rng.choice([0.0, 0.0, 1.2])
                sampling = Sampling(max_tokens=rng.randrange(1, 12), temperature=temperature, ignore_eos=rng.random() < 0.8)
                if rng.random() < 0.15:
                    stream = engine.generate(context, sampling)
                    async for _piece in stream:
                        if rng.random() < 0.5:
                            break
                    await stream.aclose()
                else:
                    await write(engine, context, sampling)
        except ContextLengthError:
            pass  # several turns may be too long
        finally:
            engine.free(context)

    async def user(until_s: float) -> None:
        number = 0
        while time.monotonic() < until_s:
            number += 1
            task = asyncio.create_task(one(number))
            if rng.random() < 0.1:
                await asyncio.sleep(rng.random() * 0.02)
                task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task
            if rng.random() < 0.05:
                engine.expect(number % 5, rng.choice(trunks), number)
            if rng.random() < 0.02:
                engine.clear_cache()

    async def main(engine):
        started_s = time.monotonic()
        resident = []
        for share in (0.4, 0.6, 0.8, 1.0):
            await asyncio.gather(*(user(started_s + SOAK_S * share) for _ in range(NUM_USERS)))
            gc.collect()
            resident.append(resident_bytes())
        while engine._num_running:  # noqa: ASYNC110 - the step that ran has to end; nobody is told when
            await asyncio.sleep(0.001)
        audit(engine)
        assert all_pages_free(engine)
        for key in range(5):
            engine.forget(key)
        engine.clear_cache()
        assert engine.load().free_pages == engine.load().num_pages
        assert not engine._contexts
        # A leak grows in every stretch. A single rise may be memory that malloc keeps.
        grown = min(later - earlier for earlier, later in pairwise(resident))
        assert grown < 6 * 2**20, f"{grown / 2**20:.1f} MB more after each {SOAK_S / 5:g} s"
        return steps[0], grown

    num_steps, grown = run(engine, main)
    assert num_steps > 100, "the pages were audited at every tenth of them"
    print(f"{num_steps} steps, {grown / 2**20:.1f} MB more after each stretch")  # shown with -s
