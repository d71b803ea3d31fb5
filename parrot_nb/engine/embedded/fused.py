"""A decoder of the Llama shape as few large operations: what a step costs on a small model is the number of calls.

Query, key and value are one projection, gate and up are another; norms, rotary embedding with the KV write, and gated
activations are the kernels of `parrot_kernels`. On the CPU the weights of small models are laid out once for oneDNN's
matrix products. What differs between families of models is described in `families`; the weights come from files that hold all
that is needed (`weights`), or from transformers' modules (`module_weights`): such a model is taken only if its classes are known
and it passes a trial against its own modules (`trial`).
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_kernels import attention, rms_norm, rope_and_write
from parrot_nb.engine.embedded.cache import LayerShape
from parrot_nb.engine.embedded.families import Activation, DecoderSizes, Family, LayerSizes
from parrot_nb.engine.embedded.int_weights import Int4Rows
from parrot_nb.engine.embedded.linear import GatedLinear, Linear
from parrot_nb.engine.embedded.step import Run

PARTS = ("QKV projection", "gate-up projection", "norms", "rotary embedding with KV write", "gated activation")
# (rows, positions [1, T]) -> cosines and sines [1, T, R], in the rows' dtype
Rotary = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Weights(Protocol):
    """The weights of a decoder, by the names that transformers gives them."""

    def one(self, name: str) -> Tensor:
        """Return the weight of a norm or an embedding."""
        ...

    def joined(self, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Return weight [N, K] and bias [N] of linear layers on the same input, one below another."""
        ...

    def shape(self, names: Sequence[str]) -> tuple[int, int]:
        """Return (N, K) of what `joined` would give."""
        ...

    def bias(self, names: Sequence[str]) -> Tensor | None:
        """Return the bias of what `joined` would give."""
        ...

    def int4_blocks(self, name: str) -> Iterator[Int4Rows] | None:
        """Return a linear layer's rows as the int4 that a file holds, some at a time; None where it holds something else."""
        ...


class Linears(Protocol):
    """Makes a decoder's matrix products of its weights."""

    def linear(self, weights: Weights, names: Sequence[str]) -> Linear:
        """Return the product with the weights of linear layers, one below another."""
        ...

    def head(self, weights: Weights, name: str, known: Tensor | None = None) -> Linear:
        """Return the product that gives logits; with its weight, where that is an embedding which is read already."""
        ...

    def gated(self, weights: Weights, names: Sequence[str], activation: Activation) -> GatedLinear:
        """Return the gated product with gate above up."""
        ...


@dataclass(frozen=True, slots=True)
class PackedLinears:
    """Makes products with weights as they are.

    Args:
        pack: lay them out for oneDNN.
    """

    pack: bool

    def linear(self, weights: Weights, names: Sequence[str]) -> Linear:
        """Return the product with the weights of linear layers, one below another."""
        return Linear(*weights.joined(names), pack=self.pack)

    def head(self, weights: Weights, name: str, known: Tensor | None = None) -> Linear:
        """Return the product that gives logits; with its weight, where that is an embedding which is read already."""
        return Linear(*(weights.joined([name]) if known is None else (known, None)), pack=self.pack)

    def gated(self, weights: Weights, names: Sequence[str], activation: Activation) -> GatedLinear:
        """Return the gated product with gate above up."""
        return GatedLinear(*weights.joined(names), activation, pack=self.pack)


