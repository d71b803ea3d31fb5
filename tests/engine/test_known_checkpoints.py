"""Checkpoints that are read without transformers' model classes are what transformers makes of them; others are left to it."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers as hf
from checkpoints import CONFIGS, PRIORITY, READ_FROM_FILES, SHAPE, VOCAB, change_config, random_checkpoint, reference, run, write
from safetensors.torch import load_file, save_file
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from parrot_kernels import AttentionPlan, ContextRows
from parrot_nb.engine.embedded import linear, load_engine
from parrot_nb.engine.embedded.checkpoint import Rope, known_checkpoint
from parrot_nb.engine.embedded.families import FAMILIES
from parrot_nb.engine.embedded.linear import has_packed_products
from parrot_nb.engine.embedded.step import Run
from parrot_nb.engine.embedded.weights import frequencies
from parrot_nb.engine.protocol import Sampling
from parrot_nb.tiny import default_model

ROOT = Path(__file__).parents[2]
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 5e5, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip
LINEAR = {"rope_type": "linear", "rope_theta": 10000, "factor": 4.0}
MIXED = ["sliding_attention", "full_attention", "sliding_attention"]
VARIANTS = {
    "llama": lambda: hf.LlamaConfig(**SHAPE),
    "llama, tied": lambda: hf.LlamaConfig(**SHAPE, tie_word_embeddings=True),
    "llama, biases": lambda: hf.LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True),
    "llama, wide heads": lambda: hf.LlamaConfig(**SHAPE, head_dim=16),
    "llama, llama3": lambda: hf.LlamaConfig(**SHAPE, rope_parameters=dict(LLAMA3)),
    "llama, linear": lambda: hf.LlamaConfig(**SHAPE, rope_parameters=dict(LINEAR)),
    "qwen2": lambda: hf.Qwen2Config(**SHAPE),
    "qwen2, windows": lambda: hf.Qwen2Config(**SHAPE, use_sliding_window=True, sliding_window=8, max_window_layers=1),
    "qwen3": lambda: hf.Qwen3Config(**SHAPE, head_dim=8),
    "qwen3, biases": lambda: hf.Qwen3Config(**SHAPE, head_dim=16, attention_bias=True, tie_word_embeddings=True),
    "qwen3, windows": lambda: hf.Qwen3Config(
        **SHAPE, head_dim=8, use_sliding_window=True, sliding_window=8, layer_types=MIXED
    ),
    "mistral": lambda: hf.MistralConfig(**SHAPE, sliding_window=8),
    "mistral, no window": lambda: hf.MistralConfig(**SHAPE, sliding_window=None, head_dim=16),
    "phi3": lambda: hf.Phi3Config(**SHAPE),
    "phi3, window": lambda: hf.Phi3Config(**SHAPE, sliding_window=8, tie_word_embeddings=True),
    "gemma": lambda: hf.GemmaConfig(**SHAPE, head_dim=16),
    "gemma2": lambda: hf.Gemma2Config(**SHAPE, head_dim=8, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma2, no bounds": lambda: hf.Gemma2Config(**SHAPE, head_dim=8, sliding_window=8, attn_logit_softcapping=None, final_logit_softcapping=None),
    "gemma3": lambda: hf.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=MIXED, query_pre_attn_scalar=12),
    "gemma3, bias, a head": lambda: hf.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=MIXED, attention_bias=True, tie_word_embeddings=False, final_logit_softcapping=3.0),
    "gemma3, linear": lambda: hf.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=MIXED, rope_parameters={"full_attention": dict(LINEAR), "sliding_attention": {"rope_type": "default", "rope_theta": 100.0}}),
}  # fmt: skip
PROMPT = [(37 * i + i * i) % 256 for i in range(40)]


@pytest.fixture(scope="module", params=VARIANTS)
def variant(request, tmp_path_factory):
    return random_checkpoint(tmp_path_factory.mktemp("variant"), VARIANTS[request.param]())


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of a checkpoint that is known, to change."""
    return shutil.copytree(checkpoints("qwen3"), tmp_path / "model")


