"""Objective deduction: what a reader asks of one variable says what is wanted of every call before it (paper, 5.2).

The rule here: a call that something latency-critical depends on is latency-critical; what is only asked for as
throughput, or by nobody, is throughput.
"""

from __future__ import annotations

from collections.abc import Iterable

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import LATENCY, Objective


def deduce_objectives(nodes: Iterable[ValueRecord], objective: Objective) -> list[CallRecord]:
    """Propagate `objective` from `nodes` to every call they depend on that has a laxer one or none yet.

    Pure: returns the calls whose objective becomes `objective`, consumers before producers, and changes nothing. A call
    that already has it, or a stricter one, is not walked past: all before it were given it too.
    """
    changed: dict[int, CallRecord] = {}
    frontier = [node.producer for node in nodes if node.producer is not None]
    while frontier:
        call = frontier.pop()
        if call.id in changed or call.objective is objective or call.objective is LATENCY:
            continue
        changed[call.id] = call
        frontier.extend(node.producer for node in call.inputs.values() if node.producer is not None)
    return sorted(changed.values(), key=lambda call: call.id, reverse=True)
