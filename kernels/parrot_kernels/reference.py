"""The truth that kernels are tested against: plain, slow, any float dtype, one row at a time."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from parrot_kernels.segments import ContextRows


def attention_reference(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    contexts: Sequence[ContextRows],
    page_size: int,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Compute the result of `parrot_kernels.attention` row by row; same shapes, in the inputs' dtype."""
    num_heads, group = query.shape[1], query.shape[1] // k_cache.shape[1]
    out = query.new_zeros(query.shape[0], num_heads, v_cache.shape[2])
    row = 0
    for context in contexts:
        slots = [
            context.pages[i // page_size] * page_size + i % page_size
            for i in range(context.num_cached_tokens + context.num_new_tokens)
        ]
        for i_new in range(context.num_new_tokens):
            last = context.num_cached_tokens + i_new
            first = 0 if window is None else max(0, last + 1 - window)
            seen = slots[first : last + 1]
            for head in range(num_heads):
                scores = k_cache[seen, head // group] @ query[row, head] * scale  # [seen]
                if softcap is not None:
                    scores = softcap * torch.tanh(scores / softcap)
                if sinks is not None:  # a sink takes part in the softmax and gives nothing
                    scores = torch.cat([scores, sinks[head : head + 1].to(scores.dtype)])
                weights = torch.softmax(scores, dim=0)[: len(seen)]
                out[row, head] = weights @ v_cache[seen, head // group]
            row += 1
    return out
