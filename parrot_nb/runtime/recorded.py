"""What a session has run, as applications for `parrot_nb.runtime.simulate`: how would it have gone elsewhere?"""

from __future__ import annotations

from collections import defaultdict

from parrot_nb.errors import UsageError
from parrot_nb.graph import Applications, Graph, prefix_hashes
from parrot_nb.language.nodes import LATENCY, THROUGHPUT, Call, Perf, VariableNode
from parrot_nb.language.template import Constant, Output
from parrot_nb.runtime.events import CallAdded, EventLog
from parrot_nb.runtime.simulate import Application, Job


def recorded(graph: Graph, log: EventLog) -> list[Application]:
    """The calls of a graph that have their values, with the tokens that they took, at the times at which they were made.

    Calls that hang together by their variables are one application, named after its last function. A prompt's tokens are those
    that were counted; how many of them lie before each variable is told from the lengths of the texts.

    Args:
        graph: of a session: `session.graph`.
        log: of the same session: `session.events`.

    Raises:
        UsageError: nothing has run.
    """
    done = [call for call in graph.calls if call.state == "done"]
    if not any(call.kind == "semantic" for call in done):
        raise UsageError("Nothing has run in this session yet: run some calls, then record them.")
    made_s = {event.call_id: event.time_s for event in log.since(0) if isinstance(event, CallAdded)}
    linked = Applications()
    for call in done:
        linked.add(call)
    parts: defaultdict[int, list[Call]] = defaultdict(list)
    for call in done:
        parts[linked.of(call)].append(call)
    first_s = min(made_s[call.id] for call in done)
    return [_application(calls, min(made_s[call.id] for call in calls) - first_s) for calls in parts.values()]


def _application(calls: list[Call], at_s: float) -> Application:
    copies: dict[int, VariableNode] = {}
    jobs = []
    for call in calls:
        inputs = {name: copies[node.id] for name, node in call.inputs.items() if node.id in copies}
        copy = Call(call.function, call.kind, inputs, call.output_names, call.options)
        copy.link()
        copies.update({node.id: new for node, new in zip(call.outputs, copy.outputs, strict=True)})
        output_tokens = sum(node.usage.decoded_tokens for node in call.outputs) if call.kind == "semantic" else 0
        jobs.append(Job(copy, _prefixes(call), output_tokens))
    read = [node for call in calls for node in call.outputs if node.objective is not None] or list(calls[-1].outputs)
    waits = any(node.objective is LATENCY for node in read)
    perf: Perf = next((node.target for node in read if node.target is not None), LATENCY if waits else THROUGHPUT)
    return Application(calls[-1].name, tuple(jobs), tuple(copies[node.id] for node in read), perf, at_s)


def _prefixes(call: Call) -> tuple[tuple[str, int], ...]:
    """(hash, tokens up to there) at the boundaries before the first output."""
    if call.kind != "semantic":
        return ()
    usage = call.outputs[0].usage
    num_tokens = usage.prefilled_tokens + usage.reused_tokens
    found: list[tuple[str, int]] = []
    for digest, segment in zip(prefix_hashes(call), call.function.template.segments, strict=False):
        if isinstance(segment, Output):
            break
        chars = len(segment.text) if isinstance(segment, Constant) else len(call.inputs[segment.name].text)
        found.append((digest, chars + (found[-1][1] if found else 0)))
    whole = max(1, found[-1][1] if found else 1)
    scaled = [(digest, max(1, round(num_tokens * chars / whole))) for digest, chars in found]
    return tuple(scaled) or (("", max(1, num_tokens)),)
