"""Masks of tokens on logits, in place. Bit v % 32 of word v // 32 of a mask says whether token v may be chosen:

    logits[rows[s], v] = logits[rows[s], v] if masks[s, v // 32] >> (v % 32) & 1 else -inf

Tokens beyond the last word may not be chosen. Rows that no mask names are not read. `masked_reference` is the truth. One Triton
program does a block of one row's tokens and stores only what is masked.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton

WORD_BITS = 32
BLOCK = 4096


def mask_logits(logits: Tensor, masks: Tensor, rows: Tensor) -> Tensor:
    """Set the logits of tokens that masks do not allow to -inf, in place, without waiting for the device.

    Args:
        logits: [B, V], float32, float16 or bfloat16; changed.
        masks: int32 [S, W], a bit per token, the lowest of a word first.
        rows: int32 [S], in [0, B), each at most once: the row of each mask.

    Returns:
        `logits`.

    Raises:
        ValueError: shapes or dtypes that are not these.
    """
    if logits.ndim != 2 or not logits.dtype.is_floating_point:
        raise ValueError(f"Logits must be floating-point [B, V], not {list(logits.shape)} of {logits.dtype}.")
    if masks.ndim != 2 or masks.dtype != torch.int32:
        raise ValueError(f"masks must be torch.int32 [S, W], not {list(masks.shape)} of {masks.dtype}.")
    if rows.shape != (masks.shape[0],) or rows.dtype != torch.int32:
        raise ValueError(f"rows must be torch.int32 [{masks.shape[0]}], not {list(rows.shape)} of {rows.dtype}.")
    if backend.serves(logits):
        return mask_logits_triton(logits, masks, rows)
    return mask_logits_torch(logits, masks, rows)


def mask_logits_torch(logits: Tensor, masks: Tensor, rows: Tensor) -> Tensor:
    """`mask_logits` in torch."""
    places = torch.arange(WORD_BITS, dtype=torch.int32, device=masks.device)
    allowed = ((masks.unsqueeze(2) >> places) & 1).flatten(1).bool()[:, : logits.shape[1]]
    where = rows.long()
    masked = torch.full_like(logits[where], -torch.inf)
    num_known = allowed.shape[1]
    masked[:, :num_known] = torch.where(allowed, logits[where, :num_known], masked[:, :num_known])
    logits[where] = masked
    return logits


if triton is not None:

    @triton.jit(do_not_specialize=["V", "W"])
    def _mask_kernel(p_logits, p_masks, p_rows, stride_row, stride_mask, V, W, BLOCK: tl.constexpr):
        i_mask = tl.program_id(0).to(tl.int64)
        o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        b_word = tl.load(p_masks + i_mask * stride_mask + o // 32, mask=(o < V) & (o // 32 < W), other=0)
        p_x = p_logits + tl.load(p_rows + i_mask).to(tl.int64) * stride_row + o
        b_masked = ((b_word >> (o % 32)) & 1) == 0
        tl.store(p_x, tl.full([BLOCK], float("-inf"), p_logits.dtype.element_ty), mask=b_masked & (o < V))

    def mask_logits_triton(logits: Tensor, masks: Tensor, rows: Tensor) -> Tensor:
        """`mask_logits` as a Triton kernel; on the CPU only under TRITON_INTERPRET=1."""
        assert logits.stride(1) == 1, "the rows of logits are contiguous"
        masks = masks if masks.stride(1) == 1 else masks.contiguous()
        if masks.shape[0] and logits.shape[1]:
            with launching(logits):
                _mask_kernel[(masks.shape[0], triton.cdiv(logits.shape[1], BLOCK))](
                    logits, masks, rows.contiguous(), logits.stride(0), masks.stride(0), logits.shape[1], masks.shape[1],
                    BLOCK=BLOCK,
                )  # fmt: skip
        return logits

else:

    def mask_logits_triton(logits: Tensor, masks: Tensor, rows: Tensor) -> Tensor:
        """`mask_logits` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
