"""Two-phase prefix attention over a tree, in Triton (the paper's kernel, section 7, for any number of shared prefixes).

For a tile of rows t and tokens j (`parrot_kernels.tiles`), with s_tj = scale * q_t . k_j and what the mask forbids left out:

    m_t = max_j s_tj,    l_t = sum_j exp(s_tj - m_t),    o_t = sum_j exp(s_tj - m_t) v_j / l_t

The second kernel merges a row's tiles i by their log-sum-exp e_i = m_i + log l_i:

    out = sum_i exp(e_i - e) o_i    with e = log sum_i exp(e_i);  a sink adds exp(sink) to that sum

Both work with powers of two. Masking is by position alone: a token is seen if it is not after the row, nor `window` or
more before it. Reference: `parrot_kernels.reference.attention_reference`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import launching, tl, triton
from parrot_kernels.tiles import LARGE_ROWS, SMALL_ROWS, TILE_FIELDS, TilePlan

MAX_HEAD_DIM = 256  # a tile's accumulator stays in registers up to here
MANY_ROWS = 256  # the merge of no more rows spreads each over several programs, to fill the device
DTYPES = (torch.float32, torch.float16, torch.bfloat16)
LOG2_E = 1.4426950408889634


def fits(num_heads: int, num_kv_heads: int, key_dim: int, value_dim: int) -> bool:
    """Whether the Triton kernel of `attention` serves heads of such shapes; torch's path serves all.

    Args:
        num_heads: Hq.
        num_kv_heads: Hkv.
        key_dim: D.
        value_dim: Dv.
    """
    return triton is not None and _has_tiles(num_heads, num_kv_heads, key_dim, value_dim)


def _has_tiles(num_heads: int, num_kv_heads: int, key_dim: int, value_dim: int) -> bool:
    """Whether tiles have room for heads of such shapes."""
    return max(key_dim, value_dim) <= MAX_HEAD_DIM and num_heads // num_kv_heads <= SMALL_ROWS


if triton is not None:

    @triton.jit
    def _tile_kernel(  # noqa: PLR0915 - one pass over a tile, top to bottom
        p_query,
        p_k_cache,
        p_v_cache,
        p_tiles,
        p_pages,
        p_row_position,
        p_row_start,
        p_partial,  # float32 [M, Hq, DV]
        p_lse,  # float32 [M, Hq], base 2
        scale,  # of scores, times log2(e) unless there is a soft cap
        softcap,
        window,
        query_stride_t,
        query_stride_h,
        query_stride_d,
        HEADS: tl.constexpr,
        KV_HEADS: tl.constexpr,
        KEY_DIM: tl.constexpr,
        VALUE_DIM: tl.constexpr,
        PAGE: tl.constexpr,
        FIELDS: tl.constexpr,
        HAS_SOFTCAP: tl.constexpr,
        HAS_WINDOW: tl.constexpr,
        PRECISION: tl.constexpr,
        BLOCK_M: tl.constexpr,
        BLOCK_N: tl.constexpr,
        BLOCK_K: tl.constexpr,
        BLOCK_V: tl.constexpr,
    ):
        i_tile, i_head = tl.program_id(0), tl.program_id(1)
        GROUP: tl.constexpr = HEADS // KV_HEADS
        p_tile = p_tiles + i_tile * FIELDS
        num_rows = tl.load(p_tile + 1)
        first_m = tl.program_id(2) * BLOCK_M  # of the tile's packed rows, this program's first
        if first_m < num_rows * GROUP:
            row = tl.load(p_tile)
            p_page = p_pages + tl.load(p_tile + 2)
            first = tl.load(p_tile + 3)
            num_tokens = tl.load(p_tile + 4)
            order = tl.load(p_tile + 5)
            o_m = first_m + tl.arange(0, BLOCK_M)
            m_m = o_m < num_rows * GROUP
            o_row = row + o_m // GROUP
            o_head = i_head * GROUP + o_m % GROUP
            b_position = tl.load(p_row_position + o_row, mask=m_m, other=-1)  # [BLOCK_M]
            o_k, o_v = tl.arange(0, BLOCK_K), tl.arange(0, BLOCK_V)
            p_q = p_query + o_row.to(tl.int64)[:, None] * query_stride_t + o_head[:, None] * query_stride_h
            b_q = tl.load(p_q + o_k[None, :] * query_stride_d, mask=m_m[:, None] & (o_k < KEY_DIM)[None, :], other=0.0)
            last = tl.max(b_position)
            end = tl.minimum(num_tokens, last + 1 - first)  # no row sees further
            begin = 0
            if HAS_WINDOW:
                earliest = tl.min(tl.where(m_m, b_position, last))
                begin = tl.maximum(0, earliest + 1 - window - first) // BLOCK_N * BLOCK_N
            b_max = tl.full((BLOCK_M,), float("-inf"), tl.float32)
            b_sum = tl.zeros((BLOCK_M,), tl.float32)
            b_acc = tl.zeros((BLOCK_M, BLOCK_V), tl.float32)
            for start in range(begin, end, BLOCK_N):
                o_n = start + tl.arange(0, BLOCK_N)
                m_n = o_n < end
                page = tl.load(p_page + o_n // PAGE, mask=m_n, other=0).to(tl.int64)  # addresses may pass 2^31
                slot_head = (page * PAGE + o_n % PAGE) * KV_HEADS + i_head
                b_k = tl.load(  # [BLOCK_K, BLOCK_N]
                    p_k_cache + slot_head[None, :] * KEY_DIM + o_k[:, None],
                    mask=m_n[None, :] & (o_k < KEY_DIM)[:, None],
                    other=0.0,
                )
                b_s = tl.dot(b_q, b_k, input_precision=PRECISION) * scale
                if HAS_SOFTCAP:  # c tanh(s / c), by sigmoids: tanh(x) = 2 sigmoid(2 x) - 1
                    b_s = softcap * (2 * tl.sigmoid(2 * b_s / softcap) - 1) * 1.4426950408889634
                m_seen = m_n[None, :] & ((first + o_n)[None, :] <= b_position[:, None])
                if HAS_WINDOW:
                    m_seen = m_seen & ((first + o_n)[None, :] > b_position[:, None] - window)
                b_s = tl.where(m_seen, b_s, float("-inf"))
                b_new = tl.maximum(b_max, tl.max(b_s, axis=1))
                b_base = tl.where(b_new == float("-inf"), 0.0, b_new)  # nothing seen yet: not inf - inf
                b_p = tl.exp2(b_s - b_base[:, None])
                b_scale = tl.exp2(b_max - b_base)
                b_v = tl.load(  # [BLOCK_N, BLOCK_V]
                    p_v_cache + slot_head[:, None] * VALUE_DIM + o_v[None, :],
                    mask=m_n[:, None] & (o_v < VALUE_DIM)[None, :],
                    other=0.0,
                )
                b_sum = b_sum * b_scale + tl.sum(b_p, axis=1)
                b_acc = b_acc * b_scale[:, None] + tl.dot(b_p.to(b_v.dtype), b_v, input_precision=PRECISION)
                b_max = b_new
            b_seen = b_sum > 0
            b_out = b_acc / tl.where(b_seen, b_sum, 1.0)[:, None]
            b_lse = tl.where(b_seen, b_max + tl.log2(tl.where(b_seen, b_sum, 1.0)), float("-inf"))
            o_partial = (tl.load(p_row_start + o_row, mask=m_m, other=0) + order).to(tl.int64) * HEADS + o_head
            tl.store(p_lse + o_partial, b_lse, mask=m_m)
            tl.store(
                p_partial + o_partial[:, None] * VALUE_DIM + o_v[None, :], b_out, mask=m_m[:, None] & (o_v < VALUE_DIM)[None, :]
            )

    @triton.jit
    def _merge_kernel(
        p_partial,
        p_lse,
        p_row_start,
        p_sinks,
        p_out,  # [T, Hq, DV]
        HEADS: tl.constexpr,
        VALUE_DIM: tl.constexpr,
        HAS_SINKS: tl.constexpr,
        BLOCK_P: tl.constexpr,
        BLOCK_H: tl.constexpr,
        BLOCK_V: tl.constexpr,
    ):
        i_row = tl.program_id(0)
        o_p, o_v = tl.arange(0, BLOCK_P), tl.arange(0, BLOCK_V)
        o_h = tl.program_id(1) * BLOCK_H + tl.arange(0, BLOCK_H)
        m_h, m_v = o_h < HEADS, o_v < VALUE_DIM
        start = tl.load(p_row_start + i_row)
        end = tl.load(p_row_start + i_row + 1)
        if HAS_SINKS:  # takes part in the softmax and gives nothing
            b_max = tl.load(p_sinks + o_h, mask=m_h, other=0.0).to(tl.float32) * 1.4426950408889634
            b_sum = tl.full((BLOCK_H,), 1.0, tl.float32)
        else:
            b_max = tl.full((BLOCK_H,), float("-inf"), tl.float32)
            b_sum = tl.zeros((BLOCK_H,), tl.float32)
        b_acc = tl.zeros((BLOCK_H, BLOCK_V), tl.float32)
        for first in range(start, end, BLOCK_P):
            o = (first + o_p).to(tl.int64)[:, None] * HEADS + o_h[None, :]
            m = (first + o_p < end)[:, None] & m_h[None, :]  # [BLOCK_P, BLOCK_H]
            b_lse = tl.load(p_lse + o, mask=m, other=float("-inf"))
            b_o = tl.load(  # [BLOCK_P, BLOCK_H, BLOCK_V]
                p_partial + o[:, :, None] * VALUE_DIM + o_v[None, None, :], mask=m[:, :, None] & m_v[None, None, :], other=0.0
            )
            b_new = tl.maximum(b_max, tl.max(b_lse, axis=0))
            b_base = tl.where(b_new == float("-inf"), 0.0, b_new)
            b_old, b_weight = tl.exp2(b_max - b_base), tl.exp2(b_lse - b_base[None, :])
            b_acc = b_acc * b_old[:, None] + tl.sum(b_o * b_weight[:, :, None], axis=0)
            b_sum = b_sum * b_old + tl.sum(b_weight, axis=0)
            b_max = b_new
        b_out = b_acc / tl.where(b_sum > 0, b_sum, 1.0)[:, None]
        o_out = (i_row.to(tl.int64) * HEADS + o_h)[:, None] * VALUE_DIM + o_v[None, :]
        tl.store(p_out + o_out, b_out.to(p_out.dtype.element_ty), mask=m_h[:, None] & m_v[None, :])


def attention_tiled(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: TilePlan,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
) -> Tensor:
    """`parrot_kernels.attention` by the Triton kernels; on the CPU only under TRITON_INTERPRET=1. Never waits for the
    device, and can be captured in a graph.

    Args:
        query: [T, Hq, D], any strides, float32 or narrower; T is the plan's, or its capacity of rows.
        k_cache: [num_slots, Hkv, D], contiguous; D and Dv at most 256, Hq / Hkv at most 16.
        v_cache: [num_slots, Hkv, Dv], contiguous.
        plan: of this step.
        scale: factor of the scores.
        window: how many last positions a row sees, itself included; None for all.
        softcap: bound of the scores, or None.
        sinks: [Hq], or None.

    Raises:
        ValueError: shapes that the kernel does not serve.
    """
    _check(query, k_cache, v_cache, plan, window, softcap, sinks)
    num_rows, num_heads, key_dim = query.shape
    num_kv_heads, value_dim = v_cache.shape[1:]
    partial = torch.empty(plan.num_partials, num_heads, value_dim, dtype=torch.float32, device=query.device)
    lse = torch.empty(plan.num_partials, num_heads, dtype=torch.float32, device=query.device)
    out = torch.empty(num_rows, num_heads, value_dim, dtype=query.dtype, device=query.device)
    block_k, block_v = (max(16, triton.next_power_of_2(dim)) for dim in (key_dim, value_dim))
    for tiles, tile_rows in ((plan.small, SMALL_ROWS), (plan.large, LARGE_ROWS)):
        if not tiles.shape[0]:
            continue
        block_m = _rows_of_a_program(tile_rows, query.dtype)
        with launching(query):
            _tile_kernel[(tiles.shape[0], num_kv_heads, tile_rows // block_m)](
                query, k_cache, v_cache, tiles, plan.pages, plan.row_position, plan.row_start, partial, lse,
                scale if softcap is not None else scale * LOG2_E, softcap or 0.0, window or 0,
                *query.stride(),
                HEADS=num_heads, KV_HEADS=num_kv_heads, KEY_DIM=key_dim, VALUE_DIM=value_dim, PAGE=plan.page_size,
                FIELDS=TILE_FIELDS, HAS_SOFTCAP=softcap is not None, HAS_WINDOW=window is not None,
                PRECISION="ieee" if query.dtype == torch.float32 else "tf32",  # tf32 only names what narrower types do not use
                BLOCK_M=block_m, BLOCK_K=block_k, BLOCK_V=block_v, **_launch(block_m, max(block_k, block_v), query.dtype),
            )  # fmt: skip
    block_p, block_h = _merge_blocks(num_rows, num_heads, block_v)
    with launching(query):
        _merge_kernel[(num_rows, triton.cdiv(num_heads, block_h))](
            partial, lse, plan.row_start, sinks if sinks is not None else lse, out, HEADS=num_heads, VALUE_DIM=value_dim,
            HAS_SINKS=sinks is not None, BLOCK_P=block_p, BLOCK_H=block_h, BLOCK_V=block_v,
        )  # fmt: skip
    return out


def _check(
    query: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    plan: TilePlan,
    window: int | None,
    softcap: float | None,
    sinks: Tensor | None,
) -> None:
    num_rows, num_heads, key_dim = query.shape
    num_kv_heads, value_dim = v_cache.shape[1:]
    if k_cache.shape != (v_cache.shape[0], num_kv_heads, key_dim):
        raise ValueError(f"Keys {list(k_cache.shape)} do not go with values {list(v_cache.shape)} and queries of {key_dim}.")
    if num_heads % num_kv_heads:
        raise ValueError(f"{num_heads} query heads cannot share {num_kv_heads} key heads evenly.")
    if not _has_tiles(num_heads, num_kv_heads, key_dim, value_dim):
        raise ValueError(
            f"The kernel serves head dimensions to {MAX_HEAD_DIM} and {SMALL_ROWS} query heads per key head, "
            f"not {key_dim}, {value_dim} and {num_heads // num_kv_heads}, or Triton is not installed."
        )
    if not (query.dtype == k_cache.dtype == v_cache.dtype and query.dtype in DTYPES):
        raise ValueError(
            f"Queries of {query.dtype}, keys of {k_cache.dtype} and values of {v_cache.dtype} are not one of {DTYPES}."
        )
    if not (k_cache.is_contiguous() and v_cache.is_contiguous()):
        raise ValueError("The KV cache must be contiguous.")
    if num_rows != plan.row_position.shape[0]:
        raise ValueError(f"The plan is for {plan.row_position.shape[0]} rows, the query has {num_rows}.")
    if window is not None and window < 1:
        raise ValueError(f"A window of {window} is less than the row itself.")
    if softcap is not None and not softcap > 0:
        raise ValueError(f"A soft cap of {softcap} is not above 0.")
    if sinks is not None and (sinks.shape != (num_heads,) or not sinks.is_contiguous()):
        raise ValueError(f"Sinks {list(sinks.shape)} are not one for each of {num_heads} query heads, in a row.")


def _rows_of_a_program(tile_rows: int, dtype: torch.dtype) -> int:
    """Packed rows of a tile that one program does. Products in float32 are unrolled: of more rows, they need more registers than
    there are, and would keep kilobytes of each thread in memory."""
    return SMALL_ROWS if dtype.itemsize > 2 else tile_rows


def _launch(block_m: int, block_dim: int, dtype: torch.dtype) -> dict[str, int]:
    """Tokens per turn, warps and pipeline depth.

    A turn's keys wait for its page numbers, and Triton divides the stages between these two: 3 fetch the page numbers a turn
    ahead, only 5 the keys and values too. Small tiles have little to compute meanwhile, so they get 5, where two turns of
    64 tokens x 2 x 256 bytes are 64 KB of shared memory; with a large tile's queries that would not fit into 99 KB."""
    if dtype.itemsize > 2:
        return {"BLOCK_N": 32, "num_warps": 8, "num_stages": 2}
    wide = block_dim * dtype.itemsize
    small = block_m == SMALL_ROWS
    return {
        "BLOCK_N": 64 if wide <= 256 else 32,
        "num_warps": 4 if small or wide <= 256 else 8,
        "num_stages": 5 if small else 3,
    }


def _merge_blocks(num_rows: int, num_heads: int, block_v: int) -> tuple[int, int]:
    """Partial results and heads per turn: at most 4096 numbers, 32 registers of each thread. The few rows of a decode step
    have many partial results, which load side by side, and four heads a program (16 rows of 32 heads are 128 programs);
    of many rows most have one partial result, and heads fill the turn."""
    most = max(1, 4096 // block_v)
    block_h = min(triton.next_power_of_2(num_heads), 4 if num_rows <= MANY_ROWS else most)
    return min(16, most // block_h), block_h
