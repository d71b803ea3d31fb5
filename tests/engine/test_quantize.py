"""Models whose weights are quantised when they are loaded: texts are those of the dequantised weights, and what cannot be is refused."""

from __future__ import annotations

import asyncio
import shutil
import weakref

import gguf
import pytest
import torch
import transformers as hf
from checkpoints import CONFIGS, NUM_BYTES, PRIORITY, byte_tokenizer, change_config, checkpoint, run, write
from gguf_files import random_llama, write_gguf
from safetensors.torch import load_file, save_file
from test_faults import refused

from parrot_nb.engine.embedded import compiled, load_engine, loader, module_weights, quantized_linear, quantizing
from parrot_nb.engine.embedded.compiled import PART
from parrot_nb.engine.embedded.gguf_file import read_gguf_header
from parrot_nb.engine.embedded.gguf_weights import GgufWeights, known_gguf
from parrot_nb.engine.embedded.int_weights import GROUP, Int4Weight, Int8Weight, int4_chunks, int4_rows
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import ModelLoadError

SHARED = [(37 * i + i * i) % 256 for i in range(40)]
PROMPTS = [[*SHARED, 5], [*SHARED, 6, 7], [*SHARED[:20], 8], [9]]
NUM_TOKENS = 20
TIE = 0.12  # of the largest logit: what bfloat16 rounds off in three small layers with large weights; wrong weights miss by 0.3 to 1


def dequantised(folder, target, kind):
    """A checkpoint in float32 of what its weights stand for once they are quantised."""
    shutil.copytree(folder, target)
    tied = hf.AutoConfig.from_pretrained(folder).tie_word_embeddings
    stored = load_file(folder / "model.safetensors")
    for name, weight in stored.items():
        rounded = weight.to(torch.bfloat16).float()
        is_head = "lm_head" in name or (tied and "embed_tokens" in name)
        if ("_proj" in name or is_head) and weight.dim() == 2 and weight.shape[1] % GROUP == 0:
            if kind == "int4" and not is_head:
                rounded = int4_rows(rounded).dequantized()
            else:
                scale = (rounded.abs().amax(1, keepdim=True) / 127).to(torch.bfloat16).float()
                rounded = (rounded / scale).round().clamp(-127, 127) * scale
        stored[name] = rounded.contiguous()
    save_file(stored, target / "model.safetensors", metadata={"format": "pt"})
    return target


def likeliest(folder, **how):
    """A check that each token of a text is the likeliest after those before it, or tied with it, by transformers in float32; as far as
    no control token may have been written, which ids of a text leave out."""
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager", **how).eval()

    def check(prompt, token_ids):
        with torch.inference_mode():
            logits = model(torch.tensor([[*prompt, *token_ids]])).logits[0, len(prompt) - 1 : -1]
        chosen = logits.gather(-1, torch.tensor(token_ids, dtype=torch.int64)[:, None])[:, 0]
        tie = TIE * logits.abs().amax()
        control = (logits.amax(-1) - logits[:, NUM_BYTES : NUM_BYTES + 2].amax(-1) <= tie).nonzero()
        certain = int(control[0]) if len(control) else len(token_ids)
        assert bool((logits.amax(-1) - chosen <= tie)[:certain].all())
        return certain

    return check


async def texts_of(engine, prompts):
    """The ids that are written after prompts, computed at once, up to an end of text."""
    contexts = [engine.open(PRIORITY) for _ in prompts]
    for context, prompt in zip(contexts, prompts, strict=True):
        engine.fill(context, prompt)
    ends = await asyncio.gather(*(write(engine, context, Sampling(NUM_TOKENS)) for context in contexts))
    for context in contexts:
        engine.free(context)
    return [list(end.token_ids) for _, end in ends]


