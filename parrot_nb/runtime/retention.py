"""Retention in a graph: keeps calls that have not ended, and those whose values somebody may still read."""

from __future__ import annotations

from collections.abc import Callable

from parrot_nb.graph import Graph
from parrot_nb.graph.records import CallRecord, ValueRecord


class Retention:
    """Forgets calls one by one, each in time that is proportional to its inputs. Lives on the runtime loop.

    Args:
        graph: what forgets.
        forgotten: is told of each call, after the graph has forgotten it.
    """

    def __init__(self, graph: Graph, forgotten: Callable[[CallRecord], None]) -> None:
        self._graph = graph
        self._forgotten = forgotten

    def ended(self, call: CallRecord) -> None:
        """A call has ended: it and what it read may be needed no more."""
        self._drop_from([call, *(node.producer for node in call.inputs.values() if node.producer is not None)])

    def look_at(self, node: ValueRecord) -> None:
        """A variable can be read no more."""
        if node.producer is not None:
            self._drop_from([node.producer])
        else:
            self._graph.drop_unread(node)

    def _drop_from(self, calls: list[CallRecord]) -> None:
        for call in calls:
            if call in self._graph and call.final and not any(_is_needed(node) for node in call.outputs):
                self._graph.remove(call)
                self._forgotten(call)


def _is_needed(node: ValueRecord) -> bool:
    return node.reachable or any(not reader.final for reader in node.consumers)
