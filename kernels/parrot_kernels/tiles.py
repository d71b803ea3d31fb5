"""The segments of a step as tiles for the Triton kernel of `parrot_kernels.tiled`.

A tile is some rows of one segment against a run of its tokens. The G query heads of a key head are packed into the rows,
so that a decode row of a grouped-query model fills G rows of a matrix product. Tokens are split so that all processors
have work and no program has much more than another; rows are split where a segment has more than a tile holds. A tile's
result is partial: `row_start[row] + order` is its place, with `order` the tile's number among those of the row.

There are two sizes of tiles, each launched by itself: few rows (the own ends of decoding contexts) would waste a large
tile, many rows (shared runs, prefill chunks) would read their tokens again for every small one.
"""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from parrot_kernels.segments import Segment

SMALL_ROWS, LARGE_ROWS = 16, 64  # packed rows; 16 is the least of a tensor core's product, 64 still fits the registers at D = 256
MIN_SPLIT_TOKENS = 256  # shorter runs are not worth a partial result of their own
TILE_FIELDS = 6  # row, rows, first page, first position, tokens, order
MAX_LEVELS = 7  # of a tree that a captured graph has room for: six shared runs above a context's own end


class PlanTooLargeError(ValueError):
    """The step does not fit into the capacity that was asked for."""


class HeadCounts(Protocol):
    """Numbers of heads."""

    @property
    def num_heads(self) -> int: ...
    @property
    def num_kv_heads(self) -> int: ...


