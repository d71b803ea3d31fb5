"""Planning of the next step: a list of rules, on one screen.

Contexts are considered one by one, those that decode before prompts, each by urgency; so a long prompt never holds up those
that are already writing, and the most urgent one can always be served. Where somebody has a pace the budget of the others is
small, and among those that are equally urgent it goes to who has been left out longest. Nobody starves: contexts that are
overdue come before all others, a page's worth of tokens each, some in every step.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from parrot_nb.engine.embedded.budget import Budget, Left, is_overdue
from parrot_nb.engine.embedded.cache import PageCache, PageNode
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.protocol import Kind


class Refusal(Enum):
    """Reason why a context is not in a step."""

    LEFT_OUT = "there is no room for it, which counts for its turn"
    WAITS = "it has its turn, but in a later step"


@dataclass(slots=True)
class Offer:
    """A context's share of the step being planned; the rules make it smaller, or refuse it.

    Attributes:
        ahead: True if the context is filled ahead of its time.
        room: tokens that it may compute.
        followed: pages that another context of the step computes, and that it can use.
        pending: tokens that are left to compute with these.
        is_end: True if it gets its room beyond the budget, as the short end of a prompt that follows another's.
        count: tokens that it computes, guesses included.
    """

    context: Context
    ahead: bool
    room: int
    followed: Sequence[PageNode] = ()
    pending: int = 0
    is_end: bool = False
    count: int = 0


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
    draft = Draft(contexts, cache, budget, deduplicate=deduplicate)
    draft.consider_all(runnable)
    if not draft.rows and any(c.num_pending > 0 and (only or c.priority.kind < Kind.AHEAD) for c in runnable):
        # The budget leaves out who holds the pages that another needs, and without a step would do so for ever.
        draft = Draft(contexts, cache, Budget(cache.page_size, cache.page_size), deduplicate=deduplicate)
        draft.consider_all(runnable)
    budget.spent = draft.left.spent
    return draft.rows


class Draft:
    """A step that is being planned.

    Attributes:
        rows: contexts that are in, and how many tokens of each are computed.
        left: of the budget.
        num_announced: tokens in pages that a later context can follow.
        preempted: contexts that have given up their pages for the step.
    """

    def __init__(self, contexts: Sequence[Context], cache: PageCache, budget: Budget, *, deduplicate: bool) -> None:
        self.rows: list[tuple[Context, int]] = []
        self.num_announced = 0
        self.preempted: set[int] = set()
        self.cache = cache
        self._paced = any(context.pace is not None for context in contexts)
        self.left = Left(budget, cache.page_size, ends=deduplicate and not self._paced)
        self._contexts, self._deduplicate = contexts, deduplicate
        self._chosen: set[int] = set()
        self._ordered: list[Context] | None = None  # the last gives up its pages first; put in order on first need

    def consider_all(self, contexts: Collection[Context]) -> None:
        """Take in whatever the rules let pass, the most urgent first."""
        for context in sorted((c for c in contexts if c.num_pending > 0), key=_by_turn if self._paced else _by_urgency):
            offer = Offer(context, context.priority.kind is Kind.AHEAD, self.left.room(context))
            for rule in RULES:
                if (refusal := rule(self, offer)) is not None:
                    if refusal is Refusal.LEFT_OUT:
                        context.num_left_out += 1
                    break
            else:
                self._add(context, offer)

    def victim(self, context: Context) -> Context | None:
        """The next one to preempt for `context`, if there is one that may be: it is idle, or less urgent, and in no step."""
        if self._ordered is None:
            self._ordered = sorted(self._contexts, key=lambda c: (c.num_pending == 0, c.urgency))
        for victim in reversed(self._ordered):
            if not victim.lease.pages or victim is context or victim.id in self._chosen:
                continue
            if victim.num_pending == 0 or victim.urgency > context.urgency:
                return victim
        return None

    def _add(self, context: Context, offer: Offer) -> None:
        count, lease = offer.count, context.lease
        self.left.take(context, count, is_end=offer.is_end)
        if self._deduplicate and context.num_pending > 1:
            lease.announce(min(lease.num_cached + count, len(context.tokens)))
            self.num_announced += count
        self._chosen.add(context.id)
        self.rows.append((context, count))
        context.num_left_out = 0


# The rules. Each changes the offer, or refuses it; they come in this order.


def the_preempted_wait(draft: Draft, offer: Offer) -> Refusal | None:
    """A context that has given up its pages for the step is computed again in a later one."""
    return Refusal.WAITS if offer.context.id in draft.preempted else None


def the_budget_holds(draft: Draft, offer: Offer) -> Refusal | None:
    """Without room in the budget only a prompt can be in, which may turn out to follow another's."""
    may_follow = draft.num_announced and draft.left.ends > 0 and not offer.context.decodes
    return None if offer.room > 0 or may_follow else Refusal.LEFT_OUT


