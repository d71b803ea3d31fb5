"""What is no language model is refused in one sentence with the remedy, and foreign messages are quoted whole."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, SHAPE, byte_tokenizer, change_config, random_checkpoint, run, write
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file
from test_faults import refused

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.refusals import MAX_QUOTE_CHARS, explained, quoted
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import ModelLoadError, UnsupportedModelError

TINY = {"vocab_size": 258, "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
PROMPT = [(37 * i + i * i) % 256 for i in range(30)]


@pytest.fixture
def folder(checkpoints, tmp_path):
    """A copy of a good checkpoint, to damage."""
    return shutil.copytree(checkpoints("llama"), tmp_path / "model")


def saved(folder, model):
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return folder


def test_encoders_classifiers_and_models_without_a_head(tmp_path):
    bert = hf.BertConfig(**TINY)
    refused(
        saved(tmp_path / "masked", hf.BertForMaskedLM(bert)), UnsupportedModelError, "encoder", "BertForMaskedLM", "ForCausalLM"
    )
    refused(saved(tmp_path / "classes", hf.BertForSequenceClassification(bert)), UnsupportedModelError, "classifier of texts")
    refused(saved(tmp_path / "vectors", hf.BertModel(bert)), UnsupportedModelError, "embeddings", "BertModel")
    llama = hf.LlamaConfig(**TINY)
    refused(saved(tmp_path / "llama", hf.LlamaModel(llama)), UnsupportedModelError, "LlamaModel")
    refused(saved(tmp_path / "judge", hf.LlamaForSequenceClassification(llama)), UnsupportedModelError, "classifier of texts")
    vision = hf.ViTConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, image_size=8, patch_size=4
    )
    refused(saved(tmp_path / "vit", hf.ViTForImageClassification(vision)), UnsupportedModelError, "classifier of images")
    t5 = hf.T5Config(vocab_size=258, d_model=16, d_kv=4, d_ff=16, num_layers=1, num_heads=2)
    refused(saved(tmp_path / "t5", hf.T5ForConditionalGeneration(t5)), UnsupportedModelError, "encoder-decoder")


def test_the_text_part_of_a_multimodal_model_is_served_where_transformers_loads_it(tmp_path):
    text = hf.Gemma3TextConfig(**{**SHAPE, "pad_token_id": 0}, head_dim=8, sliding_window=8)
    eyes = {
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 8,
        "patch_size": 4,
    }
    config = hf.Gemma3Config(text_config=text.to_dict(), vision_config=eyes, mm_tokens_per_image=4, image_token_index=250)
    torch.manual_seed(0)
    model = hf.Gemma3ForConditionalGeneration(config).eval()
    folder = saved(tmp_path / "gemma3", model)
    model.generation_config.eos_token_id = None
    prompt = [token for token in PROMPT if token != 250]
    ids = torch.tensor([prompt])
    expected = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False, pad_token_id=0)

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        return (await write(engine, context, Sampling(max_tokens=12, ignore_eos=True)))[1]

    end = run(load_engine(folder), main)
    assert list(end.token_ids) == [token for token in expected[0, len(prompt) :].tolist() if token < 256]


def test_a_multimodal_model_that_transformers_does_not_load_as_text(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "blip", "architectures": ["BlipForConditionalGeneration"]}))
    save_file({"a": torch.zeros(1)}, tmp_path / "model.safetensors")
    refused(tmp_path, UnsupportedModelError, "multimodal", "BlipForConditionalGeneration")


def test_folders_of_other_programs(folder, tmp_path):
    def made(name, *files):
        for file in files:
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text("{}")
        return tmp_path / name

    (tmp_path / "empty").mkdir()
    refused(tmp_path / "empty", ModelLoadError, "is empty")
    refused(made("painter", "model_index.json", "unet/config.json"), UnsupportedModelError, "diffusers", "language model")
    refused(made("vectors", "modules.json", "config.json", "model.safetensors"), UnsupportedModelError, "sentence-transformers")
    refused(made("run", "checkpoint-10/config.json", "checkpoint-20/config.json"), ModelLoadError, "checkpoint-20")
    refused(made("meta", "consolidated.00.pth", "params.json"), ModelLoadError, "maker's own format")
    refused(made("jax", "config.json", "flax_model.msgpack"), ModelLoadError, "only Flax weights")
    cache = made("models--acme--smol", "snapshots/abc/config.json", "refs/main")
    refused(cache, ModelLoadError, "hub's cache of 'acme/smol'", "give that id")
    (folder / "config.json").write_text("{broken")
    refused(folder, ModelLoadError)


def test_files_that_are_no_folders(folder, tmp_path):
    refused(folder / "model.safetensors", ModelLoadError, "single file", "folder")
    torch.save({}, tmp_path / "model.pt")
    refused(tmp_path / "model.pt", ModelLoadError, "pickle")
    (tmp_path / "model.txt").write_text("x")
    refused(tmp_path / "model.txt", ModelLoadError, "no model file")


def test_files_outside_the_folder_are_not_read(folder, tmp_path):
    weights = folder / "model.safetensors"
    weights.rename(tmp_path / "elsewhere.safetensors")
    weights.symlink_to(tmp_path / "elsewhere.safetensors")
    refused(folder, ModelLoadError, "points outside that folder", "copy the file")
    weights.unlink()
    (tmp_path / "elsewhere.safetensors").rename(folder / "part.safetensors")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "../other.safetensors"}}))
    refused(folder, ModelLoadError, "'../other.safetensors'", "outside")
    index.write_text(json.dumps({"weight_map": {"a": "/etc/passwd"}}))
    refused(folder, ModelLoadError, "'/etc/passwd'", "outside")
    index.write_text(json.dumps({"weight_map": {"a": "gone.safetensors"}}))
    refused(folder, ModelLoadError, "lacks 'gone.safetensors'")
    index.write_text("[")
    refused(folder, ModelLoadError, "model.safetensors.index.json", "damaged")


def test_links_of_the_hubs_cache_stay_in_it(checkpoints, tmp_path):
    snapshot = tmp_path / "models--acme--smol" / "snapshots" / "abc"
    blobs = shutil.copytree(checkpoints("llama"), tmp_path / "models--acme--smol" / "blobs")
    snapshot.mkdir(parents=True)
    for blob in blobs.iterdir():
        (snapshot / blob.name).symlink_to(f"../../blobs/{blob.name}")

    async def nothing(_):
        return None

    run(load_engine(snapshot), nothing)
    (snapshot / "model.safetensors").unlink()
    (snapshot / "model.safetensors").symlink_to(checkpoints("llama") / "model.safetensors")
    refused(snapshot, ModelLoadError, "outside")


@pytest.mark.parametrize("known", [True, False])
def test_shards_by_either_way(tmp_path, known):
    whole = random_checkpoint(tmp_path / "whole", hf.Qwen3Config(**SHAPE, head_dim=8))
    shards = random_checkpoint(tmp_path / "shards", hf.Qwen3Config(**SHAPE, head_dim=8), max_shard_size="20KB")
    assert len(list(shards.glob("*.safetensors"))) > 2
    if not known:
        change_config(shards, unheard_of=1)
    engines = [load_engine(whole), load_engine(shards)]
    assert ("model classes" in engines[1].model.swapped) == known

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPT)
        return (await write(engine, context, Sampling(max_tokens=20, ignore_eos=True)))[1].token_ids

    assert run(engines[0], main) == run(engines[1], main)
    sorted(shards.glob("*.safetensors"))[1].unlink()
    refused(shards, ModelLoadError, "lacks 'model-00002-of", "get its files again")


TORN = "You need to install sentencepiece to use this tokenizer, or to convert one. Please make sure to pass `a` and `b`."


def test_foreign_messages_are_quoted_by_whole_sentences():
    assert quoted(TORN) == "You need to install sentencepiece to use this tokenizer, or to convert one"
    url = "404 Client Error: Not Found for url: https://hub.example/acme/smol/resolve/main/config.json"
    assert quoted(url) == url
    assert quoted("x " * 300).endswith("x …")
    assert quoted(ValueError("two\nlines")) == "two lines"
    message = str(explained("/nowhere", ValueError(TORN)))
    assert message.endswith(
        "(ValueError: You need to install sentencepiece to use this tokenizer, or to convert one): check its files, or choose another model."
    )


@given(st.text(max_size=600))
def test_a_quotation_is_short_and_a_part_of_the_message(text):
    found = quoted(text)
    assert len(found) <= MAX_QUOTE_CHARS + 2
    assert "\n" not in found
    assert " ".join(text.split()).startswith(found.removesuffix(" …"))