def engine_logits(engine, prompt: list[int]) -> torch.Tensor:
    model, size = engine._model, len(prompt)
    plan = AttentionPlan.build([ContextRows(0, size, list(range(1, 20)))], model._page_size, model.device)
    with torch.inference_mode():
        return model._decoder(torch.tensor(prompt), torch.arange(size), Run(plan, model._memory), None)


def closed(engine):
    asyncio.run(engine.close())
    return engine


def read_from_files(engine) -> bool:
    return "model classes" in engine.model.swapped


def by_modules(folder: Path, target: Path, **settings):
    shutil.copytree(folder, target)
    change_config(target, unheard_of=1)
    engine = load_engine(target, name="same", **settings)
    assert not read_from_files(engine)
    return engine


def test_logits_and_greedy_text_are_those_of_transformers(variant):
    model = hf.AutoModelForCausalLM.from_pretrained(variant, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.inference_mode():
        expected = model(torch.tensor([PROMPT])).logits[0]
    engine = load_engine(variant)
    assert read_from_files(engine)
    assert (engine_logits(engine, PROMPT) - expected).abs().max() <= 2e-5 * expected.abs().max()

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPT)
        return (await write(engine, context, Sampling(max_tokens=30, ignore_eos=True)))[1]

    assert list(run(engine, main).token_ids) == [t for t in reference(variant, PROMPT, 30) if t < 256]


@pytest.mark.parametrize("settings", [{}, {"dtype": "bfloat16"}, {"dtype": "float16"}, {"max_context": 64}], ids=str)
def test_what_is_said_of_a_model_is_the_same_either_way(variant, tmp_path, settings):
    ours = closed(load_engine(variant, name="same", **settings))
    theirs = closed(by_modules(variant, tmp_path / "theirs", **settings))
    for field in ("id", "architecture", "num_parameters", "device", "dtype", "max_context_tokens", "note"):
        assert getattr(ours.model, field) == getattr(theirs.model, field), field
    assert ours._starter.eos_ids == theirs._starter.eos_ids
    assert [part for part in ours.model.swapped if part != "model classes"] == list(theirs.model.swapped)


@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("config_says", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("dtype", ["auto", "float16"])
def test_weights_become_what_transformers_makes_them(folder, tmp_path, stored, config_says, dtype):
    weights = {name: tensor.to(stored) for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    change_config(folder, dtype=config_says)
    ours = load_engine(folder, dtype=dtype)
    theirs = by_modules(folder, tmp_path / "theirs", dtype=dtype)
    assert ours.model.dtype == theirs.model.dtype == ("float32" if dtype == "auto" else dtype)
    if dtype == "auto":
        assert torch.equal(engine_logits(ours, PROMPT), engine_logits(theirs, PROMPT))
    for engine in (ours, theirs):
        closed(engine)


def test_shards_older_keys_and_other_files_of_the_model(tmp_path):
    whole = random_checkpoint(tmp_path / "whole", VARIANTS["llama"]())
    shards = random_checkpoint(tmp_path / "shards", VARIANTS["llama"](), max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    change_config(shards, "rope_parameters", "dtype", "head_dim", rope_theta=1e4, rope_scaling=None, torch_dtype="float32")
    change_config(shards, parrot_note="For tests.")
    (shards / "generation_config.json").write_text(json.dumps({"eos_token_id": [3, 4]}))
    engines = [load_engine(whole), load_engine(shards)]
    assert all(read_from_files(engine) for engine in engines)
    assert torch.equal(*(engine_logits(engine, PROMPT) for engine in engines))
    assert [closed(engine).model.architecture for engine in engines] == ["LlamaForCausalLM"] * 2
    assert engines[1]._starter.eos_ids == {3, 4, VOCAB - 1}, "those that the files name, and the tokenizer's"
    assert engines[1].model.note == "For tests."


@pytest.mark.skipif(not has_packed_products(torch.float32), reason="there is no oneDNN here")
def test_weights_of_any_size_are_packed_where_no_plain_copy_stays(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(linear, "PACKED_BYTES", 1000)
    assert "weights laid out for oneDNN" in closed(load_engine(folder)).model.swapped
    assert "weights laid out for oneDNN" not in closed(by_modules(folder, tmp_path / "theirs")).model.swapped


def test_the_model_does_not_change_when_its_file_does(folder):
    engine = load_engine(folder)
    before = engine_logits(engine, PROMPT)
    path = folder / "model.safetensors"
    with path.open("r+b") as file:
        file.write(b"\0" * path.stat().st_size)
    assert torch.equal(engine_logits(engine, PROMPT), before)
    closed(engine)


NOT_KNOWN = {
    "a key nobody knows": {"unheard_of": None},
    "another family": {"model_type": "olmo"},
    "another class": {"architectures": ["Qwen3ForSequenceClassification"]},
    "another activation": {"hidden_act": "gelu"},
    "code of its own": {"auto_map": {"AutoModelForCausalLM": "model.Model"}},
    "quantized": {"quantization_config": {"quant_method": "fp8"}},
    "an adjusted rope": {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0}},
    "a rope setting too many": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "factor": 2.0}},
    "rope said twice": {"rope_theta": 2e4},
    "no base": {"rope_parameters": {"rope_type": "default"}},
    "part of a head turned": {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}},
    "windows that are off": {"layer_types": MIXED},
    "a layer of another kind": {"use_sliding_window": True, "sliding_window": 8, "layer_types": ["linear_attention"] * 3},
    "a size as text": {"hidden_size": "32"},
    "a flag as a number": {"tie_word_embeddings": 0},
    "no number of heads": {"num_attention_heads": 0},
    "heads that do not divide": {"num_key_value_heads": 3},
    "a width that follows from nothing": {"head_dim": None},
    "a dtype of another kind": {"dtype": "float64"},
    "weights missing": {"num_hidden_layers": 4},
    "weights too many": {"num_hidden_layers": 2},
    "a second head": {"tie_word_embeddings": True},
    "weights of another shape": {"vocab_size": 257},
}  # fmt: skip


