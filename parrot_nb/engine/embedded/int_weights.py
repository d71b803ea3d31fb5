"""Weights as small integers with their scales, and torch's products with them on a CPU: int4 in groups along a row, int8 with a
scale for each row.

Activations, scales and what a product gives are bfloat16; sums are float32. torch lays int4 out by blocks of rows and does not say
how: that is tried once, on a small matrix, and where it is another layout than those known here, rows are read by multiplying.
`torchao` ends in the same two products; its wheels have no kernels for a CPU, and its tensor classes follow one version of torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

GROUP = 32  # weights that share a scale, as in GGUF's blocks; the smallest that torch has, and the most exact
ZERO_LEVEL = 8  # the level that stands for a group's zero point
LEVELS = 2 * ZERO_LEVEL
BLOCK_ROWS = 64  # torch's largest block: a weight is filled up to whole ones
CHUNK_WEIGHTS = 2**18  # that are converted at a time: 1 MB in float32 stays in a core's cache
INT8_MOST = 127
INT8_MATMUL, INT4_MATMUL, INT4_PACK = "_weight_int8pack_mm", "_weight_int4pack_mm_for_cpu", "_convert_weight_to_int4pack_for_cpu"


@dataclass(frozen=True, slots=True)
class Int4Rows:
    """Some rows of an int4 weight: (level - 8) * scale + zero.

    Attributes:
        levels: 0 to 15, uint8 [N, K].
        scales: of each group, [N, K / 32].
        zeros: likewise.
    """

    levels: Tensor
    scales: Tensor
    zeros: Tensor

    def dequantized(self) -> Tensor:
        """Return the rows in float32, [N, K]."""
        levels = self.levels.unflatten(1, (-1, GROUP)).float() - ZERO_LEVEL
        rows: Tensor = levels * self.scales.float()[..., None] + self.zeros.float()[..., None]
        return rows.flatten(1)


class IntWeight(ABC):
    """A weight [N, K] that is multiplied as it is kept.

    Attributes:
        shape: (N, K).
    """

    shape: tuple[int, int]

    @property
    @abstractmethod
    def num_bytes(self) -> int:
        """Bytes of the integers and their scales."""

    @abstractmethod
    def product(self, x: Tensor) -> Tensor:
        """Multiply bfloat16 x [T, K] by the weight, which gives [T, N]."""

    @abstractmethod
    def rows(self, rows: Tensor) -> Tensor:
        """Return the dequantised weight at these row numbers, int64 [T], in float32 without rounding, [T, K]."""

    def chunks(self) -> Iterator[Tensor]:
        """Yield all rows in float32, [some, K] at a time."""
        for some in torch.arange(self.shape[0]).split(max(BLOCK_ROWS, CHUNK_WEIGHTS // self.shape[1] // BLOCK_ROWS * BLOCK_ROWS)):
            yield self.rows(some)

    def dequantized(self, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return the weight [N, K] in a dtype."""
        whole = torch.empty(self.shape, dtype=dtype)
        start = 0
        for chunk in self.chunks():
            whole[start : start + chunk.shape[0]] = chunk
            start += chunk.shape[0]
        return whole


