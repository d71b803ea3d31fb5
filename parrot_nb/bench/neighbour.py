"""`python -m parrot_nb.bench neighbour`: texts beside a process that keeps one core busy, and the same with threads as OpenMP has them.

Each way is measured in a session of its own, one after the other: idle, then with the neighbour, first and once the engine has had time to
see it, and when it has gone. "as it was" computes always with all threads, which spin for as long as OpenMP lets them.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass

from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.table import aligned, exit_code, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.language.function import semantic_function
from parrot_nb.session import Session

WAYS = {"as it is": ((), None), "as it was": (("threads",), "300000")}  # what is off, and how long threads spin: OpenMP's own
SPINS = "GOMP_SPINCOUNT"
NEIGHBOUR = "while True: pass"
HEADER = ("", "idle", "beside it, first", "beside it, later", "after it")


@dataclass(frozen=True, slots=True)
class Figures:
    """Seconds of a set of texts: on an idle machine, first and later beside a neighbour, and when it has gone."""

    idle_s: float
    first_s: float
    later_s: float
    after_s: float


def measure(model: str, off: Sequence[str], spins: str | None, *, texts: int, out: int, repeat: int) -> Figures:
    """Measure one way.

    Args:
        model: "default", "random:SHAPE", a hub id or a folder.
        off: optimisations to do without.
        spins: how often OpenMP's threads look for work before they sleep; as the runtime has it when None.
        texts: that are written at the same time.
        out: tokens of each.
        repeat: runs, of which the median counts.
    """
    before = os.environ.get(SPINS)
    if spins is not None:
        os.environ[SPINS] = spins  # of the runtime's process, which takes the environment as it is
    try:
        with Session(model=find_model(model), isolate=True, device="cpu", off=off) as session:
            write = semantic_function(ignore_eos=True, max_tokens=out)(_write)
            count = 0

            def run() -> float:
                nonlocal count
                topics = [f"subject {count + i}" for i in range(texts)]
                count += texts
                began_s = time.monotonic()
                write.map(topics).get()
                return time.monotonic() - began_s

            def median() -> float:
                return statistics.median(run() for _ in range(repeat))

            session.flush()
            run(), run()
            idle_s = median()
            with subprocess.Popen([sys.executable, "-c", NEIGHBOUR]) as neighbour:  # noqa: S603 - our own words
                try:
                    first_s, later_s = run(), median()
                finally:
                    neighbour.kill()
            run()
            return Figures(idle_s, first_s, later_s, median())
    finally:
        if spins is not None:
            os.environ.pop(SPINS) if before is None else os.environ.update({SPINS: before})


def _write(x: str) -> None:
    """Write about {{input:x}}: {{output:y}}"""


def rows(found: dict[str, Figures]) -> list[tuple[str, ...]]:
    """The table below its `HEADER`: seconds, and how many times as long as idle."""
    return [
        (
            way,
            f"{f.idle_s:.2f} s",
            *(f"{seconds:.2f} s, {seconds / f.idle_s:.2f} x" for seconds in (f.first_s, f.later_s, f.after_s)),
        )
        for way, f in found.items()
    ]


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench neighbour", description="Texts beside a process that keeps one core busy."
    )
    line.add_argument("--model", default=KNOWN, help="default (parrot-tiny), random:SHAPE, a hub id or a folder")
    line.add_argument("--texts", type=int, default=4, help="texts that are written at the same time")
    line.add_argument("--out", type=int, default=48, help="tokens of each")
    line.add_argument("--repeat", type=int, default=3, help="runs, of which the median counts")
    asked = line.parse_args(arguments)

    def measured() -> dict[str, Figures]:
        texts, out, repeat = (at_least_one(f"--{name}", getattr(asked, name)) for name in ("texts", "out", "repeat"))
        find_model(asked.model)
        found = {}
        for way, (off, spins) in WAYS.items():
            tell(f"measuring threads {way}")
            found[way] = measure(asked.model, off, spins, texts=texts, out=out, repeat=repeat)
        return found

    def report(found: dict[str, Figures]) -> int:
        lines = aligned(HEADER, rows(found))
        sys.stdout.write(f"{lines}\n\n{asked.texts} texts of {asked.out} tokens; {where()}\n")
        return 0

    return exit_code(measured, report)
