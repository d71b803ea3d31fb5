"""Keeps each call's task group up to date as more is read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from parrot_nb.graph import task_groups
from parrot_nb.language.nodes import Call, VariableNode
from parrot_nb.runtime.events import EventLog, GroupDeduced, now_s


class Grouping:
    """Lives on the runtime loop.

    Args:
        log: is told of every group.
        call_of: an unfinished call by its id, or None.
    """

    def __init__(self, log: EventLog, call_of: Callable[[int], Call | None]) -> None:
        self._log = log
        self._call_of = call_of
        self._readers: list[Sequence[VariableNode]] = []

    def read(self, nodes: Sequence[VariableNode]) -> None:
        """Somebody waits for these variables together. Groups are found once for all who ask at the same time."""
        if not self._readers:
            asyncio.get_running_loop().call_soon(self._find)
        self._readers.append(nodes)

    def _find(self) -> None:
        readers, self._readers = self._readers, []
        for group in task_groups(readers):
            for call_id in group.call_ids:
                if (call := self._call_of(call_id)) is not None:
                    call.group = group
            self._log.append(GroupDeduced(now_s(), group))