def check_texts(engine, check, prompts=PROMPTS):
    """Write texts at once, and again from what is cached."""

    async def main(engine):
        return [await texts_of(engine, prompts) for _ in range(2)]

    for texts in run(engine, main):
        assert sum(check(prompt, token_ids) for prompt, token_ids in zip(prompts, texts, strict=True)) > NUM_TOKENS


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_a_reader_of_rows_does_not_keep_the_weight_that_was_quantised(kind):
    plain = torch.randn(64, GROUP, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    integers = Int4Weight((64, GROUP), int4_chunks(plain)) if kind == "int4" else Int8Weight(plain)
    head = quantized_linear.QuantizedLinear(integers, None, few_rows=4, dense=None)
    read = head.row_reader(plain)
    if read is None:
        pytest.skip("this machine's layout of int4 weights is read by multiplying")
    kept = weakref.ref(plain)
    del plain
    assert kept() is None
    rows = read(torch.tensor([3, 5]))
    assert rows.dtype == torch.bfloat16
    assert torch.equal(rows, head.weight[[3, 5]].to(torch.bfloat16))


def test_a_decoder_that_cannot_be_quantised_after_its_trial_is_refused(checkpoints, monkeypatch):
    fused_decoder = module_weights.fused_decoder

    def fails(module, **how):
        if "linears" in how:
            raise LookupError("a layer has no weight")
        return fused_decoder(module, **how)

    monkeypatch.setattr(module_weights, "fused_decoder", fails)
    said = "Only fused decoders compute with quantised weights, and a layer has no weight; .* without --quantize"
    with pytest.raises(ModelLoadError, match=said):
        load_engine(checkpoints("llama by modules"), quantize="int8", device="cpu")


def test_the_dense_model_is_gone_when_the_cache_is_sized(checkpoints, monkeypatch):
    fused_decoder, allocated = module_weights.fused_decoder, loader._allocated
    models, layers, alive = [], [], []

    def fused(module, **how):
        alive.append([layer() is not None for layer in layers])
        found = fused_decoder(module, **how)
        if "linears" not in how:
            models.append(weakref.ref(module))
            layers.extend(weakref.ref(layer.qkv) for layer in found.layers)
        return found

    def allocate(*arguments):
        alive.append([kept() is not None for kept in (*models, *layers)])
        return allocated(*arguments)

    monkeypatch.setattr(module_weights, "fused_decoder", fused)
    monkeypatch.setattr(loader, "_allocated", allocate)
    load_engine(checkpoints("llama by modules"), quantize="int8", device="cpu")
    assert alive[0] == []
    assert len(alive[1]) == len(layers) > 0
    assert len(alive[2]) == len(layers) + 1
    assert not any(alive[1] + alive[2])


# By files and by modules; with biases, norms of heads, tied embeddings, soft caps, joined weights.
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        *((name, "int4") for name in ("llama", "llama by modules", "qwen2", "qwen3", "gemma2", "phi3")),
        ("gemma2", "int8"),
        ("qwen2", "int8"),
    ],
)
def test_texts_are_those_of_the_dequantised_weights(checkpoints, tmp_path, name, kind):
    folder = checkpoints(name)
    reference = dequantised(folder, tmp_path / "reference", kind)
    engine = load_engine(folder, quantize=kind, device="cpu", page_size=4, max_step_tokens=16)
    assert engine.model.dtype == "bfloat16"
    assert kind in engine.model.quantized
    assert "3 stay in bfloat16" in engine.model.quantized, "rows of 48 are no whole groups"
    check_texts(engine, likeliest(reference))


def test_little_memory_keeps_no_copy_and_long_prompts_are_read_by_tiles(checkpoints, tmp_path, monkeypatch):
    monkeypatch.setattr(quantizing, "free_bytes", lambda _device: 1000)
    monkeypatch.setattr(quantized_linear, "MANY_ROWS", 32)
    engine = load_engine(checkpoints("llama"), quantize="int4", device="cpu")
    assert "no bfloat16 beside them" in engine.model.quantized
    reference = dequantised(checkpoints("llama"), tmp_path / "reference", "int4")
    check_texts(engine, likeliest(reference), [[*SHARED, *SHARED], *PROMPTS])


def test_drafts_and_little_room_for_keys_and_values_change_no_more_than_roundings(checkpoints, tmp_path):
    reference = dequantised(checkpoints("llama"), tmp_path / "reference", "int4")
    repeated = [[*b"one two three one two three one two three one two ", i] for i in range(3)]
    engine = load_engine(checkpoints("llama"), quantize="int4", device="cpu", page_size=4, kv_memory=4 * 24 * 400)
    check_texts(engine, likeliest(reference), repeated)


@pytest.mark.parametrize("kind", ["int4", "int8"])
def test_reproducible_texts_are_the_same_alone_and_beside_others(checkpoints, kind):
    """Steps of always as many rows; `load_engine` refuses machines on which products depend on other rows all the same."""
    engine = load_engine(checkpoints("llama"), quantize=kind, device="cpu", page_size=4, max_step_tokens=16, reproducible=True)

    async def main(engine):
        beside = await texts_of(engine, PROMPTS)
        return beside, [(await texts_of(engine, [prompt]))[0] for prompt in PROMPTS]

    beside, alone = run(engine, main)
    assert beside == alone
    assert sum(map(len, alone)) > NUM_TOKENS


@pytest.mark.minutes
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("c++") is None, reason="needs a C++ compiler")
@pytest.mark.skipif(not compiled.may_compile_anywhere(), reason="this torch compiles for one engine of a process")
def test_compiled_layers_call_the_products_of_integers(tmp_path, monkeypatch):
    """All matrices are quantised, and so none is copied."""
    folder = random_llama(tmp_path / "llama")
    shutil.copytree(
        checkpoint(tmp_path / "other", "llama"),
        folder,
        dirs_exist_ok=True,
        ignore=lambda _, names: [n for n in names if "token" not in n],
    )
    monkeypatch.setattr("parrot_nb.engine.embedded.model.PACKED_BYTES", 0)
    engine = load_engine(folder, quantize="int4", device="cpu", compile=True)
    assert PART in engine.model.swapped
    reference = dequantised(folder, tmp_path / "reference", "int4")
    check_texts(engine, likeliest(reference))


