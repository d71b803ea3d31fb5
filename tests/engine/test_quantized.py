"""Checkpoints with quantised weights: loaded where transformers can on this machine, else refused before weights are read."""

from __future__ import annotations

import json
import shutil
from importlib.util import find_spec

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, SHAPE, byte_tokenizer, change_config, run, write
from safetensors.torch import load_file, save_file
from test_faults import refused

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import ModelLoadError

PROMPT = [(37 * i + i * i) % 256 for i in range(30)]
METHODS = {
    "awq": ({"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm", "zero_point": True}, "needs a GPU"),
    "gptq": ({"quant_method": "gptq", "bits": 4, "group_size": 128, "desc_act": False}, "optimum"),
    "compressed-tensors": ({"quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {}}, "compressed"),
    "bitsandbytes": ({"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, "bitsandbytes"),
    "of tomorrow": ({"quant_method": "of tomorrow"}, "does not know"),
    "unknown": ({"bits": 4}, "quant_method"),
}
NEEDS = {"gptq": "optimum", "compressed-tensors": "compressed_tensors", "bitsandbytes": "bitsandbytes"}


@pytest.mark.parametrize("method", METHODS)
def test_what_transformers_cannot_load_here_is_refused_with_the_nearest_that_works(checkpoints, tmp_path, method):
    if method in NEEDS and find_spec(NEEDS[method]):
        pytest.skip(f"{NEEDS[method]} is installed")
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "model")
    settings, reason = METHODS[method]
    change_config(folder, quantization_config=settings)
    refused(folder, ModelLoadError, f"quantised by {method}", reason, ".gguf file", device="cpu")


def fp8_checkpoint(folder, rounded):
    """A checkpoint in blocks of fp8, and the same weights after rounding as plain ones."""
    torch.manual_seed(0)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**{**SHAPE, "hidden_size": 64, "intermediate_size": 64}, dtype=torch.float32))
    model.save_pretrained(folder)
    stored = {}
    for name, weight in load_file(folder / "model.safetensors").items():
        if "_proj" not in name:
            stored[name] = weight
            continue
        scale = weight.abs().amax() / torch.finfo(torch.float8_e4m3fn).max
        stored[name] = (weight / scale).to(torch.float8_e4m3fn)
        stored[f"{name}_scale_inv"] = scale.reshape(1, 1)
        model.state_dict()[name].copy_((stored[name].float() * scale).to(weight.dtype))
    save_file(stored, folder / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "fp8", "weight_block_size": [64, 64], "activation_scheme": "dynamic"}
    (folder / "config.json").write_text(json.dumps(config))
    byte_tokenizer().save_pretrained(folder)
    model.save_pretrained(rounded)
    byte_tokenizer().save_pretrained(rounded)
    return folder


def test_fp8_becomes_plain_weights_on_a_cpu(tmp_path):
    folder = fp8_checkpoint(tmp_path / "fp8", tmp_path / "rounded")
    reference = hf.AutoModelForCausalLM.from_pretrained(tmp_path / "rounded", dtype=torch.float32).eval()
    reference.generation_config.eos_token_id = None
    ids = torch.tensor([PROMPT])
    out = reference.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=16, do_sample=False, pad_token_id=0)

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, PROMPT)
        return (await write(engine, context, Sampling(max_tokens=16, ignore_eos=True)))[1]

    end = run(load_engine(folder, device="cpu", dtype="float32"), main)
    assert list(end.token_ids) == [token for token in out[0, len(PROMPT) :].tolist() if token < 256]
