"""The operations between the qkv projection and attention, in one pass over the projection's output:

    q, k  = rms_norm(q) * q_weight, rms_norm(k) * k_weight          over each head, where there are weights (Qwen 3, Gemma 3)
    x[i], x[i + R/2] = x[i] * cos[i] - x[i + R/2] * sin[i], x[i + R/2] * cos[i + R/2] + x[i] * sin[i + R/2],   i < R/2
    k_cache[slots[t]], v_cache[slots[t]] = k[t], value[t]

The rotation is NeoX's, by halves; what is beyond R of a head's D passes through (partial rotary).
`rotated_reference` is the truth. On CUDA one Triton program does a few heads of one row; elsewhere torch does it with as
few calls as it can, for at the width of a decoding step a call costs more than its arithmetic.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton
from parrot_kernels.norm import unit_rms


def rope_and_write(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    cos: Tensor,
    sin: Tensor,
    k_cache: Tensor,
    v_cache: Tensor,
    slots: Tensor,
    *,
    q_weight: Tensor | None = None,
    k_weight: Tensor | None = None,
    eps: float = 1e-6,
) -> Tensor:
    """Rotate a step's queries and keys, and write its keys and values into the cache, in place.

    Args:
        query: [T, Hq, D], any strides: it may be a view of one projection with key and value.
        key: [T, Hkv, D], likewise, in the query's dtype.
        value: [T, Hkv, Dv], likewise.
        cos: [T, R], contiguous, in the query's dtype; R is even and at most D.
        sin: as cos.
        k_cache: [num_slots, Hkv, D], contiguous, in the query's dtype.
        v_cache: [num_slots, Hkv, Dv], likewise.
        slots: int64 [T], all different and within the cache.
        q_weight: [D] of the norm of each query head, in the query's dtype or in float32, as `rms_norm` takes it; or None.
        k_weight: [D] of the norm of each key head, in the same dtype; given if and only if q_weight is.
        eps: of both norms.

    Returns:
        The rotated query, [T, Hq, D]; the elements of a head lie side by side.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    if not query.dtype == key.dtype == value.dtype == cos.dtype == sin.dtype == k_cache.dtype == v_cache.dtype:
        raise ValueError(f"Query, key, value, cos, sin and the cache must be of one dtype; the query is {query.dtype}.")
    if cos.shape != sin.shape or cos.shape[0] != query.shape[0] or cos.shape[1] % 2 or cos.shape[1] > query.shape[2]:
        raise ValueError(f"Angles {list(cos.shape)} do not rotate a query {list(query.shape)}.")
    if (q_weight is None) != (k_weight is None):
        raise ValueError("Queries and keys are normalised both or neither.")
    if q_weight is not None and k_weight is not None and not (q_weight.dtype == k_weight.dtype in (query.dtype, torch.float32)):
        raise ValueError(f"Norms of {q_weight.dtype} and {k_weight.dtype} are not for queries of {query.dtype}.")
    if backend.serves(query):
        return rope_and_write_triton(
            query, key, value, cos, sin, k_cache, v_cache, slots, q_weight=q_weight, k_weight=k_weight, eps=eps
        )
    num_heads = query.shape[1]
    heads = _side_by_side(query, key)  # both at once: half the calls
    if q_weight is not None and k_weight is not None:
        heads = unit_rms(heads.to(q_weight.dtype) if query.dtype.itemsize == 2 else heads, eps)
        heads[:, :num_heads].mul_(q_weight)
        heads[:, num_heads:].mul_(k_weight)
        heads = heads.to(query.dtype)
    heads = _rotated(heads, cos.unsqueeze(1), sin.unsqueeze(1))
    k_cache.index_copy_(0, slots, heads[:, num_heads:])
    v_cache.index_copy_(0, slots, value)
    return heads[:, :num_heads]