@pytest.mark.parametrize("kind", [gguf.GGMLQuantizationType.Q4_0, gguf.GGMLQuantizationType.Q4_1])
def test_blocks_of_a_gguf_file_keep_their_bits(tmp_path, kind):
    file = write_gguf(tmp_path / "tiny.gguf", random_llama(tmp_path / "llama"), quantisation=kind)
    config = hf.AutoConfig.from_pretrained(tmp_path, gguf_file=file.name)
    known = known_gguf(read_gguf_header(file), config)
    weights = GgufWeights(known, torch.bfloat16, torch.device("cpu"))
    theirs = hf.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32).state_dict()
    names = [name.removesuffix(".weight") for name, shape in known.shapes.items() if len(shape) == 2]
    assert len(names) == 16
    for name in names:
        parts = list(weights.int4_blocks(name))
        exact = torch.cat([part.dequantized() for part in parts])
        torch.testing.assert_close(exact, theirs[f"{name}.weight"], rtol=1e-6, atol=1e-7)
        kept = Int4Weight(known.shapes[f"{name}.weight"], parts)
        assert torch.equal(kept.levels(torch.arange(exact.shape[0])), torch.cat([part.levels for part in parts]))
    engine = load_engine(file, quantize="int4", device="cpu")
    assert "9 of 9 keep the file's own levels" in engine.model.quantized
    check_texts(engine, likeliest(tmp_path, gguf_file=file.name))


def test_blocks_of_another_type_are_rounded_to_int4(tmp_path):
    file = write_gguf(tmp_path / "tiny.gguf", random_llama(tmp_path / "llama"), quantisation=gguf.GGMLQuantizationType.Q8_0)
    engine = load_engine(file, quantize="int4", device="cpu")
    assert "int4" in engine.model.quantized
    assert "own levels" not in engine.model.quantized
    assert "the head as int8" in engine.model.quantized
    assert any(run(engine, lambda engine: texts_of(engine, PROMPTS)))


def test_texts_of_other_weights_are_not_taken_for_one_another(checkpoints):
    found = set()
    for kind in ("none", "int8", "int4"):
        engine = load_engine(checkpoints("llama"), dtype="bfloat16", quantize=kind, device="cpu")
        found.add(engine.model.fingerprint)
        assert bool(engine.model.quantized) == (kind != "none")
        asyncio.run(engine.close())
    assert len(found) == 3


@pytest.mark.parametrize(
    ("settings", "fragments"),
    [
        ({"quantize": "int3"}, ("'int3'", "none, int8, int4")),
        ({"quantize": "int4", "dtype": "float32"}, ("bfloat16", "float32", "--dtype")),
        ({"quantize": "int8", "off": ("fused",)}, ("fused decoder", "--off fused")),
    ],
)
def test_settings_that_do_not_go_together(checkpoints, settings, fragments):
    refused(checkpoints("llama"), ModelLoadError, *fragments, device="cpu", **settings)


def test_a_gpu_is_refused():
    with pytest.raises(ModelLoadError, match="on a CPU only, not on cuda:0"):
        quantizing.find_quantize("int4", torch.device("cuda", 0), "auto", held=False, off=())


def test_a_model_without_a_fused_decoder(checkpoints):
    refused(
        checkpoints("gpt2"),
        ModelLoadError,
        "Only fused decoders",
        "GPT2LMHeadModel",
        "without --quantize",
        device="cpu",
        quantize="int8",
    )


def test_a_checkpoint_that_is_quantised_already(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "model")
    change_config(folder, quantization_config={"quant_method": "fp8", "weight_block_size": [64, 64]})
    refused(folder, ModelLoadError, "quantised already, by fp8", "without --quantize", device="cpu", quantize="int4")


def test_a_model_that_is_held():
    model = hf.AutoModelForCausalLM.from_config(CONFIGS["llama"](), dtype=torch.bfloat16)
    with pytest.raises(ModelLoadError, match="with its own weights: leave out quantize"):
        load_engine(model, tokenizer=byte_tokenizer(), quantize="int4")


def test_a_torch_without_these_products(checkpoints, monkeypatch):
    monkeypatch.setattr("parrot_nb.engine.embedded.int_weights.INT8_MATMUL", "_no_such_product")
    refused(checkpoints("llama"), ModelLoadError, "multiplies no int8 weights", "--quantize", device="cpu", quantize="int8")
