"""`python -m parrot_nb.bench paper`: the paper's figures about scheduling, on simulated engines, beside what the paper says.

The scheduler is the one that serves real engines; the engines are formulas (`parrot_nb.runtime.simulated`). Baselines are what
the paper compares with: requests that a client makes one at a time as their inputs come back, a quarter of a second away,
computed whole, in order of arrival, by engines that take few at once (latency-centric) or all (throughput-centric).
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import astuple
from typing import Any

from parrot_nb.bench.table import Figure, tell, where
from parrot_nb.bench.workloads import at_least_one
from parrot_nb.engine.protocol import Speed
from parrot_nb.errors import UsageError
from parrot_nb.runtime.simulate import Application, Report, simulate
from parrot_nb.runtime.simulated import EngineSpec
from parrot_nb.runtime.synthetic import chain, chats, gpts, map_reduce, multi_agent

DELAY_S = 0.25  # the paper injects 200 to 300 ms
# Decode steps as vLLM 0.30 takes them with Qwen3-8B in bfloat16 on an H100: 146, 2,117, 6,597 and 13,567 tokens a second for 1, 16,
# 64 and 256 users. A prompt token is 16 GFLOP at 400 TFLOP/s.
ENGINE = EngineSpec(Speed(base_s=6.8e-3, row_s=4.7e-5, prefill_s=4e-5))
STREAM_S, MOST_PER_S = 40.0, 512.0
PATIENCE = 2.0  # a request rate is sustained while a token takes at most so many times as long as alone

Make = Callable[[], list[Application]]


def parrot(make: Make, engines: int = 1, *, shares: bool = True, policy: str = "parrot") -> Report:
    """A run as parrot_nb does it."""
    return simulate(make(), [ENGINE] * engines, policy, shares=shares)


def baseline(make: Make, policy: str, engines: int = 1) -> Report:
    """A run as the paper's baselines do it."""
    return simulate(make(), [ENGINE] * engines, policy, shares=False, whole=False, delay_s=DELAY_S)


def _ratio(make: Make, name: str, policy: str = "throughput-centric") -> str:
    return f"{baseline(make, policy).mean_s(name) / parrot(make).mean_s(name):.2f}x"


def _background(per_s: float) -> list[Application]:
    return chats(round(20 * per_s), 1 / per_s, seed=1) if per_s else []


def _each(values: Sequence[Any], ratio: Callable[[Any], str]) -> str:
    return " / ".join(ratio(value) for value in values)


def _chain_outputs() -> Iterator[Figure]:
    yield Figure(
        "11a", "chain summary, output 25/50/75/100", "1.38 / 1.21 / 1.14 / 1.11x",
        _each((25, 50, 75, 100), lambda out: _ratio(lambda: [chain(20, output_tokens=out)], "chain")),
    )  # fmt: skip


