"""Protocols of decoders, which compute the logits of a step, as `StepModel` uses them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from parrot_nb.engine.embedded.cache import LayerShape
    from parrot_nb.engine.embedded.step import Run


class Decoder(Protocol):
    """A decoder that computes logits on a paged KV cache.

    Attributes:
        name: of transformers' class for such models.
        device: where its weights are.
        dtype: of its weights.
        shapes: of what each layer keeps, by the layer's index.
        num_embeddings: tokens that it knows.
        parts: what runs in place of transformers' own.
    """

    name: str
    device: torch.device
    dtype: torch.dtype
    shapes: dict[int, LayerShape]
    num_embeddings: int
    parts: tuple[str, ...]

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run, rows: Tensor | None) -> Tensor:
        """Logits [len(rows), V] after the given rows, or after all; token_ids and positions are int64 [T].

        KV of the tokens is written to where the run's plan says.
        """
        ...


class Replaceable(Decoder, Protocol):
    """A decoder that a fused one can replace."""

    def in_float32(self) -> AbstractContextManager[None]:
        """A context in which it computes in float32."""
        ...
