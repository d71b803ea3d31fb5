"""A decoder of the Llama shape as few large operations: what a step costs on a small model is the number of calls.

Query, key and value are one projection, gate and up are another; norms, rotary embedding with the KV write, and gated
activations are the kernels of `parrot_kernels`. On the CPU the weights of small models are laid out once for oneDNN's
matrix products. The weights come from files that hold all that is needed (`weights`), or from transformers' modules: such
a model is taken only if its classes are known here and it passes a trial against its own modules (`trial`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from parrot_kernels import attention, rms_norm, rope_and_write
from parrot_nb.engine.embedded.cache import LayerShape
from parrot_nb.engine.embedded.linear import Activation, GatedLinear, Linear, joined, pays_to_pack
from parrot_nb.engine.embedded.step import Run

# Classes of decoder layers whose forward is: x + attention(norm(x)), then x + mlp(norm(x)), no scales between.
KNOWN_LAYERS = {"LlamaDecoderLayer", "Qwen2DecoderLayer", "Qwen3DecoderLayer", "MistralDecoderLayer", "Phi3DecoderLayer"}
KNOWN_FAMILIES = "Llama, Mistral, Phi 3, Qwen 2 and Qwen 3"  # the same in words
ONE_WINDOW = {"MistralDecoderLayer", "Phi3DecoderLayer"}  # their window is the config's, for every layer
ACTIVATIONS: dict[str, Activation] = {
    "SiLU": "silu", "SiLUActivation": "silu", "GELUActivation": "gelu", "GELUTanh": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh",
}  # fmt: skip
PARTS = ("QKV projection", "gate-up projection", "norms", "rotary embedding with KV write", "gated activation")


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights and sizes."""

    index: int
    qkv: Linear
    out: Linear
    gate_up: GatedLinear
    down: Linear
    attention_norm: Tensor
    mlp_norm: Tensor
    query_norm: Tensor | None
    key_norm: Tensor | None
    eps: float
    num_heads: int
    num_kv_heads: int
    head_dim: int
    scale: float
    window: int | None

    @property
    def activation(self) -> Activation:
        """Of the gate."""
        return self.gate_up.activation

    @classmethod
    def of(cls, layer: Any, *, pack: bool, views: bool = True) -> Layer:
        """From a transformers decoder layer. Raises AttributeError or KeyError where it is built otherwise."""
        attn, mlp = layer.self_attn, layer.mlp
        qkv = [attn.qkv_proj] if hasattr(attn, "qkv_proj") else [attn.q_proj, attn.k_proj, attn.v_proj]
        gate_up = [mlp.gate_up_proj] if hasattr(mlp, "gate_up_proj") else [mlp.gate_proj, mlp.up_proj]
        activation = getattr(mlp, "act_fn", None) or mlp.activation_fn
        head_dim, width = attn.head_dim, sum(m.weight.shape[0] for m in qkv)
        num_heads = attn.o_proj.weight.shape[1] // head_dim
        query_norm, key_norm = getattr(attn, "q_norm", None), getattr(attn, "k_norm", None)
        holder = attn.config if type(layer).__name__ in ONE_WINDOW else attn
        return cls(
            index=attn.layer_idx,
            qkv=Linear(*joined(qkv, views=views), pack=pack),
            out=Linear(*joined([attn.o_proj], views=views), pack=pack),
            gate_up=GatedLinear(*joined(gate_up, views=views), ACTIVATIONS[type(activation).__name__], pack=pack),
            down=Linear(*joined([mlp.down_proj], views=views), pack=pack),
            attention_norm=layer.input_layernorm.weight.data,
            mlp_norm=layer.post_attention_layernorm.weight.data,
            query_norm=None if query_norm is None else query_norm.weight.data,
            key_norm=None if key_norm is None else key_norm.weight.data,
            eps=layer.input_layernorm.variance_epsilon,
            num_heads=num_heads,
            num_kv_heads=(width // head_dim - num_heads) // 2,
            head_dim=head_dim,
            scale=attn.scaling,
            window=getattr(holder, "sliding_window", None),
        )

    def widened(self) -> Layer:
        """Return the same layer in float32; only its norms take memory."""
        return replace(
            self,
            qkv=self.qkv.widened(),
            out=self.out.widened(),
            gate_up=self.gate_up.widened(),
            down=self.down.widened(),
            attention_norm=self.attention_norm.float(),
            mlp_norm=self.mlp_norm.float(),
            query_norm=None if self.query_norm is None else self.query_norm.float(),
            key_norm=None if self.key_norm is None else self.key_norm.float(),
        )

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, run: Run) -> Tensor:
        """Normed rows [T, H] -> what attention gives [T, Hq * D], before the last projection."""
        num_heads, num_kv_heads, dim = self.num_heads, self.num_kv_heads, self.head_dim
        qkv = self.qkv(x).view(x.shape[0], -1, dim)
        key_end = num_heads + num_kv_heads
        k_cache, v_cache = run.memory.keys[self.index], run.memory.values[self.index]
        query = rope_and_write(
            qkv[:, :num_heads],
            qkv[:, num_heads:key_end],
            qkv[:, key_end:],
            cos,
            sin,
            k_cache,
            v_cache,
            run.plan.new_slots,
            q_weight=self.query_norm,
            k_weight=self.key_norm,
            eps=self.eps,
        )
        attended = attention(query, k_cache, v_cache, run.plan, scale=self.scale, window=self.window)
        return attended.view(x.shape[0], -1)


