"""Data passed between the engine's loop, its worker, and the layers of a model in one step."""

from __future__ import annotations

import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.cache import KVMemory, PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.counts import TokenCounts
from parrot_nb.engine.embedded.failures import wrong_number
from parrot_nb.engine.embedded.scores import Score, Scores
from parrot_nb.engine.embedded.script import Script
from parrot_nb.engine.loads import BrokenOffError
from parrot_nb.engine.protocol import Sampling, StepRecord

if TYPE_CHECKING:
    from torch import Tensor

    from parrot_kernels import AttentionPlan
    from parrot_nb.engine.embedded.device import Arrival, Device
    from parrot_nb.engine.embedded.masks import StepMasks


@dataclass(frozen=True, slots=True)
class Suppressed:
    """Tokens that a model's files forbid: `always`, and some besides only as a generation's first token."""

    always: tuple[int, ...] = ()
    first: tuple[int, ...] = ()

    def at(self, position: int) -> tuple[int, ...]:
        """Return the tokens that must not be chosen after so many tokens of the generation."""
        return self.always if position else self.always + self.first


@dataclass(frozen=True, slots=True)
class StepContext:
    """One context's part in a step: its tokens `start` to `start + len(token_ids)`, and how to sample after the last. The
    last `num_guessed` tokens are guesses: then there is a sample before each of them as well, as if the guesses were right.

    `sampling` is None where nothing is sampled; `seed`, `position` and `generation` (its number) are the generation's.
    With `after`, the one token is not known yet: it is what the step before chose for its part of that index. `counts` is of
    the tokens before the guesses, where there are penalties; `suppressed` is what the model's files forbid. Where `allowed`
    is given, int64 [n], at an open seam, the one token sampled is one of these. With `masks`, those of the step, what is
    sampled is constrained, but for the first samples, for which a constraint forces a token each: `forced`. With a `script`, a
    place for each sample, that is what it writes.
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
    counts: TokenCounts | None = None
    suppressed: Suppressed | None = None
    masks: StepMasks | None = None
    forced: tuple[int, ...] = ()
    script: Script | None = None

    @property
    def end(self) -> int:
        """Number of the context's tokens that have their KV after the step, guesses included."""
        return self.start + len(self.token_ids)

    @property
    def num_samples(self) -> int:
        """Number of tokens that are chosen for it."""
        return 0 if self.sampling is None else 1 + self.num_guessed

    @property
    def guess(self) -> tuple[int, ...]:
        """The tokens that are guesses."""
        return self.token_ids[len(self.token_ids) - self.num_guessed :]

    @property
    def adjusts(self) -> bool:
        """True if its logits are changed before a token is chosen (`parrot_nb.engine.embedded.adjust`)."""
        changes = self.counts is not None or self.suppressed is not None or self.allowed is not None or self.masks is not None
        return self.sampling is not None and changes

    @property
    def scores(self) -> bool:
        """True if log-probabilities of its samples are asked for (`parrot_nb.engine.embedded.scores`)."""
        return self.sampling is not None and (self.sampling.logprobs is not None or self.script is not None)


@dataclass(frozen=True, slots=True)
class StepBatch:
    """A step: its contexts, sorted by their pages, and the beginnings of pages to copy before it: (from, to, tokens)."""

    contexts: tuple[StepContext, ...]
    copies: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """Data that attention layers receive during a step."""

    plan: AttentionPlan
    memory: KVMemory


@dataclass(frozen=True, slots=True)
class Choice:
    """One sample: a token, None for unusable logits, and its score where that was asked for."""

    token: int | None
    score: Score | None = None


@dataclass(frozen=True, slots=True)
class Chosen:
    """Samples of a step.

    Attributes:
        ids: int64 [number of samples of all parts], -1 for unusable logits; where they were computed.
        scores: where they are asked for, likewise.
        arrival: ids and the scores' tensors on their way to the host; None if nobody fetches them.
    """

    ids: Tensor | None
    scores: Scores | None = None
    arrival: Arrival | None = None

    def fetched(self, device: Device) -> Chosen:
        """Return the same on its way to the host: whoever waits for it waits for this step, and not for those after it."""
        tensors = () if self.ids is None else (self.ids, *(() if self.scores is None else self.scores.tensors()))
        return replace(self, arrival=device.fetch(*tensors))

    def choices(self) -> list[Choice]:
        """Wait for the step: what was chosen for each sample."""
        assert self.arrival is not None, "nobody has fetched it"
        arrived = [tensor.tolist() for tensor in self.arrival.wait()]  # of a step without samples too: it may have failed
        if self.ids is None:
            return []
        ids, *scored = arrived
        scores = {} if self.scores is None else self.scores.by_sample(*scored)
        return [Choice(token if token >= 0 else None, scores.get(i)) for i, token in enumerate(ids)]


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
    judged: Callable[[BaseException], BaseException] = lambda error: error  # as `StepModel.judged`

    def choices(self) -> list[Choice]:
        """Wait for the device; in the worker, which by then has been given the step after this one."""
        return self.chosen.result().choices()

    def outcome(self) -> list[Choice] | BaseException:
        """Wait as `choices` does; what the model raised is returned, whatever it is: an event loop would not hand all of it on."""
        try:
            choices = self.choices()
        except BrokenOffError:
            raise
        except BaseException as error:
            return self.judged(error)
        num_samples = sum(part.num_samples for part in self.batch.contexts)
        return choices if len(choices) == num_samples else wrong_number(len(choices), num_samples)

    def record(self, cache: PageCache, before_s: float | None) -> StepRecord:
        """Return the record of this step, now that it is over; the step before it ended at `before_s`, if one did since there was
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
