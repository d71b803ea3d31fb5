"""`python -m parrot_nb.bench WORKLOAD`: see `--help`."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from parrot_nb.bench.runner import DTYPES, Result, default_sizes, run
from parrot_nb.bench.table import as_json, exit_code, footer, render, tell
from parrot_nb.bench.workloads import WORKLOADS, Sizes, at_least_one


def parser() -> argparse.ArgumentParser:
    """The command line."""
    line = argparse.ArgumentParser(
        prog="python -m parrot_nb.bench",
        description="The paper's applications on parrot_nb and on other systems; the same weights, prompts and output lengths.",
    )
    line.add_argument(
        "workload",
        help=", ".join(
            [
                *WORKLOADS,
                "kernels",
                "paper (its figures about scheduling, simulated)",
                "busy (beside a cell that computes)",
                "neighbour (beside a process that keeps a core busy)",
                "calls (what a call costs that computes nothing, part by part)",
                "rows (a map over a table against its engine alone)",
                "typed (what a type of an output costs)",
                "plan (predicted seconds beside real ones)",
                "quality (what quantised weights cost)",
                "gpu (all that needs a device)",
            ]
        ),
    )
    line.add_argument(
        "--systems",
        default="parrot",
        help="parrot, hf, hf-cb, latency-centric, throughput-centric, or a server's http address; commas between",
    )
    line.add_argument(
        "--off",
        default="",
        help="one more row for parrot without each of: sharing, dedup, two_phase, fused, graphs, lookahead, huge_pages, threads, prefill_ahead, streaming, dead_work",
    )
    line.add_argument(
        "--on",
        default="",
        help="one more row for parrot with each of: memo (what was generated is not generated again), drafts (guesses), streaming (on a CPU, too), compile (layers by torch.compile), reproducible (texts that depend on nothing beside them, on a CPU), int8, int4 (quantised weights, on a CPU)",
    )
    line.add_argument(
        "--model", default="random:qwen3-26m", help="default (parrot-tiny, answers checked), random:SHAPE, a hub id or a folder"
    )
    line.add_argument("--dtype", default="best", help=", ".join(DTYPES))
    line.add_argument("--device", default="auto", help="auto, cpu or cuda")
    line.add_argument("--kv-memory", help="parrot's KV cache, such as 2GB")
    line.add_argument("--repeat", type=int, default=3, help="measured runs of each system")
    line.add_argument("--threads", type=int, help="of torch; all cores if not given")
    line.add_argument("--json", type=Path, help="write everything that was measured there")
    line.add_argument("--markdown", action="store_true", help="print a Markdown table")
    line.add_argument("--users", help="requests or users; several with commas make one row each")
    for name in Sizes.names():
        if name != "users":
            line.add_argument(f"--{name}", type=int, help="tokens or count; the workload's own if not given")
    return line


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; 2 for a mistake in it."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == ["kernels"]:
        from parrot_nb.bench.kernels import main as kernels

        return kernels(given[1:])
    if given[:1] == ["paper"]:
        from parrot_nb.bench.paper import main as paper

        return paper(given[1:])
    if given[:1] == ["busy"]:
        from parrot_nb.bench.busy import main as busy

        return busy(given[1:])
    if given[:1] == ["neighbour"]:
        from parrot_nb.bench.neighbour import main as neighbour

        return neighbour(given[1:])
    if given[:1] == ["calls"]:
        from parrot_nb.bench.parts import main as calls

        return calls(given[1:])
    if given[:1] == ["rows"]:
        from parrot_nb.bench.rows import main as rows

        return rows(given[1:])
    if given[:1] == ["typed"]:
        from parrot_nb.bench.typed import main as typed

        return typed(given[1:])
    if given[:1] == ["plan"]:
        from parrot_nb.bench.plans import main as plans

        return plans(given[1:])
    if given[:1] == ["quality"]:
        from parrot_nb.bench.quality import main as quality

        return quality(given[1:])
    if given[:1] == ["gpu"]:
        from parrot_nb.bench.gpu import main as gpu

        return gpu(given[1:])
    asked = parser().parse_args(given)

    if asked.json is not None and not (asked.json.parent.is_dir() and os.access(asked.json.parent, os.W_OK)):
        sys.stderr.write(f"The folder of {asked.json} is not there or cannot be written: give --json another.\n")
        return 2

    def measure() -> Result:
        own = default_sizes(asked.workload, asked.model)
        wanted = {name: value for name in Sizes.names() if name != "users" and (value := getattr(asked, name)) is not None}
        users = [_count(text) for text in asked.users.split(",")] if asked.users else [own.users]
        return run(
            asked.workload,
            systems=_names(asked.systems),
            off=_names(asked.off),
            on=_names(asked.on),
            model=asked.model,
            dtype=asked.dtype,
            device=asked.device,
            kv_memory=asked.kv_memory,
            sizes=[own.but(**wanted, users=count) for count in users],
            repeat=at_least_one("--repeat", asked.repeat),
            threads=asked.threads,
            tell=tell,
        )

    def report(result: Result) -> int:
        sys.stdout.write(f"{render(result, markdown=asked.markdown)}\n\n{footer(result)}\n")
        if asked.json is not None:
            asked.json.write_text(json.dumps(as_json(result), indent=1) + "\n", encoding="utf-8")
        return 0 if any(row.runs for row in result.rows) else 1

    return exit_code(measure, report)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def _count(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        return 0  # refused with the others below 1


if __name__ == "__main__":
    sys.exit(main())
