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
    masks = _masks(rows)
    for context, count in rows:
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
                masks=masks if constrained else None,
                script=script or None,
            )
        )
    return StepBatch(tuple(parts), tuple(copies))


def _masks(rows: Sequence[tuple[Context, int]]) -> StepMasks | None:
    """The tokens that constrained samples of these contexts may choose, of which the computation begins; None where there are
    none."""
    constrained = []
    for context, count in rows:
        generation, beyond = context.generation, context.lease.num_cached + count - len(context.tokens)
        if generation is not None and generation.grammar is not None and beyond >= 0:
            constrained.append(Constrained(generation.grammar, context.guess[:beyond], generation.stop_ids))
    return StepMasks(constrained) if constrained else None
