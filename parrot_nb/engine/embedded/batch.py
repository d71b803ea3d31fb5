"""The batch of a step: the worker's snapshot of the contexts that are in it."""

from __future__ import annotations

import time
from collections.abc import Sequence

from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.masks import Constrained, StepMasks
from parrot_nb.engine.embedded.step import StepBatch, StepContext, Suppressed


def make_batch(rows: Sequence[tuple[Context, int]], suppressed: Suppressed | None = None) -> StepBatch:
    """A snapshot, for the worker, of the contexts that `plan_step` chose; they may change meanwhile. `suppressed` is what
    the model's files forbid."""
    parts, copies = [], []
    forced = [_forced(context, count) for context, count in rows]
    masks = _masks(rows, forced)
    for (context, count), certain in zip(rows, forced, strict=True):
        lease = context.lease
        end = min(lease.num_cached + count, len(context.tokens))
        guess = context.guess[: lease.num_cached + count - end]
        if (copy := lease.copy(end - 1)) is not None:
            copies.append(copy)
        generation = context.generation
        if generation is not None and generation.first_step_s is None:
            generation.first_step_s = time.monotonic()
        samples = generation is not None and end == len(context.tokens)
        constrained = generation is not None and samples and generation.grammar is not None
        seam = generation.seam if generation is not None and samples else None
        script = generation.script[generation.num_sampled :][: 1 + len(guess)] if generation is not None and samples else ()
        parts.append(
            StepContext(
                token_ids=(*context.tokens[lease.num_cached : end], *guess),
                start=lease.num_cached,
                pages=tuple(lease.pages),
                sampling=generation.sampling if generation is not None and samples else None,
                seed=generation.seed if generation is not None else 0,
                position=generation.num_sampled if generation is not None else 0,
                generation=generation.number if generation is not None else 0,
                num_guessed=len(guess),
                allowed=seam.allowed() if seam is not None and seam.is_open else None,
                counts=generation.counts.copy() if generation is not None and samples and generation.counts is not None else None,
                suppressed=suppressed,
                masks=masks if constrained and len(certain) < 1 + len(guess) else None,
                forced=certain,
                script=script or None,
            )
        )
    return StepBatch(tuple(parts), tuple(copies))


def _forced(context: Context, count: int) -> tuple[int, ...]:
    """The tokens that a constraint forces on the first samples of a context, of which so many tokens are computed."""
    generation, beyond = context.generation, context.lease.num_cached + count - len(context.tokens)
    if generation is None or beyond < 0:
        return ()
    forced = generation.forced[: 1 + beyond]
    return forced if forced[:beyond] == context.guess[: min(beyond, len(forced))] else forced[:1]


def _masks(rows: Sequence[tuple[Context, int]], forced: Sequence[tuple[int, ...]]) -> StepMasks | None:
    """The tokens that constrained samples of these contexts may choose, of which the computation begins; None where there are
    none. A sample for which a token is forced needs none."""
    constrained = []
    for (context, count), certain in zip(rows, forced, strict=True):
        generation, beyond = context.generation, context.lease.num_cached + count - len(context.tokens)
        if generation is not None and generation.grammar is not None and len(certain) <= beyond:
            constrained.append(Constrained(generation.grammar, context.guess[:beyond], generation.stop_ids, len(certain)))
    return StepMasks(constrained) if constrained else None
