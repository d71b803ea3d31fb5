"""Attention whose result for a row depends on nothing but its own context: each row by itself, over keys gathered anew.

For row t of a context, with the heads of a key head as the rows of one product of shape [G, t + 1]:

    out_t = softmax(scale * q_t . k_0..t) v_0..t

What `parrot_kernels.host` does is as right and faster, but where it cuts depends on what else is in the step: products of other
shapes add in another order, and in a narrow dtype that can change a token. Here shape, strides and alignment of all operands
follow from the row's position alone. Reference: `parrot_kernels.reference.attention_reference`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parrot_kernels.host import Run, Terms
from parrot_kernels.segments import ContextRows


@dataclass(frozen=True, slots=True)
class RowContext:
    """Rows of one context: the first is at `row` in the step and at `position` in its context; `slots`, int64 [L], are its tokens."""

    row: int
    num_rows: int
    position: int
    slots: Tensor


@dataclass(frozen=True, slots=True)
class RowPlan:
    """The contexts of a step."""

    contexts: tuple[RowContext, ...]

    @classmethod
    def build(cls, contexts: Sequence[ContextRows], page_size: int, device: torch.device | str) -> RowPlan:
        """Rows as they lie in the step, one context behind the other."""
        found, row = [], 0
        for context in contexts:
            length = context.num_cached_tokens + context.num_new_tokens
            grid = torch.tensor(list(context.pages), dtype=torch.int64)[:, None] * page_size + torch.arange(page_size)
            slots = grid.flatten()[:length].to(device)
            found.append(RowContext(row, context.num_new_tokens, context.num_cached_tokens, slots))
            row += context.num_new_tokens
        return cls(tuple(found))


def attention_rowwise(
    query: Tensor, k_cache: Tensor, v_cache: Tensor, plan: RowPlan, terms: Terms, sinks: Tensor | None = None
) -> Tensor:
    """Shapes as `parrot_kernels.attention`."""
    num_rows, num_heads, _ = query.shape
    num_kv_heads, value_dim = v_cache.shape[1:]
    grouped = query.view(num_rows, num_kv_heads, num_heads // num_kv_heads, -1)
    out = query.new_empty(num_rows, num_kv_heads, num_heads // num_kv_heads, value_dim)
    for context in plan.contexts:
        key, value = Run(context.slots).take(k_cache), Run(context.slots).take(v_cache)  # copies: aligned alike each time
        for i in range(context.num_rows):
            end = context.position + i + 1
            first = 0 if terms.window is None else max(0, end - terms.window)
            row = grouped[context.row + i][None].clone()
            found, lse = terms.attend(row, key[:, :, first:end], value[:, :, first:end], None)
            if sinks is not None:  # a sink takes part in the softmax and gives nothing
                found = found * torch.sigmoid(lse - sinks.to(lse.dtype).view(num_kv_heads, -1))[..., None].to(found.dtype)
            out[context.row + i] = found[0]
    return out.view(num_rows, num_heads, value_dim)