@pytest.mark.parametrize("changes", NOT_KNOWN.values(), ids=NOT_KNOWN.keys())
def test_what_is_not_understood_is_left_to_transformers(folder, changes):
    assert known_checkpoint(folder) is not None
    change_config(folder, **changes)
    assert known_checkpoint(folder) is None


def test_files_that_are_not_understood_are_left_to_transformers(folder):
    assert known_checkpoint("no/such-folder") is None
    (folder / "adapter_config.json").write_text("{}")
    assert known_checkpoint(folder) is None
    (folder / "adapter_config.json").unlink()
    (folder / "generation_config.json").write_text("{")
    assert known_checkpoint(folder) is None
    (folder / "generation_config.json").unlink()
    assert known_checkpoint(folder) is not None
    weights = folder / "model.safetensors"
    outside = {"weight_map": dict.fromkeys(load_file(weights), "../model/model.safetensors")}
    weights.rename(folder / "model-1.safetensors")
    assert known_checkpoint(folder) is None
    (folder / "model.safetensors.index.json").write_text(json.dumps(outside))
    assert known_checkpoint(folder) is None
    (folder / "model-1.safetensors").rename(weights)
    weights.write_bytes(weights.read_bytes()[:-1])
    assert known_checkpoint(folder) is None


def test_what_is_assumed_where_a_file_says_nothing_is_what_transformers_assumes():
    assert set(FAMILIES) == {CONFIGS[name]().model_type for name in READ_FROM_FILES}
    for name, family in FAMILIES.items():
        config = hf.AutoConfig.for_model(name)
        assert config.eos_token_id == family.eos_token_id
        assert hf.models.auto.modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[name] == family.architecture
        assert hasattr(config, "sliding_window") == ("sliding_window" in family.own_keys)
        assert config.tie_word_embeddings is family.tied
        for flag in ("attention_bias", "mlp_bias", "use_sliding_window"):
            assert getattr(config, flag, False) is False
    assert hf.Phi3Config().sliding_window is None


