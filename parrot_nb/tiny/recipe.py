"""How the untrained parrot-tiny is made: shape, tokenizer, and weights from a fixed seed.

The weights are uniform random numbers, so that they are the same bits on every CPU. Two choices make the text of a model
that knows nothing pleasant to watch. Embedding rows are short (the last norm's weight makes up for it in the logits), so
that what the layers compute outweighs the token that came in, and attention is sharp: greedy text wanders instead of
repeating one token. And only the rows of whole words and of the comma and full stop have full length; single bytes,
fragments and control tokens have shorter rows, hence logits near zero, and are next to never chosen. It follows that an
output ends at `max_tokens`, practically never by itself.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_nb.tiny.bpe import learn_merges
from parrot_nb.tiny.corpus import sentences

if TYPE_CHECKING:
    import torch
    from tokenizers import Tokenizer

NOTE = "parrot-tiny's weights are untrained: its text is meaningless."

FILES = ("config.json", "generation_config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json")

_SEED = 20_240_710
_NUM_SENTENCES = 6_000
_VOCABULARY_TOKENS = 1_280
_CONTEXT_TOKENS = 4_096
_HIDDEN, _INTERMEDIATE, _LAYERS, _HEADS, _KV_HEADS, _HEAD_DIM = 192, 512, 5, 6, 2, 32

_END, _TURN_START, _TURN_END = "<|endoftext|>", "<|turn_start|>", "<|turn_end|>"
_SPECIAL = (_END, _TURN_START, _TURN_END)

_CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "<|turn_start|>{{ message['role'] }}\n{{ message['content'] }}<|turn_end|>\n"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|turn_start|>assistant\n{% endif %}"
)

_EMBEDDING_SPREAD = 0.03  # standard deviation within a whole word's embedding row
_LOGIT_SPREAD = 3.0  # standard deviation of a whole word's logit
_ATTENTION_SPREAD = 3.0  # standard deviation of an attention score
_QUIET_ROW = 0.1  # length of a fragment's embedding row beside a whole word's


def write_checkpoint(folder: Path) -> None:
    """Write the checkpoint's `FILES` into an existing folder. The same torch version writes the same bytes."""
    from safetensors.torch import save_file

    tokenizer, loud_ids = _tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    save_file(_weights(tokenizer.get_vocab_size(), loud_ids), folder / "model.safetensors", metadata={"format": "pt"})
    ids = {token: i for i, token in enumerate(_SPECIAL)}  # they come first in the vocabulary
    for name, content in {
        "config.json": _config(tokenizer.get_vocab_size(), ids),
        "generation_config.json": {"do_sample": False, "eos_token_id": [ids[_END], ids[_TURN_END]], "pad_token_id": ids[_END]},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": _END,
            "pad_token": _END,
            "additional_special_tokens": [_TURN_START, _TURN_END],
            "model_max_length": _CONTEXT_TOKENS,
            "clean_up_tokenization_spaces": False,
            "chat_template": _CHAT_TEMPLATE,
        },
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def _config(vocabulary_tokens: int, ids: dict[str, int]) -> dict[str, Any]:
    return {
        "parrot_note": NOTE,
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": vocabulary_tokens,
        "hidden_size": _HIDDEN,
        "intermediate_size": _INTERMEDIATE,
        "num_hidden_layers": _LAYERS,
        "num_attention_heads": _HEADS,
        "num_key_value_heads": _KV_HEADS,
        "head_dim": _HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": _CONTEXT_TOKENS,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10_000.0},
        "rms_norm_eps": 1e-6,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float32",
        "eos_token_id": ids[_END],
        "pad_token_id": ids[_END],
    }


def _tokenizer() -> tuple[Tokenizer, list[int]]:
    """A byte-level BPE tokenizer of the small world, and the ids of its whole words, comma and full stop."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

    splitter = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    words = Counter(word for text in sentences(_NUM_SENTENCES, _SEED) for word, _ in splitter.pre_tokenize_str(text))
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())  # one symbol for each of the 256 bytes: nothing is unknown
    merges = learn_merges(words, _VOCABULARY_TOKENS - len(_SPECIAL) - len(alphabet))
    tokens = dict.fromkeys([*_SPECIAL, *alphabet, *(left + right for left, right in merges)])
    vocabulary = {token: i for i, token in enumerate(tokens)}

    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=merges))
    tokenizer.pre_tokenizer = splitter
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in _SPECIAL])
    space = "Ġ"  # byte-level BPE's sign for a space
    loud = [
        i
        for token, i in vocabulary.items()
        if token in {".", ","} or (token in words and token[0] == space and token[1:].isalpha())
    ]
    return tokenizer, loud


def _weights(vocabulary_tokens: int, loud_ids: list[int]) -> dict[str, torch.Tensor]:
    import torch

    generator = torch.Generator().manual_seed(_SEED)

    def uniform(rows: int, columns: int, spread: float) -> torch.Tensor:
        """[rows, columns], of mean 0 and standard deviation `spread`."""
        bound = spread * math.sqrt(3)
        return torch.rand(rows, columns, generator=generator).mul_(2 * bound).sub_(bound)

    weights: dict[str, torch.Tensor] = {}
    embedding = uniform(vocabulary_tokens, _HIDDEN, _EMBEDDING_SPREAD)
    quiet = torch.ones(vocabulary_tokens, dtype=torch.bool)
    quiet[loud_ids] = False
    embedding[quiet] *= _QUIET_ROW
    weights["model.embed_tokens.weight"] = embedding
    for name, outputs, inputs in _matrices():
        weights[name] = uniform(outputs, inputs, 1 / math.sqrt(inputs))
    for name, size, weight in _norms():
        weights[name] = torch.full((size,), weight)
    return weights


def _matrices() -> Iterator[tuple[str, int, int]]:
    """Name, outputs, inputs of every linear layer."""
    for layer in range(_LAYERS):
        attention, mlp = f"model.layers.{layer}.self_attn", f"model.layers.{layer}.mlp"
        yield f"{attention}.q_proj.weight", _HEADS * _HEAD_DIM, _HIDDEN
        yield f"{attention}.k_proj.weight", _KV_HEADS * _HEAD_DIM, _HIDDEN
        yield f"{attention}.v_proj.weight", _KV_HEADS * _HEAD_DIM, _HIDDEN
        yield f"{attention}.o_proj.weight", _HIDDEN, _HEADS * _HEAD_DIM
        yield f"{mlp}.gate_proj.weight", _INTERMEDIATE, _HIDDEN
        yield f"{mlp}.up_proj.weight", _INTERMEDIATE, _HIDDEN
        yield f"{mlp}.down_proj.weight", _HIDDEN, _INTERMEDIATE


def _norms() -> Iterator[tuple[str, int, float]]:
    """Name, size and weight of every norm."""
    # A normed hidden state has length sqrt(_HIDDEN), so this weight gives logits of _LOGIT_SPREAD.
    yield "model.norm.weight", _HIDDEN, _LOGIT_SPREAD / (_EMBEDDING_SPREAD * math.sqrt(_HIDDEN))
    for layer in range(_LAYERS):
        prefix = f"model.layers.{layer}"
        yield f"{prefix}.input_layernorm.weight", _HIDDEN, 1.0
        yield f"{prefix}.post_attention_layernorm.weight", _HIDDEN, 1.0
        yield f"{prefix}.self_attn.q_norm.weight", _HEAD_DIM, _ATTENTION_SPREAD
        yield f"{prefix}.self_attn.k_norm.weight", _HEAD_DIM, 1.0
