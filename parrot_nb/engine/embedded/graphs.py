"""Decode steps as CUDA graphs: the whole step, sampling included, is one launch.

On a GPU a decode step of a small batch is a hundred kernels that each take less time than it takes to launch them. A
graph replays them at once, but with the shapes and addresses of its capture; so there is one per rung of a ladder of
batch sizes, its inputs live in fixed tensors, and rows that a smaller batch does not fill compute something that nobody
reads, in a slot that belongs to no page.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, TileLimits
from parrot_nb.engine.embedded.cache import KVMemory
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.embedded.step import Run, StepContext
from parrot_nb.engine.protocol import Sampling

LADDER = (1, 2, 4, 8, 16, 24, 32, 48, 64, 96, 128, 192, 256)
GREEDY = Sampling(max_tokens=1)

Compute = Callable[[Tensor, Tensor, Run, SamplingRows], Tensor]  # token ids, positions, run, sampling -> chosen tokens
Replay = Callable[[], Tensor]
Capture = Callable[[Callable[[], Tensor]], Replay]


@dataclass(frozen=True, slots=True)
class _Inputs:
    """What a decode step reads; always the same tensors for one graph."""

    token_ids: Tensor  # int64 [B]
    positions: Tensor  # int64 [B]
    plan: AttentionPlan
    sampling: SamplingRows

    def tensors(self) -> list[Tensor]:
        assert self.plan.tiles is not None
        rows = self.sampling
        return [
            self.token_ids, self.positions, self.plan.new_slots, self.plan.tiles.buffer,
            rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seeds, rows.positions,
        ]  # fmt: skip


class DecodeGraphs:
    """The graphs of one model.

    Args:
        compute: the step, on tensors alone: never waits for the device.
        memory: KV; its last page belongs to nobody, for the rows that nobody reads.
        num_pages: pages that belong to the pool.
        page_size: tokens per page.
        shape: of the heads.
        costs: when sharing pays; None shares nothing.
        target_programs: programs that keep the device busy.
        capture: makes a graph of a function; replaying it runs the function on the same tensors again.
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
        device: torch.device,
        capture: Capture,
    ) -> None:
        self._compute = compute
        self._memory = memory
        self._num_pages = num_pages
        self._page_size = page_size
        self._shape = shape
        self._costs = costs
        self._target_programs = target_programs
        self._device = device
        self._capture = capture
        self._graphs: dict[int, tuple[_Inputs, Replay]] = {}

    def serves(self, contexts: Sequence[StepContext]) -> bool:
        """True if the step is one that graphs are for: one token of each context, and a sample after it. A step with penalties,
        suppressed tokens or log-probabilities has inputs whose number changes from step to step: it runs without a graph."""
        return len(contexts) <= LADDER[-1] and all(
            len(c.token_ids) == 1 and c.num_samples == 1 and not c.adjusts and not c.scores for c in contexts
        )

    def step(self, contexts: Sequence[StepContext], chosen: Tensor | None) -> Tensor:
        """The chosen tokens, int64 [len(contexts)], given those of the step before.

        Raises:
            PlanTooLargeError: the step shares more deeply than a graph has room for; compute it without.
        """
        batch = next(size for size in LADDER if size >= len(contexts))
        inputs = self._inputs(contexts, batch, chosen)
        if batch not in self._graphs:
            run = Run(inputs.plan, self._memory)
            replay = self._capture(lambda: self._compute(inputs.token_ids, inputs.positions, run, inputs.sampling))
            self._graphs[batch] = inputs, replay
        captured, replay = self._graphs[batch]
        if captured is not inputs:
            for mine, new in zip(captured.tensors(), inputs.tensors(), strict=True):
                mine.copy_(new, non_blocking=True)
        return replay()[: len(contexts)].clone()  # the next replay overwrites it, perhaps before it has been read

    def _inputs(self, contexts: Sequence[StepContext], batch: int, chosen: Tensor | None) -> _Inputs:
        padding = batch - len(contexts)
        group = self._shape.num_heads // self._shape.num_kv_heads
        limits = TileLimits.for_decode(batch, self._num_pages, self._target_programs, self._shape.num_kv_heads, group)
        rows = [ContextRows(c.start, 1, c.pages) for c in contexts]
        plan = AttentionPlan.build(
            rows, self._page_size, self._device, shape=self._shape, costs=self._costs, tiled=limits, spare_slot=self._num_pages * self._page_size
        )  # fmt: skip
        samplings = [c.sampling for c in contexts if c.sampling is not None]
        return _Inputs(
            filled_in([c.token_ids[0] for c in contexts] + [0] * padding, contexts, chosen, self._device),
            torch.tensor([c.start for c in contexts] + [0] * padding).to(self._device, non_blocking=True),
            plan,
            SamplingRows.of(
                samplings + [GREEDY] * padding,
                [c.seed for c in contexts] + [0] * padding,
                [c.position for c in contexts] + [0] * padding,
                self._device,
            ),
        )


def filled_in(token_ids: list[int], contexts: Sequence[StepContext], chosen: Tensor | None, device: torch.device) -> Tensor:
    """The rows' tokens, int64 [T]; those that were not known yet, of contexts with one row each, are what was chosen by
    the step before, and never leave the device. An unusable one (-1) fails its context; what follows from it is not read."""
    ids = torch.tensor(token_ids).to(device, non_blocking=True)
    guesses = [(row, c.after) for row, c in enumerate(contexts) if c.after is not None]
    if guesses:
        assert chosen is not None
        rows, sources = (torch.tensor(side).to(device, non_blocking=True) for side in zip(*guesses, strict=True))
        ids[rows] = chosen[sources].clamp_min(0)
    return ids


def cuda_capture() -> Capture:
    """Captures on CUDA; the graphs share one pool of memory, since only one runs at a time."""
    pool: list[Any] = []

    def capture(function: Callable[[], Tensor]) -> Replay:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(2):  # compiles kernels and sets libraries up, which a capture must not
                function()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=pool[0] if pool else None):
            out = function()
        pool[:] = [graph.pool()]

        def replay() -> Tensor:
            graph.replay()
            return out

        return replay

    return capture
