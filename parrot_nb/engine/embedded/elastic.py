"""A KV cache on a GPU that grows while there is room, and is small again once the engine has nothing to do.

Whoever takes all memory at load leaves none to a second model or to the user's own tensors; whoever takes little runs short. So the
cache begins with a part of the free memory, and is doubled between two steps when its pages run short. What cannot be had is not
asked for again at once; the engine then goes on with the pages it has, by giving up cached ones and preempting.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable

from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.failures import no_room, stalled
from parrot_nb.engine.embedded.worker import Worker
from parrot_nb.engine.protocol import ModelInfo

IDLE_S = 20.0  # without work, after which a cache is made small again: longer than a user takes to start the next cell, often
SHORT_SHARE = 0.25  # of the pages: so few free ones are too few for what waits
RETRY_S = 10.0  # after memory could not be had


class Elastic:
    """Resizes the cache of one engine. Its methods run on the engine's loop, while no step runs.

    Args:
        cache: of the pages.
        worker: computes steps.
        resize: gives the tensors behind the cache so many pages, in the worker; returns how many there are then.
        most_pages: as many as there may be.
        model: for messages.
        timeout_s: a resize that takes longer is taken to be stuck, as a step is: the methods raise EngineLostError.
        clock: seconds.
    """

    def __init__(
        self,
        cache: PageCache,
        worker: Worker,
        resize: Callable[[int], int],
        most_pages: int,
        model: ModelInfo,
        timeout_s: float,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._cache, self._worker, self._resize, self._clock = cache, worker, resize, clock
        self.most_pages = most_pages
        self._model, self._timeout_s = model, timeout_s
        self._least_pages = cache.num_pages
        self._retry_at_s = 0.0

    async def fit(self, contexts: Iterable[Context]) -> None:
        """Grow if pages run short for the tokens that wait, or one context needs more than there are. One that needs more than can
        be had fails."""
        cache, waiting = self._cache, [context for context in contexts if context.num_pending > 0]
        longest = max((self._pages_of(context) for context in waiting), default=0)
        missing = sum(context.lease.missing_pages(len(context.tokens)) for context in waiting)  # more than true of what is shared
        runs_short = missing > cache.num_free and cache.num_free < SHORT_SHARE * cache.num_pages
        if not runs_short and longest <= cache.num_pages:
            return
        if self._clock() >= self._retry_at_s:
            await self._grow(max(2 * cache.num_pages, longest))
        await self._grow(longest)  # at any time: else a context would fail for memory that is free
        for context in waiting:
            if not context.freed and self._pages_of(context) > cache.num_pages:
                context.fail(no_room(len(context.tokens), cache.num_pages * cache.page_size))

    async def _grow(self, num_pages: int) -> None:
        """Have so many pages, or as many as there may be, if there is room for them and they are more than now."""
        wanted = min(self.most_pages, num_pages)
        if wanted <= self._cache.num_pages:
            return
        found = await self._resized(wanted)
        if found > self._cache.num_pages:
            self._cache.grow(found)
        if found < wanted:
            self._retry_at_s = self._clock() + RETRY_S

    def _pages_of(self, context: Context) -> int:
        return -(-len(context.tokens) // self._cache.page_size)

    @property
    def is_large(self) -> bool:
        """True if the cache is larger than at first."""
        return self._cache.num_pages > self._least_pages

    async def rest(self) -> None:
        """Give back what was added, with what is cached there; nothing where an open context holds a page of it."""
        if self._cache.shrink(self._least_pages):
            await self._resized(self._least_pages)

    async def _resized(self, num_pages: int) -> int:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await asyncio.wrap_future(self._worker.submit(self._resize, num_pages))
        except TimeoutError:
            raise stalled(self._model, self._timeout_s) from None
