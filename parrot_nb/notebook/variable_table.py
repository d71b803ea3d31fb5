"""The table of `%parrot vars`: a line per variable, and one for all those of a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.report import Report, clipped, report
from parrot_nb.notebook.static import STATE_ORDER

FEW = 8  # variables of one kind that have a line each
HEADERS = ("name", "type", "state", "value", "from", "read by", "tokens")


def variables_report(nodes: Sequence[VariableNode]) -> Report:
    """Variables with their types, states, values, producers and readers; more than a few that the same function writes, and the same
    functions read, are one line, at the place of the first."""
    groups: dict[tuple[object, ...], list[VariableNode]] = {}
    for node in nodes:
        groups.setdefault(_kind(node), []).append(node)
    rows: dict[int, tuple[str, ...]] = {}
    for group in groups.values():
        rows |= {group[0].id: _together(group)} if len(group) > FEW else {node.id: _line(node) for node in group}
    title = f"{len(nodes)} variable{'s' * (len(nodes) != 1)}"
    return report(title, [rows[node.id] for node in nodes if node.id in rows], HEADERS)


def _kind(node: VariableNode) -> tuple[object, ...]:
    readers = tuple(dict.fromkeys(id(call.function) for call in node.consumers))
    return node.name, None if node.producer is None else id(node.producer.function), readers


def _line(node: VariableNode) -> tuple[str, ...]:
    value = str(node.error) if node.error is not None else node.text or ("" if node.value is None else repr(node.value))
    tokens = "reused" if node.usage.from_memo else str(node.usage.decoded_tokens or "")
    return node.name, _type(node), node.state, clipped(value), *_ends(node), tokens


def _together(nodes: Sequence[VariableNode]) -> tuple[str, ...]:
    counts = Counter(node.state for node in nodes)
    states = ", ".join(f"{counts[state]} {state}" for state in STATE_ORDER if counts[state])
    types = ", ".join(sorted({kind for node in nodes if (kind := _type(node))}))
    first = _line(nodes[0])[3]
    tokens = sum(node.usage.decoded_tokens for node in nodes if not node.usage.from_memo)
    return f"{nodes[0].name} \u00d7{len(nodes)}", types, states, first, *_ends(nodes[0]), str(tokens or "")


def _type(node: VariableNode) -> str:
    return type(node.value).__name__ if node.state == "done" else ""


def _ends(node: VariableNode) -> tuple[str, str]:
    """The function that writes a variable, and those that read it."""
    return "" if node.producer is None else node.producer.name, ", ".join(dict.fromkeys(call.name for call in node.consumers))
