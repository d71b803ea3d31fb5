"""Why a variable's call is treated as it is, in words."""

from __future__ import annotations

from collections import deque
from typing import Any

from parrot_nb.errors import UsageError
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import LATENCY, NO_USAGE, Path, TaskGroup, VariableNode
from parrot_nb.language.variable import SemanticVariable, host_of

SMALLEST_S = 0.001  # below, a prediction is no better than a guess


class Explanation(str):
    """Text that a notebook shows as it reads."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def explain(variable: Any) -> Explanation:
    """Explain what writes a variable, what is wanted of that call and why, its task group, and where it runs.

    Args:
        variable: what a call returned.

    Returns:
        A text of a few lines, which a notebook shows as it reads.

    Raises:
        UsageError: it is not one variable.
    """
    if not isinstance(variable, SemanticVariable):
        raise UsageError(f"P.explain takes a variable, not {type(variable).__name__}: give it what a call returned.")
    node = variable.node
    call = node.producer
    if call is None:
        return Explanation(f"'{node.name}' is a value that was given: no call writes it.")
    lines = [f"'{node.name}' is written by {_named(call)}, which is {call.state}.", objective_words(node, call)]
    if call.kind == "semantic":
        host = host_of([variable])
        deduced = None if host is None else host.describe(call)
        path, placed = (None, None) if deduced is None else (deduced.path, deduced.placed)
        lines += [group_words(call.group), _path(path), _target(node), _engine(call, placed)]
    return Explanation("\n".join(line for line in lines if line))


def _named(call: Call) -> str:
    return f"{call.name} (call {call.id})"


def objective_words(node: VariableNode, call: Call) -> str:
    """Return a sentence that says which objective a call has, and why."""
    if call.objective is None:
        return "Objective: none yet; the call runs when its output, or something that depends on it, is read."
    name = call.objective.name
    if call.objective is not LATENCY:
        return f"Objective: {name}; neither it nor anything that depends on it was read with perf=P.LATENCY."
    if node.objective is LATENCY:
        return f"Objective: {name}; it was read as such."
    way = _way_to_reader(call)
    if not way:
        return f"Objective: {name}; another of its outputs was read as such."
    through = " and ".join(f"{_named(step)}" for step in way[:-1])
    reader = next(output for output in way[-1].outputs if output.objective is LATENCY)
    return f"Objective: {name}; '{reader.name}' of {_named(way[-1])} was read as such and depends on it" + (
        f" through {through}." if through else "."
    )


def _way_to_reader(call: Call) -> list[Call]:
    """The shortest way from a call to one whose output was asked for with LATENCY, without the call itself."""
    before: dict[Call, Call | None] = {call: None}
    frontier = deque([call])
    while frontier:
        here = frontier.popleft()
        if any(output.objective is LATENCY for output in here.outputs):
            way = []
            step: Call | None = here
            while step is not None and step is not call:
                way.append(step)
                step = before[step]
            return way[::-1]
        for output in here.outputs:
            for reader in tuple(output.consumers):
                if reader not in before:
                    before[reader] = here
                    frontier.append(reader)
    return []


def group_words(group: TaskGroup | None) -> str:
    """Return a sentence on a task group, for one of its calls; empty where there is none."""
    if group is None:
        return ""
    stage = f"{group.stage} model call{'s' * (group.stage != 1)}"
    return f"Task group: one of {len(group.call_ids)} parallel calls, {stage} before what was read; they are worth most together."


def _path(path: Path | None) -> str:
    if path is None:
        return ""
    if path.slack_s < SMALLEST_S:
        return "Critical path: on it; what was read waits for this call."
    return f"Critical path: beside it; it may start {path.slack_s:.2g} s later than at the earliest, as predicted."


def _target(node: VariableNode) -> str:
    if node.target is None:
        return ""
    missed = next((part for part in (node.note or "").split("; ") if part.startswith("target missed")), None)
    told = "met" if node.state == "done" and missed is None else missed or "not known yet"
    return f"Target: {node.target!r}, {told}."


def _engine(call: Call, placed: str | None) -> str:
    if call.engine is None:
        return ""
    spent = [output.usage for output in call.outputs if output.usage != NO_USAGE]
    told = f"Engine: {call.engine}" + (f", since {placed}" if placed is not None else "")
    if not spent:
        return f"{told}."
    if all(u.from_memo for u in spent):
        return f"Reused: its text was taken from an equal call on {call.engine}, nothing was computed; fresh=True generates anew."
    prefilled, reused = sum(u.prefilled_tokens for u in spent), sum(u.reused_tokens for u in spent)
    decoded = sum(u.decoded_tokens for u in spent)
    return f"{told}; {prefilled} token{'s' * (prefilled != 1)} prefilled, {reused} reused, {decoded} decoded."
