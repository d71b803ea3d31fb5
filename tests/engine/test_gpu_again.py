"""What goes wrong on a GPU while graphs are captured and caches resized, on a stand-in for one: an engine goes on, or ends at once."""

from __future__ import annotations

import pytest
from test_gpu_faults import ids_after, load, raised_in_triton, run, texts_are_right, verdicts

from parrot_nb.engine.embedded import model as models
from parrot_nb.engine.embedded import placement
from parrot_nb.engine.embedded.device import _measuring
from parrot_nb.errors import EngineLostError


@pytest.fixture
def folder(checkpoints):
    return checkpoints("qwen3")


def test_triton_that_fails_while_graphs_are_captured_is_turned_off_at_load(standin, folder, monkeypatch):
    error, real = raised_in_triton(RuntimeError("PTXAS error: Internal Triton PTX codegen error")), models.StepGraphs

    def failing(*args, **settings):
        monkeypatch.setattr(models, "StepGraphs", real)
        raise error

    monkeypatch.setattr(models, "StepGraphs", failing)
    engine = load(folder)
    assert verdicts(engine) == [("Triton kernels", "failed")]
    assert not {"Triton kernels", "steps as CUDA graphs"} & set(engine.model.swapped)
    run(engine, lambda engine: texts_are_right(engine, folder))


def test_the_first_prompt_is_no_longer_than_a_context(standin, folder, monkeypatch):
    lengths, real = [], models.StepModel._step
    monkeypatch.setattr(
        models.StepModel,
        "_step",
        lambda self, batch, *args: (lengths.extend(c.end for c in batch.contexts), real(self, batch, *args))[1],
    )
    load(folder, max_context=20)
    assert lengths == [20]


def test_kernels_are_compiled_while_others_may_measure(standin, folder, monkeypatch):
    free, real = [], models.StepModel.use_tiles

    def use_tiles(self, *args):
        free.append(_measuring.acquire(blocking=False))
        if free[-1]:
            _measuring.release()
        real(self, *args)

    monkeypatch.setattr(models.StepModel, "use_tiles", use_tiles)
    load(folder)
    assert free == [True]


def test_a_device_that_is_lost_while_a_step_is_waited_for_ends_the_engine(standin, folder):
    engine = load(folder)

    async def main(engine):
        await texts_are_right(engine, folder)
        standin.fail("wait", RuntimeError("CUDA error: an illegal memory access was encountered"), sticky=True)
        with pytest.raises(EngineLostError, match="restart the kernel"):
            await ids_after(engine, [1, 2])

    run(engine, main)


def test_a_device_that_is_lost_while_a_cache_is_resized_ends_the_engine(standin, folder, monkeypatch):
    monkeypatch.setattr(placement, "AUTO_CUDA_SHARE", 1e-5)
    engine = load(folder, kv_memory=None)

    def lost():
        standin.fail("synchronise", RuntimeError("CUDA error: an illegal memory access was encountered"), sticky=True)
        standin.at("synchronise")

    async def main(engine):
        engine._model._device.free_bytes = lost
        with pytest.raises(EngineLostError, match="restart the kernel"):
            await ids_after(engine, [i % 200 for i in range(170)])

    run(engine, main)


def test_graphs_that_fail_at_resizes_are_told_of_once(standin, folder, monkeypatch):
    monkeypatch.setattr(placement, "AUTO_CUDA_SHARE", 1e-5)
    engine = load(folder, kv_memory=None)
    assert "steps as CUDA graphs" in engine.model.swapped
    standin.fail("begin", RuntimeError("CUDA error: operation not permitted"), times=10**6)

    async def main(engine):
        for length in (60, 170):
            before = engine.load().num_pages
            await ids_after(engine, [i % 200 for i in range(length)])
            assert engine.load().num_pages > before

    run(engine, main)
    assert verdicts(engine) == [("CUDA graphs", "failed")]
    assert "steps as CUDA graphs" not in engine.model.swapped
