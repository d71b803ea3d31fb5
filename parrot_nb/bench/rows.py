"""`python -m parrot_nb.bench rows`: a map over a table against its engine alone, and the memory of a long one.

The same token ids go straight through the engine protocol and, as a table, through `f.map` of the public surface: parts of the table in
turn, so that whatever else the machine does meets both. What the map takes more is scheduling, wire and tables. Each kind of runtime is
measured in a fresh process. The other measurement maps over a short and a long table and compares what both sides then hold.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from parrot_nb.bench.calls import children, cpu_s
from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.table import exit_code, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.engine.protocol import Engine, Kind, Priority
from parrot_nb.errors import UsageError
from parrot_nb.language import SemanticFunction
from parrot_nb.language.function import semantic_function
from parrot_nb.language.options import DEFAULTS
from parrot_nb.runtime.policies import MAX_OPEN
from parrot_nb.runtime.prompt import FillVariable, Generate, add, operations_of
from parrot_nb.runtime.stretches import PromptWriter, Seam
from parrot_nb.session import Session

KINDS = {"process": True, "thread": False}
SETTLE_S = 1.0  # for both sides to forget rows


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurement: rows in all, rows of a part, and tokens that each row has written."""

    rows: int = 10_000
    part: int = 1_000
    out: int = 16


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of all rows, by the engine alone and by the map: wall clock, and CPU time of both sides (None where nothing tells it).

    Attributes:
        ratio: median over the parts of the map's seconds to the engine's; so `cpu_ratio`.
        rows: how many there were.
    """

    engine_s: float
    map_s: float
    ratio: float
    engine_cpu_s: float | None
    map_cpu_s: float | None
    cpu_ratio: float | None
    rows: int


@dataclass(frozen=True, slots=True)
class Memory:
    """Resident MB of both sides after a short map and after a long one: the notebook's process, and the runtime's (0 in a thread)."""

    short_rows: int
    long_rows: int
    short_mb: tuple[float, float]
    long_mb: tuple[float, float]

    @property
    def grown_mb(self) -> float:
        """MB that both sides hold more after the long map."""
        return sum(self.long_mb) - sum(self.short_mb)


def write(topic: Any) -> None:
    """Say in a few words what is known about {{input:topic}}: {{output:text}}"""


def compared(kind: str, sizes: Sizes, model: str) -> Figures:
    """Measure rows by the engine alone and by a map, on that kind of runtime.

    Raises:
        UsageError: the texts of the two are not the same.
    """
    from parrot_nb.engine.embedded import load_engine

    function = _function(sizes.out)
    folder = find_model(model)
    engine = load_engine(folder, name=model)
    wall: list[tuple[float, float]] = []
    cpu: list[tuple[float, float]] = []
    with asyncio.Runner() as runner, Session(model=folder, isolate=KINDS[kind]) as session:
        for start in range(-sizes.part, sizes.rows, sizes.part):  # the first part warms up, and is left out
            topics = [_topic(i) for i in range(start, min(start + sizes.part, sizes.rows) if start >= 0 else 0)]
            seams = [_seam(function, engine, topic) for topic in topics]
            found: dict[str, list[str]] = {}
            spent: dict[str, tuple[float, float]] = {}
            for side in ("engine", "map") if start // sizes.part % 2 else ("map", "engine"):
                began_s, cpu_before_s = time.perf_counter(), cpu_s()
                if side == "engine":
                    found[side] = runner.run(_alone(function, engine, seams))
                else:
                    found[side] = function.map([{"topic": topic} for topic in topics]).get()
                took_s, cpu_after_s = time.perf_counter() - began_s, cpu_s()
                spent[side] = took_s, 0.0 if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s
            if found["engine"] != found["map"]:
                raise UsageError("The engine alone and the map wrote different texts: their times cannot be compared.")
            if start >= 0:
                wall.append((spent["engine"][0], spent["map"][0]))
                cpu.append((spent["engine"][1], spent["map"][1]))
            session.flush()
        runner.run(engine.close())
    told = all(a > 0 and b > 0 for a, b in cpu)
    return Figures(
        engine_s=sum(a for a, _ in wall),
        map_s=sum(b for _, b in wall),
        ratio=statistics.median(b / a for a, b in wall),
        engine_cpu_s=sum(a for a, _ in cpu) if told else None,
        map_cpu_s=sum(b for _, b in cpu) if told else None,
        cpu_ratio=statistics.median(b / a for a, b in cpu) if told else None,
        rows=sizes.rows,
    )


async def _alone(function: SemanticFunction, engine: Engine, seams: Sequence[Seam]) -> list[str]:
    """Write these prompts' texts by the engine alone, as many at once as a session has."""
    texts = [""] * len(seams)
    left = iter(enumerate(seams))
    likely: tuple[int, ...] = ()
    sampling = _generate(function, engine).sampling

    async def some() -> None:
        nonlocal likely
        for i, seam in left:
            context = engine.open(Priority(Kind.LATENCY, (i,)))
            try:
                engine.fill(context, seam.token_ids)
                async for piece in engine.generate(context, sampling, likely=likely, taken_back=seam.taken_back):
                    texts[i] += piece.text
                    likely = likely if piece.end is None else piece.end.context_ids
            finally:
                engine.free(context)

    await asyncio.gather(*(some() for _ in range(MAX_OPEN)))
    return texts


def _function(out: int) -> SemanticFunction:
    made: SemanticFunction = semantic_function(ignore_eos=True, max_tokens=out)(write)
    return made


def _operations(function: SemanticFunction, engine: Engine) -> Sequence[Any]:
    return operations_of(function.name, function.template.segments, engine.codec, function.settings.over(DEFAULTS))


