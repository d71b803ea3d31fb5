"""`python -m parrot_nb.bench calls`: CPU time of a call that computes nothing, part by part.

All that a session does with such a call is done here on one thread, in turn, each part for all calls before the next begins: so that the
parts can be told apart, and no thread waits for another. It is CPU time of that thread, which other processes lengthen little.
"""

from __future__ import annotations

import argparse
import asyncio
import inspect
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.table import exit_code, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.errors import UsageError
from parrot_nb.language import LATENCY, SemanticVariable
from parrot_nb.language.calls import Call
from parrot_nb.language.function import semantic_function
from parrot_nb.language.options import Options
from parrot_nb.runtime import messages
from parrot_nb.runtime.choice import ModelChoice
from parrot_nb.runtime.events import CallChanged, EventLog
from parrot_nb.runtime.memo import Memo, MemoContext
from parrot_nb.runtime.messages import Item
from parrot_nb.runtime.process import collect_seldom
from parrot_nb.runtime.runtime import Runtime
from parrot_nb.runtime.stretches import PromptWriter
from parrot_nb.runtime.wire import HEADER, Wire
from parrot_nb.session import Session
from parrot_nb.session.handles import Handles
from parrot_nb.session.outgoing import Outgoing

KINDS = ("call", "join")
PARTS = {
    "made": "handles, in the user's cell",
    "told": "calls as messages",
    "wire": "encoded and decoded, both ways",
    "prompt": "token ids of the prompt, and the memo",
    "runtime": "records, analysis, scheduling, execution",
    "folded": "events into handles and log",
}
SETTLE_S = 0.1  # for the runtime to forget calls
OF_PROMPTS = {  # methods in which a prompt becomes token ids, and is found in the memo
    PromptWriter: ("add_text", "add_controls", "add_spans", "take", "end"),
    Memo: ("open",),
    MemoContext: ("fill", "recall", "free"),
}
TURNS_AFTER = 3  # of the loop, in which the last calls are taken down


def write(topic: Any) -> None:
    """About {{input:topic}}: {{output:text}}"""


class Parts:
    """One runtime and one notebook's side, joined by hand.

    Args:
        choice: of the model.
    """

    def __init__(self, choice: ModelChoice) -> None:
        self._items: list[Item] = []
        self._runtime = Runtime(choice, Options(), "parrot", self._items.append)
        self._outgoing = Outgoing()
        self._handles = Handles(EventLog(60_000), {}, {})
        self._near, self._far = Wire(0), Wire(1)
        self._write = semantic_function(ignore_eos=True, max_tokens=8)(write)
        self._known = SemanticVariable("what is known")
        self._spent_ns: defaultdict[str, int] = defaultdict(int)

    async def close(self) -> None:
        """Close the engine."""
        await self._runtime.close()

    async def run(self, kind: str, count: int, *, prompts: bool = False) -> dict[str, float]:
        """Make so many calls and have them done; returns seconds of each part of one call.

        Args:
            kind: of `KINDS`.
            count: calls.
            prompts: measure the part "prompt", which lengthens "runtime".
        """
        self._spent_ns.clear()
        with _timed(self._spent_ns) if prompts else nullcontext():
            return await self._run(kind, count)

    async def _run(self, kind: str, count: int) -> dict[str, float]:
        with self._part("made"):
            variables = self._made(kind, count)
            calls = [call for variable in variables if (call := variable.node.producer) is not None]
            self._handles.add(calls, None)
            for call in calls:
                call.link()
        await self._done(calls, tuple(variable.node.id for variable in variables))
        assert all(variable.node.state == "done" for variable in variables), "each call has its value"
        ids = tuple(variable.node.id for variable in variables)
        for variable in variables:
            self._outgoing.lost(variable.node)
        self._runtime.handle(messages.Lost(ids))
        await asyncio.sleep(SETTLE_S)
        return {part: 1e-9 * self._spent_ns[part] / count for part in PARTS}

    def _made(self, kind: str, count: int) -> list[SemanticVariable[Any]]:
        if kind == "join":
            return [f"{i}: " + self._known for i in range(count)]
        calls = [self._write.make_call(("what is known",), {}) for _ in range(count)]
        return [SemanticVariable.of(call.outputs[0], None) for call in calls]

    async def _done(self, calls: Sequence[Call], ids: tuple[int, ...]) -> None:
        with self._part("told"):
            reading = messages.Reading(ids, LATENCY)
            submission = self._outgoing.submission([(call, None) for call in calls], eager=True, reading=reading)
            self._outgoing.posted()
        with self._part("wire"):
            heard = self._far.items(self._near.frame([submission])[HEADER.size :])
        self._items.clear()
        with self._part("runtime"):
            for message in heard:
                self._runtime.handle(message)
            num_ended = num_seen = 0
            while num_ended < len(calls):
                await asyncio.sleep(0)
                news, num_seen = self._items[num_seen:], len(self._items)
                num_ended += sum(type(item) is CallChanged and item.phase == "ended" for item in news)
            for _ in range(TURNS_AFTER):
                await asyncio.sleep(0)
        with self._part("wire"):
            items = self._near.items(self._far.frame(self._items)[HEADER.size :])
        with self._part("folded"):
            for item in items:
                self._handles.apply(item)

    @contextmanager
    def _part(self, name: str) -> Iterator[None]:
        began_ns = time.thread_time_ns()
        yield
        self._spent_ns[name] += time.thread_time_ns() - began_ns


