"""A graph as Graphviz draws it: for papers and slides. Pictures in a notebook do not come from here: these must look the same
on machines with and without Graphviz."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from parrot_nb.errors import TraceError
from parrot_nb.language.escaping import escape, visible
from parrot_nb.language.nodes import CallKind
from parrot_nb.notebook.layout import Card, Layout, layout
from parrot_nb.notebook.state import CallView, GraphState, Shown
from parrot_nb.notebook.static import ICONS

if TYPE_CHECKING:
    import graphviz

FORMATS = {".svg": "svg", ".pdf": "pdf", ".png": "png"}
SOURCES = {".dot", ".gv"}
COLORS: dict[Shown, str] = {
    "pending": "#9e9e9e", "not run": "#9e9e9e", "running": "#1976d2", "done": "#388e3c", "failed": "#d32f2f", "cancelled": "#f57c00",
}  # fmt: skip
SHAPES: dict[CallKind, str] = {"semantic": "box", "native": "component", "join": "ellipse", "first": "diamond"}
TEXT_COLUMNS, TEXT_LINES = 34, 3
STATES: tuple[Shown, ...] = (
    "failed",
    "running",
    "pending",
    "cancelled",
    "not run",
    "done",
)  # of several calls the first of these counts


def digraph(state: GraphState) -> graphviz.Digraph:
    """Calls as nodes, variables as edges, task groups as frames; many like calls of a stage are one node, as in the notebook."""
    import graphviz

    plan = layout(state)
    graph = graphviz.Digraph("parrot_nb", graph_attr={"rankdir": "LR", "nodesep": "0.25", "ranksep": "0.5"})
    graph.attr("node", fontname="Helvetica,Arial,sans-serif", fontsize="11", style="rounded", margin="0.14,0.08")
    graph.attr("edge", fontname="Helvetica,Arial,sans-serif", fontsize="10", color="#757575", fontcolor="#616161")
    inside = set()
    for number, (num_calls, nodes) in enumerate(_framed(plan, state)):
        inside.update(nodes)
        with graph.subgraph(name=f"cluster_{number}") as frame:
            frame.attr(
                label=f"task group of {num_calls}",
                color="#bdbdbd",
                style="rounded,dashed",
                fontname="Helvetica,Arial,sans-serif",
                fontsize="10",
            )
            for i in nodes:
                _node(frame, i, plan.cards[i], state)
    for i, card in enumerate(plan.cards):
        if i not in inside:
            _node(graph, i, card, state)
    for edge in plan.edges:
        count = f" ×{edge.count}" if edge.count > 1 else ""
        label = graphviz.escape(visible(edge.label))  # else a name in angle brackets is a label of Graphviz's own HTML
        graph.edge(str(edge.source), str(edge.target), label=graphviz.nohtml(f"{label}{count}"))
    return graph


def _framed(plan: Layout, state: GraphState) -> list[tuple[int, list[int]]]:
    """How many calls a task group has, and their nodes: as in the notebook, those whose calls are several nodes or all of a
    stack, and each node in the first that has it."""
    node_of = {call.id: i for i, card in enumerate(plan.cards) for call in card.calls}
    groups = {call.group.id: call.group for call in state.calls.values() if call.group is not None}
    found: list[tuple[int, list[int]]] = []
    taken: set[int] = set()
    for group in groups.values():
        calls = [call_id for call_id in group.call_ids if call_id in node_of]
        nodes = [i for i in dict.fromkeys(node_of[call_id] for call_id in calls) if i not in taken]
        if len(nodes) > 1 or any(card.stacked and len(card.calls) == len(calls) for card in (plan.cards[i] for i in nodes)):
            taken.update(nodes)
            found.append((len(calls), nodes))
    return found


def drawn(state: GraphState, suffix: str) -> bytes:
    """A graph as the contents of a file with that suffix.

    Raises:
        TraceError: Graphviz is not there, or failed.
    """
    import graphviz

    graph = digraph(state)
    if suffix in SOURCES:
        return str(graph.source).encode()
    try:
        drawing: bytes = graph.pipe(format=FORMATS[suffix], encoding=None)
    except graphviz.ExecutableNotFound:
        raise TraceError(
            f"A {suffix} is drawn by Graphviz, whose program 'dot' is not here: install it, or export a .dot file."
        ) from None
    except graphviz.CalledProcessError as error:
        raise TraceError(f"Graphviz could not draw the graph as {suffix}: {error}") from error
    return drawing


def _node(graph: graphviz.Digraph, i: int, card: Card, state: GraphState) -> None:
    call = card.calls[0]
    status = min(map(state.shown, card.calls), key=STATES.index)
    label = _stack(card) if card.stacked else _label(call, state)
    peripheries = "2" if card.stacked else "1"
    graph.node(str(i), label=f"<{label}>", shape=SHAPES[call.kind], color=COLORS[status], peripheries=peripheries)


def _stack(card: Card) -> str:
    done = sum(call.state == "done" for call in card.calls)
    return f"<b>{_escaped(card.calls[0].function)}</b> ×{len(card.calls)}<br/>{done} done"


def _label(call: CallView, state: GraphState) -> str:
    status = state.shown(call)
    head = f'<font color="{COLORS[status]}">{ICONS[status]}</font> <b>{_escaped(call.function)}</b>'
    if call.kind in ("join", "first"):
        return head
    outputs = [state.variables[v] for v in call.outputs if v in state.variables]
    text = call.error or "\n".join(output.text for output in outputs)
    lines = [text_line for line in text.splitlines() for text_line in _cut(line)]
    shown = lines[:TEXT_LINES]
    if len(lines) > TEXT_LINES:
        shown[-1] = f"{shown[-1][: TEXT_COLUMNS - 2]} …"
    body = "".join(f'<br align="left"/><font point-size="9">{_escaped(line)}</font>' for line in shown)
    return f'{head}{body}<br align="left"/>'


def _cut(line: str) -> list[str]:
    shown = "".join(char if char.isprintable() else " " for char in line)
    return textwrap.wrap(shown, TEXT_COLUMNS, drop_whitespace=False) or [" "]


def _escaped(text: str) -> str:
    """Escape a text for a label: Graphviz reads a backslash in it as the beginning of a name."""
    return escape(text).replace("\\", "\\\\")
