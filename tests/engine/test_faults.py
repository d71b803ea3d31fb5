"""Bad models, bad prompts and failing steps: one sentence each, and nothing lost."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import shutil
import subprocess
import sys
import warnings

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, all_pages_free, byte_tokenizer, change_config, run, write
from safetensors.torch import load_file, save_file

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import (
    ContextLengthError,
    EngineError,
    ModelError,
    ModelLoadError,
    NonFiniteError,
    OutOfMemoryError,
    UnsupportedModelError,
)
from parrot_nb.tiny import default_model

GREEDY = Sampling(max_tokens=5, ignore_eos=True)


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of a good checkpoint, to damage."""
    return shutil.copytree(checkpoints("llama"), tmp_path / "model")


def refused(folder, kind: type[ModelError], *fragments: str, **settings) -> None:
    with pytest.raises(kind) as caught:
        load_engine(folder, **settings)
    message = str(caught.value)
    assert all(fragment in message for fragment in fragments), message
    assert "\n" not in message
    assert len(message) < 400


def test_folders_that_hold_no_usable_model(folder, tmp_path):
    refused(tmp_path / "nowhere", ModelLoadError, "no folder")
    (empty := tmp_path / "empty").mkdir()
    refused(empty, ModelLoadError, "config.json")
    weights = folder / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    refused(folder, ModelLoadError, "damaged")
    weights.write_bytes(b"\xff" * 100)
    refused(folder, ModelLoadError, "damaged")
    weights.unlink()
    refused(folder, ModelLoadError, "no weights")
    torch.save({}, folder / "pytorch_model.bin")
    refused(folder, ModelLoadError, "pickle", "safetensors")


def test_missing_and_misshapen_weights(folder):
    weights = folder / "model.safetensors"
    tensors = load_file(weights)
    name = "model.layers.1.mlp.up_proj.weight"
    save_file({k: v for k, v in tensors.items() if k != name}, weights, metadata={"format": "pt"})
    refused(folder, ModelLoadError, "lacks weights", name)
    save_file({**tensors, name: tensors[name][:3].clone()}, weights, metadata={"format": "pt"})
    refused(folder, ModelLoadError)


def test_no_tokenizer(folder):
    for file in folder.glob("*token*"):
        file.unlink()
    refused(folder, ModelLoadError, "tokenizer")


def test_unusable_settings(folder):
    refused(folder, ModelLoadError, "dtype", dtype="int3")
    refused(folder, ModelLoadError, "device", device="quantum")
    refused(folder, ModelLoadError, "kv_memory", kv_memory="lots")
    refused(folder, ModelLoadError, "too small", kv_memory=10)
    refused(folder, ModelLoadError, "max_context", max_context=0)
    if not torch.cuda.is_available():
        refused(folder, ModelLoadError, "CUDA", device="cuda")


def test_code_that_comes_with_a_model_is_not_run(folder):
    config = json.loads((folder / "config.json").read_text())
    config |= {"auto_map": {"AutoConfig": "evil.Config", "AutoModelForCausalLM": "evil.Model"}, "model_type": "unheard_of"}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "evil.py").write_text("raise SystemExit('was run')")
    refused(folder, ModelLoadError, "--trust-remote-code")


