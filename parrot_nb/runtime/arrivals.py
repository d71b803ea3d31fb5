"""Waiters for a variable, or for so many tokens of one that is being written."""

from __future__ import annotations

import asyncio
from collections import defaultdict

from parrot_nb.graph.records import ValueRecord


class Arrivals:
    """Lives on the runtime loop."""

    def __init__(self) -> None:
        self._ends: defaultdict[int, list[asyncio.Future[None]]] = defaultdict(list)  # by id of the variable
        self._tokens: dict[int, list[tuple[int, asyncio.Future[None]]]] = {}

    def end(self, node: ValueRecord) -> asyncio.Future[None]:
        """Ends when a variable is final."""
        future = asyncio.get_running_loop().create_future()
        self._ends[node.id].append(future)
        return future

    def tokens(self, node: ValueRecord, num_tokens: int) -> asyncio.Future[None]:
        """Ends when so many tokens of a variable are certain, or it is final."""
        future = asyncio.get_running_loop().create_future()
        waiting = [(count, other) for count, other in self._tokens.pop(node.id, ()) if not other.done()]
        self._tokens[node.id] = [*waiting, (num_tokens, future)]
        if num_tokens <= len(node.streamed_ids):
            future.set_result(None)
        return future

    def grown(self, node: ValueRecord) -> None:
        """Wake those that wait for tokens of a variable that are certain now."""
        for num_tokens, future in self._tokens.get(node.id, ()):
            if num_tokens <= len(node.streamed_ids) and not future.done():
                future.set_result(None)

    def final(self, node: ValueRecord) -> None:
        """Wake those that wait for a variable that is final now."""
        for future in (*self._ends.pop(node.id, ()), *(future for _, future in self._tokens.pop(node.id, ()))):
            if not future.done():
                future.set_result(None)
