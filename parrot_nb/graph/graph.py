"""The calls and variables of a session.

A call's inputs exist before the call does and a variable has at most one producer, so a cycle cannot be built: the
order in which calls are added is a topological order.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from parrot_nb.graph.prefix import prefix_hash
from parrot_nb.graph.records import CallRecord, ValueRecord, unique
from parrot_nb.language.nodes import Objective


class Graph:
    """A DAG of calls and variables, in topological order. Not thread-safe: the runtime thread owns it."""

    def __init__(self) -> None:
        self._calls: dict[int, CallRecord] = {}
        self._variables: dict[int, ValueRecord] = {}

    @property
    def calls(self) -> tuple[CallRecord, ...]:
        """All calls; a call comes after every call it reads from."""
        return tuple(self._calls.values())

    @property
    def variables(self) -> tuple[ValueRecord, ...]:
        """All variables, in order of their first appearance."""
        return tuple(self._variables.values())

    def __contains__(self, item: CallRecord | ValueRecord) -> bool:
        return item.id in (self._calls if isinstance(item, CallRecord) else self._variables)

    def add(self, call: CallRecord) -> list[ValueRecord]:
        """Add a call, with its outputs and those inputs that are new; returns the new inputs.

        The producers of its inputs must have been added before, unless their outputs are final.
        """
        assert call.id not in self._calls, f"{call} was added twice"
        new_inputs = []
        for node in call.inputs.values():
            if node.id in self._variables:
                continue
            assert node.producer is None or node.final, f"{node} is added before its producer"
            self._variables[node.id] = node
            new_inputs.append(node)
        self._calls[call.id] = call
        for node in call.outputs:
            self._variables[node.id] = node
        return new_inputs

    def call(self, call_id: int) -> CallRecord | None:
        """A call by its id."""
        return self._calls.get(call_id)

    def variable(self, variable_id: int) -> ValueRecord | None:
        """A variable by its id."""
        return self._variables.get(variable_id)

    def remove(self, call: CallRecord) -> None:
        """Forget a call that has ended and whose outputs nothing will read, and the values from outside that only it read."""
        del self._calls[call.id]
        call.forgotten = True
        for node in call.outputs:
            self._variables.pop(node.id, None)
        for node in unique(call.inputs.values()):
            node.forget_consumer()
            self.drop_unread(node)
        # So that what reads from it does not hold all that was before it, and no cycle is left to Python's collector.
        call.inputs, call.outputs = {}, ()

    def drop_unread(self, node: ValueRecord) -> None:
        """Forget a value from outside that no user and no call can read any more; others stay."""
        if node.producer is None and not node.consumers and not node.reachable:
            self._variables.pop(node.id, None)

    def clear(self) -> None:
        """Forget everything."""
        self._calls.clear()
        self._variables.clear()

    # The paper's primitives (section 4.2), by its names.

    def producer(self, node: ValueRecord) -> CallRecord | None:
        """The call that writes a variable, or None."""
        return node.producer

    def consumers(self, node: ValueRecord) -> tuple[CallRecord, ...]:
        """The calls that read a variable."""
        return tuple(node.consumers)

    def objective(self, node: ValueRecord) -> Objective | None:
        """Return the objective that a variable was requested with, or else the one deduced for its producer."""
        if node.objective is not None or node.producer is None:
            return node.objective
        return node.producer.objective

    def prefix_hash(self, node: ValueRecord) -> str | None:
        """The hash of the prompt before a variable's place in the prompt that produces it; None for a plain value."""
        return prefix_hash(node)

    def ancestors(self, nodes: Iterable[ValueRecord]) -> Iterator[CallRecord]:
        """The calls that these variables depend on, their own producers first; each once, nearest first."""
        seen: set[int] = set()
        frontier = [node.producer for node in nodes if node.producer is not None]
        while frontier:
            nearer, frontier = frontier, []
            for call in nearer:
                if call.id in seen:
                    continue
                seen.add(call.id)
                yield call
                frontier.extend(node.producer for node in call.inputs.values() if node.producer is not None)

    def only_needed_by(self, nodes: Iterable[ValueRecord]) -> list[CallRecord]:
        """The unfinished calls that exist for these variables alone: their producers, and every ancestor whose
        unfinished consumers are all among them."""
        targets = {node.producer.id for node in nodes if node.producer is not None}
        ancestors = sorted(self.ancestors(nodes), key=lambda call: call.id, reverse=True)  # consumers before producers
        chosen: dict[int, CallRecord] = {}
        for call in ancestors:
            if call.state not in ("pending", "running"):
                continue
            readers = [reader for node in call.outputs for reader in node.consumers if reader.state in ("pending", "running")]
            if call.id in targets or (readers and all(reader.id in chosen for reader in readers)):
                chosen[call.id] = call
        return list(chosen.values())
