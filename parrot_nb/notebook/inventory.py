"""Table of a session's calls and of the values that they wrote, as `%parrot vars` shows it: one row a call."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from parrot_nb.language import SemanticVariable, VariableList
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.report import Report, clipped, report
from parrot_nb.notebook.values import shown_state
from parrot_nb.session import Session

HEADERS = ("call", "inputs", "variable", "type", "state", "value", "tokens")
INPUT_CHARS = 24  # of a value that was given


def inventory(session: Session | None, names: Mapping[str, Any]) -> Report:
    """Return the table.

    Args:
        session: whose calls; None is a session without any.
        names: the notebook's variables, by which the outputs are called.
    """
    calls = [] if session is None else session.calls()
    known = dict(_named(names))
    rows = [_row(call, known) for call in calls]
    given = [(node, name) for node, name in known.items() if node.producer is None]
    rows += [("", "", name, _type(node), node.state, _value(node), "") for node, name in given]
    title = f"{len(calls)} call{'s' * (len(calls) != 1)}"
    if given:
        title += f", {len(given)} variable{'s' * (len(given) != 1)} with a value of your own"
    return report(title, rows, HEADERS, folds=True)


def _named(names: Mapping[str, Any]) -> Iterator[tuple[VariableNode, str]]:
    """Yield each variable that the notebook names, with that name; where it has several, the last one counts."""
    for name, value in names.items():
        if name.startswith("_"):
            continue
        if isinstance(value, SemanticVariable):
            yield value.node, name
        elif isinstance(value, VariableList) or (type(value) is list and any(isinstance(v, SemanticVariable) for v in value)):
            yield from ((v.node, f"{name}[{i}]") for i, v in enumerate(value) if isinstance(v, SemanticVariable))
        elif isinstance(value, tuple):
            fields: Iterable[Any] = getattr(value, "_fields", range(len(value)))
            for field, v in zip(fields, value, strict=False):
                if isinstance(v, SemanticVariable):
                    yield v.node, f"{name}.{field}" if isinstance(field, str) else f"{name}[{field}]"


def _row(call: Call, known: Mapping[VariableNode, str]) -> tuple[str, ...]:
    inputs = ", ".join(_input(parameter, node) for parameter, node in call.inputs.items())
    outputs = call.outputs
    variables = ", ".join(known.get(node, node.name) for node in outputs)
    kinds = ", ".join(dict.fromkeys(filter(None, map(_type, outputs))))
    if len(outputs) == 1 or call.error is not None:
        value = _value(outputs[0])
    else:
        value = "\n".join(f"{node.name}: {_value(node)}" for node in outputs)
    usages = [node.usage for node in outputs]
    reused = bool(usages) and all(usage.from_memo for usage in usages)
    tokens = "reused" if reused else str(sum(usage.decoded_tokens for usage in usages) or "")
    return f"#{call.id} {call.name}", inputs, variables, kinds, shown_state(call), value, tokens


def _input(parameter: str, node: VariableNode) -> str:
    if node.producer is not None:
        return f"{parameter} = #{node.producer.id}"
    text = clipped(_value(node), INPUT_CHARS)
    return f"{parameter} = {text}" if text else parameter


def _type(node: VariableNode) -> str:
    return type(node.value).__name__ if node.state == "done" else ""


def _value(node: VariableNode) -> str:
    if node.error is not None:
        return str(node.error)
    return node.text or ("" if node.value is None else repr(node.value))