def test_architectures_that_cannot_run_say_why(tmp_path):
    mamba = hf.MambaConfig(vocab_size=258, hidden_size=16, state_size=4, num_hidden_layers=2)
    hf.AutoModelForCausalLM.from_config(mamba).save_pretrained(tmp_path / "mamba")
    byte_tokenizer().save_pretrained(tmp_path / "mamba")
    refused(tmp_path / "mamba", UnsupportedModelError, "Mamba")
    t5 = hf.T5Config(vocab_size=258, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    hf.AutoModelForSeq2SeqLM.from_config(t5).save_pretrained(tmp_path / "t5")
    refused(tmp_path / "t5", UnsupportedModelError, "encoder-decoder")


def test_a_hub_id_without_network():
    code = (
        "from parrot_nb.engine.embedded import load_engine\nfrom parrot_nb.errors import ModelLoadError\nimport sys\n"
        "try: load_engine('nobody/no-such-model')\nexcept ModelLoadError as error: sys.stdout.write(str(error))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**__import__("os").environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "HF_HUB_OFFLINE forbids to fetch it" in done.stdout


def test_text_longer_than_the_context_or_the_memory(folder):
    engine = load_engine(folder, max_context=32)

    async def too_long(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, [1] * 20)
        with pytest.raises(ContextLengthError, match=r"33 tokens.*32"):
            engine.fill(context, [1] * 13)
        _, end = await write(engine, context, Sampling(max_tokens=10**9, ignore_eos=True))
        engine.free(context)
        return end

    end = run(engine, too_long)
    assert (end.decoded_tokens, end.finish) == (12, "length")
    small = load_engine(folder, kv_memory=64 * 1024)

    async def no_room(engine):
        with pytest.raises(ContextLengthError, match="--kv-memory"):
            engine.fill(engine.open(PRIORITY), [1] * 250)

    run(small, no_room)


def test_an_empty_prompt_and_a_freed_context(folder):
    async def main(engine):
        context = engine.open(PRIORITY)
        with pytest.raises(EngineError, match="empty"):
            await write(engine, context, GREEDY)
        engine.free(context)
        engine.free(context)
        with pytest.raises(EngineError, match="freed"):
            engine.fill(context, [1])

    run(load_engine(folder), main)


def test_memory_that_runs_out_at_load_names_the_knob(folder):
    with pytest.raises(OutOfMemoryError, match="--kv-memory"):
        load_engine(folder, kv_memory="900TB")


def test_a_triton_failure_hands_over_to_torch_and_is_noted_once(folder, monkeypatch):
    failure = pytest.importorskip("triton.compiler.errors").CompilationError
    import parrot_kernels
    from parrot_nb.engine.embedded import fused

    engine, was_on = load_engine(folder), parrot_kernels.backend.enabled
    engine._model._tiled = parrot_kernels.TileLimits(8)  # as on a GPU
    real = fused.attention

    def attention(*args, **options):
        if args[3].tiles is not None:
            raise failure("no such instruction", None)
        return real(*args, **options)

    monkeypatch.setattr(fused, "attention", attention)

    async def main(engine):
        texts = []
        for _ in range(2):
            context = engine.open(PRIORITY)
            engine.fill(context, [1, 2, 3])
            texts.append((await write(engine, context, GREEDY))[0])
            engine.free(context)
        return texts

    engine.model = dataclasses.replace(engine.model, swapped=engine._model.swapped)
    assert "Triton kernels" in engine.model.swapped
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # they would be printed into whatever cell runs
        texts = run(engine, main)
    assert texts[0] == texts[1] == run(load_engine(folder), main)[0]
    assert [(v.part, v.outcome) for v in engine.model.verdicts] == [("Triton kernels", "failed")]
    assert "CompilationError" in str(engine.model.verdicts[0])
    assert "Triton kernels" not in engine.model.swapped
    assert parrot_kernels.backend.enabled == was_on, "other engines go on with it"


def test_unknown_optimisations_are_refused(folder):
    refused(folder, ModelLoadError, "no optimisation 'magic'", off=("magic",))


def test_a_decoder_that_computes_otherwise_is_not_replaced(folder, monkeypatch):
    from parrot_nb.engine.embedded import fused

    change_config(folder, unheard_of=1)  # so that transformers' classes are used
    monkeypatch.setattr(fused, "attention", lambda query, *_, **__: query)
    engine = load_engine(folder)
    assert engine.model.swapped == ("attention over shared pages",)
    assert [(verdict.part, verdict.outcome) for verdict in engine.model.verdicts] == [("fused decoder", "refused")]
    monkeypatch.undo()
    engine = load_engine(folder)
    assert "QKV projection" in engine.model.swapped
    assert [verdict.outcome for verdict in engine.model.verdicts] == ["taken"]
    assert load_engine(folder, off=("fused",)).model.swapped == ("attention over shared pages",)


def test_nan_fails_its_own_call_only(folder):
    tensors = load_file(folder / "model.safetensors")
    tensors["model.embed_tokens.weight"][7] = float("nan")
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})

    async def one(engine, prompt):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        try:
            return await write(engine, context, Sampling(max_tokens=2, ignore_eos=True))
        finally:
            engine.free(context)

    async def main(engine):
        bad, good = await asyncio.gather(one(engine, [5, 7, 9]), one(engine, [5, 6, 9]), return_exceptions=True)
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return bad, good

    bad, good = run(load_engine(folder), main)
    assert isinstance(bad, NonFiniteError)
    assert not isinstance(good, BaseException)


