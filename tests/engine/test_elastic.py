"""A KV cache that grows on a GPU while there is room, and is small again when there is nothing to do; on a stand-in."""

from __future__ import annotations

import asyncio
import random
import threading

import pytest
import torch
from checkpoints import PRIORITY, all_pages_free, audit, reference, write
from standin import StandIn

from parrot_nb.engine.embedded import engine, graphs, load_engine, placement
from parrot_nb.engine.embedded import model as models
from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineLostError, ModelLoadError, OutOfMemoryError

MEMORY = 3 * 2**20
GREEDY = Sampling(max_tokens=6, ignore_eos=True)


@pytest.fixture
def folder(checkpoints):
    return checkpoints("qwen3")


@pytest.fixture
def standin(folder, monkeypatch):
    monkeypatch.setattr(graphs, "LADDER", (1, 4))
    monkeypatch.setattr(graphs, "MIXED", ())  # whose captures need memory that a test takes away
    monkeypatch.setattr(models, "MANY_ROWS", 30)
    monkeypatch.setattr(placement, "AUTO_CUDA_SHARE", 0.02)
    with StandIn(memory=MEMORY) as made:
        yield made


async def ids_after(engine, prompt):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    try:
        return list((await write(engine, context, GREEDY))[1].token_ids)
    finally:
        engine.free(context)


async def right(engine, folder, prompts):
    assert await asyncio.gather(*(ids_after(engine, prompt) for prompt in prompts)) == [reference(folder, p, 6) for p in prompts]
    await asyncio.sleep(0)
    audit(engine)
    assert all_pages_free(engine) or engine.load().cached_pages


PROMPTS = [[number, *range(100, 140)] for number in range(6)]


def run(made, main):
    async def whole():
        try:
            await main(made)
        finally:
            await made.close()

    asyncio.run(whole())


def test_it_begins_small_grows_and_is_small_again(standin, folder, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_S", 0.2)
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4)
    first, at_first = made.load(), standin.used[0]
    assert first.most_pages > 10 * first.num_pages

    async def main(made):
        await right(made, folder, PROMPTS)
        assert made.load().num_pages > first.num_pages
        assert standin.used[0] > at_first
        replays = standin.counts.replays
        await right(made, folder, PROMPTS[:1])
        assert standin.counts.replays > replays, "by graphs that know the new memory"
        async with asyncio.timeout(20):
            while made.load().num_pages > first.num_pages or standin.used[0] + standin.kept[0] > 1.2 * at_first:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        await right(made, folder, PROMPTS)

    run(made, main)
    assert made.model.verdicts == ()


def test_a_text_longer_than_the_cache_has_it_grow(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4)
    prompt = [i % 200 for i in range(170)]
    assert made.load().num_pages * 4 < len(prompt)
    run(made, lambda made: right(made, folder, [prompt]))


def test_what_cannot_be_had_fails_one_text_alone(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4, max_step_tokens=16)
    first = made.load().num_pages
    standin.used[0] += (taken := MEMORY - standin.used[0] - 40_000)  # the user's own tensors

    async def main(made):
        with pytest.raises(OutOfMemoryError, match=r"24\d tokens, and the device has no memory for more than"):
            await ids_after(made, [i % 200 for i in range(243)])
        assert made.load().num_pages == first
        await right(made, folder, PROMPTS)  # by preempting, as long as there is no more
        assert made.load().num_pages == first
        standin.used[0] -= taken
        made._elastic._retry_at_s = 0
        await right(made, folder, [[i % 200 for i in range(170)]])

    run(made, main)


def test_memory_that_runs_out_while_it_grows_leaves_all_as_it_was(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4)
    first = made.load().num_pages

    async def main(made):
        await right(made, folder, PROMPTS[:1])
        made.clear_cache()
        real = made._model._memory.resize

        def resize(num_slots):
            made._model._memory.resize = real
            standin.fail("allocate", torch.OutOfMemoryError("CUDA out of memory"), after=2)
            real(num_slots)

        made._model._memory.resize = resize
        await right(made, folder, PROMPTS)
        assert made.load().num_pages == first
        assert made._elastic._retry_at_s > 0

    run(made, main)


