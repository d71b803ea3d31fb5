"""Penalties on logits, in place. For each entry, a token v of a row that has chosen it n times,

    x = logits[row, v]
    x = x / repetition[row] if x >= 0 else x * repetition[row]
    logits[row, v] = x - n * frequency[row] - (n > 0) * presence[row]

A token of the prompt that was never chosen has n = 0. Entries are sparse: logits that none names are not read. All of it is
float32, rounded after each operation, so that torch and the kernel give the same bits; a finite logit stays finite.
`penalised_reference` is the truth. One Triton program does a block of entries.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton

MOST = torch.finfo(torch.float32).max
BLOCK = 256


def penalise(
    logits: Tensor, rows: Tensor, ids: Tensor, counts: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor
) -> Tensor:
    """Apply penalties to some logits in place, without waiting for the device.

    Args:
        logits: float32 [B, V]; changed.
        rows: int32 [N], in [0, B); no (row, id) pair is there twice.
        ids: int32 [N], in [0, V).
        counts: int32 [N], how often each token was chosen.
        repetition: float32 [B], above 0; 1 changes nothing.
        presence: float32 [B].
        frequency: float32 [B].

    Returns:
        `logits`.

    Raises:
        ValueError: shapes or dtypes that are not these.
    """
    if logits.ndim != 2 or logits.dtype != torch.float32:
        raise ValueError(f"Logits must be float32 [B, V], not {list(logits.shape)} of {logits.dtype}.")
    for name, values, length, dtype in (
        ("rows", rows, rows.shape[0], torch.int32),
        ("ids", ids, rows.shape[0], torch.int32),
        ("counts", counts, rows.shape[0], torch.int32),
        ("repetition", repetition, logits.shape[0], torch.float32),
        ("presence", presence, logits.shape[0], torch.float32),
        ("frequency", frequency, logits.shape[0], torch.float32),
    ):
        if values.shape != (length,) or values.dtype != dtype:
            raise ValueError(f"{name} must be {dtype} [{length}], not {list(values.shape)} of {values.dtype}.")
    if backend.serves(logits):
        return penalise_triton(logits, rows, ids, counts, repetition, presence, frequency)
    return penalise_torch(logits, rows, ids, counts, repetition, presence, frequency)


def penalise_torch(
    logits: Tensor, rows: Tensor, ids: Tensor, counts: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor
) -> Tensor:
    """`penalise` in torch."""
    where = rows.long(), ids.long()
    before, factor = logits[where], repetition[where[0]]
    x = torch.where(before < 0, before * factor, before / factor)
    x = x - counts * frequency[where[0]]
    x = x - (counts > 0) * presence[where[0]]
    logits[where] = torch.where(before.isfinite(), x.clamp(-MOST, MOST), x)
    return logits


if triton is not None:

    @triton.jit(do_not_specialize=["N"])  # which changes from step to step
    def _penalise_kernel(
        p_logits,
        p_rows,
        p_ids,
        p_counts,
        p_repetition,
        p_presence,
        p_frequency,
        stride_row,
        N,
        MOST: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        o = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
        m = o < N
        b_row = tl.load(p_rows + o, mask=m, other=0)
        b_count = tl.load(p_counts + o, mask=m, other=0)
        b_factor = tl.load(p_repetition + b_row, mask=m, other=1.0)
        p_x = p_logits + b_row.to(tl.int64) * stride_row + tl.load(p_ids + o, mask=m, other=0)
        b_before = tl.load(p_x, mask=m, other=0.0)
        b = tl.where(b_before < 0, b_before * b_factor, tl.div_rn(b_before, b_factor))
        b -= b_count.to(tl.float32) * tl.load(p_frequency + b_row, mask=m, other=0.0)
        b -= tl.where(b_count > 0, tl.load(p_presence + b_row, mask=m, other=0.0), 0.0)
        b_finite = tl.where(b > MOST, MOST, tl.where(b < -MOST, -MOST, b))
        tl.store(p_x, tl.where(tl.abs(b_before) < float("inf"), b_finite, b), mask=m)

    def penalise_triton(
        logits: Tensor, rows: Tensor, ids: Tensor, counts: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor
    ) -> Tensor:
        """`penalise` as a Triton kernel; on the CPU only under TRITON_INTERPRET=1."""
        assert logits.stride(1) == 1, "the rows of logits are contiguous"
        if rows.shape[0]:
            entries = [values.contiguous() for values in (rows, ids, counts)]
            settings = [values.contiguous() for values in (repetition, presence, frequency)]
            with launching(logits):
                _penalise_kernel[(triton.cdiv(rows.shape[0], BLOCK),)](
                    logits, *entries, *settings, logits.stride(0), rows.shape[0],
                    MOST=MOST, BLOCK=BLOCK, enable_fp_fusion=False,  # a fused multiply-add rounds once, torch twice
                )  # fmt: skip
        return logits

else:

    def penalise_triton(
        logits: Tensor, rows: Tensor, ids: Tensor, counts: Tensor, repetition: Tensor, presence: Tensor, frequency: Tensor
    ) -> Tensor:
        """`penalise` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