@contextmanager
def _timed(spent_ns: dict[str, int]) -> Iterator[None]:
    """Add the CPU time of `OF_PROMPTS` to the part "prompt"; what the clock itself takes is in neither part."""

    def timed(method: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            began_ns = time.thread_time_ns()
            try:
                return method(*args, **kwargs)
            finally:
                spent_ns["prompt"] += time.thread_time_ns() - began_ns - clock_ns

        async def run_async(*args: Any, **kwargs: Any) -> Any:  # of a memoised call it never waits
            began_ns = time.thread_time_ns()
            try:
                return await method(*args, **kwargs)
            finally:
                spent_ns["prompt"] += time.thread_time_ns() - began_ns - clock_ns

        return run_async if inspect.iscoroutinefunction(method) else run

    clock_ns = min(-time.thread_time_ns() + time.thread_time_ns() for _ in range(100))
    originals = {(kind, name): getattr(kind, name) for kind, names in OF_PROMPTS.items() for name in names}
    for (kind, name), method in originals.items():
        setattr(kind, name, timed(method))
    try:
        yield
    finally:
        for (kind, name), method in originals.items():
            setattr(kind, name, method)


def measured(
    kinds: Sequence[str], count: int, repeat: int, *, model: str = KNOWN, tell: Callable[[str], None] = lambda _: None
) -> dict[str, dict[str, float]]:
    """Return seconds of each part of one call, by kind: medians of several runs.

    Args:
        kinds: of `KINDS`.
        count: calls of a run.
        repeat: runs.
        model: "default", "random:SHAPE", a hub id or a folder.
        tell: hears what is being done.

    Raises:
        UsageError: an unknown kind.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"There is no kind of call '{unknown[0]}': choose from {', '.join(KINDS)}.")

    collect_seldom()  # as in the runtime's process

    async def run() -> dict[str, dict[str, float]]:
        with Session(model=find_model(model), isolate=False) as session:
            parts = Parts(session.choice)
            try:
                found = {}
                for kind in kinds:
                    tell(f"measuring a {kind}")
                    await parts.run(kind, 1)  # so that the engine is loaded, and the text known
                    runs = [await parts.run(kind, count) for _ in range(repeat)]
                    found[kind] = {part: statistics.median(run[part] for run in runs) for part in PARTS}
                    within = [(await parts.run(kind, count, prompts=True))["prompt"] for _ in range(repeat)]
                    found[kind]["prompt"] = statistics.median(within)
                    found[kind]["runtime"] -= found[kind]["prompt"]
                return found
            finally:
                await parts.close()

    return asyncio.run(run())


def render(found: dict[str, dict[str, float]]) -> str:
    """The table as text: microseconds of CPU time."""
    header = ("CPU time of one, us", *found)
    lines = [(f"{part}: {what}", *(f"{1e6 * one[part]:.1f}" for one in found.values())) for part, what in PARTS.items()]
    scheduling = [sum(one.values()) - one["made"] - one["prompt"] for one in found.values()]
    lines.append(("scheduling and wire: all but made and prompt", *(f"{1e6 * one:.1f}" for one in scheduling)))
    width = max(len(line[0]) for line in (header, *lines))
    return "\n".join(f"{name:<{width}}  " + "  ".join(f"{cell:>8}" for cell in cells) for name, *cells in (header, *lines))


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench calls", description="CPU time of a call that computes nothing, part by part."
    )
    line.add_argument("--model", default=KNOWN, help="default (parrot-tiny), random:SHAPE, a hub id or a folder")
    line.add_argument("--kinds", default=",".join(KINDS), help="call (a memoised one) and join, commas between")
    line.add_argument("--calls", type=int, default=2_000, help="calls of a run")
    line.add_argument("--repeat", type=int, default=7, help="measured runs, of which the median counts")
    asked = line.parse_args(arguments)

    def measure() -> dict[str, dict[str, float]]:
        count, repeat = at_least_one("--calls", asked.calls), at_least_one("--repeat", asked.repeat)
        kinds = [kind.strip() for kind in asked.kinds.split(",") if kind.strip()]
        return measured(kinds, count, repeat, model=asked.model, tell=tell)

    def report(found: dict[str, dict[str, float]]) -> int:
        sys.stdout.write(f"{render(found)}\n\n{where()}\n")
        return 0

    return exit_code(measure, report)
