"""`python -m parrot_nb.bench plan`: how near a plan's seconds come to the real ones.

Each application runs once, so that the engine has measured its steps and lengths of texts are known. Then it is planned on other texts
of the same sizes and run, in turn, `--repeat` times. A ratio above 1 means that it took longer than planned.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parrot_nb.bench.table import exit_code, tell, where
from parrot_nb.bench.worker import counter, open_session
from parrot_nb.bench.workloads import WORKLOADS, Sizes, at_least_one, text_writer
from parrot_nb.language import LATENCY, gather
from parrot_nb.session import Session, plan

HEADER = ("application", "planned", "took", "took / planned", "worst")
BOUND = 0.2  # share of the real time by which a plan may be off


@dataclass(frozen=True, slots=True)
class Trial:
    """Seconds of one application.

    Attributes:
        planned_s: predicted just before it ran.
        real_s: from the reading of its outputs until all were there.
    """

    planned_s: float
    real_s: float

    @property
    def ratio(self) -> float | None:
        """Real over planned seconds; None where none were planned."""
        return self.real_s / self.planned_s if self.planned_s > 0 else None


def measure(session: Session, workload: str, sizes: Sizes, seed: str, count: Callable[[str], int]) -> Trial:
    """Plan an application on texts of a seed, then run it, in a session that is entered already."""
    build, _ = WORKLOADS[workload]
    outputs = build(sizes, text_writer(count, seed))
    planned_s = plan(*outputs).seconds
    began_s = time.perf_counter()
    gather(outputs).get(perf=LATENCY)
    return Trial(planned_s, time.perf_counter() - began_s)


def run(
    workloads: Sequence[str], model: str, dtype: str, device: str, repeat: int, tell: Callable[[str], None]
) -> dict[str, list[Trial]]:
    """Measure applications in one session; the first run of each is not among the trials."""
    found: dict[str, list[Trial]] = {}
    with open_session("parrot", model=model, dtype=dtype, device=device) as session:
        count = counter(session)
        for workload in workloads:
            tell(workload)
            trials = [measure(session, workload, WORKLOADS[workload][1], f"plan {i}", count) for i in range(repeat + 1)]
            found[workload] = trials[1:]
    return found


def rows(found: dict[str, list[Trial]]) -> list[tuple[str, ...]]:
    """A row for each application: medians, and the ratio that is furthest from 1."""
    cells: list[tuple[str, ...]] = []
    for workload, trials in found.items():
        planned, real = (statistics.median(getattr(trial, name) for trial in trials) for name in ("planned_s", "real_s"))
        ratios = [trial.ratio for trial in trials if trial.ratio is not None]
        told = ("-", "-")
        if ratios:
            worst = max(ratios, key=lambda value: max(value, 1 / value))
            told = f"{statistics.median(ratios):.2f}", f"{worst:.2f}"
        cells.append((workload, f"{planned:.2f} s", f"{real:.2f} s", *told))
    return cells


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(prog="python -m parrot_nb.bench plan", description=__doc__)
    line.add_argument("--workloads", default=",".join(name for name in WORKLOADS if name != "mixed"), help="commas between")
    line.add_argument("--model", default="random:qwen3-26m", help="default (parrot-tiny), random:SHAPE, a hub id or a folder")
    line.add_argument("--dtype", default="float32")
    line.add_argument("--device", default="auto", help="auto, cpu or cuda")
    line.add_argument("--repeat", type=int, default=3, help="planned runs of each application")
    return line


def main(arguments: Sequence[str]) -> int:
    """Run the command; 2 for a mistake in it."""
    asked = parser().parse_args(arguments)
    names = [name.strip() for name in asked.workloads.split(",") if name.strip()]
    if strange := next((name for name in names if name not in WORKLOADS), None):
        sys.stderr.write(f"There is no workload '{strange}': choose from {', '.join(WORKLOADS)}.\n")
        return 2

    def measured() -> dict[str, list[Trial]]:
        return run(names, asked.model, asked.dtype, asked.device, at_least_one("--repeat", asked.repeat), tell)

    def report(found: dict[str, list[Trial]]) -> int:
        table = [HEADER, *rows(found)]
        widths = [max(len(row[i]) for row in table) for i in range(len(HEADER))]
        for row in table:
            sys.stdout.write(
                "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))])
            )
            sys.stdout.write("\n")
        within = sum(abs(trial.planned_s / trial.real_s - 1) <= BOUND for trials in found.values() for trial in trials)
        total = sum(map(len, found.values()))
        sys.stdout.write(
            f"\n{within} of {total} plans within {BOUND:.0%} of the real time, on {asked.model} in {asked.dtype}\n{where()}\n"
        )
        return 0

    return exit_code(measured, report)