@pytest.mark.parametrize("name", ["gemma2", "gemma3"])
@pytest.mark.parametrize("pattern", [None, 3])
def test_patterns_and_bases_that_older_files_spell_otherwise(tmp_path, name, pattern):
    deep = SHAPE | {"num_hidden_layers": 7, "head_dim": 8}
    folder = random_checkpoint(tmp_path, (hf.Gemma2Config if name == "gemma2" else hf.Gemma3TextConfig)(**deep))
    bases = {"rope_theta": 5e5, "rope_scaling": None} | ({"rope_local_base_freq": 300.0} if name == "gemma3" else {})
    older = bases | ({"sliding_window_pattern": pattern} if pattern is not None else {})
    change_config(folder, "layer_types", "rope_parameters", "tie_word_embeddings", "_sliding_window_pattern", **older)
    known, config = known_checkpoint(folder), hf.AutoConfig.from_pretrained(folder)
    if name == "gemma2" and pattern is not None:  # a key of another family
        assert known is None
        return
    assert [layer.window is not None for layer in known.sizes.layers] == [t == "sliding_attention" for t in config.layer_types]
    assert known.sizes.tied is config.tie_word_embeddings
    stated = config.rope_parameters
    stated = [stated] if name == "gemma2" else [stated["full_attention"], stated["sliding_attention"]]
    assert [(rope.type, rope.theta) for rope in known.ropes] == [(rope["rope_type"], rope["rope_theta"]) for rope in stated]


@pytest.mark.parametrize("changes", [
    {"query_pre_attn_scalar": None}, {"final_logit_softcapping": 0}, {"attn_logit_softcapping": 5.0}, {"layer_types": ["chunked"] * 3},
    {"use_bidirectional_attention": True}, {"hidden_activation": "silu"}, {"hidden_act": "relu"}, {"sliding_window": None},
    {"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}},
], ids=str)  # fmt: skip
def test_what_is_not_understood_of_another_family_is_left_to_transformers(checkpoints, tmp_path, changes):
    folder = shutil.copytree(checkpoints("gemma3"), tmp_path / "model")
    assert known_checkpoint(folder) is not None
    change_config(folder, **changes)
    assert known_checkpoint(folder) is None


@pytest.mark.parametrize("head_dim", [8, 64, 96, 128])
@pytest.mark.parametrize(
    "parameters", [{"rope_type": "default", "rope_theta": 1e6}, LINEAR, LLAMA3], ids=lambda p: p["rope_type"]
)
def test_frequencies_are_transformers_own_to_the_last_bit(parameters, head_dim):
    settings = {key: value for key, value in parameters.items() if key not in ("rope_type", "rope_theta")}
    found = frequencies(Rope(parameters["rope_type"], parameters["rope_theta"], settings), head_dim)
    config = hf.LlamaConfig(hidden_size=head_dim, num_attention_heads=1, rope_parameters=dict(parameters))
    kind = parameters["rope_type"]
    rotary = hf.models.llama.modeling_llama.LlamaRotaryEmbedding(config)
    assert torch.equal(found, rotary.inv_freq)
    assert kind == "default" or torch.equal(found, ROPE_INIT_FUNCTIONS[kind](config)[0])


CHECK = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Kind, Priority, Sampling
from parrot_nb.tiny import default_model
engine = load_engine(default_model(), device="cpu")
async def main():
    context = engine.open(Priority(Kind.LATENCY))
    engine.fill(context, engine.codec.encode(sys.argv[2]))
    ids = []
    async for piece in engine.generate(context, Sampling(max_tokens=12, ignore_eos=True)):
        ids += piece.end.token_ids if piece.end else []
    await engine.close()
    return ids
ids = asyncio.run(main())
slow = ("torch._dynamo", "torch._inductor", "torch.distributed.tensor", "sympy", "transformers", "huggingface_hub")
sys.stdout.write(f"{ids} {[name for name in slow if name in sys.modules]}")
"""


def test_the_default_model_loads_and_writes_without_what_takes_long_to_import():
    text = "Repeat: Ada Ben Carla red budget Friday small page Emma Finn\nAgain: "
    prompt = hf.AutoTokenizer.from_pretrained(default_model())(text, add_special_tokens=False)["input_ids"]
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    command = [sys.executable, "-c", CHECK, str(Path(__file__).parent), text]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    expected = [token for token in reference(default_model(), prompt, 12) if token > 2]  # three control tokens
    assert len(expected) > 5
    assert done.stdout == f"{expected} []"
