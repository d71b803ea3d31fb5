"""`python -m parrot_nb.bench busy`: the engine beside a main thread that computes, and the main thread beside the engine.

Each kind of runtime, in a process of its own and in a thread of the notebook's, is measured in a fresh process: the same texts
while the main thread is idle, counts in a Python loop, sums groups of a data frame, applies a function to its rows or parses
JSON; then the Python loop alone and while texts stream, a memoised `get()`, and what a call costs that computes nothing: until
all are there, the making of the handles in it, and the CPU time of both sides until they are forgotten again. Ratios are of medians
within one run.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from parrot_nb.bench.calls import PerCall, per_call
from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.table import exit_code, machine, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.errors import UsageError
from parrot_nb.language import LATENCY, SemanticFunction, gather
from parrot_nb.language.function import semantic_function
from parrot_nb.session import Session

KINDS = {"process": True, "thread": False}
LOADS = ("Python loop", "df.groupby().sum()", "df.apply", "JSON parsing")
IDLE = "idle main thread"
OF_PANDAS = LOADS[1:3]
HEADER = ("", "process", "x idle", "thread", "x idle")
STREAMS = 16  # texts beside which the Python loop is timed
PART_COUNT = 200_000  # of the Python loop, some 10 ms
LIMIT_S = 60.0  # for one set of texts, which beside a loop in the same process may take minutes


@dataclass(frozen=True, slots=True)
class Sizes:
    """Sizes of the measurement.

    Attributes:
        texts: that are written at the same time.
        out: tokens of each.
        calls: that compute nothing, of which the mean is taken.
        repeat: measured runs, of which the median counts.
        limit_s: seconds after which a set of texts is given up.
    """

    texts: int = 4
    out: int = 200
    calls: int = 2_000
    repeat: int = 3
    limit_s: float = LIMIT_S


@dataclass(frozen=True, slots=True)
class Figures:
    """Measurements of one kind of runtime.

    Attributes:
        threads: OpenMP threads of the engine, as the environment says; None for "all cores".
        first_token_s: from the start of a fresh Python process to the first token.
        texts_s: seconds of the texts, by what the main thread did; runs that were given up count with the limit.
        given_up: what the main thread did while a run was given up.
        loop_alone_s: seconds of a part of the Python loop beside no text, and `loop_beside_s` while texts stream.
        get_s: seconds of a memoised `get()`.
        call_s: seconds of a memoised call of many that are read together, and `join_s` of a join.
        call_made_s: of that, seconds of making the call; so `join_made_s`.
        call_cpu_s: CPU seconds of both sides for it, None where nothing tells them; so `join_cpu_s`.
    """

    threads: str | None
    first_token_s: float
    texts_s: dict[str, float]
    given_up: list[str]
    loop_alone_s: float
    loop_beside_s: float
    get_s: float
    call_s: float
    call_made_s: float
    call_cpu_s: float | None
    join_s: float
    join_made_s: float
    join_cpu_s: float | None


class Measuring:
    """One session, and what is asked of it.

    Args:
        session: that is measured.
        sizes: how much.
    """

    def __init__(self, session: Session, sizes: Sizes) -> None:
        self._session = session
        self._sizes = sizes
        self._num_texts = 0
        self._loads = loads()
        self._given_up: list[str] = []

        self._write: SemanticFunction = semantic_function(ignore_eos=True)(write)

    def first_token(self) -> float:
        """Return when the first token of the session came, on the clock of `time.monotonic`."""
        came: list[float] = []
        text = self._write.options(max_tokens=8)("the first token")
        text.node.subscribe(lambda: came.append(time.monotonic()) if text.node.pieces else None)
        text.get()
        return came[0]

    def figures(self, first_token_s: float) -> Figures:
        """Measure all the rest."""
        sizes = self._sizes
        self.texts_s(None)  # so that every kernel has run once
        texts_s: dict[str, list[float]] = {name: [] for name in (IDLE, *self._loads)}
        for _ in range(sizes.repeat):
            for name, found in texts_s.items():
                if name not in self._given_up:
                    found.append(self.texts_s(name if name != IDLE else None))
        loops = [(self._loop_s(), self._loop_beside_s()) for _ in range(sizes.repeat)]
        get_s = self._get_s()
        call, join = self._calls(), self._joins()
        return Figures(
            threads=os.environ.get("OMP_NUM_THREADS"),
            first_token_s=first_token_s,
            texts_s={name: statistics.median(found) for name, found in texts_s.items()},
            given_up=self._given_up,
            loop_alone_s=statistics.median(alone for alone, _ in loops),
            loop_beside_s=statistics.median(beside for _, beside in loops),
            get_s=get_s,
            call_s=call.whole_s,
            call_made_s=call.made_s,
            call_cpu_s=call.cpu_s,
            join_s=join.whole_s,
            join_made_s=join.made_s,
            join_cpu_s=join.cpu_s,
        )

    def _started(self, count: int) -> tuple[Any, threading.Event]:
        """New texts that are being written, and what is set when all are there."""
        self._num_texts += count
        topics = [f"subject {self._num_texts - i}" for i in range(count)]
        texts = self._write.options(max_tokens=self._sizes.out).map(topics)
        left, done = [count], threading.Event()

        def arrived(_: object) -> None:
            left[0] -= 1
            if not left[0]:
                done.set()

        for node in texts.nodes:
            node.future.add_done_callback(arrived)
        self._session.read(texts.nodes, LATENCY)
        return texts, done

    def texts_s(self, load: str | None) -> float:
        """Seconds until the texts are there, beside a load of the main thread; the limit where they are given up."""
        began_s = time.monotonic()
        texts, done = self._started(self._sizes.texts)
        if load is None:
            done.wait()
        part = (lambda: None) if load is None else self._loads[load]
        while not done.is_set():
            part()
            if time.monotonic() - began_s > self._sizes.limit_s:
                self._given_up.append(str(load))
                self._session.cancel()
                done.wait()
                return self._sizes.limit_s
        took_s = time.monotonic() - began_s
        gather(texts).get()
        return took_s

    def _loop_s(self, parts: int = 50) -> float:
        """Seconds of a part of the Python loop."""
        began_s = time.perf_counter()
        for _ in range(parts):
            count()
        return (time.perf_counter() - began_s) / parts

    def _loop_beside_s(self) -> float:
        """The same while texts stream; those that the loop holds up are given up after some parts."""
        _, done = self._started(STREAMS)
        parts = 0
        began_s = time.perf_counter()
        while not done.is_set() and parts < 200:
            count()
            parts += 1
        took_s = time.perf_counter() - began_s
        self._session.cancel()
        done.wait()
        return took_s / parts

    def _get_s(self) -> float:
        write = self._write.options(max_tokens=8)
        write("what is known").get()
        found = []
        for _ in range(200):
            began_s = time.perf_counter()
            write("what is known").get()
            found.append(time.perf_counter() - began_s)
        return statistics.median(found)

    def _calls(self) -> PerCall:
        write = self._write.options(max_tokens=8)
        return self._per_call(lambda count: gather(write.map(["what is known"] * count)))

    def _joins(self) -> PerCall:
        text = self._write.options(max_tokens=8)("what is known")
        text.get()
        return self._per_call(lambda count: gather([f"{i}: " + text for i in range(count)]))

    def _per_call(self, make: Callable[[int], Any]) -> PerCall:
        return per_call(self._session, make, count=self._sizes.calls, repeat=self._sizes.repeat)


def write(topic: Any) -> None:
    """About {{input:topic}}: {{output:text}}"""


def count() -> int:
    """A part of the Python loop."""
    n = 0
    for _ in range(PART_COUNT):
        n += 1
    return n


def loads() -> dict[str, Callable[[], Any]]:
    """Workloads of the main thread, in parts of some 10 ms; without pandas two of them are missing."""
    document = json.dumps([{"id": i, "name": f"row {i}", "values": [i / 7, None, True]} for i in range(4_000)])
    found: dict[str, Callable[[], Any]] = {LOADS[0]: count}
    if importlib.util.find_spec("pandas") is not None:
        import pandas as pd  # type: ignore[import-untyped, unused-ignore]

        wide = pd.DataFrame({"key": [i % 1000 for i in range(300_000)], "a": 1.5, "b": 2})
        short = wide.head(1_000)
        found[LOADS[1]] = lambda: wide.groupby("key").sum()
        found[LOADS[2]] = lambda: short.apply(lambda row: row["a"] + row["b"], axis=1)
    found[LOADS[3]] = lambda: json.loads(document)
    return found


def measure(kind: str, sizes: Sizes, *, model: str, device: str, began_s: float) -> Figures:
    """Measure one kind of runtime in this process, which began at `began_s` on the clock of `time.monotonic`."""
    with Session(model=find_model(model), isolate=KINDS[kind], device=device) as session:
        measuring = Measuring(session, sizes)
        return measuring.figures(measuring.first_token() - began_s)


def run(
    sizes: Sizes,
    *,
    model: str = KNOWN,
    device: str = "auto",
    threads: int | None = None,
    kinds: Sequence[str] = tuple(KINDS),
    tell: Callable[[str], None] = lambda _: None,
) -> dict[str, Figures]:
    """Measure kinds of runtime, each in a fresh process.

    Args:
        sizes: how much.
        model: "default", "random:SHAPE", a hub id or a folder.
        device: "auto", "cpu" or "cuda".
        threads: OpenMP threads of the engine; as the environment and torch have it when None.
        kinds: of `KINDS`.
        tell: hears what is being done.

    Raises:
        UsageError: an unknown kind, or a process that could not measure.
    """
    if unknown := [kind for kind in kinds if kind not in KINDS]:
        raise UsageError(f"There is no kind of runtime '{unknown[0]}': choose from {', '.join(KINDS)}.")
    find_model(model)
    environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
    if threads is not None:
        environment["OMP_NUM_THREADS"] = str(threads)
    environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
    tell("reading what every engine imports")  # once, so that the first kind does not pay for reading it from the disk
    subprocess.run([sys.executable, "-c", "import torch"], env=environment, capture_output=True, check=False)
    found = {}
    for kind in kinds:
        tell(f"measuring the runtime in a {kind}")
        order = {"kind": kind, "model": model, "device": device, "began_s": time.monotonic()}
        order["sizes"] = {name: getattr(sizes, name) for name in Sizes.__slots__}
        done = subprocess.run(  # noqa: S603 - our own module
            [sys.executable, "-W", "ignore", "-c", "from parrot_nb.bench.busy import work; work()", json.dumps(order)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            last = (done.stderr.strip().splitlines() or [f"it ended with {done.returncode}"])[-1]
            raise UsageError(f"The runtime in a {kind} could not be measured: {last}")
        found[kind] = Figures(**json.loads(done.stdout.splitlines()[-1]))
    return found


def work() -> None:
    """Entry of each measuring process: measure what its argument says, and print the figures as JSON."""
    order = json.loads(sys.argv[1])
    figures = measure(
        order["kind"], Sizes(**order["sizes"]), model=order["model"], device=order["device"], began_s=order["began_s"]
    )
    sys.stdout.write(json.dumps({name: getattr(figures, name) for name in Figures.__slots__}) + "\n")


def rows(found: dict[str, Figures], sizes: Sizes) -> list[tuple[str, ...]]:
    """The table, below its `HEADER`; what was not measured is empty."""
    names = list(dict.fromkeys(name for figures in found.values() for name in figures.texts_s))
    lines = [
        _line(f"{sizes.texts} texts, {name}" if name == IDLE else f"beside {name}", found, partial(_texts, name=name))
        for name in names
    ]
    return [
        *lines,
        _line("part of a Python loop, alone", found, lambda f: (f"{1e3 * f.loop_alone_s:.1f} ms", "")),
        _line(
            f"beside {STREAMS} texts",
            found,
            lambda f: (f"{1e3 * f.loop_beside_s:.1f} ms", f"{f.loop_beside_s / f.loop_alone_s:.2f}"),
        ),
        _line("memoised get()", found, lambda f: (f"{1e3 * f.get_s:.2f} ms", "")),
        _line(f"a memoised call of {sizes.calls}", found, lambda f: (_us(f.call_s), "")),
        _line("making it", found, lambda f: (_us(f.call_made_s), "")),
        _line("CPU time for it, both sides", found, lambda f: (_us(f.call_cpu_s), "")),
        _line(f"a join of {sizes.calls}", found, lambda f: (_us(f.join_s), "")),
        _line("making the join", found, lambda f: (_us(f.join_made_s), "")),
        _line("CPU time for the join, both sides", found, lambda f: (_us(f.join_cpu_s), "")),
        _line("first token of a fresh process", found, lambda f: (f"{f.first_token_s:.1f} s", "")),
    ]


def _us(seconds: float | None) -> str:
    return "" if seconds is None else f"{1e6 * seconds:.0f} us"


def _texts(figures: Figures, name: str) -> tuple[str, str]:
    if name not in figures.texts_s:
        return "", ""
    seconds, idle_s = figures.texts_s[name], figures.texts_s[IDLE]
    more = "> " if name in figures.given_up else ""
    return f"{more}{seconds:.2f} s", "" if name == IDLE else f"{more}{seconds / idle_s:.2f}"


def _line(name: str, found: dict[str, Figures], told: Callable[[Figures], tuple[str, str]]) -> tuple[str, ...]:
    cells = [told(found[kind]) if kind in found else ("", "") for kind in KINDS]
    return (name, *(cell for pair in cells for cell in pair))


def render(lines: Sequence[tuple[str, ...]], *, markdown: bool = False) -> str:
    """The table as text."""
    if markdown:
        body = ["| " + " | ".join(line) + " |" for line in (HEADER, *lines)]
        return "\n".join([body[0], "|---|" + "---:|" * (len(HEADER) - 1), *body[1:]])
    widths = [max(len(line[i]) for line in (HEADER, *lines)) for i in range(len(HEADER))]
    return "\n".join(
        "  ".join(
            f"{cell:<{width}}" if i == 0 else f"{cell:>{width}}" for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (HEADER, *lines)
    )


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench busy",
        description="The engine beside a main thread that computes, and the main thread beside the engine; both kinds of runtime.",
    )
    own = Sizes()
    line.add_argument("--model", default=KNOWN, help="default (parrot-tiny), random:SHAPE, a hub id or a folder")
    line.add_argument("--device", default="auto", help="auto, cpu or cuda")
    line.add_argument(
        "--threads", type=int, help="OpenMP threads of the engine; as the environment and torch have it if not given"
    )
    line.add_argument("--kinds", default=",".join(KINDS), help="of runtime, commas between")
    line.add_argument("--texts", type=int, default=own.texts, help="texts that are written at the same time")
    line.add_argument("--out", type=int, default=own.out, help="tokens of each")
    line.add_argument("--calls", type=int, default=own.calls, help="calls that compute nothing")
    line.add_argument("--repeat", type=int, default=own.repeat, help="measured runs")
    line.add_argument("--limit", type=float, default=own.limit_s, help="seconds after which a set of texts is given up")
    line.add_argument("--json", type=Path, help="write everything that was measured there")
    line.add_argument("--markdown", action="store_true", help="print a Markdown table")
    return line


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    asked = parser().parse_args(arguments)

    def measure() -> tuple[dict[str, Figures], Sizes]:
        counts = {name: at_least_one(f"--{name}", getattr(asked, name)) for name in ("texts", "out", "calls", "repeat")}
        sizes = Sizes(**counts, limit_s=asked.limit)
        kinds = [kind.strip() for kind in asked.kinds.split(",") if kind.strip()]
        return run(sizes, model=asked.model, device=asked.device, threads=asked.threads, kinds=kinds, tell=tell), sizes

    def report(measured: tuple[dict[str, Figures], Sizes]) -> int:
        found, sizes = measured
        sys.stdout.write(f"{render(rows(found, sizes), markdown=asked.markdown)}\n\n{footer(found, asked.model)}\n")
        if asked.json is not None:
            told = {kind: {name: getattr(figures, name) for name in Figures.__slots__} for kind, figures in found.items()}
            asked.json.write_text(
                json.dumps({"machine": machine(), "model": asked.model, "figures": told}, indent=1) + "\n", encoding="utf-8"
            )
        return 0

    return exit_code(measure, report)


def footer(found: dict[str, Figures], model: str) -> str:
    """Under the table: what it is about and how to get it again."""
    command = " ".join(["python -m parrot_nb.bench", *sys.argv[1:]])
    threads = next(iter(found.values())).threads
    said = f"OMP_NUM_THREADS={threads}" if threads else "OMP_NUM_THREADS is not set: the engine computes on all cores"
    left_out = [name for name in LOADS if not all(name in figures.texts_s for figures in found.values())]
    missing = [f"without {' and '.join(left_out)}: pandas is not installed"] if left_out else []
    return "\n".join([f"busy on {model}; {command}", said, *missing, where()])
