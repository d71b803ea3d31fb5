"""Restricts which tokens a row of logits may choose."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def restrict(logits: Tensor, allowed: Sequence[Tensor | None]) -> None:
    """Set the logits [B, V] of all other tokens to minus infinity, in the rows that have allowed tokens, int64 [n] each."""
    for row, ids in enumerate(allowed):
        if ids is not None:
            kept = logits[row, ids]
            logits[row].fill_(float("-inf"))
            logits[row, ids] = kept
