"""What the next step computes: one screen that decides.

Rules. Contexts that decode come first, then prompts in chunks, each by urgency, within a budget of tokens; so a long
prompt never holds up those that are already writing. Where somebody has a pace the budget of the others is small, and
among those that are equally urgent it goes to who has been left out longest. Nobody starves: contexts that were left
out of `LEFT_OUT_STEPS` steps in a row come before all others, a page's worth of tokens each, some in every step. What is
filled ahead of its time gets few tokens of a step that others are in. What is cached is used, and a page that one context
computes in this step no other computes: it follows the one that does, and its own end is computed in the same step, where
that has room for it. A context that needs pages takes free and cached ones; when none are left they come from the least
urgent context that is not in this step: an idle one first, else a less urgent one, which gives up its pages and is computed
again later. The most urgent context can always be served, so there is progress.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.step import StepBatch, StepContext, Suppressed
from parrot_nb.engine.protocol import Kind

LEFT_OUT_STEPS = 32
AHEAD_TOKENS = 32  # so few rows more cost a step that decodes little: it waits for the weights, not for arithmetic
BEYOND = 4  # a step may exceed its budget by a quarter: for ends of prompts that follow another's, and for who was left out


@dataclass(slots=True)
class Budget:
    """What a step may compute besides the contexts with a pace that are being written, which are always in; in prompt tokens.

    Attributes:
        rows: all of it.
        others: of contexts without a pace.
        decode_cost: what a context costs that writes one token.
        fills: whether prompts of contexts without a pace get any of it; else only those that write.
        spent: what contexts without a pace take of it, once the step is planned.
    """

    rows: int
    others: int
    decode_cost: float = 1.0
    fills: bool = True
    spent: float = 0.0


def plan_step(
    contexts: Sequence[Context],
    cache: PageCache,
    budget: Budget,
    *,
    deduplicate: bool = True,
    only: Collection[Context] | None = None,
) -> list[tuple[Context, int]]:
    """Choose what runs, and give it its pages.

    Args:
        contexts: all of them; none is in a step.
        cache: of their pages.
        budget: of the step; it is told what was spent.
        deduplicate: let a context use a page that another one is about to compute.
        only: those of the contexts that may run; None for all.

    Returns:
        Contexts, and how many tokens of each to compute, guesses included; their pages have room for these.
    """
    runnable = contexts if only is None else only
    plan = _plan(runnable, contexts, cache, budget, deduplicate=deduplicate)
    if not plan.rows and any(c.num_pending > 0 and (only or c.priority.kind < Kind.AHEAD) for c in runnable):
        # The budget leaves out who holds the pages that another needs, and without a step would do so for ever.
        plan = _plan(runnable, contexts, cache, Budget(cache.page_size, cache.page_size), deduplicate=deduplicate)
    budget.spent = plan.left.spent
    return plan.rows


def _plan(
    runnable: Collection[Context], contexts: Sequence[Context], cache: PageCache, budget: Budget, *, deduplicate: bool
) -> _Plan:
    paced = any(context.pace is not None for context in contexts)
    ready = sorted((c for c in runnable if c.num_pending > 0), key=_by_turn if paced else _by_urgency)
    plan = _Plan(contexts, cache, _Left(budget, cache.page_size, ends=deduplicate and not paced), deduplicate=deduplicate)
    for context in ready:
        plan.consider(context)
    return plan


class _Plan:
    """A step that is being planned.

    Attributes:
        rows: contexts that are in, and how many tokens of each are computed.
        left: of the budget.
    """

    def __init__(self, contexts: Sequence[Context], cache: PageCache, left: _Left, *, deduplicate: bool) -> None:
        self.rows: list[tuple[Context, int]] = []
        self.left = left
        self._cache, self._deduplicate = cache, deduplicate
        self._num_announced = 0  # tokens that others may use
        self._pages = _Pages(contexts, cache)

    def consider(self, context: Context) -> None:
        """Take a context in, if there is room for it; the more urgent ones have been considered."""
        cache, size = self._cache, self._cache.page_size
        room = self.left.room(context)
        if self._pages.preempted(context):
            return
        if room <= 0 and (context.decodes or not self._num_announced or self.left.ends <= 0):
            context.num_left_out += 1
            return
        lease = context.lease
        lease.adopt()
        # Who has no room can only have a short end computed; and a single token is no worth looking for.
        looks = context.num_pending > 1 and (room > 0 or context.num_pending - self._num_announced <= size)
        nodes = lease.in_work() if looks and self._num_announced else []
        num_pending = context.num_pending - len(nodes) * size
        ahead = context.priority.kind == Kind.AHEAD
        if num_pending <= 0 or (nodes and (ahead or not cache.num_available)):
            return  # it finds them cached in the next step
        is_end = room < num_pending <= min(self.left.ends, size) and bool(nodes)
        if is_end:
            room = num_pending
        if room <= 0:
            context.num_left_out += 1
            return
        if ahead and self.rows and (room := min(room, self.left.ahead)) <= 0:  # the urgent ones are in already
            return
        if nodes:  # nothing keeps it out now
            lease.follow(nodes)
        count = _chunk(context, room, size)
        if ahead:  # whole pages, which others can use; the rest has time
            count -= (lease.num_cached + count) % size
        if count <= 0:
            return
        if context.guess:
            count += max(0, min(len(context.guess), room - count, cache.num_available * size))
        if (count := self._pages.give(context, count)) > 0:
            self._add(context, count, is_end=is_end)

    def _add(self, context: Context, count: int, *, is_end: bool) -> None:
        self.left.take(context, count, is_end=is_end)
        if self._deduplicate and context.num_pending > 1:
            context.lease.announce(min(context.lease.num_cached + count, len(context.tokens)))
            self._num_announced += count
        self._pages.chosen.add(context.id)
        self.rows.append((context, count))
        context.num_left_out = 0


class _Left:
    """What is left of a step's budget.

    Attributes:
        ahead: for what is filled ahead of its time.
        ends: beyond the budget, for ends of prompts that follow another's.
    """

    def __init__(self, budget: Budget, page_size: int, *, ends: bool) -> None:
        self._budget, self._page_size = budget, page_size
        self._rows, self._others = float(budget.rows), float(budget.others)
        self._overdue = max(page_size, budget.rows // BEYOND)  # beyond the budget, for who was left out too long
        self.ahead = AHEAD_TOKENS
        self.ends = budget.rows // BEYOND if ends else 0

    @property
    def spent(self) -> float:
        """What contexts without a pace have taken."""
        return self._budget.others - self._others

    def room(self, context: Context) -> int:
        """For how many tokens of a context there is room."""
        if context.num_left_out >= LEFT_OUT_STEPS and self._overdue > 0:
            return min(self._page_size, self._overdue)
        cost, budget = self._cost(context), self._budget
        fills = context.decodes or budget.fills
        paid = self._rows if context.pace is not None else min(self._rows, self._others) if fills else 0.0
        return 1 + max(0, int(paid - cost)) if not cost or paid >= cost else 0

    def _cost(self, context: Context) -> float:
        """Of a context's first token."""
        if not context.decodes:
            return 1.0
        return self._budget.decode_cost if context.pace is None else 0.0  # free of charge: the budget is what is left beside it

    def take(self, context: Context, count: int, *, is_end: bool) -> None:
        """So many tokens of a context are in."""
        paid = self._cost(context) + count - 1
        self._rows -= paid
        if context.pace is None:
            self._others -= paid
        if context.priority.kind == Kind.AHEAD:
            self.ahead -= count
        if context.num_left_out >= LEFT_OUT_STEPS:
            self._overdue -= count
        if is_end:
            self.ends -= count


