"""What passes between the engine's loop, its worker, and the layers of a model in one step."""

from __future__ import annotations

import time
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.cache import KVMemory, PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.protocol import Sampling, StepRecord

if TYPE_CHECKING:
    from torch import Tensor

    from parrot_kernels import AttentionPlan


@dataclass(frozen=True, slots=True)
class StepContext:
    """One context's part in a step: its tokens `start` to `start + len(token_ids)`, and how to sample after the last. The
    last `num_guessed` tokens are guesses: then there is a sample before each of them as well, as if the guesses were right.

    `sampling` is None where nothing is sampled; `seed`, `position` and `generation` (its number) are the generation's.
    With `after`, the one token is not known yet: it is what the step before chose for its part of that index. Where `allowed`
    is given, int64 [n], the one token sampled is one of these.
    """

    token_ids: tuple[int, ...]
    start: int
    pages: tuple[int, ...]
    sampling: Sampling | None
    seed: int
    position: int
    generation: int = 0
    after: int | None = None
    num_guessed: int = 0
    allowed: Tensor | None = None

    @property
    def num_samples(self) -> int:
        """How many tokens are chosen for it."""
        return 0 if self.sampling is None else 1 + self.num_guessed


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


@dataclass(frozen=True, slots=True)
class Chosen:
    """What a step sampled, where it was computed: int64 [number of samples of all parts], -1 for unusable logits."""

    ids: Tensor | None

    def tokens(self) -> list[int | None]:
        """Wait for the device: a token for each sample, None for unusable logits."""
        return [] if self.ids is None else [token if token >= 0 else None for token in self.ids.tolist()]


@dataclass(slots=True)
class RunningStep:
    """A step that the worker has been given.

    Attributes:
        contexts: whose parts `batch` holds, in order.
        chosen: what they sample; the device may still be computing it.
        started_s: when the worker was given it; a step that was planned ahead waits there for the one before it.
    """

    contexts: list[Context]
    batch: StepBatch
    chosen: Future[Chosen]
    started_s: float = field(default_factory=time.monotonic)

    def tokens(self) -> list[int | None]:
        """Wait for the device; in the worker, which by then has been given the step after this one."""
        return self.chosen.result().tokens()

    def record(self, cache: PageCache, before_s: float | None) -> StepRecord:
        """What is told of it, now that it is over; the step before it ended at `before_s`, if one did since there was
        something to do."""
        parts = self.batch.contexts
        start_s = self.started_s if before_s is None else max(self.started_s, before_s)
        guesses = sum(part.num_guessed for part in parts)
        decodes = sum(len(part.token_ids) - part.num_guessed == 1 and part.position > 0 for part in parts)
        return StepRecord(
            start_s=start_s,
            duration_s=time.monotonic() - start_s,
            num_contexts=len(parts),
            prefill_tokens=sum(len(part.token_ids) for part in parts) - guesses - decodes,
            decode_tokens=decodes,
            owned_pages=cache.num_owned,
            num_pages=cache.num_pages,
            guessed_tokens=guesses,
            cached_pages=cache.num_cached,
        )
