"""What the next step computes: one screen that decides, a pure function of the contexts and the free pages.

Rules. Contexts that decode come first, then prompts in chunks, each by urgency, within a budget of tokens; so a long
prompt never holds up those that are already writing. A context that needs pages takes free ones; when none are left it
takes them from the least urgent context that is not in this step: an idle one first, else a less urgent one, which
gives up all its pages and is computed again later. The most urgent context can always be served, so there is progress.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parrot_nb.engine.embedded.context import Context


@dataclass(frozen=True, slots=True)
class StepPlan:
    """What to do, in this order.

    Attributes:
        preempted: contexts to take all pages from.
        rows: contexts and how many tokens of each to compute, with the pages that each needs in addition.
    """

    preempted: tuple[Context, ...]
    rows: tuple[tuple[Context, int, int], ...]


def plan_step(contexts: Sequence[Context], *, free_pages: int, page_size: int, max_tokens: int) -> StepPlan:
    """Choose what runs.

    Args:
        contexts: all of them; none is in a step.
        free_pages: of the pool.
        page_size: tokens per page.
        max_tokens: budget of rows.
    """
    ready = sorted((c for c in contexts if c.num_pending > 0), key=lambda c: (not c.decodes, c.urgency))
    victims = sorted((c for c in contexts if c.pages), key=lambda c: (c.num_pending == 0, c.urgency))  # the last goes first
    rows: list[tuple[Context, int, int]] = []
    chosen: set[int] = set()
    preempted: dict[int, Context] = {}
    for context in ready:
        if max_tokens <= 0:
            break
        if context.id in preempted:
            continue
        count = min(context.num_pending, max_tokens)
        end = max(len(context.tokens) - context.num_pending, 0) + count
        needed = max(0, -(-end // page_size) - len(context.pages))
        while needed > free_pages:
            victim = _victim(victims, context, chosen)
            if victim is None:
                break
            preempted[victim.id] = victim
            free_pages += len(victim.pages)
        if needed > free_pages:  # what it has and what is free still take it some way
            room = (len(context.pages) + free_pages) * page_size - (end - count)
            count = min(count, room)
            if count <= 0:
                continue
            needed = free_pages
        free_pages -= needed
        max_tokens -= count
        chosen.add(context.id)
        rows.append((context, count, needed))
    return StepPlan(tuple(preempted.values()), tuple(rows))


def _victim(victims: list[Context], context: Context, chosen: set[int]) -> Context | None:
    """Take the next context to preempt for `context` off the list, if there is one that may be."""
    for i in range(len(victims) - 1, -1, -1):
        victim = victims[i]
        if victim is context or victim.id in chosen:
            continue
        if victim.num_pending == 0 or victim.urgency > context.urgency:
            return victims.pop(i)
    return None
