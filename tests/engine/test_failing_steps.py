"""A step that fails: a context alone in it fails and says why, the others go on, and nothing of it is found later."""

from __future__ import annotations

import asyncio

import pytest
from checkpoints import PRIORITY, all_pages_free, audit, run, text_after, write

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineError

GREEDY = Sampling(max_tokens=5, ignore_eos=True)


@pytest.fixture
def folder(checkpoints):
    return checkpoints("llama")


def test_a_failing_step_fails_its_contexts_and_no_other(folder, monkeypatch):
    engine = load_engine(folder)
    real, failures = engine._model.step, iter([RuntimeError("boom"), RuntimeError("DefaultCPUAllocator: can't allocate memory")])

    async def main(engine):
        expected = await text_after(engine, [1, 2, 3], GREEDY)
        for shown in ("boom", "--kv-memory"):
            error = next(failures)
            monkeypatch.setattr(engine._model, "step", lambda *_, error=error: (_ for _ in ()).throw(error))
            with pytest.raises(EngineError, match=shown):
                await text_after(engine, [1, 2, 3], GREEDY)
            monkeypatch.setattr(engine._model, "step", real)
            assert all_pages_free(engine)
            assert await text_after(engine, [1, 2, 3], GREEDY) == expected

    run(engine, main)


def test_a_context_that_was_filled_by_the_failing_step_says_so_when_it_is_used_next(folder, monkeypatch):
    """Nobody generates on it yet, so nobody can be told; what it writes must not be the text after an emptied prompt."""
    engine = load_engine(folder)
    real = engine._model.step

    async def main(engine):
        filled, reader = engine.open(PRIORITY), engine.open(PRIORITY)
        engine.fill(filled, [1, 2, 3, 4])
        engine.fill(reader, [5, 6, 7])
        monkeypatch.setattr(engine._model, "step", lambda *_: (_ for _ in ()).throw(RuntimeError("boom")))
        with pytest.raises(EngineError, match="boom"):
            await write(engine, reader, GREEDY)
        monkeypatch.setattr(engine._model, "step", real)
        for context in (filled, reader):
            with pytest.raises(EngineError, match="boom"):
                engine.fill(context, [8])
            with pytest.raises(EngineError, match="boom"):
                await write(engine, context, GREEDY)
            engine.free(context)
        assert all_pages_free(engine)
        again = engine.open(PRIORITY)
        engine.fill(again, [1, 2, 3, 4])
        assert (await write(engine, again, GREEDY))[1].decoded_tokens == GREEDY.max_tokens

    run(engine, main)


def test_a_context_outside_the_failing_step_goes_on(folder, monkeypatch):
    """Two contexts do not fit into one step: the one that is not in the step that fails ends as if nothing had been."""
    engine = load_engine(folder, max_step_tokens=8)
    real = engine._model.step
    failed: list[int] = []

    def step(batch):
        if not failed and all(len(part.token_ids) > 1 for part in batch.contexts):
            failed.append(len(batch.contexts))
            raise RuntimeError("boom")
        return real(batch)

    async def one(first):
        return await text_after(engine, [first] * 8 + [2], GREEDY)

    async def main(engine):
        expected = await one(4)
        engine.clear_cache()
        monkeypatch.setattr(engine._model, "step", step)
        bad, good = await asyncio.gather(one(3), one(4), return_exceptions=True)
        assert isinstance(bad, EngineError)
        assert good == expected
        assert failed == [1]
        await asyncio.sleep(0)
        audit(engine)
        assert all_pages_free(engine)

    run(engine, main)


def test_a_step_that_fails_leaves_no_page_that_was_to_be_copied_into(folder, monkeypatch):
    """Contexts part inside a page; the step that should copy its beginning fails before it does."""
    engine = load_engine(folder, page_size=8)
    prompt = [5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]
    other = [*prompt[:11], 99, 98]

    async def one(ids):
        return await text_after(engine, ids, GREEDY)

    async def main(engine):
        expected = await one(other)
        engine.clear_cache()
        await one(prompt)
        real, copies = engine._model.step, []

        def step(batch):
            monkeypatch.setattr(engine._model, "step", real)
            copies.extend(batch.copies)
            raise RuntimeError("boom")

        monkeypatch.setattr(engine._model, "step", step)
        with pytest.raises(EngineError, match="boom"):
            await one(other)
        assert copies
        assert copies[0][2] >= 3
        assert await one(other) == expected
        audit(engine)

    run(engine, main)


@pytest.mark.parametrize("always", [False, True])
def test_contexts_that_share_what_a_failing_step_computes_find_nothing_of_it(folder, monkeypatch, always):
    """They follow the one that computes it, in the same step; neither they nor who comes next may find those pages."""
    engine = load_engine(folder, page_size=4)
    real, sizes = engine._model.step, []
    prompts = [[*range(20, 34), i] for i in range(3)]

    async def one(ids):
        return await text_after(engine, ids, GREEDY)

    def step(batch):
        if not always:
            monkeypatch.setattr(engine._model, "step", real)
        sizes.append(sorted(len(part.token_ids) for part in batch.contexts))
        raise RuntimeError("boom")

    async def main(engine):
        expected = []
        for ids in prompts:
            expected.append(await one(ids))
            engine.clear_cache()
        monkeypatch.setattr(engine._model, "step", step)
        found = await asyncio.gather(*map(one, prompts), return_exceptions=True)
        audit(engine)
        assert all_pages_free(engine)
        if always:
            assert [str(error) for error in found] == ["The model failed in a step with RuntimeError: boom"] * 3
            assert sizes == [[3, 3, 15], [15], [3, 15], [15], [15]], "each half computes for itself what it shares"
            assert engine.load().cached_pages == 0
            monkeypatch.setattr(engine._model, "step", real)
        else:
            assert found == expected
            assert sizes == [[3, 3, 15]]
        assert await asyncio.gather(*map(one, prompts)) == expected
        audit(engine)

    run(engine, main)
