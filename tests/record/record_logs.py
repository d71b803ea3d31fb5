"""A recorded application on the built-in model, and made-up logs."""

from __future__ import annotations

import time
from dataclasses import dataclass

import pytest

import parrot_nb as P
from parrot_nb.engine.protocol import StepRecord
from parrot_nb.language.nodes import Usage
from parrot_nb.runtime import events


@dataclass
class Recorded:
    """What a run left: its events, its calls, and what the engine counted."""

    log: list[events.Event]
    usages: list[Usage]
    texts: list[str]


def function(name: str, template: str, **options) -> P.SemanticFunction:
    return P.SemanticFunction(template, name=name).options(ignore_eos=True, **options)


def run_application(off: tuple[str, ...] = ("drafts",)) -> Recorded:
    """A chain, a map with a shared beginning, a native function, an equal call, and one that fails."""
    shared = "You are a careful assistant who answers in one short sentence and in nothing else, please. "
    write = function("write", f"{shared}Write of {{{{input:x}}}}: {{{{output:y}}}}", max_tokens=12)
    check = function("check", "Check {{input:x}}: {{output:note}} So: {{output:verdict}}", max_tokens=6)

    @P.native_function
    def louder(text):
        time.sleep(0.05)
        return text.upper()

    @P.native_function
    def broken(text):
        raise KeyError(text)

    with P.Session(off=off) as session:
        first = write("rain")
        checked = check(louder(first))
        checked.verdict.get()
        again = write("rain")
        parts = write.map([f"city {i}" for i in range(12)])
        whole = check("All:\n" + P.join(parts))
        lost = write(broken(first))
        with pytest.raises(P.ParrotError):
            lost.get()
        values = [v.get() for v in (first, checked.note, checked.verdict, again, *parts, whole.note, whole.verdict)]
        usages = [node.usage for node in session.variables()]
        return Recorded(session.events.since(0), usages, values)


def many_calls(count: int, functions: int = 1) -> list[events.Event]:
    """A log of so many calls that run a few at a time, and a step for each moment."""
    found: list[events.Event] = []
    for i in range(count):
        name = f"summarize_{i % functions}" if functions > 1 else "summarize"
        found.append(events.CallAdded(0.0, i + 1, name, "semantic", (), (10_000 + i,), 1))
        found.append(events.VariableAdded(0.0, 10_000 + i, "summary", i + 1))
        found.append(events.CallChanged(0.001 * i, i + 1, "pending", "queued"))
    for i in range(count):
        begin = 0.02 * (i // 8)
        usage = Usage(40, 300, 20, 0.001, 0.004, 0.015)
        found.append(events.VariableChanged(begin, 10_000 + i, "running"))
        found.append(events.CallChanged(begin, i + 1, "running", "prefill", "tiny"))
        found.append(events.CallChanged(begin + 0.005, i + 1, "running", "decode", "tiny"))
        found.append(events.VariableChanged(begin + 0.02, 10_000 + i, "done", text="t", finish="stop", usage=usage))
        found.append(events.CallChanged(begin + 0.02, i + 1, "done", "ended", "tiny"))
        found.append(events.StepRan(begin, "tiny", StepRecord(begin, 0.004, 8, 40, 8, 30 + i, 4096, cached_pages=2 * i)))
    return found