def _by_urgency(context: Context) -> tuple[Any, ...]:
    return context.num_left_out < LEFT_OUT_STEPS, not context.decodes, context.urgency


def _by_turn(context: Context) -> tuple[Any, ...]:
    """Those with a pace, then whoever is overdue, then, of the most urgent kind, who writes, and whose turn it is."""
    turn = 0 if context.pace is not None else 1 + context.num_left_out
    kind = context.priority.kind
    return context.pace is None, context.num_left_out < LEFT_OUT_STEPS, kind, not context.decodes, -turn, context.urgency


def _chunk(context: Context, max_tokens: int, page_size: int) -> int:
    """How many tokens to compute: all, or up to the end of a page, so that others can use it."""
    count = min(context.num_pending, max_tokens)
    over = (context.lease.num_cached + count) % page_size
    return count - over if count < context.num_pending and over < count else count


class _Pages:
    """Pages for a step, if need be those of contexts that are preempted.

    Attributes:
        chosen: contexts that are in the step.
    """

    def __init__(self, contexts: Sequence[Context], cache: PageCache) -> None:
        self._contexts, self._cache = contexts, cache
        self.chosen: set[int] = set()
        self._preempted: set[int] = set()
        self._ordered: list[Context] | None = None  # the last gives up its pages first; put in order on first need

    def preempted(self, context: Context) -> bool:
        """Whether it has just given up its pages."""
        return context.id in self._preempted

    def give(self, context: Context, count: int) -> int:
        """Give a context the pages for `count` tokens more; returns for how many there are pages."""
        cache, lease = self._cache, context.lease
        needed = lease.missing_pages(lease.num_cached + count)
        while needed > cache.num_available and (victim := self._victim(context)) is not None:
            self._preempted.add(victim.id)
            victim.lease.release()
        if needed > cache.num_available:  # what it has and what there is still take it some way
            count = min(count, (len(lease.pages) + cache.num_available) * cache.page_size - lease.num_cached)
        if count > 0:
            lease.extend(lease.num_cached + count)
        return count

    def _victim(self, context: Context) -> Context | None:
        """The next one to preempt for `context`, if there is one that may be: it is idle, or less urgent, and in no step."""
        if self._ordered is None:
            self._ordered = sorted(self._contexts, key=lambda c: (c.num_pending == 0, c.urgency))
        for victim in reversed(self._ordered):
            if not victim.lease.pages or victim is context or victim.id in self.chosen:
                continue
            if victim.num_pending == 0 or victim.urgency > context.urgency:
                return victim
        return None


def make_batch(rows: Sequence[tuple[Context, int]], suppressed: Suppressed | None = None) -> StepBatch:
    """What the worker needs to know of the contexts that `plan_step` chose; they may change meanwhile. `suppressed` is what
    the model's files forbid."""
    parts, copies = [], []
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
        seam = generation.seam if generation is not None and samples else None
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
            )
        )
    return StepBatch(tuple(parts), tuple(copies))
