"""GGUF files: the model in them is the one that they were made from, and what cannot be read is refused in one sentence."""

from __future__ import annotations

import shutil
import struct
import sys

import gguf
import pytest
import torch
import transformers as hf
from checkpoints import greedy, random_checkpoint, reference, run
from gguf_files import CHAT_TEMPLATE, random_llama, write_gguf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_faults import refused

from parrot_nb.engine.embedded import gguf_file, load_engine, pretrained
from parrot_nb.engine.embedded.gguf_file import ARRAY, STRING, read_gguf_header
from parrot_nb.engine.embedded.gguf_reader import SharedReader
from parrot_nb.engine.embedded.gguf_weights import known_gguf
from parrot_nb.errors import ModelError, ModelLoadError, UnsupportedModelError

PROMPT = [(37 * i + i * i) % 256 for i in range(40)]
NUM_TOKENS = 24
LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 1e4, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}  # fmt: skip


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return random_llama(tmp_path_factory.mktemp("llama"))


@pytest.fixture(scope="module")
def good(llama, tmp_path_factory):
    return write_gguf(tmp_path_factory.mktemp("gguf") / "tiny.gguf", llama)


@pytest.fixture
def file(good, tmp_path):
    """A copy of a good file, to damage."""
    return shutil.copy(good, tmp_path / "tiny.gguf")


def writable(tokens: list[int]) -> list[int]:
    return [token for token in tokens if token not in (256, 257)]


def test_the_text_is_that_of_the_checkpoint_it_was_made_from(llama, good):
    engine = load_engine(good)
    assert engine.model.architecture == "LlamaForCausalLM"
    assert engine.model.dtype == "float32"
    assert engine.model.max_context_tokens == 256
    assert "model classes" in engine.model.swapped, "it is read without transformers' modules"
    assert greedy(engine, PROMPT, NUM_TOKENS) == writable(reference(llama, PROMPT, NUM_TOKENS))


def test_a_folder_with_one_file_and_a_link_to_it(llama, good, tmp_path, capfd):
    expected = writable(reference(llama, PROMPT, 6))
    assert greedy(load_engine(good.parent), PROMPT, 6) == expected
    (tmp_path / "link.gguf").symlink_to(good)
    assert greedy(load_engine(tmp_path / "link.gguf"), PROMPT, 6) == expected
    assert "GGUF tensors" not in capfd.readouterr().err, "no bar of transformers"


def test_blocks_are_dequantised_to_what_gguf_says_they_are(llama, tmp_path):
    kind = gguf.GGMLQuantizationType.Q8_0
    file = write_gguf(tmp_path / "q8.gguf", llama, quantisation=kind)
    model = hf.AutoModelForCausalLM.from_pretrained(llama)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() == 2:
                weight.copy_(torch.from_numpy(gguf.dequantize(gguf.quantize(weight.numpy(), kind), kind)))
    model.save_pretrained(tmp_path / "rounded")
    assert greedy(load_engine(file), PROMPT, NUM_TOKENS) == writable(reference(tmp_path / "rounded", PROMPT, NUM_TOKENS))


SIZES = {
    "vocab_size": 259, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 7, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 16, "max_position_embeddings": 256, "initializer_range": 0.25, "bos_token_id": 256,
    "eos_token_id": 257, "pad_token_id": None,
}  # fmt: skip
FAMILIES = {
    "qwen2": lambda: hf.Qwen2Config(**SIZES),
    "qwen3": lambda: hf.Qwen3Config(**SIZES | {"head_dim": 128}),
    "gemma2": lambda: hf.Gemma2Config(**SIZES, sliding_window=8),
    "gemma3": lambda: hf.Gemma3TextConfig(**SIZES, sliding_window=8),
}  # fmt: skip


@pytest.mark.parametrize("name", FAMILIES)
def test_other_families_are_read_as_transformers_reads_them(tmp_path, name):
    checkpoint = random_checkpoint(tmp_path / "checkpoint", FAMILIES[name]())
    file = write_gguf(tmp_path / "tiny.gguf", checkpoint, architecture=name, quantisation=gguf.GGMLQuantizationType.BF16)
    theirs = hf.AutoModelForCausalLM.from_pretrained(tmp_path, gguf_file=file.name, dtype=torch.float32, **dequantised())
    theirs.generation_config.eos_token_id = None
    engine = load_engine(file, dtype="float32")
    assert "model classes" in engine.model.swapped
    ids = torch.tensor([PROMPT])
    settings = {"max_new_tokens": NUM_TOKENS, "do_sample": False, "pad_token_id": 0}
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), **settings)
    assert greedy(engine, PROMPT, NUM_TOKENS) == writable(expected[0, len(PROMPT) :].tolist())


def dequantised() -> dict:
    return {"quantization_config": hf.GgufConfig(dequantize=True)} if hasattr(hf, "GgufConfig") else {}


def test_a_file_that_is_not_understood_is_left_to_transformers(llama, tmp_path):
    def known(file):
        config = hf.AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
        return known_gguf(read_gguf_header(file), config) is not None

    assert known(write_gguf(tmp_path / "good.gguf", llama))
    assert not known(write_gguf(tmp_path / "factors.gguf", llama, factors=[1.0] * 5)), "of other heads"
    other = random_llama(tmp_path / "other", mlp_bias=True)
    assert not known(write_gguf(tmp_path / "biases.gguf", other)), "weights that the config does not tell of"