@dataclass(frozen=True, slots=True)
class Layer:
    """One decoder layer's weights and sizes.

    Attributes:
        attention_norm: weight of the norm before attention; as all norms', in float32 where it multiplies before rounding.
        attention_post_norm: of what attention gives, before it is added; None where that is not normed.
        mlp_norm: before the MLP.
        mlp_post_norm: of what the MLP gives, or None.
        query_norm: of each query head, or None.
        key_norm: of each key head, if and only if queries are normed.
    """

    sizes: LayerSizes
    qkv: Linear
    out: Linear
    gate_up: GatedLinear
    down: Linear
    attention_norm: Tensor
    attention_post_norm: Tensor | None
    mlp_norm: Tensor
    mlp_post_norm: Tensor | None
    query_norm: Tensor | None
    key_norm: Tensor | None

    @classmethod
    def of(cls, family: Family, sizes: LayerSizes, weights: Weights, linears: Linears) -> Layer:
        """Build the layer from weights. Raises AttributeError or KeyError where they lack one."""
        prefix = f"model.layers.{sizes.index}"
        attn, mlp = f"{prefix}.self_attn", f"{prefix}.mlp"
        before, after, before_mlp, after_mlp = (name and f"{prefix}.{name}.weight" for name in family.norm_names)

        def norm(name: str | None) -> Tensor | None:
            return None if name is None else _norm(family, weights.one(name))

        attention_norm, mlp_norm = norm(before), norm(before_mlp)
        assert attention_norm is not None
        assert mlp_norm is not None
        return cls(
            sizes=sizes,
            qkv=linears.linear(weights, [f"{attn}.{name}" for name in family.qkv_names]),
            out=linears.linear(weights, [f"{attn}.o_proj"]),
            gate_up=linears.gated(weights, [f"{mlp}.{name}" for name in family.gate_up_names], sizes.activation),
            down=linears.linear(weights, [f"{mlp}.down_proj"]),
            attention_norm=attention_norm,
            attention_post_norm=norm(after),
            mlp_norm=mlp_norm,
            mlp_post_norm=norm(after_mlp),
            query_norm=norm(f"{attn}.q_norm.weight") if family.head_norms else None,
            key_norm=norm(f"{attn}.k_norm.weight") if family.head_norms else None,
        )

    @property
    def shape(self) -> LayerShape:
        """Shape of what the layer keeps in the cache."""
        sizes = self.sizes
        return LayerShape(sizes.num_heads, sizes.num_kv_heads, sizes.head_dim, sizes.head_dim)

    def widened(self) -> Layer:
        """Return the same layer in float32; only its norms take memory."""
        wide: dict[str, Any] = {name: getattr(self, name).widened() for name in ("qkv", "out", "gate_up", "down")}
        for name in ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm", "query_norm", "key_norm"):
            if (norm := getattr(self, name)) is not None:
                wide[name] = norm.float()
        return replace(self, **wide)

    def attend(self, x: Tensor, cos: Tensor, sin: Tensor, run: Run) -> Tensor:
        """Normed rows [T, H] -> what attention gives [T, Hq * D], before the last projection."""
        sizes = self.sizes
        qkv = self.qkv(x).view(x.shape[0], -1, sizes.head_dim)
        key_end = sizes.num_heads + sizes.num_kv_heads
        k_cache, v_cache = run.memory.keys[sizes.index], run.memory.values[sizes.index]
        query = rope_and_write(
            qkv[:, : sizes.num_heads],
            qkv[:, sizes.num_heads : key_end],
            qkv[:, key_end:],
            cos,
            sin,
            k_cache,
            v_cache,
            run.plan.new_slots,
            q_weight=self.query_norm,
            k_weight=self.key_norm,
            eps=sizes.eps,
        )
        attended = attention(query, k_cache, v_cache, run.plan, scale=sizes.scale, window=sizes.window, softcap=sizes.softcap)
        return attended.view(x.shape[0], -1)

    def __call__(self, x: Tensor, delta: Tensor | None, cos: Tensor, sin: Tensor, run: Run) -> tuple[Tensor, Tensor | None]:
        """Rows [T, H], and what is still to be added to them, before and after the layer."""
        eps = self.sizes.eps
        normed, x = added_and_normed(x, delta, self.attention_norm, eps)
        x, delta = _onto(self.out, self.attend(normed, cos, sin, run), x, self.attention_post_norm, eps)
        normed, x = added_and_normed(x, delta, self.mlp_norm, eps)
        return _onto(self.down, self.gate_up(normed), x, self.mlp_post_norm, eps)


def _norm(family: Family, weight: Tensor) -> Tensor:
    """A norm's weight as `rms_norm` takes it."""
    return weight.float() + 1 if family.unit_norms else weight


def _onto(product: Linear, x: Tensor, residual: Tensor, norm: Tensor | None, eps: float) -> tuple[Tensor, Tensor | None]:
    """A product on top of a residual, normed before it is added where there is a norm: the sum, and what is still to be added."""
    return product.onto(x, residual) if norm is None else (residual, rms_norm(product(x), norm, eps))