def _side_by_side(query: Tensor, key: Tensor) -> Tensor:
    """[T, Hq + Hkv, D], without a copy where both are parts of one projection already."""
    num_heads, num_kv_heads = query.shape[1], key.shape[1]
    between = key.storage_offset() - query.storage_offset()
    if query.stride() == key.stride() and between == num_heads * query.stride(1):
        storage = query.untyped_storage()
        if storage.data_ptr() == key.untyped_storage().data_ptr():
            return query.as_strided((query.shape[0], num_heads + num_kv_heads, query.shape[2]), query.stride())
    return torch.cat([query, key], dim=1)


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[T, H, D] -> [T, H, D]."""
    rotary_dim = cos.shape[-1]
    if rotary_dim < x.shape[-1]:
        return torch.cat([_rotated(x[..., :rotary_dim], cos, sin), x[..., rotary_dim:]], dim=-1)
    first, second = x.chunk(2, dim=-1)
    sin_first, sin_second = sin.chunk(2, dim=-1)
    out = x * cos
    out_first, out_second = out.chunk(2, dim=-1)
    out_first.addcmul_(second, sin_first, value=-1)
    out_second.addcmul_(first, sin_second)
    return out


if triton is not None:

    @triton.jit
    def _rotated_heads(
        p_x,
        p_weight,
        stride_h,
        stride_d,
        p_cos,
        p_sin,
        eps,
        o_head,
        HEADS: tl.constexpr,
        DIM: tl.constexpr,
        ROTARY_DIM: tl.constexpr,
        HAS_NORM: tl.constexpr,
        WIDE_NORM: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        """[len(o_head), BLOCK]: heads of one row, normalised and rotated, in float32."""
        o = tl.arange(0, BLOCK)
        o_partner = tl.where(o < ROTARY_DIM // 2, o + ROTARY_DIM // 2, o - ROTARY_DIM // 2)
        m_rotary = o < ROTARY_DIM
        m = (o_head < HEADS)[:, None] & (o < DIM)[None, :]
        m_partner = (o_head < HEADS)[:, None] & m_rotary[None, :]
        p_head = p_x + o_head[:, None] * stride_h
        b_x = tl.load(p_head + o[None, :] * stride_d, mask=m, other=0.0)
        b_partner = tl.load(p_head + o_partner[None, :] * stride_d, mask=m_partner, other=0.0)
        dtype: tl.constexpr = b_x.dtype
        b_x, b_partner = b_x.to(tl.float32), b_partner.to(tl.float32)
        if HAS_NORM:
            b_scale = tl.rsqrt(tl.sum(b_x * b_x, axis=1) / DIM + eps)[:, None]
            b_weight = tl.load(p_weight + o, mask=o < DIM, other=0.0).to(tl.float32)[None, :]
            b_weight_partner = tl.load(p_weight + o_partner, mask=m_rotary, other=0.0).to(tl.float32)[None, :]
            b_x, b_partner = b_x * b_scale, b_partner * b_scale
            if not WIDE_NORM:
                b_x, b_partner = b_x.to(dtype).to(tl.float32), b_partner.to(dtype).to(tl.float32)
            b_x, b_partner = (b_x * b_weight).to(dtype).to(tl.float32), (b_partner * b_weight_partner).to(dtype).to(tl.float32)
        b_cos = tl.load(p_cos + o, mask=m_rotary, other=1.0).to(tl.float32)  # beyond R nothing turns
        b_sin = tl.load(p_sin + o, mask=m_rotary, other=0.0).to(tl.float32)
        b_sin = tl.where(o < ROTARY_DIM // 2, -b_sin, b_sin)
        return (b_x * b_cos[None, :] + b_partner * b_sin[None, :]).to(dtype)

    @triton.jit
    def _rope_and_write_kernel(
        p_query,
        p_key,
        p_value,
        p_cos,
        p_sin,
        p_q_weight,
        p_k_weight,
        p_k_cache,
        p_v_cache,
        p_slots,
        p_out,
        eps,
        query_stride_t,
        query_stride_h,
        query_stride_d,
        key_stride_t,
        key_stride_h,
        key_stride_d,
        value_stride_t,
        value_stride_h,
        value_stride_d,
        Q_HEADS: tl.constexpr,
        KV_HEADS: tl.constexpr,
        K_DIM: tl.constexpr,
        V_DIM: tl.constexpr,
        ROTARY_DIM: tl.constexpr,
        HAS_NORM: tl.constexpr,
        WIDE_NORM: tl.constexpr,
        HEADS: tl.constexpr,  # of one program
        K_BLOCK: tl.constexpr,
        V_BLOCK: tl.constexpr,
    ):
        i_row = tl.program_id(0).to(tl.int64)  # addresses are int64: a cache may pass 2^31 elements
        i_piece = tl.program_id(1)
        q_pieces: tl.constexpr = (Q_HEADS + HEADS - 1) // HEADS
        o_k = tl.arange(0, K_BLOCK)
        p_cos += i_row * ROTARY_DIM
        p_sin += i_row * ROTARY_DIM
        if i_piece < q_pieces:
            o_head = i_piece * HEADS + tl.arange(0, HEADS)
            b_query = _rotated_heads(
                p_query + i_row * query_stride_t, p_q_weight, query_stride_h, query_stride_d, p_cos, p_sin, eps, o_head,
                Q_HEADS, K_DIM, ROTARY_DIM, HAS_NORM, WIDE_NORM, K_BLOCK,
            )  # fmt: skip
            p_row = p_out + (i_row * Q_HEADS + o_head)[:, None] * K_DIM + o_k[None, :]
            tl.store(p_row, b_query, mask=(o_head < Q_HEADS)[:, None] & (o_k < K_DIM)[None, :])
        else:
            o_head = (i_piece - q_pieces) * HEADS + tl.arange(0, HEADS)
            slot = tl.load(p_slots + i_row)
            b_key = _rotated_heads(
                p_key + i_row * key_stride_t, p_k_weight, key_stride_h, key_stride_d, p_cos, p_sin, eps, o_head,
                KV_HEADS, K_DIM, ROTARY_DIM, HAS_NORM, WIDE_NORM, K_BLOCK,
            )  # fmt: skip
            p_row = p_k_cache + (slot * KV_HEADS + o_head)[:, None] * K_DIM + o_k[None, :]
            tl.store(p_row, b_key, mask=(o_head < KV_HEADS)[:, None] & (o_k < K_DIM)[None, :])
            o_v = tl.arange(0, V_BLOCK)
            m_v = (o_head < KV_HEADS)[:, None] & (o_v < V_DIM)[None, :]
            p_from = p_value + i_row * value_stride_t + o_head[:, None] * value_stride_h + o_v[None, :] * value_stride_d
            p_to = p_v_cache + (slot * KV_HEADS + o_head)[:, None] * V_DIM + o_v[None, :]
            tl.store(p_to, tl.load(p_from, mask=m_v), mask=m_v)

    def rope_and_write_triton(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor,
        sin: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slots: Tensor,
        *,
        q_weight: Tensor | None = None,
        k_weight: Tensor | None = None,
        eps: float = 1e-6,
    ) -> Tensor:
        """`rope_and_write` as a Triton kernel, for float32 and narrower; on the CPU only under TRITON_INTERPRET=1."""
        if not (k_cache.is_contiguous() and v_cache.is_contiguous()):
            raise ValueError("The KV cache must be contiguous.")
        num_rows, num_heads, k_dim = query.shape
        num_kv_heads, v_dim = value.shape[1:]
        out = torch.empty(num_rows, num_heads, k_dim, dtype=query.dtype, device=query.device)
        if num_rows == 0:
            return out
        k_block, v_block = triton.next_power_of_2(k_dim), triton.next_power_of_2(v_dim)
        heads = max(1, 1024 // k_block)  # a program of 4 warps has work for 1024 elements
        grid = (num_rows, triton.cdiv(num_heads, heads) + triton.cdiv(num_kv_heads, heads))
        has_norm = q_weight is not None
        with launching(query):
            _rope_and_write_kernel[grid](
                query, key, value, cos.contiguous(), sin.contiguous(),
                q_weight if has_norm else cos, k_weight if has_norm else cos,  # any pointer will do where none is read
                k_cache, v_cache, slots, out, eps, *query.stride(), *key.stride(), *value.stride(),
                Q_HEADS=num_heads, KV_HEADS=num_kv_heads, K_DIM=k_dim, V_DIM=v_dim, ROTARY_DIM=cos.shape[1],
                HAS_NORM=has_norm, WIDE_NORM=q_weight is not None and q_weight.dtype != query.dtype, HEADS=heads, K_BLOCK=k_block, V_BLOCK=v_block,
            )  # fmt: skip
        return out

else:

    def rope_and_write_triton(
        query: Tensor,
        key: Tensor,
        value: Tensor,
        cos: Tensor,
        sin: Tensor,
        k_cache: Tensor,
        v_cache: Tensor,
        slots: Tensor,
        *,
        q_weight: Tensor | None = None,
        k_weight: Tensor | None = None,
        eps: float = 1e-6,
    ) -> Tensor:
        """`rope_and_write` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
