"""A recorded run as a file in the Trace Event Format, which Perfetto and chrome://tracing open; and read again.

Beside the picture for those, under the key "parrot_nb" that they pass over, lies our own record: every event.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from parrot_nb.engine.protocol import StepRecord
from parrot_nb.errors import TraceError
from parrot_nb.record.codec import from_json, to_json
from parrot_nb.record.timeline import SPAN_WORDS, CallTimes, Timeline, TimelineFold
from parrot_nb.runtime.events import Event

FORMAT = 1  # of our own record; a file of another one is refused
CALLS, MODELS, ENGINES = 1, 2, 3  # process numbers; each engine has one, from the last on


def trace_of(log: Sequence[Event], *, made_by: str = "parrot_nb") -> dict[str, Any]:
    """Return the contents of a trace file: times in microseconds since the first event."""
    timeline = TimelineFold.of(log).timeline()
    origin_s = min((e.time_s for e in log), default=0.0)
    steps = [
        event
        for pid, (engine, steps) in enumerate(timeline.engines.items(), start=ENGINES)
        for event in _steps(engine, pid, steps, origin_s)
    ]
    return {
        "traceEvents": [*_calls(timeline, origin_s), *_models(timeline, origin_s), *steps],
        "displayTimeUnit": "ms",
        "otherData": {"made_by": made_by},
        "parrot_nb": {"format": FORMAT, "events": [to_json(event) for event in log]},
    }


def write_trace(path: Path, log: Sequence[Event], *, made_by: str = "parrot_nb") -> None:
    """Write the file. Raises OSError."""
    path.write_text(json.dumps(trace_of(log, made_by=made_by), ensure_ascii=False, separators=(",", ":")), encoding="utf-8")


def read_trace(path: str | Path) -> list[Event]:
    """The events of a file that `write_trace` wrote, in order.

    Raises:
        TraceError: there is no such file, or it is not one of ours.
    """
    try:
        found = json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise TraceError(f"There is no file '{path}': make one with %parrot export trace.json.") from None
    except OSError as error:
        raise TraceError(f"'{path}' cannot be read: {error.strerror or error}.") from None
    except (ValueError, RecursionError):  # not text, or not JSON
        raise TraceError(f"'{path}' is not a trace: it does not hold JSON.") from None
    record = found.get("parrot_nb") if isinstance(found, dict) else None
    if not isinstance(record, dict) or not isinstance(record.get("events"), list):
        raise TraceError(f"'{path}' was not written by parrot_nb: a replay needs what %parrot export trace.json writes.")
    if record.get("format") != FORMAT:
        raise TraceError(f"'{path}' is of format {record.get('format')!r}, this version reads {FORMAT}: export it again.")
    events = []
    for number, item in enumerate(record["events"], start=1):
        try:
            events.append(from_json(item))
        except (ValueError, RecursionError) as error:
            raise TraceError(f"'{path}' is damaged: its event {number} cannot be read ({error}).") from None
    return events


def _calls(timeline: Timeline, origin_s: float) -> Iterable[dict[str, Any]]:
    """A thread for each lane; no two calls of a lane overlap, as the format wants it."""
    yield _named("process_name", CALLS, 0, "calls")
    thread_of: dict[int, int] = {}
    for tid, (name, calls) in enumerate(_lanes(timeline.calls), start=1):
        yield _named("thread_name", CALLS, tid, name)
        yield {"ph": "M", "name": "thread_sort_index", "pid": CALLS, "tid": tid, "args": {"sort_index": tid}}
        for call in calls:
            thread_of[call.id] = tid
            yield from _call(call, tid, origin_s)
    by_id = {call.id: call for call in timeline.calls}
    for call in timeline.calls:  # an arrow along every edge
        for source in call.sources:
            arrow = {"name": "variable", "cat": "edge", "id": f"{source}-{call.id}", "pid": CALLS}
            end_us, begin_us = _us(by_id[source].end_s - origin_s), _us(_started_s(call) - origin_s)
            if end_us <= begin_us:
                yield {**arrow, "ph": "s", "tid": thread_of[source], "ts": end_us}
                yield {**arrow, "ph": "f", "bp": "e", "tid": thread_of[call.id], "ts": begin_us}


def _call(call: CallTimes, tid: int, origin_s: float) -> Iterable[dict[str, Any]]:
    used = call.usage
    args: dict[str, Any] = {
        "call": call.id,
        "state": call.state,
        "prefilled_tokens": used.prefilled_tokens,
        "reused_tokens": used.reused_tokens,
        "decoded_tokens": used.decoded_tokens,
        "from_memo": used.from_memo,
        "critical": call.critical,
    }
    if call.error:
        args["error"] = call.error
    begin_us, end_us = _us(call.start_s - origin_s), _us(call.end_s - origin_s)
    place = {"ph": "X", "pid": CALLS, "tid": tid}
    yield {**place, "name": call.function, "cat": call.kind, "ts": begin_us, "dur": end_us - begin_us, "args": args}
    for span in call.spans:
        start_us, stop_us = _us(span.start_s - origin_s), _us(span.end_s - origin_s)
        name = SPAN_WORDS[span.kind]
        yield {**place, "name": name, "cat": span.kind, "ts": start_us, "dur": stop_us - start_us, "args": {"of": span.detail}}


def _models(timeline: Timeline, origin_s: float) -> Iterable[dict[str, Any]]:
    if timeline.loads:
        yield _named("process_name", MODELS, 0, "models")
    for tid, (model, start_s, end_s) in enumerate(timeline.loads, start=1):
        yield _named("thread_name", MODELS, tid, model)
        begin_us = _us(start_s - origin_s)
        place = {"ph": "X", "pid": MODELS, "tid": tid, "cat": "load"}
        yield {**place, "name": f"load {model}", "ts": begin_us, "dur": _us(end_s - origin_s) - begin_us}


def _steps(engine: str, pid: int, steps: Iterable[StepRecord], origin_s: float) -> Iterable[dict[str, Any]]:
    yield _named("process_name", pid, 0, f"engine {engine}")
    yield _named("thread_name", pid, 1, "steps")
    ends_us = 0
    for step in steps:
        # Slices must not overlap; steps do in recordings of old, where one that was planned ahead began with the one before.
        begin_us = max(ends_us, _us(step.start_s - origin_s))
        ends_us = max(begin_us, _us(step.start_s + step.duration_s - origin_s))
        kind = "decode" if not step.prefill_tokens else "prefill" if not step.decode_tokens else "prefill + decode"
        args = {
            "contexts": step.num_contexts,
            "prefill_tokens": step.prefill_tokens,
            "decode_tokens": step.decode_tokens,
            "guessed_tokens": step.guessed_tokens,
        }
        place = {"ph": "X", "pid": pid, "tid": 1, "cat": "step"}
        yield {**place, "name": kind, "ts": begin_us, "dur": ends_us - begin_us, "args": args}
        batch = {"prefill": step.prefill_tokens, "decode": step.decode_tokens, "guessed": step.guessed_tokens}
        yield {"ph": "C", "pid": pid, "tid": 0, "name": "tokens of a step", "ts": begin_us, "args": batch}
        free = step.num_pages - step.owned_pages - step.cached_pages
        pages = {"in use": step.owned_pages, "cached": step.cached_pages, "free": free}
        yield {"ph": "C", "pid": pid, "tid": 0, "name": "KV pages", "ts": ends_us, "args": pages}


def _named(what: str, pid: int, tid: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": pid, "tid": tid, "args": {"name": name}}


def _started_s(call: CallTimes) -> float:
    """Return when anything was done for a call for the first time."""
    return next((s.start_s for s in call.spans if s.kind not in ("inputs", "unread")), call.end_s)


def _lanes(calls: Iterable[CallTimes]) -> list[tuple[str, list[CallTimes]]]:
    """Calls of a function in as few lanes as they fit into without overlapping."""
    lanes: dict[str, list[list[CallTimes]]] = {}
    for call in sorted(calls, key=lambda c: (c.start_s, c.id)):
        own = lanes.setdefault(call.function, [])
        lane = next((lane for lane in own if lane[-1].end_s <= call.start_s), None)
        if lane is None:
            own.append([call])
        else:
            lane.append(call)
    return [(f"{name} {i}" if len(own) > 1 else name, lane) for name, own in lanes.items() for i, lane in enumerate(own, 1)]


def _us(seconds: float) -> int:
    return max(0, round(seconds * 1e6))
