"""Models to measure with: true shapes of well-known models with random weights, made once from a fixed seed."""

from __future__ import annotations

import os
import shutil
import sys
from pathlib import Path
from typing import Any

from parrot_nb.errors import UsageError
from parrot_nb.tiny import default_model

KNOWN = "default"  # parrot-tiny, of which we know what it should write
PREFIX = "random:"
# The shapes are those of the published configurations; qwen3-26m is ours, for machines without a GPU.
SHAPES: dict[str, dict[str, Any]] = {
    "qwen3-26m": {
        "model_type": "qwen3", "vocab_size": 2048, "hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 64, "max_position_embeddings": 8192,
        "tie_word_embeddings": True,
    },
    "qwen3-0.6b": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
        "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
        "rope_theta": 1e6, "tie_word_embeddings": True,
    },
    "qwen3-8b": {
        "model_type": "qwen3", "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 12288, "num_hidden_layers": 36,
        "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "max_position_embeddings": 40960,
        "rope_theta": 1e6, "tie_word_embeddings": False,
    },
    "llama-3.1-8b": {
        "model_type": "llama", "vocab_size": 128256, "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
        "num_attention_heads": 32, "num_key_value_heads": 8, "max_position_embeddings": 131072, "rope_theta": 5e5,
        "tie_word_embeddings": False,
    },
}  # fmt: skip
NUM_BYTES = 256
NOTE = "This model's weights are random: its text is meaningless."


def cache_folder() -> Path:
    """Where parrot_nb keeps what it makes: `PARROT_NB_CACHE`, else `parrot_nb` in the platform's cache folder.

    The folder may not exist yet.
    """
    if chosen := os.environ.get("PARROT_NB_CACHE"):
        return Path(chosen).expanduser().absolute()
    if sys.platform == "win32":
        base = os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local"
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "parrot_nb"


def find_model(name: str) -> str:
    """The folder or hub id of a model: "default", "random:SHAPE", a path or an id. Makes the weights on first use.

    Raises:
        UsageError: no such shape.
    """
    if name == KNOWN:
        return str(default_model())
    if not name.startswith(PREFIX):
        return name
    shape = name.removeprefix(PREFIX)
    if shape not in SHAPES:
        raise UsageError(f"There is no random model '{shape}': choose from {', '.join(SHAPES)}.")
    folder = cache_folder() / "bench" / shape
    if not (folder / "config.json").is_file():
        _make(shape, folder)
    return str(folder)


def _make(shape: str, folder: Path) -> None:
    """Weights in bfloat16 from seed 0, and a tokenizer with one token a byte."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

    settings = dict(SHAPES[shape])
    rope = {"rope_type": "default", "rope_theta": settings.pop("rope_theta", 1e4)}
    settings["parrot_note"] = NOTE
    config = AutoConfig.for_model(**settings, rope_parameters=rope, bos_token_id=None, eos_token_id=NUM_BYTES, pad_token_id=None)
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    with device:
        model = AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocab["<eos>"] = NUM_BYTES
    vocab |= {f"<x{i}>": i for i in range(NUM_BYTES + 1, settings["vocab_size"])}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    part = folder.with_name(f"{folder.name}.{os.getpid()}")
    model.save_pretrained(part)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<eos>").save_pretrained(part)  # noqa: S106 - not a password
    if folder.exists():  # somebody else was faster
        shutil.rmtree(part)
    else:
        part.rename(folder)