class Int4Weight(IntWeight):
    """Four bits a weight, and for each group of 32 a scale and a zero point.

    Args:
        shape: (N, K); K is a multiple of 32.
        parts: its rows in order, any number at a time; scales are rounded to bfloat16.
    """

    def __init__(self, shape: tuple[int, int], parts: Iterable[Int4Rows]) -> None:
        self.shape = shape
        num_rows, width = shape
        filled = -(-num_rows // BLOCK_ROWS) * BLOCK_ROWS
        levels = torch.full((filled, width), ZERO_LEVEL, dtype=torch.uint8)
        self._scales = torch.zeros((width // GROUP, filled, 2), dtype=torch.bfloat16)  # and zeros, as the product takes them
        start = 0
        for part in parts:
            stop = start + part.levels.shape[0]
            levels[start:stop] = part.levels
            self._scales[:, start:stop, 0], self._scales[:, start:stop, 1] = part.scales.T, part.zeros.T
            start = stop
        if start != num_rows:
            raise ValueError(f"{start} rows were given for a weight of {num_rows}")
        self._packed = torch.empty((filled, width // 2), dtype=torch.uint8)
        step = max(BLOCK_ROWS, CHUNK_WEIGHTS // width // BLOCK_ROWS * BLOCK_ROWS)  # packing needs them as int32
        for first in range(0, filled, step):
            self._packed[first : first + step] = _packed(levels[first : first + step])

    @property
    def num_bytes(self) -> int:
        """Bytes of levels, scales and zero points."""
        return self._packed.nbytes + self._scales.nbytes

    def product(self, x: Tensor) -> Tensor:
        """Multiply bfloat16 x [T, K] by the weight, which gives [T, N]."""
        out = _multiplied(x.contiguous(), self._packed, self._scales)
        return out if out.shape[1] == self.shape[0] else out[:, : self.shape[0]]

    def rows(self, rows: Tensor) -> Tensor:
        """Return the dequantised weight at these row numbers, int64 [T], in float32 without rounding, [T, K]."""
        scales = self._scales[:, rows]
        return Int4Rows(self.levels(rows), scales[..., 0].T, scales[..., 1].T).dequantized()

    def levels(self, rows: Tensor) -> Tensor:
        """The levels of rows int64 [T], uint8 [T, K]."""
        layout = int4_layout()
        if layout is None:
            return self._multiplied_levels(rows)
        return layout.levels(self._packed, self.shape[1], rows)

    def _multiplied_levels(self, rows: Tensor) -> Tensor:
        """Levels as products of the unit matrix with scales of 1: slow, on any CPU."""
        width = self.shape[1]
        ones = torch.zeros_like(self._scales)
        ones[..., 0] = 1
        found = _multiplied(torch.eye(width, dtype=torch.bfloat16), self._packed, ones)  # whole numbers from -8 to 7
        return (found.T[rows] + ZERO_LEVEL).to(torch.uint8)


class Int8Weight(IntWeight):
    """Eight bits a weight and a scale for each row.

    Args:
        weight: [N, K].
    """

    def __init__(self, weight: Tensor) -> None:
        self.shape = (weight.shape[0], weight.shape[1])
        self._levels = torch.empty(self.shape, dtype=torch.int8)
        self._scales = torch.empty(self.shape[0], dtype=torch.bfloat16)
        for some in torch.arange(self.shape[0]).split(max(1, CHUNK_WEIGHTS // self.shape[1])):
            wide = weight[some].float()
            scales = (wide.abs().amax(-1) / INT8_MOST).to(torch.bfloat16)
            self._scales[some] = scales
            self._levels[some] = _divided(wide, scales.float()[:, None]).round().clamp_(-INT8_MOST, INT8_MOST).to(torch.int8)

    @property
    def num_bytes(self) -> int:
        """Bytes of integers and scales."""
        return self._levels.nbytes + self._scales.nbytes

    def product(self, x: Tensor) -> Tensor:
        """Multiply bfloat16 x [T, K] by the weight, which gives [T, N]."""
        out: Tensor = getattr(torch.ops.aten, INT8_MATMUL)(x.contiguous(), self._levels, self._scales)
        return out

    def rows(self, rows: Tensor) -> Tensor:
        """Return the dequantised weight at these row numbers, int64 [T], in float32 without rounding, [T, K]."""
        return self._levels[rows].float() * self._scales[rows].float()[:, None]


def int4_rows(weight: Tensor) -> Int4Rows:
    """Round rows [N, K] to int4: each group over its range, then with the scale and zero that fit these levels best, if that errs less."""
    wide = weight.float().unflatten(1, (-1, GROUP))
    low, high = wide.amin(-1), wide.amax(-1)
    step = (high - low) / (LEVELS - 1)
    first, error = _fitted(wide, step, (low + high + step) / 2)
    second, lower = _fitted(wide, *_least_squares(wide, first.levels.unflatten(1, (-1, GROUP)).float()))
    wins = lower < error
    levels = torch.where(wins.repeat_interleave(GROUP, 1), second.levels, first.levels)
    return Int4Rows(levels, torch.where(wins, second.scales, first.scales), torch.where(wins, second.zeros, first.zeros))


def int4_chunks(weight: Tensor) -> Iterator[Int4Rows]:
    """Yield a weight [N, K], rounded to int4, some rows at a time."""
    for chunk in weight.split(max(1, CHUNK_WEIGHTS // weight.shape[1])):
        yield int4_rows(chunk)


def _fitted(wide: Tensor, scales: Tensor, zeros: Tensor) -> tuple[Int4Rows, Tensor]:
    """Round groups [N, G, 32] with scales and zeros [N, G]; also the squared error of each group."""
    scales, zeros = scales.to(torch.bfloat16), zeros.to(torch.bfloat16)
    wide_scales, wide_zeros = scales.float()[..., None], zeros.float()[..., None]
    levels = _divided(wide - wide_zeros, wide_scales).round_().clamp_(-ZERO_LEVEL, ZERO_LEVEL - 1)
    error = (levels * wide_scales + wide_zeros - wide).square_().sum(-1)
    return Int4Rows((levels + ZERO_LEVEL).to(torch.uint8).flatten(1), scales, zeros), error


def _least_squares(wide: Tensor, levels: Tensor) -> tuple[Tensor, Tensor]:
    """Scales and zeros [N, G] with which levels [N, G, 32] come nearest to weights."""
    levels = levels - ZERO_LEVEL
    mean, mean_level = wide.mean(-1), levels.mean(-1)
    apart = levels - mean_level[..., None]
    scales = _divided((apart * wide).sum(-1), apart.square().sum(-1))
    return scales, mean - scales * mean_level


def _divided(x: Tensor, by: Tensor) -> Tensor:
    """Quotient x / by; 0 where `by` is 0."""
    return torch.where(by == 0, 0, x / torch.where(by == 0, 1, by))


def _packed(levels: Tensor) -> Tensor:
    """Levels uint8 [N, K] as torch lays them out, uint8 [N, K / 2]."""
    packed: Tensor = getattr(torch.ops.aten, INT4_PACK)(levels.int(), 1)
    return packed


def _multiplied(x: Tensor, packed: Tensor, scales: Tensor) -> Tensor:
    out: Tensor = getattr(torch.ops.aten, INT4_MATMUL)(x, packed, GROUP, scales)
    return out


@dataclass(frozen=True, slots=True)
class Int4Layout:
    """Order of levels in torch's memory: blocks of rows, in each for each column the rows' levels, two in a byte.

    Attributes:
        block_rows: rows of a block.
        halves: whether a byte holds rows that are half a block apart; else it holds neighbours.
    """

    block_rows: int
    halves: bool

    def levels(self, packed: Tensor, width: int, rows: Tensor) -> Tensor:
        """The levels of rows int64 [T], uint8 [T, K]."""
        half = self.block_rows // 2
        blocks = packed.view(-1, width, half)
        inside = rows % self.block_rows
        byte, upper = (inside % half, inside >= half) if self.halves else (inside // 2, inside % 2 == 1)
        found = blocks[torch.div(rows, self.block_rows, rounding_mode="floor"), :, byte]
        return torch.where(upper[:, None], found >> 4, found & (LEVELS - 1))


@cache
def int4_layout() -> Int4Layout | None:
    """The layout of int4 weights on this machine; None if it is none of those known here."""
    rows, width = 2 * BLOCK_ROWS, GROUP
    levels = torch.randint(0, LEVELS, (rows, width), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    packed = _packed(levels)
    for block_rows in (64, 32, 16):
        for halves in (True, False):
            layout = Int4Layout(block_rows, halves)
            if torch.equal(layout.levels(packed, width, torch.arange(rows)), levels):
                return layout
    return None
