"""Steps as CUDA graphs: the whole step, sampling included, is one launch.

On a GPU a step of few rows is a hundred kernels that each take less time than it takes to launch them. A graph replays them
at once, but with the shapes and addresses of its capture; so there is one per rung of a ladder of batch sizes, its inputs lie
in one fixed buffer, and rows that a smaller batch does not fill compute something that nobody reads, in a slot that belongs
to no page. Where steps may share, a rung has a second graph with room for large tiles, since one without them launches a
kernel less in every layer.

A step with a prompt or guesses in it has rows that are not sampled: it has a ladder of its own, by rows, and room for
MOST_SAMPLES samples. Beyond its end a step runs without a graph: so many rows keep a device busy for longer than their launches
take.

All graphs are captured at load, the largest first: the others find their memory in what that one has used.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, TileLimits
from parrot_kernels.tiles import SMALL_ROWS
from parrot_nb.engine.embedded.cache import KVMemory
from parrot_nb.engine.embedded.device import Device, Replay
from parrot_nb.engine.embedded.inputs import StepInputs
from parrot_nb.engine.embedded.parcel import Parcel
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.embedded.step import Run, StepContext
from parrot_nb.engine.protocol import Sampling

LADDER = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)  # rows of decode steps
MIXED = (16, 32, 64, 128, 256)  # rows of other steps
MOST_SAMPLES = 64  # of a step that is no decode step

Compute = Callable[[Tensor, Tensor, Run, Tensor | None, SamplingRows], Tensor]
"""Token ids, positions, run, the rows that are sampled (None: all), sampling -> chosen tokens."""
Capture = Callable[[Callable[[], Tensor]], Replay]


@dataclass(frozen=True, slots=True)
class _Graph:
    """A captured step, and where it reads its inputs."""

    parcel: Parcel
    buffer: Tensor  # uint8
    replay: Replay


class StepGraphs:
    """The graphs of one model.

    Args:
        compute: the step, on tensors alone: never waits for the device.
        memory: KV; its last page belongs to nobody, for the rows that nobody reads.
        num_pages: pages that belong to the pool.
        page_size: tokens per page.
        shape: of the heads.
        costs: when sharing pays; None shares nothing.
        target_programs: programs that keep the device busy.
        device: where the steps run.
        capture: makes a graph of a function; replaying it runs the function on the same tensors again.
        ladder: batch sizes of decode steps, ascending; `LADDER` if None.

    Attributes:
        chosen: int64 [most samples], what the last step chose; the beginning of it is the result of `step`.
    """

    def __init__(
        self,
        compute: Compute,
        memory: KVMemory,
        *,
        num_pages: int,
        page_size: int,
        shape: HeadShape,
        costs: Costs | None,
        target_programs: int,
        device: Device,
        capture: Capture,
        ladder: Sequence[int] | None = None,
    ) -> None:
        self._compute = compute
        self._memory = memory
        self._num_pages = num_pages
        self._page_size = page_size
        self._shape = shape
        self._costs = costs
        self._target_programs = target_programs
        self._device = device
        self._ladder = _rungs(ladder or LADDER, num_pages)
        self._mixed = _rungs(MIXED, num_pages * page_size)
        most_samples = max(self._ladder[-1], *(self._samples_of(size) for size in self._mixed), 0)
        self.chosen = torch.zeros(most_samples, dtype=torch.int64, device=device.place)
        self._graphs: dict[tuple[int, bool, bool], _Graph] = {}  # by rows, whether it has large tiles, whether it is mixed
        for size, mixed in sorted(
            [*((size, False) for size in self._ladder), *((size, True) for size in self._mixed)], reverse=True
        ):
            for has_large in (True,) if mixed else (True, False) if self._may_have_large(size) else (False,):
                self._graphs[size, has_large, mixed] = self._captured(size, capture, has_large=has_large, mixed=mixed)

    def __len__(self) -> int:
        """Return the number of graphs."""
        return len(self._graphs)

    def _may_have_large(self, size: int) -> bool:
        """True if a batch can share so much that rows are packed into large tiles."""
        return self._costs is not None and size > SMALL_ROWS // (self._shape.num_heads // self._shape.num_kv_heads)

    @staticmethod
    def _samples_of(size: int) -> int:
        """Room for samples in a mixed step of so many rows."""
        return min(size, MOST_SAMPLES)

    def _captured(self, size: int, capture: Capture, *, has_large: bool, mixed: bool) -> _Graph:
        nobody = StepContext((0,), 0, (self._num_pages,), Sampling(max_tokens=1), 0, 0)
        inputs = self._inputs([nobody], size, mixed=mixed, room_for_large=has_large)
        parcel = Parcel.of(inputs.tensors())
        buffer = torch.zeros(parcel.num_bytes, dtype=torch.uint8, device=self._device.place)
        self._device.send_into(parcel, buffer, inputs.needed())
        moved = inputs.moved(parcel.open(buffer))
        run = Run(moved.plan, self._memory)

        def compute() -> Tensor:
            found = self._compute(moved.known(self.chosen), moved.positions, run, moved.keep, moved.sampling)
            return self.chosen[: len(found)].copy_(found)

        return _Graph(parcel, buffer, capture(compute))

    def serves(self, contexts: Sequence[StepContext]) -> bool:
        """True if there is a graph for so many rows and samples. A step with penalties, suppressed tokens or log-probabilities has
        inputs whose number changes from step to step: it runs without a graph."""
        if any(c.adjusts or c.scores or (c.after or 0) >= len(self.chosen) for c in contexts):
            return False
        if _decodes(contexts):
            return len(contexts) <= self._ladder[-1]
        num_rows, num_samples = sum(len(c.token_ids) for c in contexts), sum(c.num_samples for c in contexts)
        return any(num_rows <= size and num_samples <= self._samples_of(size) for size in self._mixed)

    def keep(self, chosen: Tensor) -> None:
        """Have the next step go on from what a step without a graph chose, int64 [S]."""
        chosen = chosen[: len(self.chosen)]  # `serves` refuses what goes on from further down
        self.chosen[: len(chosen)].copy_(chosen)

    def step(self, contexts: Sequence[StepContext]) -> Tensor | None:
        """The chosen tokens, int64 [number of samples], until the next step; None where nothing is sampled.

        Raises:
            PlanTooLargeError: the step shares more deeply than a graph has room for; compute it without.
        """
        num_rows, num_samples = sum(len(c.token_ids) for c in contexts), sum(c.num_samples for c in contexts)
        if mixed := not _decodes(contexts):
            size = next(size for size in self._mixed if size >= num_rows and self._samples_of(size) >= num_samples)
        else:
            size = next(size for size in self._ladder if size >= num_rows)
        inputs = self._inputs(contexts, size, mixed=mixed, room_for_large=mixed)
        assert inputs.plan.tiles is not None
        graph = self._graphs[size, inputs.plan.tiles.large.shape[0] > 0, mixed]
        self._device.send_into(graph.parcel, graph.buffer, inputs.needed())
        graph.replay()
        return self.chosen[:num_samples] if num_samples else None

    def _inputs(
        self, contexts: Sequence[StepContext], size: int, *, mixed: bool = False, room_for_large: bool = False
    ) -> StepInputs:
        heads = self._shape
        group = heads.num_heads // heads.num_kv_heads
        limits = TileLimits.for_decode(
            size, self._num_pages, self._target_programs, heads.num_kv_heads, group, room_for_large=room_for_large
        )
        rows = [ContextRows(c.start, len(c.token_ids), c.pages) for c in contexts]
        spare_slot = self._num_pages * self._page_size
        plan = AttentionPlan.build(rows, self._page_size, shape=heads, costs=self._costs, tiled=limits, spare_slot=spare_slot)
        return StepInputs.of(contexts, plan, padded_to=size, num_samples=self._samples_of(size) if mixed else None)


def _rungs(ladder: Sequence[int], most: int) -> list[int]:
    """The sizes of a ladder up to the first that holds the most there can be."""
    return [size for size, before in zip(ladder, (0, *ladder), strict=False) if before < most]


def _decodes(contexts: Sequence[StepContext]) -> bool:
    """True if the step is one token of each context, and a sample after it."""
    return all(len(c.token_ids) == c.num_samples == 1 for c in contexts)
