"""Table of a session's calls and of the values that they wrote, as `%parrot vars` shows it: one row a call, and one for all
calls of a map."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from parrot_nb.language import SemanticVariable, VariableList
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.report import Report, clipped, report
from parrot_nb.notebook.values import shown_state
from parrot_nb.session import Session

HEADERS = ("call", "inputs", "variable", "type", "state", "value", "tokens")
INPUT_CHARS = 24  # of a value that was given
LEAST_CALLS = 3  # of one function in a row, that count as a map


def inventory(session: Session | None, names: Mapping[str, Any], *, groups: bool = True) -> Report:
    """Return the table.

    Args:
        session: whose calls; None is a session without any.
        names: the notebook's variables, by which the outputs are called.
        groups: whether the calls of a map share a row; a click on its value shows theirs.
    """
    calls = [] if session is None else session.calls()
    known = dict(_named(names))
    maps = _maps(calls, known) if groups else [[call] for call in calls]
    rows = [_row(run[0], known) if len(run) == 1 else _map_row(run, known) for run in maps]
    given = [(node, name) for node, name in known.items() if node.producer is None]
    rows += [("", "", name, _type(node), node.state, _value(node), "") for node, name in given]
    title = f"{len(calls)} call{'s' * (len(calls) != 1)}"
    if given:
        title += f", {len(given)} variable{'s' * (len(given) != 1)} with a value of your own"
    if len(maps) < len(calls):
        title += "; each map in one row, %parrot vars --all has a row for each call"
    return report(title, rows, HEADERS, folds=True)


def _maps(calls: Sequence[Call], known: Mapping[VariableNode, str]) -> list[list[Call]]:
    """Calls one by one, but those of a map together: of one function, one after the other, and named by one list or not at all."""
    runs: list[list[Call]] = []
    for call in calls:
        if runs and _of_one_map(runs[-1][0], call, known):
            runs[-1].append(call)
        else:
            runs.append([call])
    return [part for run in runs for part in ([run] if len(run) >= LEAST_CALLS else [[call] for call in run])]


def _of_one_map(first: Call, call: Call, known: Mapping[VariableNode, str]) -> bool:
    lists = {_list_of(known.get(node)) for each in (first, call) for node in each.outputs}
    return first.function is call.function and len(lists) == 1 and "" not in lists


def _list_of(name: str | None) -> str | None:
    """The list that a name is an item of; None for no name, and an empty text for the name of a single variable."""
    return None if name is None else name.partition("[")[0] if name.endswith("]") else ""


def _map_row(calls: Sequence[Call], known: Mapping[VariableNode, str]) -> tuple[str, ...]:
    """The row of a map: how many calls are in each state, and their values one below the other."""
    rows = [_row(call, known) for call in calls]
    first, last = calls[0], calls[-1]
    shared = [name for name, node in first.inputs.items() if all(_is_same(node, call.inputs.get(name)) for call in calls)]
    inputs = ", ".join(_input(name, node) if name in shared else f"{name} × {len(calls)}" for name, node in first.inputs.items())
    name = _list_of(known.get(first.outputs[0]))
    variables = (
        ", ".join(node.name for node in first.outputs)
        if name is None
        else f"{name}[{_index(first, known)}–{_index(last, known)}]"
    )
    kinds = ", ".join(dict.fromkeys(kind for row in rows for kind in row[3].split(", ") if kind))
    counts = Counter(shown_state(call) for call in calls)
    state = next(iter(counts)) if len(counts) == 1 else ", ".join(f"{count:,} {word}" for word, count in counts.items())
    values = "\n".join(f"#{call.id}: {' '.join(row[5].split())}" for call, row in zip(calls, rows, strict=True))
    usages = [node.usage for call in calls for node in call.outputs if not node.usage.from_memo]
    reused = not usages
    tokens = "reused" if reused else f"{sum(usage.decoded_tokens for usage in usages) or ''}"
    return f"#{first.id}–#{last.id} {first.name} × {len(calls):,}", inputs, variables, kinds, state, values, tokens


def _is_same(node: VariableNode, other: VariableNode | None) -> bool:
    """Whether two inputs are one variable, or values that are equal."""
    return other is not None and (
        node is other or (node.producer is None and other.producer is None and _value(node) == _value(other))
    )


def _index(call: Call, known: Mapping[VariableNode, str]) -> str:
    return known[call.outputs[0]].rpartition("[")[2].removesuffix("]")


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