class FusedDecoder:
    """A causal language model of the Llama shape.

    Args:
        name: of transformers' class for such models.
        embedding: of tokens, [V, H].
        rotary: (rows, positions [1, T]) -> cos and sin [1, T, D], in the rows' dtype.
        norm: weight of the last norm, [H].
        head: rows to logits.
        replaced: what it replaces besides modules that every such decoder replaces.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        *,
        name: str,
        embedding: Tensor,
        rotary: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]],
        norm: Tensor,
        eps: float,
        head: Linear,
        replaced: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self._layers = tuple(layers)
        self._embedding = embedding
        self._rotary = rotary
        self._norm, self._eps = norm, eps
        self._head = head
        self.device, self.dtype = embedding.device, embedding.dtype
        self.num_embeddings = embedding.shape[0]
        self.shapes = {
            layer.index: LayerShape(layer.num_heads, layer.num_kv_heads, layer.head_dim, layer.head_dim) for layer in layers
        }
        self.parts: tuple[str, ...] = (*replaced, *PARTS)
        if head.is_packed:
            self.parts += ("weights laid out for oneDNN",)

    @classmethod
    def of(cls, model: Any, *, joins: bool = True) -> FusedDecoder:
        """From a model of transformers, on its device, in eval mode; its modules keep their weights.

        Args:
            model: of a class that is known here.
            joins: the modules' weights may become views of joined ones, which saves a copy of them.

        Raises:
            LookupError: not such a model.
        """
        body: Any = getattr(model, "model", None)
        layers = list(getattr(body, "layers", ()))
        if not layers or {type(layer).__name__ for layer in layers} - KNOWN_LAYERS:
            raise LookupError(f"there is none for {type(model).__name__}, only for {KNOWN_FAMILIES}")
        if type(body.embed_tokens) is not torch.nn.Embedding:
            raise LookupError(f"there is none for {type(model).__name__} with a {type(body.embed_tokens).__name__}")
        pack = pays_to_pack(sum(p.numel() * p.element_size() for p in model.parameters()), model.dtype, model.device)
        try:
            return cls(
                [Layer.of(layer, pack=pack, views=joins) for layer in layers],
                name=type(model).__name__,
                embedding=body.embed_tokens.weight.data,
                rotary=body.rotary_emb,
                norm=body.norm.weight.data,
                eps=body.norm.variance_epsilon,
                head=Linear(*joined([model.lm_head], views=joins), pack=pack),
            )
        except (AttributeError, KeyError) as error:
            raise LookupError(f"there is none for a {type(model).__name__} built like this one ({error})") from error

    def widened(self) -> FusedDecoder:
        """Return the same decoder in float32, for comparison: it shares the weights, and widens some of them at a time."""
        wide = copy.copy(self)
        wide.dtype = torch.float32
        wide._layers = tuple(layer.widened() for layer in self._layers)
        wide._norm, wide._head = self._norm.float(), self._head.widened()
        return wide

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run, rows: Tensor | None) -> Tensor:
        """Logits [len(rows), V] after the given rows, or after all; token_ids and positions are int64 [T]."""
        x = torch.nn.functional.embedding(token_ids, self._embedding).to(self.dtype)
        cos, sin = self._rotary(x, positions[None])
        cos, sin = cos[0], sin[0]
        delta: Tensor | None = None  # what is still to be added to x
        for layer in self._layers:
            normed, x = _normed(x, delta, layer.attention_norm, layer.eps)
            x, delta = layer.out.onto(layer.attend(normed, cos, sin, run), x)
            normed, x = _normed(x, delta, layer.mlp_norm, layer.eps)
            x, delta = layer.down.onto(layer.gate_up(normed), x)
        if rows is not None:
            x, delta = x[rows], None if delta is None else delta[rows]
        return self._head(_normed(x, delta, self._norm, self._eps)[0])


def _normed(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of x + delta, and x + delta."""
    return (rms_norm(x, weight, eps), x) if delta is None else rms_norm(delta, weight, eps, x)
