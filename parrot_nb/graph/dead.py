"""Dead work: calls whose results nobody can read any more."""

from __future__ import annotations

import heapq
from collections.abc import Iterable

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import FINAL_STATES


def dead_calls(nodes: Iterable[ValueRecord]) -> list[CallRecord]:
    """Return the unfinished calls behind these variables that can be left off, consumers before producers.

    A call is alive while a user holds one of its outputs, while a living call reads one, and while it is a native function:
    those may do more than return a value. Pure; each call is looked at once, after all that read it.
    """
    dead: set[int] = set()
    found: list[CallRecord] = []
    seen: set[int] = set()
    frontier: list[tuple[int, CallRecord]] = []

    def look_at(call: CallRecord | None) -> None:
        if call is not None and call.id not in seen and call.state not in FINAL_STATES:
            seen.add(call.id)
            heapq.heappush(frontier, (-call.id, call))  # ids are topological

    for node in nodes:
        look_at(node.producer)
    while frontier:
        _, call = heapq.heappop(frontier)
        if call.kind == "native" or any(_is_read(output, dead) for output in call.outputs):
            continue
        dead.add(call.id)
        found.append(call)
        for node in call.inputs.values():
            look_at(node.producer)
    return found


def is_read_but_by(race: CallRecord, call: CallRecord) -> bool:
    """Whether anybody but one of its consumers has asked for a call's outputs, or will read them."""
    return any(
        output.objective is not None or any(reader.state not in FINAL_STATES for reader in output.consumers if reader is not race)
        for output in call.outputs
    )


def _is_read(node: ValueRecord, dead: set[int]) -> bool:
    return node.reachable or any(reader.id not in dead and reader.state not in FINAL_STATES for reader in tuple(node.consumers))
