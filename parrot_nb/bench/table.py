"""A result as a table and as JSON."""

from __future__ import annotations

import os
import platform
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import Any, TypeVar

from parrot_nb.bench.runner import Result, Row, Run
from parrot_nb.bench.worker import PARROT
from parrot_nb.errors import ParrotError

T = TypeVar("T")

HEADER = (
    "system",
    "dtype",
    "cold s",
    "spread",
    "CPU s",
    "tok/s cold",
    "tok/s warm",
    "x best peer",
    "x hf",
    "prefilled",
    "reused",
    "decoded",
    "steps",
    "same text",
    "right",
)


def cells(result: Result) -> list[tuple[str, ...]]:
    """The table's rows, below `HEADER`; a size that differs between rows is part of the system's name."""
    several = len({row.sizes for row in result.rows}) > 1
    return [_cells(row, [other for other in result.rows if other.sizes == row.sizes], several=several) for row in result.rows]


def _cells(row: Row, group: Sequence[Row], *, several: bool) -> tuple[str, ...]:
    name = f"{row.system} ({row.sizes.users} users)" if several else row.system
    cold = [run for run in row.runs if run.cold]
    median = row.median_s()
    if row.error is not None or median is None:
        return (name, row.dtype, f"did not run: {row.error}", *[""] * (len(HEADER) - 3))
    first = cold[0]
    warm, cpu = row.median_s(cold=False), row.median_cpu_s()
    peers = [s for other in group if not other.system.startswith(PARROT) and (s := other.median_s()) is not None]
    hf = next((other.median_s() for other in group if other.system == "hf"), None)
    spread = f"{min(run.seconds for run in cold):.2f}-{max(run.seconds for run in cold):.2f}"
    return (
        name,
        row.dtype,
        f"{median:.2f}",
        spread,
        "" if cpu is None else f"{cpu:.2f}",
        f"{first.decoded_tokens / median:.0f}",
        "" if warm is None else f"{first.decoded_tokens / warm:.0f}",
        "" if not peers else f"{min(peers) / median:.2f}",
        "" if hf is None else f"{hf / median:.2f}",
        "" if first.prefilled_tokens is None else str(first.prefilled_tokens),
        "" if first.reused_tokens is None else str(first.reused_tokens),
        str(first.decoded_tokens),
        "" if first.steps is None else str(first.steps),
        _same_text(row, group, first),
        "" if first.right is None else f"{first.right} of {len(first.texts)}",
    )


def _same_text(row: Row, group: Sequence[Row], first: Run) -> str:
    """Return how many of its texts are parrot's; only float32 on both sides can promise that."""
    ours = next((other for other in group if other.system == PARROT and other.runs), None)
    if ours is None or ours is row or {row.dtype, ours.dtype} != {"float32"}:
        return ""
    same = sum(a == b for a, b in zip(first.texts, ours.runs[0].texts, strict=True))
    return f"{same} of {len(first.texts)}"


def render(result: Result, *, markdown: bool = False) -> str:
    """The table as text."""
    lines = [HEADER, *cells(result)]
    if markdown:
        body = ["| " + " | ".join(line) + " |" for line in lines]
        return "\n".join([body[0], "|" + "---|" * len(HEADER), *body[1:]])
    told = {i for i, line in enumerate(lines) if line[2].startswith("did not run")}
    widths = [max(len(line[i]) for n, line in enumerate(lines) if n not in told or i < 2) for i in range(len(HEADER))]
    shown = []
    for n, line in enumerate(lines):
        if n in told:
            shown.append(f"{line[0]:<{widths[0]}}  {line[1]:<{widths[1]}}  {line[2]}")
            continue
        left = [
            f"{cell:<{width}}" if i < 2 else f"{cell:>{width}}" for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ]
        shown.append("  ".join(left).rstrip())
    return "\n".join(shown)


def aligned(header: Sequence[str], lines: Sequence[Sequence[str]], *, markdown: bool = False) -> str:
    """Return a table as text: the first column to the left, figures to the right."""
    if markdown:
        body = ["| " + " | ".join(line) + " |" for line in (header, *lines)]
        return "\n".join([body[0], "|---|" + "---:|" * (len(header) - 1), *body[1:]])
    widths = [max(len(line[i]) for line in (header, *lines)) for i in range(len(header))]
    return "\n".join(
        "  ".join(
            f"{cell:{'<' if i == 0 else '>'}{width}}" for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in (header, *lines)
    )


@dataclass(frozen=True, slots=True)
class Figure:
    """A line of the table beside the paper's figures: what was varied, what the paper found, and what was found here; ratios of time, or as said."""

    number: str
    setting: str
    paper: str
    here: str


PROGRESS = "PARROT_BENCH_PROGRESS"  # set by who reads standard error and shows its last line


def exit_code(measure: Callable[[], T], report: Callable[[T], int]) -> int:
    """Measure and report, and return the exit code: 2 for a mistake in the command, 130 for an interrupt, else that of `report`."""
    try:
        found = measure()
    except ParrotError as error:
        tell("")
        sys.stderr.write(f"{error}\n")
        return 2
    except KeyboardInterrupt:
        tell("")
        return 130
    tell("")
    return report(found)


def tell(what: str) -> None:
    """Say on a terminal what is being done, in place of what was said before; a line for who asks for `PROGRESS`; else nothing."""
    terminal = sys.stderr.isatty()
    if terminal or os.environ.get(PROGRESS):
        sys.stderr.write(f"\r\033[K{what}" if terminal else f"{what}\n")
        sys.stderr.flush()


def machine() -> dict[str, Any]:
    """Describe the machine of a measurement: processor, cores, GPU, versions, date."""
    versions = {"python": platform.python_version()}
    for package in ("parrot-nb", "torch", "transformers", "triton"):
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            versions[package] = "not installed"
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "gpu": _gpu(),
        "versions": versions,
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _gpu() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def as_json(result: Result) -> dict[str, Any]:
    """Everything that was measured."""
    return {
        "workload": result.workload,
        "model": result.model,
        "command": " ".join(["python -m parrot_nb.bench", *sys.argv[1:]]),
        "machine": machine(),
        "trials_s": result.trials_s,
        "rows": [
            {
                "system": row.system,
                "dtype": row.dtype,
                "sizes": {name: getattr(row.sizes, name) for name in row.sizes.names()},
                "error": row.error,
                "runs": [asdict(run) for run in row.runs],
            }
            for row in result.rows
        ],
    }


def footer(result: Result) -> str:
    """Under the table: what it is about and how to get it again."""
    command = " ".join(["python -m parrot_nb.bench", *sys.argv[1:]])
    lines = [f"{result.workload} on {result.model}; {command}", where()]
    if result.trials_s:
        tried = "; ".join(f"{system}: {_trial(seconds)}" for system, seconds in result.trials_s.items())
        lines.insert(1, f"dtype: each system's faster one in runs before ({tried})")
    return "\n".join(lines)


def where() -> str:
    """The machine, the versions and the date, in a line."""
    here = machine()
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    gpu = f", {here['gpu']}" if here["gpu"] else ""
    return f"{here['processor']}, {here['cores']} cores{gpu}; {versions}; {here['date']}"


def _trial(seconds: dict[str, float | None]) -> str:
    return ", ".join(f"{dtype} {'failed' if took is None else f'{took:.2f} s'}" for dtype, took in seconds.items())
