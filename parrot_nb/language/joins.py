"""Text made of several variables: `"a" + x + "b"`, `P.join(list, sep)`, and lists handed to native functions.

Such calls run no model. They are submitted when something first uses their result, so that the intermediate results of
a chain of `+` never enter the graph.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.language.host import Host
from parrot_nb.language.nodes import Call, Span, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.text import to_text

MAX_FLAT_PARTS = 64  # a longer chain of + nests, so that building it stays linear


@dataclass(frozen=True, slots=True)
class Concatenation:
    """Texts and variables in a row. In `parts`, None stands for the next input; inputs are named "0", "1", ..."""

    name: str
    parts: tuple[str | None, ...]

    def evaluate(self, inputs: Mapping[str, VariableNode]) -> tuple[str, tuple[Span, ...]]:
        """The text, and its spans: token ids that a model wrote survive.

        Raises:
            InputValueError: an input has no text.
        """
        nodes = iter(inputs.values())
        spans: list[Span] = []
        for part in self.parts:
            if part is not None:
                spans.append(Span(part))
                continue
            node = next(nodes)
            spans += node.spans if node.spans is not None else (Span(to_text(node.value, f"variable '{node.name}'")),)
        merged = tuple(_merged(spans))
        return "".join(span.text for span in merged), merged


@dataclass(frozen=True, slots=True)
class Collection:
    """The values of several variables as a list, for a native function."""

    name: str = "list"

    def evaluate(self, inputs: Mapping[str, VariableNode]) -> tuple[list[Any], None]:
        """The values, in order; a list has no text of its own."""
        return [node.value for node in inputs.values()], None


def _merged(spans: Sequence[Span]) -> Iterator[Span]:
    """Neighbours without token ids as one span, so that their text is tokenized as a whole."""
    for has_ids, group in itertools.groupby(spans, key=lambda span: span.token_ids is not None):
        if has_ids:
            yield from group
        elif text := "".join(span.text for span in group):
            yield Span(text)


def concatenation(name: str, parts: Sequence[str | VariableNode]) -> Call:
    """A call, not yet submitted, that puts texts and variables in a row; short unsubmitted `+` calls among them are
    taken apart instead of being read."""
    pattern: list[str | None] = []
    nodes: list[VariableNode] = []
    for part in parts:
        inner = part.producer if isinstance(part, VariableNode) else None
        if isinstance(part, str):
            pattern.append(part)
        elif inner is not None and _can_flatten(inner):
            pattern += inner.function.parts
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
    stack = [call]
    while stack:
        top = stack[-1]
        unsent = [n.producer for n in top.inputs.values() if n.producer is not None and _unsent_join(n.producer)]
        if unsent:
            stack.extend(unsent)
            continue
        stack.pop()
        if not top.submitted:
            host.submit(top)


def _unsent_join(call: Call) -> bool:
    return call.kind == "join" and not call.submitted


def _can_flatten(call: Call) -> bool:
    return (
        _unsent_join(call)
        and isinstance(call.function, Concatenation)
        and call.name == "+"
        and len(call.function.parts) < MAX_FLAT_PARTS
    )
