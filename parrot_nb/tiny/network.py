"""parrot-tiny's shape, and the network as it is trained: Qwen 3's arithmetic in bfloat16, without what only inference needs.

Parameters have the names that transformers gives them, so that the state is the checkpoint.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parrot_nb.tiny.tokens import VOCABULARY_TOKENS

CONTEXT_TOKENS = 4_096
HIDDEN, INTERMEDIATE, LAYERS = 256, 512, 6
HEADS, KV_HEADS, HEAD_DIM = 4, 2, 64
ROPE_THETA = 10_000.0
NORM_EPS = 1e-6


def model_config(end_id: int, turn_end_id: int) -> dict[str, Any]:
    """The content of config.json."""
    return {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "vocab_size": VOCABULARY_TOKENS,
        "hidden_size": HIDDEN,
        "intermediate_size": INTERMEDIATE,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS,
        "head_dim": HEAD_DIM,
        "hidden_act": "silu",
        "max_position_embeddings": CONTEXT_TOKENS,
        "rope_parameters": {"rope_type": "default", "rope_theta": ROPE_THETA},
        "rms_norm_eps": NORM_EPS,
        "attention_bias": False,
        "attention_dropout": 0.0,
        "tie_word_embeddings": True,
        "use_cache": True,
        "dtype": "float32",
        "eos_token_id": [end_id, turn_end_id],
        "pad_token_id": end_id,
    }


class Norm(nn.Module):
    """RMS norm over the last dimension, computed in float32."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., size]."""
        wide = x.float()
        normed = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + NORM_EPS)
        return (normed * self.weight).to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention with grouped queries, normed heads and rotary positions."""

    def __init__(self) -> None:
        super().__init__()
        self.q_proj = _matrix(HEADS * HEAD_DIM, HIDDEN)
        self.k_proj = _matrix(KV_HEADS * HEAD_DIM, HIDDEN)
        self.v_proj = _matrix(KV_HEADS * HEAD_DIM, HIDDEN)
        self.o_proj = _matrix(HIDDEN, HEADS * HEAD_DIM, scale=0.0)
        self.q_norm, self.k_norm = Norm(HEAD_DIM), Norm(HEAD_DIM)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [sequences, tokens, hidden]; cos, sin: [1, tokens, 1, head_dim / 2]."""
        sequences, tokens, _ = x.shape
        weights = torch.cat((self.q_proj.weight, self.k_proj.weight, self.v_proj.weight)).to(x.dtype)
        heads = F.linear(x, weights).view(sequences, tokens, HEADS + 2 * KV_HEADS, HEAD_DIM)
        q, k, v = torch.split(heads, [HEADS, KV_HEADS, KV_HEADS], 2)
        q, k = _rotated(self.q_norm(q), cos, sin), _rotated(self.k_norm(k), cos, sin)
        k, v = k.repeat_interleave(HEADS // KV_HEADS, 2), v.repeat_interleave(HEADS // KV_HEADS, 2)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return F.linear(out.transpose(1, 2).reshape(sequences, tokens, HEADS * HEAD_DIM), self.o_proj.weight.to(x.dtype))


class FeedForward(nn.Module):
    """Gated SiLU."""

    def __init__(self) -> None:
        super().__init__()
        self.gate_proj = _matrix(INTERMEDIATE, HIDDEN)
        self.up_proj = _matrix(INTERMEDIATE, HIDDEN)
        self.down_proj = _matrix(HIDDEN, INTERMEDIATE, scale=0.0)

    def forward(self, x: Tensor) -> Tensor:
        """x: [..., hidden]."""
        gate, up = F.linear(x, torch.cat((self.gate_proj.weight, self.up_proj.weight)).to(x.dtype)).chunk(2, -1)
        return F.linear(F.silu(gate) * up, self.down_proj.weight.to(x.dtype))


class Layer(nn.Module):
    """Attention and feed-forward, each after a norm and added to what came in."""

    def __init__(self) -> None:
        super().__init__()
        self.input_layernorm, self.self_attn = Norm(HIDDEN), Attention()
        self.post_attention_layernorm, self.mlp = Norm(HIDDEN), FeedForward()

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """x: [sequences, tokens, hidden]."""
        attended: Tensor = x + self.self_attn(self.input_layernorm(x), cos, sin)
        out: Tensor = attended + self.mlp(self.post_attention_layernorm(attended))
        return out


class Decoder(nn.Module):
    """Embedding, layers, last norm."""

    def __init__(self) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(VOCABULARY_TOKENS, HIDDEN)
        nn.init.normal_(self.embed_tokens.weight, std=0.02)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.norm = Norm(HIDDEN)

    def forward(self, ids: Tensor) -> Tensor:
        """Hidden states [sequences, tokens, hidden] in bfloat16 of ids [sequences, tokens] from position 0."""
        x = F.embedding(ids, self.embed_tokens.weight).bfloat16()
        frequencies = ROPE_THETA ** (-torch.arange(0, HEAD_DIM, 2, device=ids.device) / HEAD_DIM)
        angles = (torch.arange(ids.shape[1], device=ids.device)[:, None] * frequencies)[None, :, None]
        cos, sin = angles.cos().bfloat16(), angles.sin().bfloat16()
        for layer in self.layers:
            x = layer(x, cos, sin)
        normed: Tensor = self.norm(x)
        return normed


class Network(nn.Module):
    """The model as transformers names its parts."""

    def __init__(self) -> None:
        super().__init__()
        self.model = Decoder()

    def logits(self, hidden: Tensor) -> Tensor:
        """Float32 logits [..., vocabulary] of hidden states; the embedding serves as output layer too."""
        return F.linear(hidden, self.model.embed_tokens.weight.to(hidden.dtype)).float()


def _matrix(outputs: int, inputs: int, scale: float = 0.5) -> nn.Linear:
    linear = nn.Linear(inputs, outputs, bias=False)
    nn.init.normal_(linear.weight, std=scale / math.sqrt(inputs))
    return linear


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    left, right = x.chunk(2, -1)
    return torch.cat((left * cos - right * sin, right * cos + left * sin), -1)
