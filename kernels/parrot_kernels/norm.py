"""RMS norm, with the residual added first where there is one:

    h = x + residual,    out = h / sqrt(mean(h^2) + eps) * weight

over the last dimension. Rounding is that of transformers: all is computed in float32; where the weight is in x's dtype, the
quotient is rounded to it before it is multiplied (Llama), and where the weight is float32, after that (Gemma, whose weight is
1 + w). `rms_norm_reference` is the truth. On CUDA one Triton program does a few rows.
"""

from __future__ import annotations

from functools import lru_cache
from typing import overload

import torch
from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton

MAX_DIM = 65536  # a row is one block in registers


@overload
def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: None = None) -> Tensor: ...
@overload
def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor) -> tuple[Tensor, Tensor]: ...
def rms_norm(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
    """RMS norm of rows, with the residual added first where there is one: h / sqrt(mean(h^2) + eps) * weight, h = x + residual.

    Args:
        x: [..., D], any strides, any float dtype.
        weight: [D], in x's dtype, or float32 to be multiplied before rounding.
        eps: added to the mean square.
        residual: as x; or None.

    Returns:
        [..., D] in x's dtype; with a residual also x + residual.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    if weight.shape != x.shape[-1:] or weight.dtype not in (x.dtype, torch.float32):
        raise ValueError(f"A weight {list(weight.shape)} of {weight.dtype} is not for rows {list(x.shape)} of {x.dtype}.")
    if residual is not None and (residual.shape != x.shape or residual.dtype != x.dtype):
        raise ValueError(f"A residual {list(residual.shape)} of {residual.dtype} is not for {list(x.shape)} of {x.dtype}.")
    if backend.serves(x):
        return rms_norm_triton(x, weight, eps, residual)
    if residual is None:
        return _normed(x, weight, eps)
    h = x + residual
    return _normed(h, weight, eps), h


def _normed(h: Tensor, weight: Tensor, eps: float) -> Tensor:
    if weight.dtype == h.dtype or h.dtype.itemsize > 2:
        return unit_rms(h, eps).mul_(weight)
    return unit_rms(h.float(), eps).mul_(weight).to(h.dtype)


def unit_rms(h: Tensor, eps: float) -> Tensor:
    """In torch, h / sqrt(mean(h^2) + eps) over the last dimension: computed in float32 at least, rounded to h's dtype."""
    wide = h.float() if h.dtype.itemsize <= 2 else h
    length = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)  # these calls take half the time of torch.rms_norm, or less
    scale = torch.addcmul(_scalar(eps, wide.dtype, h.device), length, length, value=1 / h.shape[-1]).rsqrt_()
    return scale.mul(h) if wide is h else wide.mul_(scale).to(h.dtype)


def _scalar(value: float, dtype: torch.dtype, device: torch.device) -> Tensor:
    """A number that torch need not wrap at each call; on a GPU it is made by a kernel, and keeps no memory there."""
    return _cpu_scalar(value, dtype) if device.type == "cpu" else torch.full((), value, dtype=dtype, device=device)


@lru_cache(maxsize=64)
def _cpu_scalar(value: float, dtype: torch.dtype) -> Tensor:
    return torch.tensor(value, dtype=dtype)


if triton is not None:

    @triton.jit(do_not_specialize=["num_rows"])  # which changes from step to step: 1 and multiples of 16 would be compiled anew
    def _rms_norm_kernel(
        p_x,
        p_residual,
        p_weight,
        p_out,
        p_h,
        eps,
        num_rows,
        x_stride_row,
        residual_stride_row,
        DIM: tl.constexpr,
        WIDE_WEIGHT: tl.constexpr,
        HAS_RESIDUAL: tl.constexpr,
        ROWS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        i_row = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)[:, None]  # [ROWS, 1]
        o = tl.arange(0, BLOCK)[None, :]
        m = (i_row < num_rows) & (o < DIM)
        b_x = tl.load(p_x + i_row * x_stride_row + o, mask=m, other=0.0)  # [ROWS, BLOCK]
        if HAS_RESIDUAL:
            b_residual = tl.load(p_residual + i_row * residual_stride_row + o, mask=m, other=0.0)
            b_x = (b_x.to(tl.float32) + b_residual.to(tl.float32)).to(b_x.dtype)
            tl.store(p_h + i_row * DIM + o, b_x, mask=m)
        b_weight = tl.load(p_weight + o, mask=o < DIM, other=0.0).to(tl.float32)
        b_h = b_x.to(tl.float32)
        b_normed = b_h * tl.rsqrt(tl.sum(b_h * b_h, axis=1) / DIM + eps)[:, None]
        b_out = b_normed * b_weight if WIDE_WEIGHT else b_normed.to(b_x.dtype).to(tl.float32) * b_weight
        tl.store(p_out + i_row * DIM + o, b_out.to(b_x.dtype), mask=m)

    def rms_norm_triton(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """`rms_norm` as a Triton kernel, for float32 and narrower; on the CPU only under TRITON_INTERPRET=1."""
        dim = x.shape[-1]
        if dim > MAX_DIM:
            raise ValueError(f"Rows of {dim} elements are longer than the kernel's {MAX_DIM}.")
        rows = _rows(x)
        added = rows if residual is None else _rows(residual)
        out = torch.empty(x.shape, dtype=x.dtype, device=x.device)
        h = out if residual is None else torch.empty_like(out)
        block = triton.next_power_of_2(dim)
        rows_each = max(1, 1024 // block)  # a program of 4 warps has work for 1024 elements: short rows go together
        if rows.shape[0]:
            with launching(x):
                _rms_norm_kernel[(triton.cdiv(rows.shape[0], rows_each),)](
                    rows, added, weight.contiguous(), out, h, eps, rows.shape[0], rows.stride(0), added.stride(0),
                    DIM=dim, WIDE_WEIGHT=weight.dtype != x.dtype, HAS_RESIDUAL=residual is not None, ROWS=rows_each, BLOCK=block,
                    num_warps=4 if block <= 4096 else 16,
                )  # fmt: skip
        return out if residual is None else (out, h)

    def _rows(x: Tensor) -> Tensor:
        """As [N, D] with the elements of a row side by side, without a copy where strides allow it."""
        rows = x.reshape(-1, x.shape[-1])
        return rows if rows.stride(-1) == 1 else rows.contiguous()

else:

    def rms_norm_triton(x: Tensor, weight: Tensor, eps: float, residual: Tensor | None = None) -> Tensor | tuple[Tensor, Tensor]:
        """`rms_norm` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
