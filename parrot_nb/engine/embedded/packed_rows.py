"""Rows of a matrix that is laid out for oneDNN, read where they lie: a tied embedding needs no plain copy beside the head.

oneDNN lays a matrix [N, K] out in blocks of rows. In a block, groups of columns that fill four bytes follow one another, each
with the rows of the block side by side:

    packed[n // B, k // c, n % B, k % c] = matrix[n, k],    c = 4 bytes / size of an element

torch does not say how large B is, nor whether this CPU's products ask for another layout. So it is tried: rows out of every
block are read and compared with the plain matrix, and a layout that gives others is not used.
"""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

BLOCK_ROWS = (64, 48, 32, 16, 8)  # that oneDNN was seen or is documented to use
GROUP_BYTES = 4


class PackedRows:
    """Reads rows of a packed matrix.

    Args:
        packed: the matrix, as oneDNN holds it.
        blocks: its memory [blocks, groups, rows of a block, columns of a group].
        width: columns of the matrix; what is beyond fills up.
    """

    def __init__(self, packed: Any, blocks: Tensor, width: int) -> None:
        self._packed = packed  # whose memory it is
        self._blocks, self._width = blocks, width

    def __call__(self, rows: Tensor) -> Tensor:
        """Rows int64 [T] -> [T, K]."""
        block_rows = self._blocks.shape[2]
        found = self._blocks[torch.div(rows, block_rows, rounding_mode="floor"), :, rows % block_rows]
        return found.flatten(1)[:, : self._width]


def packed_rows(packed: Any, plain: Tensor) -> PackedRows | None:
    """Return a reader of a packed matrix's rows; None where its layout is another.

    Args:
        packed: the matrix, as oneDNN holds it.
        plain: the same matrix [N, K], to compare with.
    """
    memory = _memory(packed, plain.dtype)
    if memory is None:
        return None
    num_rows, width = plain.shape
    group = GROUP_BYTES // plain.dtype.itemsize
    for block_rows in BLOCK_ROWS:
        num_blocks = -(-num_rows // block_rows)
        columns, rest = divmod(memory.numel(), num_blocks * block_rows)
        if rest or columns < width or columns % group:
            continue
        reader = PackedRows(packed, memory.view(num_blocks, columns // group, block_rows, group), width)
        block = torch.arange(num_blocks)
        tried = (block * block_rows + block * 7 % block_rows).clamp_(max=num_rows - 1)  # another place in each block
        if all(torch.equal(reader(rows), plain[rows]) for rows in tried.split(1024)):
            return reader
    return None


def _memory(packed: Any, dtype: torch.dtype) -> Tensor | None:
    """The memory of a packed matrix, [elements]; None where torch does not tell of it."""
    data_ptr, nbytes = (getattr(torch.ops.mkldnn, name, None) for name in ("data_ptr", "_nbytes"))
    if data_ptr is None or nbytes is None:
        return None
    num_bytes = nbytes(packed)
    return torch.frombuffer((ctypes.c_char * num_bytes).from_address(data_ptr(packed)), dtype=dtype)
