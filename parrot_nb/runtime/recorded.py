"""Recorded calls of a session, as applications for `parrot_nb.runtime.simulate`: how would they have gone elsewhere?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from parrot_nb.errors import UsageError
from parrot_nb.graph import Applications, prefix_hashes
from parrot_nb.graph.records import CallRecord, ValueRecord, new_call
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import LATENCY, THROUGHPUT, Perf
from parrot_nb.language.template import Constant, Output
from parrot_nb.runtime.events import CallAdded, EventLog
from parrot_nb.runtime.simulate import Application, Job


def recorded(calls: Iterable[Call], log: EventLog) -> list[Application]:
    """The calls that have their values, with the tokens that they took, at the times at which they were made.

    Calls that hang together by their variables are one application, named after its last function. A prompt's tokens are those
    that were counted; how many of them lie before each variable is told from the lengths of the texts.

    Args:
        calls: of a session: `session.calls()`.
        log: of the same session: `session.events`.

    Raises:
        UsageError: nothing has run.
    """
    done = [call for call in calls if call.state == "done"]
    if not any(call.kind == "semantic" for call in done):
        raise UsageError("Nothing has run in this session yet: run some calls, then record them.")
    made_s = {event.call_id: event.time_s for event in log.since(0) if isinstance(event, CallAdded)}
    records = _records(done)
    linked = Applications()
    for record in records:
        linked.add(record)
    parts: defaultdict[int, list[tuple[Call, CallRecord]]] = defaultdict(list)
    for call, record in zip(done, records, strict=True):
        parts[linked.of(record)].append((call, record))
    start_s = min(made_s.values(), default=0.0)  # of what is kept of the log
    times_s = {call.id: made_s.get(call.id, start_s) for call in done}
    first_s = min(times_s.values())
    return [_application(members, min(times_s[call.id] for call, _ in members) - first_s) for members in parts.values()]


def _records(calls: list[Call]) -> list[CallRecord]:
    """Calls that have not run, like these and linked as they are."""
    copies: dict[int, ValueRecord] = {}
    records = []
    for call in calls:
        inputs = {name: copies[node.id] for name, node in call.inputs.items() if node.id in copies}
        record = new_call(call.name, call.kind, inputs, call.output_names, call.options)
        record.link()
        copies.update({node.id: new for node, new in zip(call.outputs, record.outputs, strict=True)})
        records.append(record)
    return records


def _application(members: list[tuple[Call, CallRecord]], at_s: float) -> Application:
    jobs = []
    copies: dict[int, ValueRecord] = {}
    for call, record in members:
        copies.update({node.id: new for node, new in zip(call.outputs, record.outputs, strict=True)})
        output_tokens = sum(node.usage.decoded_tokens for node in call.outputs) if call.kind == "semantic" else 0
        jobs.append(Job(record, _prefixes(call), output_tokens))
    last = members[-1][0]
    read = [node for call, _ in members for node in call.outputs if node.objective is not None] or list(last.outputs)
    waits = any(node.objective is LATENCY for node in read)
    perf: Perf = next((node.target for node in read if node.target is not None), LATENCY if waits else THROUGHPUT)
    return Application(last.name, tuple(jobs), tuple(copies[node.id] for node in read), perf, at_s)


def _prefixes(call: Call) -> tuple[tuple[str, int], ...]:
    """(hash, tokens up to there) at the boundaries before the first output."""
    if call.kind != "semantic":
        return ()
    usage = call.outputs[0].usage
    num_tokens = usage.prefilled_tokens + usage.reused_tokens
    found: list[tuple[str, int]] = []
    for digest, segment in zip(prefix_hashes(call), call.segments, strict=False):
        if isinstance(segment, Output):
            break
        chars = len(segment.text) if isinstance(segment, Constant) else len(call.inputs[segment.name].text)
        found.append((digest, chars + (found[-1][1] if found else 0)))
    whole = max(1, found[-1][1] if found else 1)
    scaled = [(digest, max(1, round(num_tokens * chars / whole))) for digest, chars in found]
    return tuple(scaled) or (("", max(1, num_tokens)),)