def test_the_shared_reader_reads_what_the_packages_own_reads(good):
    own = gguf.GGUFReader(good)
    with SharedReader().used():
        found = gguf.GGUFReader(good)
        assert gguf.GGUFReader(str(good)) is found, "one reader serves all"
    assert type(gguf.GGUFReader(good)) is type(own), "outside nothing is changed"
    assert list(found.fields) == list(own.fields)
    assert any(field.types[-2:] == [ARRAY, STRING] for field in own.fields.values())
    for field, expected in zip(found.fields.values(), own.fields.values(), strict=True):
        assert (field.offset, field.data, field.types) == (expected.offset, expected.data, expected.types)
        for part, same in zip(field.parts, expected.parts, strict=True):
            assert (part.dtype, part.shape) == (same.dtype, same.shape)
            assert (part == same).all()
    for tensor, expected in zip(found.tensors, own.tensors, strict=True):
        assert tensor.name == expected.name
        assert (tensor.data == expected.data).all()


def test_a_files_header_is_read_once_by_the_package(good, monkeypatch):
    opened = []
    own = gguf.GGUFReader.__init__
    monkeypatch.setattr(gguf.GGUFReader, "__init__", lambda self, *where: (opened.append(where), own(self, *where))[1])
    assert greedy(load_engine(good), PROMPT, 1)
    assert len(opened) == 1


def test_tokenizer_and_chat_template_come_from_the_file(good):
    engine = load_engine(good)
    text = "Hello {w}örld"
    assert engine.codec.decode(engine.codec.encode(text)) == text
    assert engine.codec._tokenizer.chat_template == CHAT_TEMPLATE
    assert engine._starter.eos_ids == {257}

    async def nothing(_):
        return None

    run(engine, nothing)


def test_scaled_frequencies_are_not_lost(tmp_path):
    checkpoint = random_llama(tmp_path / "llama3", rope_parameters=LLAMA3)
    scaled = hf.AutoModelForCausalLM.from_pretrained(checkpoint).model.rotary_emb.inv_freq
    plain = 1.0 / 1e4 ** (torch.arange(0, 16, 2) / 16)
    file = write_gguf(tmp_path / "llama3.gguf", checkpoint, factors=(plain / scaled).tolist())
    expected = writable(reference(checkpoint, PROMPT, NUM_TOKENS))
    assert greedy(load_engine(file), PROMPT, NUM_TOKENS) == expected
    assert greedy(load_engine(write_gguf(tmp_path / "plain.gguf", checkpoint)), PROMPT, NUM_TOKENS) != expected, (
        "the factors matter"
    )
    refused(write_gguf(tmp_path / "x.gguf", checkpoint, factors=[1.0] * 5), UnsupportedModelError, "scales its positions")


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_file_of_no_dtype_gets_what_suits_the_model_and_the_machine(monkeypatch, good, dtype):
    monkeypatch.setattr(pretrained, "SMALL_MODEL_PARAMETERS", 10)
    monkeypatch.setattr(pretrained, "has_bfloat16", lambda _: dtype == "bfloat16")
    engine = load_engine(good, off=("fused",))
    assert engine.model.dtype == dtype

    async def nothing(_):
        return None

    run(engine, nothing)


def test_several_files_are_named(good, tmp_path):
    for name in ("a.Q4_K_M.gguf", "b.Q8_0.gguf"):
        shutil.copy(good, tmp_path / name)
    refused(tmp_path, ModelLoadError, "'a.Q4_K_M.gguf'", "'b.Q8_0.gguf'", "several GGUF files")


def test_files_that_are_no_whole_language_model(llama, tmp_path):
    def made(name, **changes):
        return write_gguf(tmp_path / name, llama, **changes)

    refused(made("part.gguf", values={"split.count": 3}), ModelLoadError, "split into 3", "merge")
    refused(made("eyes.gguf", values={"general.type": "mmproj"}), UnsupportedModelError, "no language model")
    refused(made("mute.gguf", tokenizer=False), ModelLoadError, "no tokenizer")
    yarn = {"llama.rope.scaling.type": "yarn"}
    refused(made("yarn.gguf", values=yarn), UnsupportedModelError, "yarn", "safetensors folder")
    refused(made("odd.gguf", architecture="odd"), UnsupportedModelError, "odd.gguf'", "architecture odd is not supported yet")
    refused(tmp_path / "nowhere.gguf", ModelLoadError, "no folder")


def test_damaged_files(file):
    whole = file.read_bytes()
    file.write_bytes(whole[:-64])
    refused(file, ModelLoadError, "damaged or cut short")
    file.write_bytes(whole[: len(whole) // 100])
    refused(file, ModelLoadError, "damaged or cut short")
    file.write_bytes(b"")
    refused(file, ModelLoadError, "damaged or cut short")
    file.write_bytes(b"PK\3\4" + whole[4:])
    refused(file, ModelLoadError, "not a GGUF file")
    file.write_bytes(whole[:4] + struct.pack("<I", 9) + whole[8:])
    refused(file, ModelLoadError, "version 9")


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_header_with_any_bytes_changed_is_read_or_refused(file, good, data):
    whole = bytearray(good.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, 4000))
        whole[at : at + 8] = data.draw(st.binary(min_size=8, max_size=8))
    file.write_bytes(bytes(whole))
    try:
        header = read_gguf_header(file)
    except ModelError:
        return
    assert header.tensors


def test_without_the_packages_one_sentence_says_how_to_get_them(good, monkeypatch):
    real = gguf_file.find_spec
    monkeypatch.setattr(gguf_file, "find_spec", lambda name: None if name == "gguf" else real(name))
    refused(good, ModelLoadError, "needs the package gguf", 'pip install "parrot-nb[gguf]"')
    assert "gguf" in sys.modules