def _generate(function: SemanticFunction, engine: Engine) -> Generate:
    last = _operations(function, engine)[-1]
    assert isinstance(last, Generate), "a prompt ends with its output"
    return last


def _seam(function: SemanticFunction, engine: Engine, topic: str) -> Seam:
    """The token ids of a row's prompt."""
    writer = PromptWriter(engine.codec)
    for operation in _operations(function, engine):
        if isinstance(operation, FillVariable):
            writer.add_text(topic)
        elif isinstance(operation, Generate):
            return writer.end(heals=operation.heals)
        else:
            add(operation, writer)
    raise AssertionError("a prompt ends with its output")


def _topic(i: int) -> str:
    return f"item {i} of {i % 97} kinds"


def held(kind: str, short_rows: int, long_rows: int, model: str, *, out: int, kv_memory: str | None) -> Memory:
    """Measure what both sides hold after a short map and after a long one, whose rows are kept. The KV cache is filled only as prompts
    come: `kv_memory` bounds it, so that what is measured is all the rest."""
    function = _function(out)
    with Session(model=find_model(model), isolate=KINDS[kind], kv_memory=kv_memory) as session:
        found = []
        for rows in (short_rows, long_rows):
            kept = function.map(_dicts(rows), on_error="keep")
            values = kept.get()
            assert len(values) == rows, "each row has a value"
            del values
            session.flush()
            time.sleep(SETTLE_S)
            own, *others = (_resident_mb(pid) for pid in ("self", *children()))
            found.append((own, sum(others)))
            del kept
    return Memory(short_rows, long_rows, found[0], found[1])


def _dicts(rows: int) -> Iterator[dict[str, str]]:
    return ({"topic": _topic(i)} for i in range(rows))


def _resident_mb(pid: str) -> float:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("VmRSS:"))
    return int(line.split()[1]) / 1024


def work() -> None:
    """Entry of each measuring process: measure what its argument says, and print the figures as JSON."""
    order = json.loads(sys.argv[1])
    if order["memory"]:
        figures: Any = held(
            order["kind"],
            order["short"],
            order["memory"],
            order["model"],
            out=order["sizes"]["out"],
            kv_memory=order["kv_memory"],
        )
    else:
        figures = compared(order["kind"], Sizes(**order["sizes"]), order["model"])
    sys.stdout.write(json.dumps(asdict(figures)) + "\n")


def _measured(order: dict[str, Any]) -> dict[str, Any]:
    command = [sys.executable, "-W", "ignore", "-c", "from parrot_nb.bench.rows import work; work()", json.dumps(order)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
    if done.returncode != 0:
        last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
        raise UsageError(f"The runtime in a {order['kind']} could not be measured: {last}")
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench rows",
        description="A map over a table against its engine alone, and the memory of a long map.",
    )
    own = Sizes()
    line.add_argument("--model", default=KNOWN, help="default (parrot-tiny), random:SHAPE, a hub id or a folder")
    line.add_argument("--kinds", default=",".join(KINDS), help="of runtime, commas between")
    line.add_argument("--rows", type=int, default=own.rows, help="rows in all")
    line.add_argument("--part", type=int, default=own.part, help="rows that one of the two does before it is the other's turn")
    line.add_argument("--out", type=int, default=own.out, help="tokens of each row's text")
    line.add_argument("--memory", type=int, default=0, help="measure memory instead, after a map of so many rows")
    line.add_argument(
        "--kv-memory", help="of that measurement: the KV cache's, such as 128MB; the session's own choice if not given"
    )
    line.add_argument("--short", type=int, default=1_000, help="rows of the map before it")
    return line


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    asked = parser().parse_args(arguments)

    def measure() -> list[str]:
        sizes = Sizes(*(at_least_one(f"--{name}", getattr(asked, name)) for name in ("rows", "part", "out")))
        kinds = [kind.strip() for kind in asked.kinds.split(",") if kind.strip()]
        if unknown := [kind for kind in kinds if kind not in KINDS]:
            raise UsageError(f"There is no kind of runtime '{unknown[0]}': choose from {', '.join(KINDS)}.")
        lines = []
        for kind in kinds:
            tell(f"measuring the runtime in a {kind}")
            order = {
                "kind": kind,
                "model": asked.model,
                "memory": asked.memory,
                "short": asked.short,
                "kv_memory": asked.kv_memory,
                "sizes": asdict(sizes),
            }
            found = _measured(order)
            lines.append(memory_line(kind, Memory(**found)) if asked.memory else compared_line(kind, Figures(**found)))
        return lines

    def report(lines: list[str]) -> int:
        sys.stdout.write("\n".join([*lines, "", where()]) + "\n")
        return 0

    return exit_code(measure, report)


def compared_line(kind: str, figures: Figures) -> str:
    """Figures of a kind of runtime in a sentence."""
    told = f"{figures.rows} rows: engine {figures.engine_s:.2f} s, map {figures.map_s:.2f} s, {figures.ratio:.3f} times"
    if figures.engine_cpu_s is None or figures.map_cpu_s is None:
        return f"{kind}: {told}"
    return f"{kind}: {told}; CPU time {figures.engine_cpu_s:.2f} s and {figures.map_cpu_s:.2f} s, {figures.cpu_ratio:.3f} times"


def memory_line(kind: str, memory: Memory) -> str:
    """Memory of a kind of runtime in a sentence."""
    (own, runtime), (own_long, runtime_long) = memory.short_mb, memory.long_mb
    return (
        f"{kind}: notebook {own:.0f} MB and runtime {runtime:.0f} MB after {memory.short_rows} rows, {own_long:.0f} MB and "
        f"{runtime_long:.0f} MB after {memory.long_rows}: {memory.grown_mb:+.0f} MB"
    )
