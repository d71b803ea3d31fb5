"""The paper's figures on the real engine: each of its applications over the sizes that the paper varies, in one go.

Sizes are smaller than the paper's, for a model of 26 M parameters on a few cores of a CPU; what is compared is the shape of
the figures. No delay is added to anybody's requests.
"""

from __future__ import annotations

import statistics
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from parrot_nb.bench.latencies import Latency
from parrot_nb.bench.models import KNOWN
from parrot_nb.bench.runner import Result, Row, Run, default_sizes, run
from parrot_nb.bench.table import Figure
from parrot_nb.bench.worker import PARROT
from parrot_nb.bench.workloads import Sizes

MODEL = "random:qwen3-26m"


@dataclass(frozen=True, slots=True)
class Sweep:
    """An application over some sizes, on some systems.

    Attributes:
        number: of the paper's figure; "" for what is ours.
        setting: what is varied, with its values.
        workload: its name.
        sizes: the values.
        against: rows to compare with, and what the paper found.
        beside: further rows.
        told: lines of the result besides the ratios.
        model: which runs it.
        dtype: of all systems.
        topic: what it is about where it has no number.
    """

    number: str
    setting: str
    workload: str
    sizes: Sequence[Sizes]
    against: Sequence[tuple[str, str]] = ()
    beside: Sequence[str] = ()
    told: Callable[[Sweep, Result], Iterator[Figure]] = lambda _sweep, _result: iter(())
    model: str = MODEL
    dtype: str = "bfloat16"
    topic: str = ""

    @property
    def name(self) -> str:
        """Name of the sweep on the command line."""
        return self.number or self.topic

    def measure(self, repeat: int, tell: Callable[[str], None] = lambda _: None) -> list[Figure]:
        """Run it; the lines to print."""
        rows = [system for system, _ in self.against] + list(self.beside)
        changed = [row.removeprefix(f"{PARROT} ") for row in rows if row.startswith(f"{PARROT} ")]
        result = run(
            self.workload,
            systems=[PARROT, *(row for row in rows if not row.startswith(PARROT))],
            off=[name[1:] for name in changed if name[0] == "-"],
            on=[name[1:] for name in changed if name[0] == "+"],
            model=self.model,
            dtype=self.dtype,
            sizes=self.sizes,
            repeat=repeat,
            warm=f"{PARROT} +memo" in rows,
            tell=lambda what: tell(f"{self.name} {self.workload}: {what}"),
        )
        for row in result.rows:
            if row.error is not None:
                sys.stderr.write(f"{self.workload}: {row.system} did not run: {row.error}\n")
        return list(self.lines(result))

    def lines(self, result: Result) -> Iterator[Figure]:
        """Yield the figures to be printed of a result."""
        for system, paper in self.against:
            ratios = [_ratio(result, sizes, system) for sizes in self.sizes]
            yield Figure(self.number, f"{self.setting}: {_named(system)} takes", paper, " / ".join(ratios))
        yield from self.told(self, result)


def _row(result: Result, system: str, sizes: Sizes) -> Row:
    return next(row for row in result.rows if row.system == system and row.sizes == sizes)


def _ratio(result: Result, sizes: Sizes, system: str, ours: str = PARROT) -> str:
    """Return how many times as long a system takes as parrot_nb."""
    took_s, theirs_s = _row(result, ours, sizes).median_s(), _row(result, system, sizes).median_s()
    return "did not run" if took_s is None or theirs_s is None else f"{theirs_s / took_s:.2f}x"


def _named(system: str) -> str:
    """Return the name of the system that is compared with."""
    _, _, changed = system.partition(" ")
    if changed:
        return f"parrot_nb {'without' if changed[0] == '-' else 'with'} {changed[1:]}"
    return "`generate` in static batches" if system == "hf" else system


def _median(result: Result, system: str, sizes: Sizes, value: Callable[[Run], float], digits: int = 1) -> str:
    """Return the median of the runs that start with nothing cached: a warm one may guess from the text of the run before it."""
    cold = [value(run) for run in _row(result, system, sizes).runs if run.cold]
    return f"{statistics.median(cold):.{digits}f}" if cold else "did not run"


def _waiting_ms(*functions: str) -> Callable[[Run], float]:
    """Milliseconds for each token, waiting included, over the calls of these functions, or of all."""

    def value(run: Run) -> float:
        found: list[Latency] = [run.latencies[name] for name in functions or run.latencies]
        return 1e3 * sum(one.per_token_s * one.calls for one in found) / sum(one.calls for one in found)

    return value


def _request_rates(sweep: Sweep, result: Result) -> Iterator[Figure]:
    for system in (PARROT, *sweep.beside):
        told = [_median(result, system, sizes, _waiting_ms()) for sizes in sweep.sizes]
        name = "parrot_nb" if system == PARROT else _named(system)
        yield Figure(sweep.number, f"{sweep.setting}: {name}, ms a token with waiting", "", " / ".join(told))


def _mixed(sweep: Sweep, result: Result) -> Iterator[Figure]:
    (sizes,) = sweep.sizes

    def line(what: str, paper: str, value: Callable[[Run], float], digits: int = 1) -> Figure:
        told = " / ".join(_median(result, system, sizes, value, digits) for system in (PARROT, *sweep.beside))
        return Figure(sweep.number, f"{sweep.setting}; parrot_nb / throughput / latency: {what}", paper, told)

    yield line("chat, ms a token", "45 / 78 / 41", lambda run: 1e3 * run.latencies["chat"].tpot_s)
    yield line("chat, ms a token with waiting", "149 / 185 / 828", _waiting_ms("chat"))
    yield line("map-reduce, s", "23.2 / 24.5 / 86.4", lambda run: run.latencies["reduce"].last_s, 2)