def _chain_chunks() -> Iterator[Figure]:
    yield Figure(
        "11b", "chain summary, chunk 512/1024/2048", "1.19 to 1.21x",
        _each((512, 1024, 2048), lambda chunk: _ratio(lambda: [chain(20480 // chunk, chunk_tokens=chunk)], "chain")),
    )  # fmt: skip


def _chain_beside_requests() -> Iterator[Figure]:
    yield Figure(
        "12a", "chain beside 0/1/2/3/3.5 requests a second", "1.21 / 1.19 / 1.31 / 1.79 / 2.38x",
        _each((0, 1, 2, 3, 3.5), lambda rate: _ratio(lambda: [chain(20), *_background(rate)], "chain")),
    )  # fmt: skip


def _chains_at_once() -> Iterator[Figure]:
    yield Figure(
        "12b", "10/15/20/25 chains at once", "1.38 / 1.52 / 1.63 / 1.68x",
        _each((10, 15, 20, 25), lambda count: _ratio(lambda: [chain(20) for _ in range(count)], "chain")),
    )  # fmt: skip


def _reduce_outputs() -> Iterator[Figure]:
    yield Figure(
        "14a", "map-reduce, output 25/50/75/100, against latency-centric", "1.70 / 2.04 / 2.22 / 2.37x",
        _each((25, 50, 75, 100), lambda out: _ratio(lambda: [map_reduce(20, output_tokens=out)], "map_reduce", "latency-centric")),
    )  # fmt: skip


def _reduce_chunks() -> Iterator[Figure]:
    yield Figure(
        "14b", "map-reduce, chunk 512/1024/2048, against latency-centric", "1.96 to 2.16x",
        _each(
            (512, 1024, 2048),
            lambda chunk: _ratio(lambda: [map_reduce(20480 // chunk, chunk_tokens=chunk)], "map_reduce", "latency-centric"),
        ),
    )  # fmt: skip


def _token_s(report: Report) -> float:
    """Mean seconds of a request for each token that it writes, waiting included."""
    done = [record for record in report.calls.values() if record.end_s is not None]
    return statistics.fmean(((record.end_s or 0.0) - record.ready_s) / record.output_tokens for record in done)


def _rate(run: Callable[[Make], Report]) -> float:
    """The highest request rate, per second, that is sustained for `STREAM_S`; found by doubling, then by halving."""
    alone = _token_s(run(lambda: gpts(20, 100.0)))

    def sustained(rate: float) -> bool:
        return _token_s(run(lambda: gpts(round(rate * STREAM_S), 1 / rate))) <= PATIENCE * alone

    low, high = 0.0, 1.0
    while sustained(high) and high < MOST_PER_S:
        low, high = high, 2 * high
    while high - low > 0.05 * high:
        middle = (low + high) / 2
        low, high = (middle, high) if sustained(middle) else (low, middle)
    return low


def _gpts() -> Iterator[Figure]:
    ours = _rate(lambda make: parrot(make, 4))
    unscheduled = _rate(lambda make: parrot(make, 4, policy="fifo"))
    unshared = _rate(lambda make: baseline(make, "throughput-centric", 4))
    here = (
        f"{ours / unshared:.1f}x of no sharing, {ours / unscheduled:.2f}x of sharing without scheduling ({ours:.1f} requests/s)"
    )
    yield Figure("17", "four GPTs on 4 engines, request rate", "12x of no sharing; about 3x without scheduling", here)


def _multi_agent() -> Iterator[Figure]:
    def against(run: Callable[[Make], Report]) -> str:
        def ratio(files: int) -> str:
            def make() -> list[Application]:
                return [multi_agent(files)]

            return f"{run(make).mean_s('multi_agent') / parrot(make).mean_s('multi_agent'):.2f}x"

        return _each((4, 8, 12, 16), ratio)

    setting = "multi-agent, 4/8/12/16 files, against"
    yield Figure("18a", f"{setting} latency-centric", "up to 11.7x", against(lambda make: baseline(make, "latency-centric")))
    yield Figure(
        "18a", f"{setting} throughput-centric", "up to 2.45x", against(lambda make: baseline(make, "throughput-centric"))
    )
    yield Figure("18a", f"{setting} no sharing", "up to 2.35x", against(lambda make: parrot(make, shares=False)))


def mixed() -> list[Application]:
    """Chats that come at random beside nine map-reduce applications."""
    return [*[map_reduce(30, at_s=i * 0.5) for i in range(9)], *chats(30, 0.2)]


def _mixed() -> Iterator[Figure]:
    reports = (
        parrot(mixed, 4),
        baseline(mixed, "throughput-centric", 4),
        baseline(mixed, "latency-centric", 4),
    )

    def told(value: Callable[[Report], float], digits: int) -> str:
        return " / ".join(f"{value(report):.{digits}f}" for report in reports)

    setting = "chats beside map-reduce, 4 engines; parrot / throughput / latency:"
    yield Figure(
        "19", f"{setting} chat, ms a token", "45 / 78 / 41", told(lambda report: 1e3 * statistics.fmean(report.tpot_s("chat")), 1)
    )
    yield Figure("19", f"{setting} chat, ms a token with waiting", "149 / 185 / 828", told(_chat_ms, 1))
    yield Figure("19", f"{setting} map-reduce, s", "23.2 / 24.5 / 86.4", told(lambda report: report.mean_s("map_reduce"), 2))


def _chat_ms(report: Report) -> float:
    chats = [record for record in report.calls.values() if record.function == "chat" and record.end_s is not None]
    return 1e3 * statistics.fmean(((record.end_s or 0.0) - record.ready_s) / record.output_tokens for record in chats)


def scheduling_us(num_calls: int, num_engines: int) -> float:
    """Microseconds of analysis and scheduling for a call, in a map-reduce of so many calls that all wait at once."""
    app = map_reduce(num_calls - 1, output_tokens=20)
    spec = EngineSpec(Speed(1e-3, 0.0, 0.0), max_step_tokens=10**9)  # engines that cost next to nothing to simulate
    started_s = time.perf_counter()
    simulate([app], [spec] * num_engines)
    return 1e6 * (time.perf_counter() - started_s) / num_calls


SIMULATED: dict[str, Callable[[], Iterator[Figure]]] = {
    "11a": _chain_outputs,
    "11b": _chain_chunks,
    "12a": _chain_beside_requests,
    "12b": _chains_at_once,
    "14a": _reduce_outputs,
    "14b": _reduce_chunks,
    "17": _gpts,
    "18a": _multi_agent,
    "19": _mixed,
}
SCHEDULING = "scheduling"  # asks for the lines below the table


def figures(names: Iterable[str] = SIMULATED) -> Iterator[Figure]:
    """The lines of these figures, as they are computed."""
    for name in names:
        yield from SIMULATED[name]()


def main(arguments: Sequence[str] = ()) -> int:
    """Print the table; 2 for a mistake in the command."""
    line = argparse.ArgumentParser(prog="python -m parrot_nb.bench paper", description=__doc__.split("\n\n")[0])
    line.add_argument(
        "--measured",
        action="store_true",
        help="on the real engine and this machine, over smaller sizes, which takes twenty minutes",
    )
    line.add_argument("--only", default="", help="figures, such as 11a,18a; all if not given")
    line.add_argument("--repeat", type=int, help="measured runs of each system; 3 if not given")
    asked = line.parse_args(list(arguments))
    try:
        (_print_measured if asked.measured else _print_simulated)(asked.only, asked.repeat)
    except UsageError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    return 0


def _asked_for(only: str, known: Iterable[str], how: str, elsewhere: Iterable[str], remedy: str) -> list[str]:
    """Return those of `known` that the command names, or all.

    Raises:
        UsageError: a name is not among them.
    """
    known, names = list(dict.fromkeys(known)), [name for text in only.split(",") if (name := text.strip())]
    for name in names:
        if name not in known:
            hint = f", or {remedy}" if name in elsewhere else ""
            raise UsageError(f"There is no figure '{name}' that is {how}: choose from {', '.join(known)}{hint}.")
    return [name for name in known if name in names] if names else known


def _print_simulated(only: str, repeat: int | None) -> None:
    from parrot_nb.bench.measured import sweeps

    if repeat is not None:
        raise UsageError("--repeat is for what is measured, and what is simulated comes out the same every time: add --measured.")
    measured = (sweep.name for sweep in sweeps())
    names = _asked_for(only, [*SIMULATED, SCHEDULING], "simulated", measured, "add --measured")
    found = []
    for figure in figures(name for name in names if name in SIMULATED):
        tell(f"figure {figure.number}")
        found.append(figure)
    tell("")
    if found:
        _print(found, "here, simulated")
    if SCHEDULING in names:
        for num_engines in (1, 4):
            told = ", ".join(f"{scheduling_us(count, num_engines):.0f} at {count:,}" for count in (1_000, 10_000, 40_000))
            engines = f"{num_engines} engine{'s' * (num_engines > 1)}"
            sys.stdout.write(f"Microseconds a call, simulated engine included, {engines}: {told} calls.\n")


def _print_measured(only: str, repeat: int | None) -> None:
    from parrot_nb.bench.measured import sweeps

    known, repeat = sweeps(), 3 if repeat is None else at_least_one("--repeat", repeat)
    names = _asked_for(only, [sweep.name for sweep in known], "measured", [*SIMULATED, SCHEDULING], "leave out --measured")
    found = [figure for sweep in known if sweep.name in names for figure in sweep.measure(repeat, tell)]
    tell("")
    _print(found, "here, measured")
    sys.stdout.write(f"{where()}\n")


def _print(found: Sequence[Figure], where_from: str) -> None:
    """A Markdown table that can be read as it stands."""
    rows = [("figure", "what is varied", "paper", where_from), *(astuple(figure) for figure in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(4)]
    lines = ["| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (width + 2) for width in widths) + "|")
    sys.stdout.write("\n".join(lines) + "\n\n")