def added_and_normed(x: Tensor, delta: Tensor | None, weight: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """The norm of x + delta, and x + delta."""
    return (rms_norm(x, weight, eps), x) if delta is None else rms_norm(delta, weight, eps, x)


@dataclass(frozen=True, slots=True)
class Ends:
    """Embedding before a decoder's layers, and norm and head after them.

    Attributes:
        embed: token ids [T] to rows [T, H].
        num_embeddings: tokens that it knows.
        scale: factor of embedded rows, in their dtype; or None.
        rotaries: of the layers, which say by number whose heads each turns.
        norm: weight of the last norm, [H].
        head: rows to logits.
        softcap: bound of the logits, or None.
    """

    embed: Callable[[Tensor], Tensor]
    num_embeddings: int
    scale: Tensor | None
    rotaries: tuple[Rotary, ...]
    norm: Tensor
    eps: float
    head: Linear
    softcap: float | None

    def first(self, token_ids: Tensor, positions: Tensor, dtype: torch.dtype) -> tuple[Tensor, list[tuple[Tensor, Tensor]]]:
        """Embedded rows [T, H], and cosines and sines [T, R] of each rotary embedding."""
        x = self.embed(token_ids).to(dtype)
        if self.scale is not None:
            x *= self.scale
        angles = [rotary(x, positions[None]) for rotary in self.rotaries]
        return x, [(cos[0], sin[0]) for cos, sin in angles]

    def logits(self, x: Tensor, delta: Tensor | None, rows: Tensor | None) -> Tensor:
        """Logits after the given rows of x + delta, or after all."""
        if rows is not None:
            x, delta = x[rows], None if delta is None else delta[rows]
        logits = self.head(added_and_normed(x, delta, self.norm, self.eps)[0])
        return logits if self.softcap is None else torch.tanh(logits / self.softcap) * self.softcap

    def widened(self) -> Ends:
        """Return the same in float32; only the norm takes memory."""
        return replace(self, norm=self.norm.float(), head=self.head.widened())


class FusedDecoder:
    """A causal language model of the Llama shape.

    Args:
        name: of transformers' class for such models.
        device: where the weights are.
        dtype: of the weights.
        replaced: what it replaces besides modules that every such decoder replaces.

    Attributes:
        then: makes the decoder that takes the place of this one once it has passed a trial, with quantised weights; None for none.
    """

    def __init__(
        self,
        layers: Sequence[Layer],
        ends: Ends,
        *,
        name: str,
        device: torch.device,
        dtype: torch.dtype,
        replaced: tuple[str, ...] = (),
    ) -> None:
        self.name, self.device, self.dtype = name, device, dtype
        self.then: Callable[[], FusedDecoder] | None = None
        self.layers, self.ends = tuple(layers), ends
        self.num_embeddings = ends.num_embeddings
        self.shapes = {layer.sizes.index: layer.shape for layer in layers}
        self.parts: tuple[str, ...] = (*replaced, *PARTS)
        if ends.head.is_packed:
            self.parts += ("weights laid out for oneDNN",)

    @classmethod
    def of(
        cls,
        family: Family,
        sizes: DecoderSizes,
        weights: Weights,
        rotaries: Sequence[Rotary],
        *,
        name: str,
        linears: Linears,
        replaced: tuple[str, ...] = (),
    ) -> FusedDecoder:
        """Make one from weights, layer by layer. Raises AttributeError or KeyError where they lack one."""
        layers = [Layer.of(family, layer, weights, linears) for layer in sizes.layers]
        embedding = weights.one("model.embed_tokens.weight")
        head = linears.head(weights, "model.embed_tokens", embedding) if sizes.tied else linears.head(weights, "lm_head")
        embed = head.row_reader(embedding) if sizes.tied else None
        ends = Ends(
            embed=embed or (lambda token_ids: F.embedding(token_ids, embedding)),
            num_embeddings=embedding.shape[0],
            scale=None if sizes.embedding_scale is None else torch.tensor(sizes.embedding_scale).to(embedding),
            rotaries=tuple(rotaries),
            norm=_norm(family, weights.one("model.norm.weight")),
            eps=sizes.eps,
            head=head,
            softcap=sizes.softcap,
        )
        return cls(
            layers,
            ends,
            name=name,
            device=embedding.device,
            dtype=embedding.dtype,
            replaced=replaced,
        )

    def final(self) -> FusedDecoder:
        """Return the decoder to compute with after a trial. If that is another, this one drops its layers first and computes no more."""
        if self.then is None:
            return self
        self.layers = ()  # their weights would stay beside the quantised ones while these are made
        return self.then()

    def widened(self) -> FusedDecoder:
        """Return the same decoder in float32, for comparison: it shares the weights, and widens some of them at a time."""
        wide = copy.copy(self)
        wide.dtype = torch.float32
        wide.layers, wide.ends = tuple(layer.widened() for layer in self.layers), self.ends.widened()
        return wide

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run, rows: Tensor | None) -> Tensor:
        """Logits [len(rows), V] after the given rows, or after all; token_ids and positions are int64 [T]."""
        x, angles = self.ends.first(token_ids, positions, self.dtype)
        delta: Tensor | None = None  # what is still to be added to x
        for layer in self.layers:
            x, delta = layer(x, delta, *angles[layer.sizes.rotary], run)
        return self.ends.logits(x, delta, rows)