@dataclass(frozen=True, slots=True)
class TileLimits:
    """Limits by which a plan is cut.

    Attributes:
        target_programs: programs that keep the device busy: two or so for each of its processors.
        max_tiles: capacity per size of tiles; None: as many as there are. With capacities the plan's tensors always
            have the same shapes, so that a captured graph can be replayed with another plan.
        max_pages: capacity of page numbers; this and the next two are given together with max_tiles.
        max_rows: capacity of rows.
        max_partials: capacity of partial results.
        room_for_large: with capacities, keep room for large tiles where there are none; the kernel is launched for them all the same.
    """

    target_programs: int
    max_tiles: int | None = None
    max_pages: int | None = None
    max_rows: int | None = None
    max_partials: int | None = None
    room_for_large: bool = True

    @classmethod
    def for_decode(
        cls, batch: int, num_pages: int, target_programs: int, num_kv_heads: int, group: int = 1, *, room_for_large: bool = True
    ) -> TileLimits:
        """Capacities for a decode step of `batch` rows, `group` query heads per key head, on a cache of `num_pages` pages.

        Enough for every tree of MAX_LEVELS levels: it has fewer inner nodes than leaves, splits add at most the target of
        tiles, and each of these a partial result for each of its rows. Too large, and run without a graph, are steps that
        share more deeply, and those whose contexts list more pages than there are, since sharing does not pay."""
        num_splits = -(-target_programs // num_kv_heads)
        max_partials = MAX_LEVELS * batch + num_splits * min(batch, LARGE_ROWS // group)
        tiles = 3 * batch + num_splits
        return cls(target_programs, tiles, num_pages + batch, batch, max_partials, room_for_large)


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tensors of a step, all int32 and views of `buffer`.

    Attributes:
        counts: elements of the small and large tiles, of row_position, row_start and pages.
        num_used: elements of the buffer up to the last page; what follows is room that this plan does not need.
        small, large: [N, TILE_FIELDS], the tiles of each size; a tile of no rows does nothing.
        pages: what `first page` of a tile points into.
        row_position: [T], position of each row in its context.
        row_start: [T + 1], of each row's partial results.
        num_partials: room for partial results.
    """

    buffer: Tensor
    counts: tuple[int, ...]
    num_used: int
    small: Tensor
    large: Tensor
    pages: Tensor
    row_position: Tensor
    row_start: Tensor
    num_partials: int
    page_size: int

    @classmethod
    def build(
        cls,
        segments: Sequence[Segment],
        num_rows: int,
        page_size: int,
        shape: HeadCounts,
        limits: TileLimits,
        device: torch.device | str,
    ) -> TilePlan:
        """Cut segments into tiles.

        Raises:
            PlanTooLargeError: more than the limits' capacities.
        """
        group = shape.num_heads // shape.num_kv_heads
        split_tokens = _split_tokens(segments, page_size, group, shape.num_kv_heads, limits.target_programs)
        small: list[int] = []
        large: list[int] = []
        pages: list[int] = []
        position = [0] * num_rows
        num_partials = [0] * num_rows
        for segment in sorted(segments, key=lambda s: s.own):  # shared ones in their order: parents first
            rows_per_tile = _rows_per_tile(segment.num_rows, group)
            tiles = small if rows_per_tile * group <= SMALL_ROWS else large
            order = num_partials[segment.row_start]  # the same for all its rows: they have the same segments above
            for start in range(0, segment.num_tokens, split_tokens):
                num_tokens = min(split_tokens, segment.num_tokens - start)
                for row in range(segment.row_start, segment.row_end, rows_per_tile):
                    rows = min(rows_per_tile, segment.row_end - row)
                    tiles += (row, rows, len(pages) + start // page_size, segment.first + start, num_tokens, order)
                order += 1
            pages += segment.pages
            for row in range(segment.row_start, segment.row_end):
                num_partials[row] = order
                if segment.own:
                    position[row] = segment.first + segment.num_tokens - (segment.row_end - row)
        row_start = [0]
        for count in num_partials:
            row_start.append(row_start[-1] + count)
        return cls._packed(small, large, pages, position, row_start, limits, page_size, device)

    @classmethod
    def _packed(
        cls,
        small: list[int],
        large: list[int],
        pages: list[int],
        position: list[int],
        row_start: list[int],
        limits: TileLimits,
        page_size: int,
        device: torch.device | str,
    ) -> TilePlan:
        total = row_start[-1]
        counts = [len(small), len(large), len(position)]
        if limits.max_tiles is not None:
            assert limits.max_pages is not None  # and so are the others
            assert limits.max_rows is not None
            assert limits.max_partials is not None
            _fit(total, limits.max_partials, "partial results")
            _fit(max(len(small), len(large)) // TILE_FIELDS, limits.max_tiles, "tiles of one size")
            _fit(len(pages), limits.max_pages, "pages")
            _fit(len(position), limits.max_rows, "rows")
            of_each = limits.max_tiles * TILE_FIELDS
            counts = [of_each, of_each if large or limits.room_for_large else 0, limits.max_rows]
            row_start = row_start + [total] * (limits.max_rows + 1 - len(row_start))
            total = limits.max_partials
        counts += [len(row_start), len(pages) if limits.max_pages is None else limits.max_pages]
        flat = torch.zeros(sum(map(_aligned, counts)), dtype=torch.int32, pin_memory=torch.device(device).type == "cuda")
        for room, part in zip(_parts(flat, counts), (small, large, position, row_start, pages), strict=True):
            if part:  # through an array: torch.tensor takes four times as long, every step
                room[: len(part)] = torch.frombuffer(array("i", part), dtype=torch.int32)
        num_used = sum(map(_aligned, counts[:-1])) + len(pages)
        return cls._of(flat.to(device, non_blocking=True), tuple(counts), num_used, total, page_size)

    @classmethod
    def _of(cls, buffer: Tensor, counts: tuple[int, ...], num_used: int, num_partials: int, page_size: int) -> TilePlan:
        small, large, row_position, row_start, pages = _parts(buffer, counts)
        return cls(
            buffer=buffer,
            counts=counts,
            num_used=num_used,
            small=small.view(-1, TILE_FIELDS),
            large=large.view(-1, TILE_FIELDS),
            pages=pages,
            row_position=row_position,
            row_start=row_start,
            num_partials=num_partials,
            page_size=page_size,
        )

    def at(self, buffer: Tensor) -> TilePlan:
        """Return this plan with its tensors in another buffer of the same shape, which the caller fills."""
        return TilePlan._of(buffer, self.counts, self.num_used, self.num_partials, self.page_size)

    def copy_from(self, other: TilePlan) -> None:
        """Take over another plan of the same capacities, at the same addresses."""
        if self.buffer.shape != other.buffer.shape:
            raise ValueError("Plans of different capacities cannot be copied.")
        self.buffer.copy_(other.buffer, non_blocking=True)


def _aligned(count: int) -> int:
    """A number of int32 elements, rounded up to 16 bytes: what begins elsewhere has Triton compile its kernels again."""
    return -(-count // 4) * 4


def _parts(buffer: Tensor, counts: Sequence[int]) -> list[Tensor]:
    """The parts of a plan's buffer."""
    parts = buffer.split([_aligned(count) for count in counts])
    return [part[:count] for part, count in zip(parts, counts, strict=True)]


def _rows_per_tile(num_rows: int, group: int) -> int:
    small = SMALL_ROWS // group
    return small if num_rows <= small else max(1, LARGE_ROWS // group)


def _split_tokens(segments: Sequence[Segment], page_size: int, group: int, num_kv_heads: int, target: int) -> int:
    """Return how many tokens a tile reads, whole pages: so that there are about `target` programs, of equal work."""
    work = sum(s.num_tokens * -(-s.num_rows // _rows_per_tile(s.num_rows, group)) for s in segments)
    tokens = max(MIN_SPLIT_TOKENS, -(-work * num_kv_heads // max(target, 1)))
    return -(-tokens // page_size) * page_size


def _fit(count: int, capacity: int, what: str) -> None:
    if count > capacity:
        raise PlanTooLargeError(f"{count} {what} are more than the {capacity} that fit.")
