"""What passes between the engine's loop, its worker, and the layers of a model in one step."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.cache import KVMemory
from parrot_nb.engine.protocol import Sampling

if TYPE_CHECKING:
    from parrot_kernels import AttentionPlan


@dataclass(frozen=True, slots=True)
class StepContext:
    """One context's part in a step: its tokens `start` to `start + len(token_ids)`, and how to sample after the last.

    `sampling` is None where nothing is sampled; `seed` and `position` are the generation's.
    """

    token_ids: tuple[int, ...]
    start: int
    pages: tuple[int, ...]
    sampling: Sampling | None
    seed: int
    position: int


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A step: its contexts, sorted by their pages, and the beginnings of pages to copy before it: (from, to, tokens)."""

    contexts: tuple[StepContext, ...]
    copies: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What attention layers get during a step."""

    plan: AttentionPlan
    memory: KVMemory
