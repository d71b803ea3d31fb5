"""What the next step computes: one screen that decides.

Rules. Contexts that decode come first, then prompts in chunks, each by urgency, within a budget of tokens; so a long
prompt never holds up those that are already writing. Where somebody has a pace the budget of the others is small, and
among those that are equally urgent it goes to who has been left out longest. Nobody starves: a context that was left
out of `LEFT_OUT_STEPS` steps in a row comes before all others, with a page's worth of tokens. What is filled ahead of its
time gets few tokens of a step that others are in. What is cached is used, and a page that one context computes in this
step no other computes: it follows the one that does and has its own end computed in the same step, where that has room for
it. A context that needs pages takes free and cached
ones; when none are left they come from the least urgent context that is not in this step: an idle one first, else a
less urgent one, which gives up its pages and is computed again later. The most urgent context can always be served, so
there is progress.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.step import StepBatch, StepContext
from parrot_nb.engine.protocol import AHEAD

LEFT_OUT_STEPS = 32
AHEAD_TOKENS = 32  # so few rows more cost a step that decodes little: it waits for the weights, not for arithmetic
ENDS = 4  # a step of the whole budget may be longer by a quarter, for ends of prompts that follow another's


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
    contexts: Sequence[Context], cache: PageCache, budget: Budget, *, deduplicate: bool = True
) -> list[tuple[Context, int]]:
    """Choose what runs, and give it its pages.

    Args:
        contexts: all of them; none is in a step.
        cache: of their pages.
        budget: of the step; it is told what was spent.
        deduplicate: let a context use a page that another one is about to compute.

    Returns:
        Contexts, and how many tokens of each to compute, guesses included; their pages have room for these.
    """
    paced = any(context.pace is not None for context in contexts)
    ready = sorted((c for c in contexts if c.num_pending > 0), key=_by_turn if paced else _by_urgency)
    plan = _Plan(contexts, cache, budget, paced=paced, deduplicate=deduplicate)
    for context in ready:
        plan.consider(context)
    budget.spent = budget.others - plan.others_left
    return plan.rows


class _Plan:
    """A step that is being planned.

    Attributes:
        rows: contexts that are in, and how many tokens of each are computed.
        others_left: of the budget of contexts without a pace.
    """

    def __init__(self, contexts: Sequence[Context], cache: PageCache, budget: Budget, *, paced: bool, deduplicate: bool) -> None:
        self._cache, self._budget, self._deduplicate = cache, budget, deduplicate
        self.rows: list[tuple[Context, int]] = []
        self._left, self.others_left = float(budget.rows), float(budget.others)
        self._ahead_left = AHEAD_TOKENS
        self._ends_left = budget.rows // ENDS if deduplicate and not paced else 0
        self._computes = False  # pages that others may want
        self._pages = _Pages(contexts, cache)

    def consider(self, context: Context) -> None:
        """Take a context in, if there is room for it; the more urgent ones have been considered."""
        if self._pages.preempted(context):
            return
        cost, room = _room(context, self._budget, self._left, self.others_left, self._cache.page_size)
        if room <= 0 and (context.decodes or not self._computes or self._ends_left <= 0):
            context.num_left_out += 1
            return
        ahead = context.priority[0] >= AHEAD
        self._cache.adopt(context)
        # For a single token nobody waits: it would take a step as well, once the page was there.
        nodes = self._cache.in_work(context) if self._computes and context.num_pending > 1 else []
        num_pending = context.num_pending - len(nodes) * self._cache.page_size
        if nodes and room < num_pending <= min(self._ends_left, self._cache.page_size):
            room, self._ends_left = num_pending, self._ends_left - num_pending
        if room <= 0:
            context.num_left_out += 1
            return
        if num_pending <= 0 or (nodes and (ahead or not self._cache.num_available)):
            return  # it finds them cached in the next step
        if ahead and self.rows:  # the urgent ones are in already
            room = min(room, self._ahead_left)
        self._cache.follow(context, nodes)  # it is in now: what ends here has none
        count = _chunk(context, room, self._cache.page_size) if room > 0 else 0
        if ahead:  # whole pages, which others can use; the rest has time
            count -= (context.num_cached + count) % self._cache.page_size
        if count <= 0:
            return
        if context.guess:
            count += max(0, min(len(context.guess), room - count, self._cache.num_available * self._cache.page_size))
        if (count := self._pages.give(context, count)) > 0:
            self._add(context, count, cost)

    def _add(self, context: Context, count: int, cost: float) -> None:
        self._left -= cost + count - 1
        if context.pace is None:
            self.others_left -= cost + count - 1
        if context.priority[0] >= AHEAD:
            self._ahead_left -= count
        if self._deduplicate and context.num_pending > 1:
            self._cache.announce(context, min(context.num_cached + count, len(context.tokens)))
            self._computes = True
        self._pages.chosen.add(context.id)
        self.rows.append((context, count))
        context.num_left_out = 0


def _by_urgency(context: Context) -> tuple[Any, ...]:
    return context.num_left_out < LEFT_OUT_STEPS, not context.decodes, context.urgency


def _by_turn(context: Context) -> tuple[Any, ...]:
    """Those with a pace, then whoever is overdue, then, of the most urgent kind, who writes, and whose turn it is."""
    turn = 0 if context.pace is not None else 1 + context.num_left_out
    kind = context.priority[0]
    return context.pace is None, context.num_left_out < LEFT_OUT_STEPS, kind, not context.decodes, -turn, context.urgency


def _room(context: Context, budget: Budget, left: float, others_left: float, page_size: int) -> tuple[float, int]:
    """What the first token of a context costs, and for how many there is room."""
    decodes = context.decodes
    free = decodes and context.pace is not None  # of charge: the budget is what is left beside it
    cost = 0.0 if free else budget.decode_cost if decodes else 1.0
    if context.num_left_out >= LEFT_OUT_STEPS:
        return cost, page_size
    paid = left if context.pace is not None else min(left, others_left) if decodes or budget.fills else 0.0
    return cost, 1 + max(0, int(paid - cost)) if free or paid >= cost else 0


def _chunk(context: Context, max_tokens: int, page_size: int) -> int:
    """How many tokens to compute: all, or up to the end of a page, so that others can use it."""
    count = min(context.num_pending, max_tokens)
    over = (context.num_cached + count) % page_size
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
        self._victims: list[Context] | None = None  # those that have pages, the last goes first; put in order on first need

    def preempted(self, context: Context) -> bool:
        """Whether it has just given up its pages."""
        return context.id in self._preempted

    def give(self, context: Context, count: int) -> int:
        """Give a context the pages for `count` tokens more; returns for how many there are pages."""
        cache = self._cache
        needed = max(0, -(-(context.num_cached + count) // cache.page_size) - len(context.pages))
        while needed > cache.num_available and (victim := self._victim(context)) is not None:
            self._preempted.add(victim.id)
            cache.release(victim)
        if needed > cache.num_available:  # what it has and what there is still take it some way
            needed = cache.num_available
            count = min(count, (len(context.pages) + needed) * cache.page_size - context.num_cached)
        if count > 0:
            context.pages += cache.take(needed, context.pages[-1] if context.pages else None)
        return count

    def _victim(self, context: Context) -> Context | None:
        """The next one to preempt for `context`, if there is one that may be: it is idle, or less urgent, and in no step."""
        if self._victims is None:
            self._victims = sorted((c for c in self._contexts if c.pages), key=lambda c: (c.num_pending == 0, c.urgency))
        for i in range(len(self._victims) - 1, -1, -1):
            victim = self._victims[i]
            if victim is context or victim.id in self.chosen:
                continue
            if victim.num_pending == 0 or victim.urgency > context.urgency:
                return self._victims.pop(i)
        return None


def make_batch(rows: Sequence[tuple[Context, int]], cache: PageCache) -> StepBatch:
    """What the worker needs to know of the contexts that `plan_step` chose; they may change meanwhile."""
    parts, copies = [], []
    for context, count in rows:
        end = min(context.num_cached + count, len(context.tokens))
        guess = context.guess[: context.num_cached + count - end]
        found = cache.alike(context, end - 1)
        if found is not None:  # contexts part inside this page: copy what they have in common
            page, num_tokens = found
            copies.append((page, context.pages[context.num_cached // cache.page_size], num_tokens))
            context.reuse(context.num_cached + num_tokens)
        generation = context.generation
        if generation is not None and generation.first_step_s is None:
            generation.first_step_s = time.monotonic()
        samples = generation is not None and end == len(context.tokens)
        parts.append(
            StepContext(
                token_ids=(*context.tokens[context.num_cached : end], *guess),
                start=context.num_cached,
                pages=tuple(context.pages),
                sampling=generation.sampling if generation is not None and samples else None,
                seed=generation.seed if generation is not None else 0,
                position=generation.num_sampled if generation is not None else 0,
                generation=generation.number if generation is not None else 0,
                num_guessed=len(guess),
            )
        )
    return StepBatch(tuple(parts), tuple(copies))
