"""Text made of several variables: `"a" + x + "b"`, `P.join(list, sep)`, and lists handed to native functions.

Such calls run no model. They are submitted when something first uses their result, so that the intermediate results of
a chain of `+` never enter the graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.options import Options

MAX_FLAT_PARTS = 64  # a longer chain of + nests, so that building it stays linear


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Texts and variables in a row. In `parts`, None stands for the next input; inputs are named "0", "1", ..."""

    name: str
    parts: tuple[str | None, ...]


@dataclass(frozen=True, slots=True)
class Collection:
    """The values of several variables as a list, for a native function."""

    name: str = "list"


def concatenation(name: str, parts: Sequence[str | VariableNode]) -> Call:
    """A call, not yet submitted, that puts texts and variables in a row; short unsubmitted `+` calls among them are
    taken apart instead of being read."""
    pattern: list[str | None] = []
    nodes: list[VariableNode] = []
    for part in parts:
        inner = part.producer if isinstance(part, VariableNode) else None
        texts = None if inner is None else _flattened(inner)
        if isinstance(part, str):
            pattern.append(part)
        elif inner is not None and texts is not None:
            pattern += texts
            nodes += inner.inputs.values()
        else:
            pattern.append(None)
            nodes.append(part)
    inputs = {str(i): node for i, node in enumerate(nodes)}
    return Call(Concatenation(name, tuple(pattern)), "join", inputs, ("text",), Options())


def collection(nodes: Sequence[VariableNode]) -> Call:
    """A call, not yet submitted, that makes a list of variables' values."""
    return Call(Collection(), "join", {str(i): node for i, node in enumerate(nodes)}, ("list",), Options())


def submit(host: Host, call: Call) -> None:
    """Submit a call, and first the joins that it reads and that nothing has used yet."""
    order: dict[int, Call] = {}
    stack = [call]
    while stack:
        top = stack[-1]
        producers = (node.producer for node in top.inputs.values())
        unsent = [join for join in producers if join is not None and join.id not in order and _unsent_join(join)]
        if unsent:
            stack.extend(unsent)
            continue
        stack.pop()
        if not top.submitted:
            order[top.id] = top
    if order:
        host.submit(list(order.values()))


def _unsent_join(call: Call) -> bool:
    return call.kind == "join" and not call.submitted


def _flattened(call: Call) -> tuple[str | None, ...] | None:
    """The parts of a short `+` that nothing has used yet; None for any other call."""
    function = call.function
    if not isinstance(function, Concatenation) or call.name != "+" or call.submitted or len(function.parts) >= MAX_FLAT_PARTS:
        return None
    return function.parts