def what_is_cached_is_used(draft: Draft, offer: Offer) -> Refusal | None:
    """Pages that the tree has are not computed."""
    offer.context.lease.adopt()
    offer.pending = offer.context.num_pending
    return None


def a_page_is_computed_once(draft: Draft, offer: Offer) -> Refusal | None:
    """A context follows the one that computes its next pages, in the same step; what cannot do so finds them cached later."""
    # Who has no room can only have a short end computed; and a single token is no worth looking for.
    is_short = offer.pending - draft.num_announced <= draft.cache.page_size
    if draft.num_announced and offer.pending > 1 and (offer.room > 0 or is_short):
        offer.followed = offer.context.lease.in_work()
        offer.pending -= len(offer.followed) * draft.cache.page_size
    must_wait = offer.followed and (offer.ahead or not draft.cache.num_available)
    return Refusal.WAITS if offer.pending <= 0 or must_wait else None


def a_short_end_comes_along(draft: Draft, offer: Offer) -> Refusal | None:
    """The rest of a prompt that follows another's may exceed the budget, so that it need not wait for a step of its own."""
    if offer.followed and offer.room < offer.pending <= min(draft.left.ends, draft.cache.page_size):
        offer.is_end, offer.room = True, offer.pending
    return None if offer.room > 0 else Refusal.LEFT_OUT


def what_has_time_takes_little(draft: Draft, offer: Offer) -> Refusal | None:
    """A context that is filled ahead of its time gets few tokens of a step that others are in."""
    if offer.ahead and draft.rows:  # the urgent ones are in already
        offer.room = min(offer.room, draft.left.ahead)
    return None if offer.room > 0 else Refusal.WAITS


def chunks_end_with_a_page(draft: Draft, offer: Offer) -> Refusal | None:
    """A part of a prompt ends where a page does, so that others can use it; where there is time, so does every chunk."""
    lease, size = offer.context.lease, draft.cache.page_size
    if offer.followed:  # nothing keeps it out now
        lease.follow(offer.followed)
    offer.count = min(offer.pending, offer.room)
    over = (lease.num_cached + offer.count) % size
    if offer.count < offer.pending and over < offer.count:
        offer.count -= over
    if offer.ahead:
        offer.count -= (lease.num_cached + offer.count) % size
    return None if offer.count > 0 else Refusal.WAITS


def guesses_take_what_room_is_left(draft: Draft, offer: Offer) -> Refusal | None:
    """Guessed tokens are checked within the same room, and evict no more than the cache."""
    if offer.context.guess and offer.count == offer.pending:
        most = min(offer.room - offer.count, draft.cache.num_available * draft.cache.page_size)
        offer.count += max(0, min(len(offer.context.guess), most))
    return None


def pages_are_found(draft: Draft, offer: Offer) -> Refusal | None:
    """Pages are free or cached ones; when none are left they come from the least urgent context that is not in the step: an idle
    one first, else a less urgent one, which gives up all its pages. What there is takes the context some way at least."""
    lease, cache = offer.context.lease, draft.cache
    missing = lease.missing_pages(lease.num_cached + offer.count)
    while missing > cache.num_available and (victim := draft.victim(offer.context)) is not None:
        draft.preempted.add(victim.id)
        victim.lease.release()
    if missing > cache.num_available:
        offer.count = min(offer.count, (len(lease.pages) + cache.num_available) * cache.page_size - lease.num_cached)
    if offer.count <= 0:
        return Refusal.WAITS
    lease.extend(lease.num_cached + offer.count)
    return None


RULES: tuple[Callable[[Draft, Offer], Refusal | None], ...] = (
    the_preempted_wait,
    the_budget_holds,
    what_is_cached_is_used,
    a_page_is_computed_once,
    a_short_end_comes_along,
    what_has_time_takes_little,
    chunks_end_with_a_page,
    guesses_take_what_room_is_left,
    pages_are_found,
)


def _by_urgency(context: Context) -> tuple[Any, ...]:
    return not is_overdue(context), not context.decodes, context.urgency


def _by_turn(context: Context) -> tuple[Any, ...]:
    """Those with a pace, then whoever is overdue, then, of the most urgent kind, who writes, and whose turn it is."""
    turn = 0 if context.pace is not None else 1 + context.num_left_out
    kind = context.priority.kind
    return context.pace is None, not is_overdue(context), kind, not context.decodes, -turn, context.urgency
