"""Layers that torch.compile made: the same logits and texts as without it, and a model that runs where it fails."""

from __future__ import annotations

import gc
import re
import shutil

import pytest
import torch
from checkpoints import PRIORITY, all_pages_free, reference, run, text_after, write

from parrot_nb.engine.embedded import compiled, load_engine, model, placement
from parrot_nb.engine.embedded.compiled import PART
from parrot_nb.engine.embedded.linear import GatedLinear, Linear, has_packed_products
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineError, OutOfMemoryError

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="needs a C++ compiler"),
    pytest.mark.skipif(not compiled.may_compile_anywhere(), reason="this torch compiles for one engine of a process"),
]
PROMPTS = [[7, 50, 99, 200, 3, 18, 77], [5], list(range(20, 60))]
NUM_TOKENS = 12


@pytest.mark.parametrize("dtype", ["bfloat16", pytest.param("float32", marks=pytest.mark.minutes)])
def test_they_are_taken_with_figures_and_refused_if_they_compute_otherwise(checkpoints, monkeypatch, dtype):
    if not has_packed_products(getattr(torch, dtype)):
        pytest.skip("the compiler needs oneDNN's products, and fails where this machine lacks them")
    engine = load_engine(checkpoints("llama"), dtype=dtype, compile=True)
    assert "%" in verdict(engine, "taken")
    run(engine, nothing)
    monkeypatch.setattr(compiled, "_rotated", lambda x, cos, sin: x)
    engine = load_engine(checkpoints("llama"), dtype=dtype, compile=True)
    assert PART not in engine.model.swapped
    assert "%" in verdict(engine, "refused")
    run(engine, nothing)


# With norms of heads; with bounds of scores and logits; with windows, norms after products and two rotary embeddings.
@pytest.mark.parametrize("name", ["qwen3", *(pytest.param(name, marks=pytest.mark.minutes) for name in ("gemma2", "gemma3"))])
def test_greedy_texts_are_those_of_generate_and_no_step_is_compiled(checkpoints, name):
    folder = checkpoints(name)
    engine = load_engine(folder, dtype="float32", compile=True, page_size=4, max_step_tokens=16)
    assert PART in engine.model.swapped
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]

    async def main(engine):
        contexts = [engine.open(PRIORITY) for _ in PROMPTS]
        for context, prompt in zip(contexts, PROMPTS, strict=True):
            engine.fill(context, prompt)
        found = [await write(engine, context, Sampling(NUM_TOKENS, ignore_eos=True)) for context in contexts]
        for context in contexts:
            engine.free(context)
        assert all_pages_free(engine)
        return [list(end.token_ids) for _, end in found]

    expected = [[token for token in reference(folder, prompt, NUM_TOKENS) if token < 256] for prompt in PROMPTS]
    assert run(engine, main) == expected
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


@pytest.mark.minutes
def test_no_step_is_compiled_after_loading(checkpoints, monkeypatch):
    engine = load_engine(checkpoints("qwen3"), dtype="float32", compile=True, page_size=4)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]

    async def main(engine):
        for size in (1, 2, 9, 40):
            context = engine.open(PRIORITY)
            engine.fill(context, list(range(size)))
            await write(engine, context, Sampling(3, ignore_eos=True))
            engine.free(context)

    run(engine, main)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


@pytest.mark.minutes
def test_engines_do_not_use_up_what_the_compiler_grants_one(checkpoints, monkeypatch):
    """A step of one row and one of several are two of the eight that it grants: without lowering that it takes five engines."""
    monkeypatch.setattr(torch._dynamo.config._config["recompile_limit"], "default", 2)  # in all threads

    async def main(engine):
        ends = []
        for prompt in PROMPTS:
            context = engine.open(PRIORITY)
            engine.fill(context, prompt)
            ends.append((await write(engine, context, Sampling(NUM_TOKENS, ignore_eos=True)))[1])
            engine.free(context)
        return [list(end.token_ids) for end in ends]

    engines = [load_engine(checkpoints("llama"), number=i, compile=True, page_size=4) for i in range(2)]
    assert all(PART in engine.model.swapped for engine in engines)
    expected = [[t for t in reference(checkpoints("llama"), prompt, NUM_TOKENS) if t < 256] for prompt in PROMPTS]
    assert [run(engine, main) for engine in engines] == [expected] * 2


