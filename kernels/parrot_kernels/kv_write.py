"""Write a step's keys and values into their slots:  k_cache[slots[t]] = key[t],  v_cache[slots[t]] = value[t].

On CUDA one Triton program copies one row of both; elsewhere torch's indexed copy does the same.
"""

from __future__ import annotations

from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton


def write_kv(key: Tensor, value: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
    """Write T rows into the cache, in place.

    Args:
        key: [T, Hkv, D], any strides, in the cache's dtype.
        value: [T, Hkv, Dv], likewise.
        k_cache: [num_slots, Hkv, D], contiguous.
        v_cache: [num_slots, Hkv, Dv], contiguous.
        slots: int64 [T], all different and within the cache.

    Raises:
        ValueError: a dtype that is not the cache's.
    """
    if key.dtype != k_cache.dtype or value.dtype != v_cache.dtype:
        raise ValueError(f"Keys of {key.dtype} do not go into a cache of {k_cache.dtype}.")
    if backend.serves(k_cache):
        write_kv_triton(key, value, k_cache, v_cache, slots)
    else:
        k_cache.index_copy_(0, slots, key)
        v_cache.index_copy_(0, slots, value)


if triton is not None:

    @triton.jit
    def _write_kv_kernel(
        p_key,
        p_value,
        p_k_cache,
        p_v_cache,
        p_slots,
        key_stride_t,
        key_stride_h,
        key_stride_d,
        value_stride_t,
        value_stride_h,
        value_stride_d,
        K_DIM: tl.constexpr,
        V_DIM: tl.constexpr,
        K_ROW: tl.constexpr,  # Hkv * D
        V_ROW: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        i_row = tl.program_id(0).to(tl.int64)  # addresses are int64: a cache may pass 2^31 elements
        slot = tl.load(p_slots + i_row)
        for start in range(0, K_ROW, BLOCK):
            o = start + tl.arange(0, BLOCK)
            m = o < K_ROW
            b_key = tl.load(p_key + i_row * key_stride_t + (o // K_DIM) * key_stride_h + (o % K_DIM) * key_stride_d, mask=m)
            tl.store(p_k_cache + slot * K_ROW + o, b_key, mask=m)
        for start in range(0, V_ROW, BLOCK):
            o = start + tl.arange(0, BLOCK)
            m = o < V_ROW
            b_value = tl.load(
                p_value + i_row * value_stride_t + (o // V_DIM) * value_stride_h + (o % V_DIM) * value_stride_d, mask=m
            )
            tl.store(p_v_cache + slot * V_ROW + o, b_value, mask=m)

    def write_kv_triton(key: Tensor, value: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
        """`write_kv` as a Triton kernel; on the CPU only under TRITON_INTERPRET=1."""
        if not (k_cache.is_contiguous() and v_cache.is_contiguous()):
            raise ValueError("The KV cache must be contiguous.")
        num_rows, num_heads, k_dim = key.shape
        v_dim = value.shape[2]
        if num_rows == 0:
            return
        k_row, v_row = num_heads * k_dim, num_heads * v_dim
        block = min(1024, triton.next_power_of_2(max(k_row, v_row)))  # a row is 512 to 2048 elements in common models
        with launching(k_cache):
            _write_kv_kernel[(num_rows,)](
                key, value, k_cache, v_cache, slots,
                *key.stride(), *value.stride(),
                K_DIM=k_dim, V_DIM=v_dim, K_ROW=k_row, V_ROW=v_row, BLOCK=block,
            )  # fmt: skip

else:

    def write_kv_triton(key: Tensor, value: Tensor, k_cache: Tensor, v_cache: Tensor, slots: Tensor) -> None:
        """`write_kv` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
