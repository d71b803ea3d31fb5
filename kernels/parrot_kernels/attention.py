"""Attention of a ragged step over paged KV.

For row t of a context, query head h, key head h // (Hq / Hkv), and its context's positions j:

    s_j = scale * q_t . k_j        (softcap: s_j = c * tanh(s_j / c))
    out_t = sum_j softmax(s)_j v_j    over j <= t, and t - j < window; a sink adds exp(sink_h) to the denominator

Rows that decode are done together, as one batch padded to the longest; each prefill chunk on its own. Reference:
`parrot_kernels.reference.attention_reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.plan import AttentionPlan, DecodeRows, PrefillRows


def attention(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: AttentionPlan,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """Attend from the rows of a step to their contexts. The step's own keys and values must be in the cache already.

    Args:
        query: [T, Hq, D], any strides.
        k_cache: [num_slots, Hkv, D]; Hq is a multiple of Hkv.
        v_cache: [num_slots, Hkv, Dv].
        plan: of this step.
        scale: factor of the scores.
        window: how many last positions a row sees, itself included; None for all.
        softcap: bound of the scores, or None.
        sinks: [Hq], or None.

    Returns:
        [T, Hq, Dv], contiguous, in the query's dtype.
    """
    if query.shape[0] != plan.num_rows:
        raise ValueError(f"The plan is for {plan.num_rows} rows, the query has {query.shape[0]}.")
    if query.shape[1] % k_cache.shape[1]:
        raise ValueError(f"{query.shape[1]} query heads cannot share {k_cache.shape[1]} key heads evenly.")
    out = query.new_empty(query.shape[0], query.shape[1], v_cache.shape[2])
    terms = _Terms(scale, window, softcap, sinks)
    if plan.decode is not None:
        out[plan.decode.rows] = _decode(query, k_cache, v_cache, plan.decode, terms)
    for rows in plan.prefills:
        out[rows.start : rows.end] = _prefill(query[rows.start : rows.end], k_cache, v_cache, rows, terms)
    return out


class _Terms:
    """How scores become weights; the same for both kinds of rows."""

    def __init__(self, scale: float, window: int | None, softcap: float | None, sinks: Tensor | None) -> None:
        self.scale, self.window, self.softcap, self.sinks = scale, window, softcap, sinks

    def attend(self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        """Query [B, Hkv, N, D], key [B, Hkv, L, D], value [B, Hkv, L, Dv], mask [B or 1, 1, N, L] -> [B, Hkv, N, Dv].

        The N rows of a key head are its G query heads times the query rows, query head outermost.
        """
        if self.softcap is None and self.sinks is None:
            return torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=self.scale)
        scores = query @ key.transpose(-1, -2) * self.scale  # [B, Hkv, N, L]
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if mask is not None:
            scores = scores.masked_fill(~mask, float("-inf"))
        if self.sinks is not None:
            batch, num_kv_heads, num_rows, _ = scores.shape
            group = self.sinks.shape[0] // num_kv_heads
            sinks = self.sinks.to(scores.dtype).view(1, num_kv_heads, group, 1).expand(batch, -1, -1, num_rows // group)
            scores = torch.cat([scores, sinks.reshape(batch, num_kv_heads, num_rows, 1)], dim=-1)
        weights = torch.softmax(scores.float() if scores.dtype.itemsize < 4 else scores, dim=-1).to(value.dtype)
        return weights[..., : value.shape[2]] @ value


def _decode(query: Tensor, k_cache: Tensor, v_cache: Tensor, decode: DecodeRows, terms: _Terms) -> Tensor:
    num_kv_heads = k_cache.shape[1]
    batch, length = decode.slots.shape
    rows = query[decode.rows]  # [B, Hq, D]
    grouped = rows.reshape(batch, num_kv_heads, rows.shape[1] // num_kv_heads, rows.shape[2])
    key = k_cache[decode.slots].transpose(1, 2)  # [B, Hkv, L, D]
    value = v_cache[decode.slots].transpose(1, 2)
    position = torch.arange(length, device=query.device)
    mask = position < decode.lengths[:, None]  # [B, L]
    if terms.window is not None:
        mask &= position >= decode.lengths[:, None] - terms.window
    out = terms.attend(grouped, key, value, mask[:, None, None, :].expand(-1, -1, grouped.shape[2], -1))
    return out.reshape(batch, rows.shape[1], -1)


def _prefill(query: Tensor, k_cache: Tensor, v_cache: Tensor, rows: PrefillRows, terms: _Terms) -> Tensor:
    num_rows, num_heads, head_dim = query.shape
    num_kv_heads, length = k_cache.shape[1], rows.slots.shape[0]
    group = num_heads // num_kv_heads
    grouped = query.view(num_rows, num_kv_heads, group, head_dim).permute(1, 2, 0, 3)  # [Hkv, G, n, D]
    key = k_cache[rows.slots].transpose(0, 1)[None]  # [1, Hkv, L, D]
    value = v_cache[rows.slots].transpose(0, 1)[None]
    row_position = torch.arange(length - num_rows, length, device=query.device)[:, None]
    position = torch.arange(length, device=query.device)
    mask = position <= row_position  # [n, L]
    if terms.window is not None:
        mask &= position > row_position - terms.window
    out = terms.attend(
        grouped.reshape(1, num_kv_heads, group * num_rows, head_dim), key, value, mask.repeat(group, 1)[None, None]
    )
    return out.view(num_kv_heads, group, num_rows, -1).permute(2, 0, 1, 3).reshape(num_rows, num_heads, -1)
