"""GGUF files of pretrained models: what is read of them is, to the bit, what transformers makes of them."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoConfig

from parrot_nb.engine.embedded.gguf_file import read_gguf_header
from parrot_nb.engine.embedded.gguf_reader import SharedReader
from parrot_nb.engine.embedded.gguf_weights import GgufWeights, known_gguf


def check_weights(file: Path, folder: Path) -> None:
    """Compare a file's weights with those of the folder that transformers made of it."""
    with SharedReader().used():
        config = AutoConfig.from_pretrained(file.parent, gguf_file=file.name)
    known = known_gguf(read_gguf_header(file), config)
    assert known is not None
    weights, theirs = GgufWeights(known, torch.bfloat16, torch.device("cpu")), load_file(folder / "model.safetensors")
    assert known.shapes.keys() == theirs.keys()
    assert [name for name, tensor in theirs.items() if not torch.equal(weights.one(name), tensor)] == []


def test_smollm2_of_q4_1(smollm2_gguf, smollm2_folder):
    check_weights(smollm2_gguf, smollm2_folder)


@pytest.mark.slow
def test_gemma_of_k_quants(gemma_gguf, gemma_folder):
    check_weights(gemma_gguf, gemma_folder)