def test_memory_that_runs_out_while_it_shrinks_leaves_all_layers_alike(standin, folder, monkeypatch):
    monkeypatch.setattr(engine, "IDLE_S", 0.2)
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4)
    first = made.load().num_pages

    async def main(made):
        await right(made, folder, PROMPTS)
        assert made.load().num_pages > first
        real, failed = made._model._memory.resize, []

        def resize(num_slots):
            standin.fail("allocate", torch.OutOfMemoryError("CUDA out of memory"), after=1)
            try:
                real(num_slots)
            finally:
                memory = made._model._memory
                failed.append({len(tensor) for tensor in (*memory.keys.values(), *memory.values.values())})

        made._model._memory.resize = resize
        async with asyncio.timeout(20):
            while not failed:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
        made._model._memory.resize = real
        assert failed == [{4 * (first + 1)}]
        await right(made, folder, PROMPTS)

    run(made, main)


def test_a_context_gets_what_it_needs_where_there_is_no_room_for_twice_the_cache(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4)
    first, resize, asked = made.load().num_pages, made._elastic._resize, []
    made._elastic._resize = lambda num_pages: (asked.append(num_pages), resize(num_pages if num_pages <= first + 4 else first))[1]
    prompts = [[i % 200 for i in range(4 * (first + more) - 7)] for more in (1, 3)]

    async def main(made):
        for prompt in prompts:
            await right(made, folder, [prompt])

    run(made, main)
    assert asked[:2] == [2 * first, first + 1]
    assert made._elastic._retry_at_s > 0


def test_a_resize_that_does_not_end_gives_the_engine_up(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4, step_timeout=0.2)
    ended, made._elastic._resize = threading.Event(), lambda num_pages: ended.wait(20)

    async def main(made):
        with pytest.raises(EngineLostError, match=r"has not ended in 0\.2 s"):
            await ids_after(made, [i % 200 for i in range(170)])
        ended.set()

    run(made, main)


def test_two_engines_grow_at_once(standin, folder):
    engines = []
    threads = [threading.Thread(target=lambda: engines.append(load_engine(folder, device="cuda", dtype="float32", page_size=4))) for _ in range(2)]  # fmt: skip
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    async def main():
        await asyncio.gather(*(right(made, folder, PROMPTS) for made in engines))
        assert all(made.load().num_pages > 20 for made in engines)
        for made in engines:
            await made.close()

    asyncio.run(main())
    assert standin.used[0] <= MEMORY


def test_a_size_that_was_asked_for_stays(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4, kv_memory="64KB")
    before = made.load().num_pages
    run(made, lambda made: right(made, folder, PROMPTS))
    assert made.load().num_pages == before == made.load().most_pages


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_size_that_there_is_no_room_for_says_so(standin, folder, device):
    with pytest.raises(OutOfMemoryError, match=rf"^{device}.* has \d+\.\d GB free, less than --kv-memory asks for: lower it\.$"):
        load_engine(folder, device=device, kv_memory="100TB")


def test_a_share_of_what_is_free_can_be_asked_for(standin, folder):
    made = load_engine(folder, device="cuda", dtype="float32", page_size=4, kv_memory="30%")
    load = made.load()
    assert load.num_pages * 1536 == pytest.approx(0.3 * MEMORY, rel=0.15), "weights take a part of the memory"
    assert load.most_pages == load.num_pages
    run(made, lambda made: right(made, folder, PROMPTS[:1]))
    for wrong in ("0%", "100%", "-3%", "%"):
        with pytest.raises(ModelLoadError, match="kv_memory"):
            load_engine(folder, kv_memory=wrong)


@pytest.mark.parametrize("seed", range(20))
def test_pages_are_counted_in_caches_that_grow_and_shrink(seed):
    rng = random.Random(seed)
    cache = PageCache(8, 2)
    leases = []
    for _ in range(60):
        match rng.randrange(4):
            case 0 if cache.num_free > 4:
                tokens = [rng.randrange(3) for _ in range(rng.randrange(2, 8))]
                lease = cache.lease(tokens)
                lease.adopt()
                lease.extend(len(tokens))
                lease.announce(len(tokens))
                lease.begin(len(tokens))
                lease.computed(len(tokens))
                leases.append(lease)
            case 1 if leases:
                leases.pop(rng.randrange(len(leases))).release()
            case 2:
                cache.grow(cache.num_pages + rng.randrange(4))
            case 3:
                held = {page for lease in leases for page in lease.pages}
                wanted = rng.randrange(4, cache.num_pages + 1)
                assert cache.shrink(wanted) == (not any(page >= wanted for page in held))
        held = {page for lease in leases for page in lease.pages}
        assert cache.num_owned == len(held)
        assert cache.num_free + cache.num_cached + cache.num_owned == cache.num_pages == len(cache._free)
        assert cache._free.count(1) == cache.num_free
    for lease in leases:
        lease.release()
    cache.clear()
    assert cache.num_free == cache.num_pages
