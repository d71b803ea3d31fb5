"""Many small tensors of a host that go to a device in one copy: each copy costs as much as some kernels of a step take."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

ALIGNED_BYTES = 16  # what a GPU loads at once; and Triton compiles a kernel anew for pointers that are aligned otherwise


@dataclass(frozen=True, slots=True)
class Parcel:
    """Layout of several tensors in one buffer of bytes.

    Attributes:
        parts: dtype, shape and first byte of each.
        num_bytes: of the buffer.
    """

    parts: tuple[tuple[torch.dtype, tuple[int, ...], int], ...]
    num_bytes: int

    @classmethod
    def of(cls, tensors: Sequence[Tensor]) -> Self:
        """Return the layout of tensors of these dtypes and shapes."""
        parts, end = [], 0
        for tensor in tensors:
            parts.append((tensor.dtype, tuple(tensor.shape), end))
            end += -(-tensor.nbytes // ALIGNED_BYTES) * ALIGNED_BYTES
        return cls(tuple(parts), end)

    def fill(self, buffer: Tensor, tensors: Sequence[Tensor]) -> int:
        """Copy tensors to their places in a buffer, uint8 [num_bytes]. The last one may be shorter than its place, where what
        follows is not needed. Returns the number of bytes up to its end."""
        *whole, last = self.open(buffer)
        for place, tensor in zip(whole, tensors, strict=False):
            place.copy_(tensor)
        last[: len(tensors[-1])] = tensors[-1]
        return self.parts[-1][2] + tensors[-1].nbytes

    def open(self, buffer: Tensor) -> list[Tensor]:
        """Return views of a buffer, uint8 [num_bytes]: one for each tensor."""
        return [
            buffer[start : start + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
            for dtype, shape, start in self.parts
        ]
