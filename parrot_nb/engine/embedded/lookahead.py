"""The step after one that is being computed, planned before it is known what that one will choose."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.step import RunningStep, StepBatch, StepContext


def look_ahead(
    running: RunningStep, contexts: Iterable[Context], cache: PageCache, max_context_tokens: int
) -> tuple[list[Context], StepBatch] | None:
    """The step after one that only decodes, while that one is being computed: the same contexts, each with the token that is
    not known yet. A context that turns out to have ended computes one token in vain. None where something else of
    `contexts` waits to be planned, guesses make it unknown how far this step will come, or a context has penalties, a
    constraint or an open seam, which depend on the token that is not known yet."""
    parts = running.batch.contexts
    if any(part.sampling is None or part.num_guessed for part in parts):
        return None
    if any(part.counts is not None or part.allowed is not None or part.masks is not None or part.forced for part in parts):
        return None
    if any(part.script is not None for part in parts):
        return None
    inside = {
        context.id
        for context, part in zip(running.contexts, parts, strict=True)
        if context.generation is not None and context.generation.number == part.generation
    }
    if any(context.num_pending and context.id not in inside for context in contexts):
        return None
    going_on: list[tuple[int, Context, StepContext, int]] = []
    for i, (context, part) in enumerate(zip(running.contexts, parts, strict=True)):
        generation, start = context.generation, part.start + len(part.token_ids)
        if generation is None or context.id not in inside:
            continue
        if part.position + 2 > generation.most_sampled or start + 1 >= max_context_tokens:
            continue  # this step's token is its last
        going_on.append((i, context, part, start))
    if not going_on or sum(context.lease.missing_pages(start + 1) for _, context, _, start in going_on) > cache.num_free:
        return None
    next_parts = []
    for i, context, part, start in going_on:
        context.lease.extend(start + 1)
        pages = tuple(context.lease.pages)
        next_parts.append(replace(part, token_ids=(0,), start=start, pages=pages, position=part.position + 1, after=i))
    return [context for _, context, _, _ in going_on], StepBatch(tuple(next_parts))
