"""A fused decoder from the modules of a model of transformers."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from parrot_nb.engine.embedded.families import FAMILIES, Activation, DecoderSizes, Family, LayerSizes
from parrot_nb.engine.embedded.fused import FusedDecoder, Linears, PackedLinears, Rotary
from parrot_nb.engine.embedded.linear import joined, pays_to_pack

BY_LAYER = {f"{family.stem}DecoderLayer": family for family in FAMILIES.values()}  # by the class of a layer
KNOWN_FAMILIES = "Llama, Mistral, Phi 3, Qwen 2 and 3, and Gemma 1 to 3"  # the same in words
ACTIVATIONS: dict[str, Activation] = {
    "SiLU": "silu", "SiLUActivation": "silu", "GELUActivation": "gelu", "GELUTanh": "gelu_tanh", "PytorchGELUTanh": "gelu_tanh",
}  # fmt: skip


class ModuleWeights:
    """Weights of a model of transformers.

    Args:
        model: the model.
        views: let the modules' weights become views of joined ones, which saves a copy of them.
    """

    def __init__(self, model: Any, *, views: bool) -> None:
        self._model, self._views = model, views

    def one(self, name: str) -> Tensor:
        """Return the weight of a norm or an embedding."""
        weight: Tensor = self._model.get_parameter(name).data
        return weight

    def joined(self, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Return weight and bias of linear layers, one below another. Raises KeyError for one that is more than that."""
        return joined([self._model.get_submodule(name) for name in names], views=self._views)

    def shape(self, names: Sequence[str]) -> tuple[int, int]:
        """Return (N, K) of linear layers, one below another."""
        weights = [self._model.get_submodule(name).weight for name in names]
        return sum(weight.shape[0] for weight in weights), weights[0].shape[1]

    def bias(self, names: Sequence[str]) -> Tensor | None:
        """Return the bias of linear layers, one below another."""
        return joined([self._model.get_submodule(name) for name in names], views=False)[1]

    def int4_blocks(self, _name: str) -> None:
        """Return None: a module's weights are plain."""


def fused_decoder(model: Any, *, joins: bool = True, linears: Linears | None = None) -> FusedDecoder:
    """Make a fused decoder of a model of transformers, on its device, in eval mode; its modules keep their weights.

    Args:
        model: of a class that is known here.
        joins: the modules' weights may become views of joined ones, which saves a copy of them.
        linears: makes the matrix products; None for weights as they are.

    Raises:
        LookupError: not such a model.
    """
    body: Any = getattr(model, "model", None)
    layers = list(getattr(body, "layers", ()))
    kinds = {type(layer).__name__ for layer in layers}
    if len(kinds) != 1 or not kinds <= BY_LAYER.keys():
        raise LookupError(f"there is none for {type(model).__name__}, only for {KNOWN_FAMILIES}")
    family = BY_LAYER[kinds.pop()]
    expected = f"{family.stem}TextScaledWordEmbedding" if family.scaled_embedding else "Embedding"
    if (found := type(body.embed_tokens).__name__) != expected:
        raise LookupError(f"there is none for {type(model).__name__} with a {found}")
    if linears is None:
        plain_bytes = sum(p.numel() * p.element_size() for p in model.parameters())
        linears = PackedLinears(pays_to_pack(model.dtype, model.device, plain_bytes=plain_bytes))
    try:
        sizes = _sizes(family, model, layers)
        return FusedDecoder.of(
            family,
            sizes,
            ModuleWeights(model, views=joins),
            _rotaries(family, body.rotary_emb, {layer.rotary for layer in sizes.layers}),
            name=type(model).__name__,
            linears=linears,
        )
    except (AttributeError, KeyError) as error:
        raise LookupError(f"there is none for a {type(model).__name__} built like this one ({error})") from error


def _sizes(family: Family, model: Any, layers: Sequence[Any]) -> DecoderSizes:
    embedding, softcap = model.model.embed_tokens, family.softcaps[1]
    head, bias = joined([model.lm_head], views=False)  # raises where it is more than a linear layer
    return DecoderSizes(
        layers=tuple(_layer_sizes(family, layer) for layer in layers),
        eps=_eps(model.model.norm),
        tied=head.data_ptr() == embedding.weight.data_ptr() and bias is None,
        embedding_scale=embedding.scalar_embed_scale if family.scaled_embedding else None,
        softcap=None if softcap is None else getattr(model.config, softcap),
    )


def _layer_sizes(family: Family, layer: Any) -> LayerSizes:
    attn, mlp, softcap = layer.self_attn, layer.mlp, family.softcaps[0]
    activation = getattr(mlp, "act_fn", None) or mlp.activation_fn
    width = sum(getattr(attn, name).weight.shape[0] for name in family.qkv_names)
    num_heads = attn.o_proj.weight.shape[1] // attn.head_dim
    window = getattr(attn.config if family.windows == "all" else attn, "sliding_window", None)
    return LayerSizes(
        index=attn.layer_idx,
        num_heads=num_heads,
        num_kv_heads=(width // attn.head_dim - num_heads) // 2,
        head_dim=attn.head_dim,
        eps=_eps(layer.input_layernorm),
        scale=attn.scaling,
        window=window,
        softcap=None if softcap is None else getattr(attn.config, softcap),
        rotary=int(family.local_rope and window is not None),
        activation=ACTIVATIONS[type(activation).__name__],
    )


def _eps(norm: Any) -> float:
    eps: float = norm.eps if hasattr(norm, "eps") else norm.variance_epsilon
    return eps


def _rotaries(family: Family, rotary: Any, used: Collection[int]) -> tuple[Rotary, ...]:
    if not family.local_rope:
        return (rotary,)
    kinds = ("full_attention", "sliding_attention")
    for number in used:
        _ = getattr(rotary, f"{kinds[number]}_inv_freq")  # raises where the class is written otherwise
    return tuple(partial(rotary, layer_type=kind) if number in used else _no_rotary for number, kind in enumerate(kinds))


def _no_rotary(x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
    """Angles without a dimension, for a rotary embedding that no layer uses."""
    nothing = torch.empty(1, positions.shape[1], 0, dtype=x.dtype, device=x.device)
    return nothing, nothing