def test_leaving_and_freeing_in_the_middle(folder):
    async def main(engine):
        contexts = [engine.open(PRIORITY) for _ in range(4)]
        for context in contexts:
            engine.fill(context, [1, 2, 3])
        streams = [engine.generate(context, Sampling(max_tokens=200, ignore_eos=True)) for context in contexts]
        for stream in streams:
            await anext(stream)
        await streams[0].aclose()
        for context in contexts[:2]:
            engine.free(context)
        with pytest.raises(EngineError, match="freed"):
            async for _ in streams[1]:
                pass
        ended = engine.open(PRIORITY)
        engine.fill(ended, [4])
        await write(engine, ended, GREEDY)
        for context in (*contexts, ended):
            engine.free(context)
        async with asyncio.timeout(10):
            while not all_pages_free(engine):  # noqa: ASYNC110 - the step that ran has to end; nobody is told when
                await asyncio.sleep(0.001)

    run(load_engine(folder), main)


def test_closing_ends_what_runs(folder):
    async def main():
        engine = load_engine(folder)
        context = engine.open(PRIORITY)
        engine.fill(context, [1, 2, 3])
        stream = engine.generate(context, Sampling(max_tokens=200, ignore_eos=True))
        await anext(stream)
        await engine.close()
        with pytest.raises(EngineError, match="closed"):
            async for _ in stream:
                pass
        with pytest.raises(EngineError, match="closed"):
            engine.open(PRIORITY)

    asyncio.run(main())


def test_missing_pad_and_eos_tokens_do_not_matter(folder):
    for name in ("config.json", "generation_config.json", "tokenizer_config.json"):
        settings = json.loads((folder / name).read_text())
        for key in list(settings):
            if key.startswith(("eos_token", "pad_token")):
                del settings[key]
        (folder / name).write_text(json.dumps(settings))

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, [1, 2, 3])
        _, end = await write(engine, context, Sampling(max_tokens=30))
        return end

    assert run(load_engine(folder), main).decoded_tokens > 0


def test_stop_strings_end_the_text_and_the_context_before_them():
    async def main(engine):
        prompt = engine.codec.encode("Repeat: Ada Ben Carla red budget Friday small page Emma Finn\nAgain: ")
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        whole, _ = await write(engine, context, Sampling(max_tokens=20, ignore_eos=True))
        stop = next(whole[i : i + 3] for i in range(12, len(whole)) if whole.find(whole[i : i + 3]) == i)
        again = engine.open(PRIORITY)
        engine.fill(again, prompt)
        text, end = await write(engine, again, Sampling(max_tokens=20, ignore_eos=True, stop=("never seen", stop)))
        assert text == whole[: whole.find(stop)]
        assert end.finish == "stop"
        assert engine._contexts[again].tokens == [*prompt, *end.token_ids]
        assert engine.codec.decode(end.token_ids) == text

    run(load_engine(default_model()), main)
