"""Plan of a ragged step's attention: made once per step, used by every layer.

A step is T rows (new tokens) of several contexts, back to back. A row attends to the tokens of its own context up to
and including itself. KV lives in slots; a page is `page_size` slots in a row, and a context's tokens lie in its pages
in order. `parrot_kernels.segments` cuts the work; the plan holds it in the form in which the device runs it: batched
matrix products on the CPU (`parrot_kernels.host`), tiles for the Triton kernel on a GPU (`parrot_kernels.tiles`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from parrot_kernels.host import HostPlan
from parrot_kernels.rowwise import RowPlan
from parrot_kernels.segments import ContextRows, Costs, Segment, cut
from parrot_kernels.tiles import TileLimits, TilePlan

# One more piece of work on the CPU is a dozen small torch calls, 60 us or so, in which a core moves half a megabyte; on a
# GPU it is more programs of the same launch, and partial results that stay in the cache.
HOST_SEGMENT_BYTES, GPU_SEGMENT_BYTES = 512 * 1024, 128 * 1024


@dataclass(frozen=True, slots=True)
class HeadShape:
    """Head counts and dimensions of the layers, as the plan needs them.

    Attributes:
        num_heads: Hq, of the query.
        num_kv_heads: Hkv, of keys and values.
        key_dim: D.
        value_dim: Dv.
        itemsize: bytes of one element of the cache.
    """

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int
    itemsize: int

    def costs(self, device: torch.device) -> Costs:
        """Return the savings and costs of sharing on that device."""
        return Costs(
            token_bytes=self.num_kv_heads * (self.key_dim + self.value_dim) * self.itemsize,
            row_bytes=2 * self.num_heads * (self.value_dim + 1) * 4,  # partial results are float32
            segment_bytes=HOST_SEGMENT_BYTES if device.type == "cpu" else GPU_SEGMENT_BYTES,
        )


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """Plan of a ragged step's attention: made once per step, used by every layer.

    A step is T rows (new tokens) of several contexts, back to back. A row attends to the tokens of its own context up to and
    including itself.

    Attributes:
        num_rows: T.
        new_slots: int64 [T], the slot that each row's own key and value go to.
        segments: what the plan does, in words.
        host: how torch does it, or None.
        tiles: how the Triton kernel does it, or None.
        rows: how it is done row by row, or None; one of the three is there.
    """

    num_rows: int
    new_slots: Tensor
    segments: tuple[Segment, ...]
    host: HostPlan | None
    tiles: TilePlan | None
    rows: RowPlan | None = None

    @classmethod
    def build(
        cls,
        contexts: Sequence[ContextRows],
        page_size: int,
        device: torch.device | str = "cpu",
        *,
        shape: HeadShape | None = None,
        costs: Costs | None = None,
        tiled: TileLimits | None = None,
        spare_slot: int | None = None,
        rowwise: bool = False,
    ) -> AttentionPlan:
        """The plan of a step whose rows are those of `contexts`, in order.

        Args:
            contexts: sorted by their pages, if sharing is to be found.
            page_size: tokens per page.
            device: where the step runs.
            shape: of the layers; only needed for tiles.
            costs: when sharing pays; None shares nothing.
            tiled: cut tiles for the Triton kernel within these limits; None plans for torch.
            spare_slot: where rows write that fill the limits' capacity and belong to no context.
            rowwise: attend row by row, so that nothing of a row's result depends on the other rows.

        Raises:
            ValueError: a context has no row, or too few pages.
        """
        segments = cut(contexts, page_size, costs)
        slots = torch.tensor(
            [
                context.pages[position // page_size] * page_size + position % page_size
                for context in contexts
                for position in range(context.num_cached_tokens, context.num_cached_tokens + context.num_new_tokens)
            ],
            dtype=torch.int64,
        )
        num_rows = slots.shape[0]
        if rowwise:
            rows = RowPlan.build(contexts, page_size, device)
            return cls(num_rows, slots.to(device), tuple(segments), None, None, rows)
        if tiled is None:
            return cls(num_rows, slots.to(device), tuple(segments), HostPlan.build(segments, page_size, device), None)
        if shape is None:
            raise ValueError("Tiles need the shape of the heads.")
        tiles = TilePlan.build(segments, num_rows, page_size, shape, tiled, device)
        if spare_slot is not None:
            slots = torch.cat([slots, slots.new_full((tiles.row_position.shape[0] - num_rows,), spare_slot)])
        return cls(slots.shape[0], slots.to(device, non_blocking=True), tuple(segments), None, tiles)

    def at(self, new_slots: Tensor, buffer: Tensor) -> AttentionPlan:
        """Return this plan of tiles with its tensors elsewhere, in tensors of the same shapes."""
        assert self.tiles is not None, "only tiles lie in one buffer"
        return replace(self, new_slots=new_slots, tiles=self.tiles.at(buffer))
