"""LoRA adapters: merged into their base, with the text that peft's merged model gives."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import peft
import pytest
import torch
import transformers as hf
from checkpoints import byte_tokenizer, greedy
from model_hub import ModelHub
from safetensors.torch import load_file, save_file
from test_faults import refused

from parrot_nb.engine.embedded import adapters, load_engine
from parrot_nb.errors import ModelLoadError, UnsupportedModelError

PROMPT = [(29 * i + i * i) % 256 for i in range(30)]
NUM_TOKENS = 24


def make_adapter(folder, base, *, seed: int = 1, **settings):
    """An adapter with random weights that matter, over a checkpoint."""
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_pretrained(base)
    chosen = {"r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"} | settings
    adapted = peft.get_peft_model(model, peft.LoraConfig(**chosen))
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.add_(0.3 * torch.randn_like(parameter))
    adapted.save_pretrained(folder)
    return folder


def merged_text(folder, base) -> list[int]:
    model = peft.PeftModel.from_pretrained(hf.AutoModelForCausalLM.from_pretrained(base), folder).merge_and_unload().eval()
    model.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT])
    out = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=NUM_TOKENS, do_sample=False, pad_token_id=0)
    return [token for token in out[0, len(PROMPT) :].tolist() if token < 256]


@pytest.fixture
def base(checkpoints):
    return checkpoints("llama")


@pytest.fixture
def adapter(base, tmp_path):
    return make_adapter(tmp_path / "adapter", base)


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"use_dora": True},
        {"bias": "all"},
        {"modules_to_save": ["lm_head"]},
        {"target_modules": "all-linear", "use_rslora": True},
    ],
    ids=str,
)
def test_greedy_text_is_that_of_pefts_merged_model(base, tmp_path, settings):
    folder = make_adapter(tmp_path / "adapter", base, **settings)
    expected = merged_text(folder, base)
    assert expected != greedy(load_engine(base), PROMPT, NUM_TOKENS), "the adapter matters"
    engine = load_engine(folder)
    assert "QKV projection" in engine.model.swapped, "the fused decoder serves it"
    assert greedy(engine, PROMPT, NUM_TOKENS) == expected


def test_a_folder_with_base_and_adapter_is_the_merged_model(base, adapter, tmp_path):
    both = shutil.copytree(base, tmp_path / "both")
    for file in adapter.glob("adapter_*"):
        shutil.copy(file, both)
    assert greedy(load_engine(both), PROMPT, NUM_TOKENS) == merged_text(adapter, base)
    assert sorted(path.name for path in both.iterdir()) == sorted(
        {p.name for p in base.iterdir()} | {"adapter_config.json", "adapter_model.safetensors"}
    )


def test_a_base_named_by_a_path_beside_the_adapter_moves_with_it(base, adapter, tmp_path):
    moved = tmp_path / "moved"
    shutil.copytree(base, moved / "base")
    shutil.copytree(adapter, moved / "adapter")
    change(moved / "adapter", base_model_name_or_path="../base")
    assert greedy(load_engine(moved / "adapter"), PROMPT, NUM_TOKENS) == merged_text(adapter, base)


def test_added_tokens_come_with_the_adapters_tokenizer_and_embedding(base, tmp_path):
    model = hf.AutoModelForCausalLM.from_pretrained(base)
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(["<think>"])
    torch.manual_seed(2)
    model.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    adapted = peft.get_peft_model(model, peft.LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    folder = tmp_path / "adapter"
    adapted.save_pretrained(folder, save_embedding_layers=True)
    tokenizer.save_pretrained(folder)
    engine = load_engine(folder)
    rows = engine._model._decoder.ends.embed(torch.arange(len(tokenizer)))
    assert torch.equal(rows, adapted.get_input_embeddings().weight)
    assert engine.codec._tokenizer.get_added_vocab()["<think>"] == len(tokenizer) - 1
    assert len(greedy(engine, PROMPT, 3)) > 0


def change(folder, **changes):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_adapters_that_cannot_be_merged(base, adapter, checkpoints, tmp_path):
    def changed(name, **changes):
        folder = shutil.copytree(adapter, tmp_path / name)
        change(folder, **changes)
        return folder

    refused(changed("nobodys", base_model_name_or_path=None), ModelLoadError, "does not say which model")
    refused(changed("lost", base_model_name_or_path="/no/such/base"), ModelLoadError, "The base of the adapter", "/no/such/base")
    refused(changed("classifier", task_type="SEQ_CLS"), UnsupportedModelError, "SEQ_CLS")
    refused(changed("other", base_model_name_or_path=str(checkpoints("gpt2"))), ModelLoadError, "that it was trained on")
    refused(changed("wide", base_model_name_or_path=str(wider(base, tmp_path))), ModelLoadError, "another shape than its base")
    refused(changed("over adapter", base_model_name_or_path=str(adapter)), ModelLoadError, "merge that first")
    prompts = tmp_path / "prompts"
    prompting = peft.PromptTuningConfig(num_virtual_tokens=4, task_type="CAUSAL_LM")
    peft.get_peft_model(hf.AutoModelForCausalLM.from_pretrained(base), prompting).save_pretrained(prompts)
    refused(prompts, UnsupportedModelError, "PROMPT_TUNING", "LoRA")


def wider(base, tmp_path):
    config = hf.AutoConfig.from_pretrained(base)
    config.intermediate_size *= 2
    hf.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "wider base")
    byte_tokenizer().save_pretrained(tmp_path / "wider base")
    return tmp_path / "wider base"


def test_weights_that_nothing_takes_are_no_secret(adapter):
    weights = load_file(adapter / "adapter_model.safetensors")
    extra = {name.replace("layers.0", "layers.7"): tensor.clone() for name, tensor in weights.items() if "layers.0" in name}
    save_file(weights | extra, adapter / "adapter_model.safetensors", metadata={"format": "pt"})
    refused(adapter, ModelLoadError, "nothing in the model takes its weight", "layers.7")


def test_only_safetensors_and_whole_files(base, adapter, tmp_path):
    weights = adapter / "adapter_model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:200])
    refused(adapter, ModelLoadError, "damaged or cut short")
    weights.unlink()
    refused(adapter, ModelLoadError, "no adapter_model.safetensors", "save it again")
    torch.save({}, adapter / "adapter_model.bin")
    refused(adapter, ModelLoadError, "pickle", "safetensors")
    (adapter / "adapter_model.bin").unlink()
    weights.write_bytes(whole)
    (adapter / "adapter_config.json").write_text("{")
    refused(adapter, ModelLoadError, "adapter_config.json", "damaged")
    left = shutil.copytree(base, tmp_path / "left")
    (left / "adapter_config.json").write_text("{}")
    refused(left, ModelLoadError, "delete adapter_config.json if the weights are merged already")


def test_without_peft_one_sentence_says_how_to_get_it(adapter, monkeypatch):
    real = adapters.find_spec
    monkeypatch.setattr(adapters, "find_spec", lambda name: None if name == "peft" else real(name))
    refused(adapter, ModelLoadError, "needs the package peft", 'pip install "parrot-nb[lora]"')


LOADS = """
import json, sys
from checkpoints import greedy
from parrot_nb.engine.embedded import load_engine

engine = load_engine("acme/tuned")
print(json.dumps([engine.model.id, greedy(engine, json.loads(sys.argv[1]), int(sys.argv[2]))]))
"""


def test_adapter_and_base_come_from_the_hub_by_id(base, adapter, tmp_path):
    change(adapter, base_model_name_or_path="acme/base")
    with ModelHub() as hub:
        hub.add("acme/tuned", adapter)
        hub.add("acme/base", base)
        env = hub.environment(tmp_path / "cache")
        env["PYTHONPATH"] = os.pathsep.join([env["PYTHONPATH"], str(Path(__file__).parent)])
        command = [sys.executable, "-c", LOADS, json.dumps(PROMPT), str(NUM_TOKENS)]
        done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert json.loads(done.stdout) == ["acme/tuned", merged_text(adapter, base)]
    assert {"adapter_config.json", "adapter_model.safetensors", "model.safetensors"} <= set(hub.downloads())
