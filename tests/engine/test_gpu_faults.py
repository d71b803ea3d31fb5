"""What goes wrong on a GPU, on a stand-in for one: an engine goes on where it can, says so once, and gives back what it had."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
import time
import weakref

import pytest
import torch
from checkpoints import PRIORITY, all_pages_free, audit, reference, write

from parrot_kernels import backend
from parrot_nb.engine.embedded import fused, load_engine, placement, triton_use
from parrot_nb.engine.embedded import model as models
from parrot_nb.engine.embedded.device import Device
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineError, EngineLostError, OutOfMemoryError

GREEDY = Sampling(max_tokens=5, ignore_eos=True)
PROMPTS = ([1, 2, 3], [9, 8], [*range(40, 61), 7], [*range(40, 61), 9])


@pytest.fixture
def folder(checkpoints):
    return checkpoints("qwen3")


def load(folder, **settings):
    return load_engine(folder, **{"device": "cuda", "dtype": "float32", "kv_memory": "256KB", "page_size": 4} | settings)


async def ids_after(engine, prompt, sampling=GREEDY):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    try:
        return list((await write(engine, context, sampling))[1].token_ids)
    finally:
        engine.free(context)


async def texts_are_right(engine, folder):
    found = await asyncio.gather(*(ids_after(engine, prompt) for prompt in PROMPTS))
    assert found == [reference(folder, prompt, 5) for prompt in PROMPTS]
    await asyncio.sleep(0)
    audit(engine)
    assert all_pages_free(engine)


def run(engine, main):
    async def whole():
        try:
            return await main(engine)
        finally:
            await engine.close()

    return asyncio.run(whole())


def raised_in_triton(error):
    """An error as one gets it that Triton's own code raises: its frames are Triton's."""
    frame = {"__name__": "triton.runtime.build", "error": error}
    exec("def launch():\n    raise error", frame)
    try:
        frame["launch"]()
    except Exception as found:
        return found


def verdicts(engine):
    return [(verdict.part, verdict.outcome) for verdict in engine.model.verdicts]


# 1


def test_a_kept_error_of_a_step_keeps_nothing_of_the_device(standin, folder):
    engine = load(folder)
    weights, memory = weakref.ref(engine._model._decoder.ends.norm), weakref.ref(engine._model._memory)
    kept = []

    async def main(engine):
        standin.fail("gated_triton", torch.OutOfMemoryError("CUDA out of memory"), times=100)
        with pytest.raises(OutOfMemoryError) as caught:
            await ids_after(engine, [1, 2, 3])
        kept.append(caught.value)

    run(engine, main)
    del engine
    gc.collect()
    assert kept
    assert weights() is None
    assert memory() is None
    assert standin.used[0] == 0
    assert standin.kept[0] == 0, "the allocator's cache goes back too"


@pytest.mark.parametrize("place", ["begin", "allocate"])
def test_a_kept_error_of_a_load_keeps_nothing_of_the_device(standin, folder, monkeypatch, place):
    made, others = [], set(threading.enumerate())
    allocate = models.StepModel.allocate

    def failing(self, num_pages):
        made.append(weakref.ref(self._decoder))
        if place == "allocate":
            standin.fail("allocate", torch.OutOfMemoryError("CUDA out of memory"), times=100)
        allocate(self, num_pages)
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(models.StepModel, "allocate", failing)
    with pytest.raises(OutOfMemoryError, match="does not fit") as caught:
        load(folder)
    for thread in set(threading.enumerate()) - others:
        thread.join(10)
    gc.collect()
    assert caught.value.__cause__ is not None
    assert made[0]() is None
    assert standin.used[0] + standin.kept[0] == 0


# 2


@pytest.mark.parametrize("device", ["cuda:1", "auto"])
def test_an_engine_computes_on_a_device_that_is_not_the_first(standin, folder, device):
    engine = load(folder, device=device, number=1)
    assert engine.model.device == "cuda:1"
    assert standin.used[1] > standin.used[0]
    run(engine, lambda engine: texts_are_right(engine, folder))
    assert not verdicts(engine)
    assert {stream.index for stream in standin.streams} == {1}
    assert all(stream.free_at == 0 for stream in standin._defaults), "the legacy default stream would wait for other engines"


# 3


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("Failed to find C compiler. Please specify via CC environment variable or set triton.knobs.build.impl."),
        FileNotFoundError(2, "No such file or directory", "gcc"),
    ],
)
def test_triton_that_cannot_run_is_turned_off_at_load(standin, folder, error):
    for kernel in ("rms_norm_triton", "write_kv_triton", "rope_and_write_triton", "attention_tiled"):
        standin.fail(kernel, raised_in_triton(error), times=10**6)
    engine = load(folder)
    assert ("Triton kernels", "failed") in verdicts(engine)
    assert type(error).__name__ in str(engine.model.verdicts[0])
    assert "Triton kernels" not in engine.model.swapped
    run(engine, lambda engine: texts_are_right(engine, folder))
    assert backend.enabled, "other engines go on with it"


def test_a_kernel_that_computes_something_else_is_turned_off_at_load(standin, folder, monkeypatch):
    real = fused.attention

    def attention(query, *args, **options):
        out = real(query, *args, **options)
        return out if args[2].tiles is None else out * 1.5

    monkeypatch.setattr(fused, "attention", attention)
    engine = load(folder)
    assert verdicts(engine) == [("Triton kernels", "refused")]
    run(engine, lambda engine: texts_are_right(engine, folder))


def test_triton_that_fails_later_hands_over_to_torch(standin, folder):
    engine, other = load(folder), load(folder)

    async def main(engine):
        await texts_are_right(engine, folder)
        engine.clear_cache()
        standin.fail("attention_tiled", raised_in_triton(RuntimeError("PTXAS error: Internal Triton PTX codegen error")))
        await texts_are_right(engine, folder)

    run(engine, main)
    assert verdicts(engine) == [("Triton kernels", "failed")]
    run(other, lambda other: texts_are_right(other, folder))  # 9: one engine's fault is not another's
    assert not verdicts(other)
    assert "Triton kernels" in other.model.swapped


@pytest.mark.parametrize(
    "error",
    [
        RuntimeError("0 active drivers ([]). There should only be one."),
        RuntimeError("Triton Error [CUDA]: device kernel image is invalid"),
        ValueError("Pointer argument (at 0) cannot be accessed from Triton (cpu tensor?)"),
    ],
)
def test_an_error_is_tritons_if_its_code_raised_it(error):
    assert triton_use.is_from_triton(raised_in_triton(error))
    assert not triton_use.is_from_triton(error.with_traceback(None))


def test_an_error_of_a_device_is_not_taken_for_tritons():
    assert not triton_use.is_from_triton(raised_in_triton(torch.OutOfMemoryError("CUDA out of memory")))
    assert not triton_use.is_from_triton(RuntimeError("CUDA error"))


# 4 and 5


def test_graphs_are_captured_at_load_the_largest_first_and_serve_what_they_are_for(standin, folder, monkeypatch):
    sizes = []
    monkeypatch.setattr(
        models.SamplingRows,
        "sample",
        lambda self, logits, real=models.SamplingRows.sample: (sizes.append(len(logits)), real(self, logits))[1],
    )
    engine = load(folder)
    captured = standin.counts.captures
    assert captured == len(engine._model._graphs) == 3
    assert sizes == sorted(sizes, reverse=True)
    assert sizes[-1] == 1
    run(engine, lambda engine: texts_are_right(engine, folder))
    assert standin.counts.captures == captured, "none while serving"
    assert standin.counts.replays > 0


def test_captures_of_several_engines_come_one_after_the_other(standin):
    found = []

    def one():
        device = Device(torch.device("cuda"))
        with device.entered():
            x = torch.ones(2, device=device.place)

            def slowly():
                time.sleep(0.05)
                return x * 2

            try:
                found.append(device.capture(slowly)().tolist())
            except Exception as error:
                found.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [[2, 2]] * 3


@pytest.mark.parametrize("place", ["begin", "end", "mm"])
def test_a_failed_capture_is_not_tried_again(standin, folder, place):
    error = torch.OutOfMemoryError("CUDA out of memory") if place == "mm" else RuntimeError("CUDA error: operation not permitted")
    if place == "mm":
        real, seen = standin.at, []

        def at(*places):
            if place in places and standin.graph is not None and not seen:
                seen.append(place)
                standin.graph.broken = True
                raise error
            real(*places)

        standin.at = at
    else:
        standin.fail(place, error, after=2)
    engine = load(folder)
    assert verdicts(engine) == [("CUDA graphs", "failed")]
    assert "steps as CUDA graphs" not in engine.model.swapped
    assert not standin.open_pools, "torch's allocator goes on as before"
    captured = standin.counts.captures
    run(engine, lambda engine: texts_are_right(engine, folder))
    assert standin.counts.captures == captured
    assert standin.counts.replays == 0


def test_kernels_of_many_rows_run_once_before_anybody_waits(standin, folder, monkeypatch):
    rows = []
    real = fused.rms_norm
    monkeypatch.setattr(fused, "rms_norm", lambda x, *args: (rows.append(len(x)), real(x, *args))[1])
    monkeypatch.setattr(models, "MANY_ROWS", 200)
    load(folder)
    assert max(rows) == 201


# 6


def test_a_step_after_a_failed_one_goes_on_from_nothing(standin, folder):
    """It was planned ahead of what failed: it must neither read the choice of an earlier step nor reach past its end."""
    engine = load(folder)
    model, steps = engine._model, []
    real = model._step

    def step(batch, before):
        steps.append((len(batch.contexts), any(part.after is not None for part in batch.contexts), before is None))
        return real(batch, before)

    model._step = step

    async def main(engine):
        await texts_are_right(engine, folder)
        standin.fail("replay", RuntimeError("a cuBLAS call failed"))
        await texts_are_right(engine, folder)

    run(engine, main)
    assert any(ahead and nothing for _, ahead, nothing in steps), "some step was planned ahead of the one that failed"


# 7


def test_a_lost_device_gives_the_engine_up(standin, folder):
    engine = load(folder)

    async def main(engine):
        await texts_are_right(engine, folder)
        standin.fail("replay", RuntimeError("CUDA error: an illegal memory access was encountered"), sticky=True)
        first, second = await asyncio.gather(ids_after(engine, [1, 2]), ids_after(engine, [5]), return_exceptions=True)
        for error in (first, second):
            assert isinstance(error, EngineLostError)
            assert "restart the kernel" in str(error)
        with pytest.raises(EngineLostError):
            await ids_after(engine, [1, 2])

    run(engine, main)
    with pytest.raises(EngineLostError, match="restart the kernel"):
        load(folder)


ENDS = """
from functools import partial
from parrot_nb.engine.embedded.failures import lost_device
from parrot_nb.engine.losses import end_when_lost
from parrot_nb.runtime import process
end_when_lost(partial(process.give_up, 6))
lost_device("cuda:0", RuntimeError("CUDA error: an illegal memory access was encountered"))
"""


def test_a_lost_device_ends_the_process_of_a_runtime():
    """The next call starts another, in which CUDA works again."""
    done = subprocess.run([sys.executable, "-c", ENDS], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 6
    assert done.stderr.startswith("cuda:0 computes nothing more for this process, after RuntimeError (CUDA error: an illegal")


def test_an_error_that_does_not_stick_fails_one_call(standin, folder):
    engine = load(folder)

    async def main(engine):
        standin.fail("replay", RuntimeError("CUDA error: out of resources"), times=1)
        await texts_are_right(engine, folder)  # tried again by halves
        standin.fail("replay", RuntimeError("CUDA error: out of resources"), times=2)
        with pytest.raises(EngineError, match="out of resources"):
            await ids_after(engine, [1, 2])
        await texts_are_right(engine, folder)

    run(engine, main)


@pytest.mark.parametrize("token", [-1, 258, 10**9])
def test_tokens_that_the_model_does_not_know_are_refused(standin, folder, token):
    engine = load(folder)

    async def main(engine):
        context = engine.open(PRIORITY)
        with pytest.raises(EngineError, match=f"token {token}, and .* knows those below 258"):
            engine.fill(context, [1, token, 3])
        engine.fill(context, [1, 257])
        engine.free(context)

    run(engine, main)


# 8


def test_loads_at_once_count_no_byte_twice(standin, folder, monkeypatch):
    """What one has measured it takes before another measures."""
    log, measure, allocate = [], placement.free_bytes, models.StepModel.allocate

    def measuring(device):
        log.append(("measured", threading.get_ident()))
        time.sleep(0.1)
        return measure(device)

    def allocating(self, num_pages):
        allocate(self, num_pages)
        log.append(("taken", threading.get_ident()))

    monkeypatch.setattr(placement, "free_bytes", measuring)
    monkeypatch.setattr(models.StepModel, "allocate", allocating)
    engines = []
    threads = [threading.Thread(target=lambda: engines.append(load(folder, kv_memory=None))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    first, second = log[: len(log) // 2], log[len(log) // 2 :]
    assert [what for what, _ in first] == [what for what, _ in second] == ["measured", "measured", "taken"]
    assert len({thread for _, thread in first}) == len({thread for _, thread in second}) == 1
    for engine in engines:
        run(engine, lambda engine: texts_are_right(engine, folder))


# Errors at each place


def test_an_error_at_any_place_fails_a_step_and_no_more(standin, folder):
    engine = load(folder)

    async def main(engine):
        for place in ("launch", "allocate", "copy", "fetch", "event", "wait", "replay"):
            engine.clear_cache()
            standin.fail(place, RuntimeError(f"boom at {place}"), after=2)
            raised = []
            for prompt in PROMPTS:
                try:
                    assert await ids_after(engine, prompt) == reference(folder, prompt, 5)
                except EngineError as error:
                    raised.append(str(error))
            assert all(f"boom at {place}" in text for text in raised)
            await texts_are_right(engine, folder)
        assert all(plan[4] == 0 for plan in standin._plans), "each was raised"

    run(engine, main)