def _targets(sweep: Sweep, result: Result) -> Iterator[Figure]:
    def told(value: Callable[[Run], float], digits: int = 1) -> str:
        return " / ".join(_median(result, PARROT, sizes, value, digits) for sizes in sweep.sizes)

    p95_ms = told(lambda run: 1e3 * run.latencies["chat"].tpot_p95_s)
    yield Figure(sweep.number, f"{sweep.setting}: 95 of 100 tokens within, ms", "", p95_ms)
    reduced_s = told(lambda run: run.latencies["reduce"].last_s, 2)
    yield Figure(sweep.number, f"{sweep.setting}: map-reduce, s", "", reduced_s)


def _extras(sweep: Sweep, result: Result) -> Iterator[Figure]:
    (sizes,) = sweep.sizes
    drafts, memo = _row(result, f"{PARROT} +drafts", sizes), _row(result, f"{PARROT} +memo", sizes)
    yield Figure(
        sweep.number,
        f"{sweep.setting}: `generate` takes, of parrot_nb with guesses",
        "",
        _ratio(result, sizes, "hf", drafts.system),
    )
    steps = [_median(result, system, sizes, lambda run: run.steps or 0, 0) for system in (PARROT, drafts.system)]
    yield Figure(sweep.number, f"{sweep.setting}: steps without guesses / with", "", " / ".join(steps))
    again = [run for run in memo.runs if not run.cold]
    told = (
        f"{max(run.steps or 0 for run in again)} steps, {1e3 * statistics.median(run.seconds for run in again):.0f} ms"
        if again
        else "did not run"
    )
    yield Figure(sweep.number, f"{sweep.setting}: run again with the memo", "", told)


def _over(own: Sizes, name: str, values: Sequence[int], **others: int) -> list[Sizes]:
    return [own.but(**{name: value}, **others) for value in values]


def sweeps() -> list[Sweep]:
    """Return all sweeps, in the order of the paper's figures."""
    chain, reduce, agents, copilot, gpts, mixed, pipeline = (
        default_sizes(name, MODEL) for name in ("chain", "map_reduce", "multi_agent", "copilot", "gpts", "mixed", "pipeline")
    )
    hf, latency, throughput = "hf", "latency-centric", "throughput-centric"
    unshared, paged = f"{PARROT} -sharing", f"{PARROT} -two_phase"
    ours = (f"{PARROT} +drafts", f"{PARROT} +memo")
    return [
        Sweep("11a", "chain, output 25/50/75/100", "chain", _over(chain, "out", (25, 50, 75, 100)),
              [(hf, "1.88 / 1.64 / 1.55 / 1.52x"), (latency, "1.38 / 1.21 / 1.14 / 1.11x")]),
        Sweep("11b", "chain, chunk 256/512/1024", "chain", _over(chain, "chunk", (256, 512, 1024), chunks=6),
              [(hf, "1.60 to 1.63x"), (latency, "1.19 to 1.21x")]),
        Sweep("12b", "1/4/8 chains at once", "chain", _over(chain, "apps", (1, 4, 8), chunks=4),
              [(hf, ""), (latency, "1.38 / 1.52 / 1.63 / 1.68x for 10/15/20/25")]),
        Sweep("14a", "map-reduce, output 25/50/75/100", "map_reduce", _over(reduce, "out", (25, 50, 75, 100), chunks=12),
              [(hf, ""), (latency, "1.70 / 2.04 / 2.22 / 2.37x")]),
        Sweep("14b", "map-reduce, chunk 128/256/512", "map_reduce", _over(reduce, "chunk", (128, 256, 512), chunks=12),
              [(hf, ""), (latency, "1.96 to 2.16x")]),
        Sweep("15", "copilot, batch 4/8/16/32", "copilot", _over(copilot, "users", (4, 8, 16, 32)),
              [(paged, "1.1 / 1.3 / 1.4 / 1.7x for 8/16/32/64"), (unshared, "1.8 / 2.4x for 8/16")]),
        Sweep("17", "four GPTs, 2/8/32 requests a second", "gpts", _over(gpts, "rate", (2, 8, 32), users=16, shared=1000),
              beside=[unshared, throughput], told=_request_rates),
        Sweep("18a", "multi-agent, 4/8/16 files", "multi_agent", _over(agents, "files", (4, 8, 16)),
              [(latency, "up to 11.7x"), (throughput, "up to 2.45x"), (unshared, "up to 2.35x"), (paged, "1.2x")]),
        Sweep("19", "4 chats beside a map-reduce", "mixed", [mixed.but(apps=4, chunks=16)],
              beside=[throughput, latency], told=_mixed),
        Sweep("19", "the same, chats that ask for a token every 20/30/40/60 ms", "mixed",
              _over(mixed, "target", (20, 30, 40, 60), apps=4, chunks=16), told=_targets),
        Sweep("", "5 stages of 500 tokens", "pipeline", [pipeline], [(f"{PARROT} +streaming", "")], topic="streaming"),
        *(
            Sweep("", f"{name} on what parrot-tiny knows", workload, [default_sizes(workload, KNOWN)],
                  [(hf, "")], ours, _extras, KNOWN, "float32", topic="guesses")
            for name, workload in (("chain", "chain"), ("map-reduce", "map_reduce"), ("multi-agent", "multi_agent"))
        ),
    ]  # fmt: skip