@pytest.mark.minutes
def test_a_failure_below_compiled_layers_is_told_as_what_it_is(checkpoints, monkeypatch):
    """C++ between us and the operation keeps nothing of it but that there was one."""
    engine = load_engine(checkpoints("llama"), dtype="float32", compile=True, page_size=4)
    assert PART in engine.model.swapped
    real = compiled.attention

    async def one(engine):
        return await text_after(engine, PROMPTS[0], Sampling(NUM_TOKENS, ignore_eos=True))

    async def main(engine):
        expected = await one(engine)
        engine.clear_cache()
        for error, kind, told in (
            (ValueError("boom"), EngineError, "ValueError: boom"),
            (torch.OutOfMemoryError("no"), OutOfMemoryError, "--kv-memory"),
        ):
            monkeypatch.setattr(compiled, "attention", lambda *_, error=error, **__: (_ for _ in ()).throw(error))
            with pytest.raises(kind, match=told):
                await one(engine)
            monkeypatch.setattr(compiled, "attention", real)
            assert await one(engine) == expected
        assert all_pages_free(engine)

    run(engine, main)


@pytest.mark.minutes
def test_an_older_torch_compiles_for_one_engine_of_a_process(checkpoints, monkeypatch):
    monkeypatch.setattr(compiled, "ANY_THREAD_SINCE", (99, 0))
    monkeypatch.setattr(compiled, "_thread", None)
    first = load_engine(checkpoints("llama"), dtype="float32", compile=True, page_size=4)
    assert PART in first.model.swapped
    second = load_engine(checkpoints("llama"), dtype="float32", compile=True, page_size=4)
    assert PART not in second.model.swapped
    assert "for one engine of a process" in verdict(second, "unavailable")


def test_an_operation_of_the_compilers_own_that_fails_is_taken_for_want_of_memory():
    with pytest.raises(MemoryError, match="want of memory"), compiled._computing({}, {}, None):
        raise RuntimeError("aoti_torch_cpu__linear_pointwise(buf15) API call failed at main.cpp, line 3")
    with pytest.raises(RuntimeError, match="else"), compiled._computing({}, {}, None):
        raise RuntimeError("something else")


@pytest.mark.minutes
@pytest.mark.skipif(not has_packed_products(torch.float32), reason="there is no oneDNN here")
def test_the_copies_that_were_laid_out_before_are_let_go(checkpoints):
    """The compiler lays out its own: three of each weight would take what was given to the cache."""
    before = packed()
    engine = load_engine(checkpoints("llama"), compile=True)
    assert PART in engine.model.swapped
    assert packed() - before == 1, "the one of the output layer, which is not compiled"
    plain = load_engine(checkpoints("llama"))
    assert packed() - before == 2 + 4 * 3, "the test sees those of a decoder that is not compiled"
    for loaded in (engine, plain):
        run(loaded, nothing)


def packed() -> int:
    """How many matrices have a copy for oneDNN."""
    gc.collect()
    return sum(type(item) in (Linear, GatedLinear) and item.is_packed for item in gc.get_objects())


def verdict(engine, outcome: str) -> str:
    """The one of such an outcome on compiled layers, in words."""
    (found,) = [v for v in engine.model.verdicts if v.part == PART]
    assert found.outcome == outcome
    return str(found)


async def nothing(engine) -> None:
    pass


@pytest.mark.minutes
def test_the_cache_gets_a_share_of_what_the_compiler_leaves(checkpoints, monkeypatch):
    done = []
    measure, compile_layers = placement.free_bytes, torch.compile
    monkeypatch.setattr(placement, "free_bytes", lambda device: (done.append("measured"), measure(device))[1])
    monkeypatch.setattr(torch, "compile", lambda *args, **how: (done.append("compiled"), compile_layers(*args, **how))[1])
    run(load_engine(checkpoints("llama"), compile=True), nothing)
    assert done == ["compiled", "measured"]


def test_no_copy_is_made_of_a_model_for_which_it_is_too_large(checkpoints, monkeypatch):
    monkeypatch.setattr(model, "PACKED_BYTES", 1000)
    monkeypatch.setattr(torch, "compile", lambda *arguments, **settings: pytest.fail("it was compiled"))
    engine = load_engine(checkpoints("llama"), compile=True)
    assert PART not in engine.model.swapped
    assert re.search(r"torch.compile would copy \d+\.\d GB of weights", verdict(engine, "unavailable"))
    run(engine, nothing)


def test_what_cannot_be_compiled_runs_as_it_is(checkpoints, monkeypatch):
    engine = load_engine(checkpoints("gpt2"), compile=True)
    assert PART not in engine.model.swapped
    assert "for a fused decoder on a CPU" in verdict(engine, "unavailable")

    def fail(*arguments, **settings):
        raise RuntimeError("no compiler\nat all")

    monkeypatch.setattr(torch, "compile", lambda *arguments, **settings: fail)
    engine = load_engine(checkpoints("llama"), compile=True)
    assert PART not in engine.model.swapped
    assert "torch.compile raised RuntimeError (no compiler)" in verdict(engine, "failed")

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPTS[0])
        return (await write(engine, context, Sampling(NUM_TOKENS, ignore_eos=True)))[1]

    assert list(run(engine, main).token_ids) == [t for t in reference(checkpoints("llama"), PROMPTS[0], NUM_TOKENS) if t < 256]
