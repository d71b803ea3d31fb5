"""`python -m parrot_nb.bench gpu`, or `make gpu`: everything that needs a CUDA device, in parts of less than nine minutes.

A part is some commands, each a process with a time limit. What has ended well is not run again, so a part that was cut off or
failed goes on where it stopped; `--again` begins anew. Each command's output is kept; after each one a table and a JSON file of all
that is known so far are written. `--rehearse` runs the same parts on a CPU, small: it shows that the commands run, and measures nothing.
Nothing is downloaded or installed.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parrot_nb.bench.models import PREFIX, SHAPES
from parrot_nb.bench.table import machine

PARTS = ("kernels", "engine", "single", "apps")
PART_S = 530.0  # of a part: some environments cut commands off after ten minutes
STATE, TABLE, FIGURES = "state.json", "gpu.md", "gpu.json"
NEEDS_PYTEST = "pytest is not installed"
BYTES = 2  # of a weight in bfloat16


@dataclass(frozen=True, slots=True)
class Command:
    """A command of a part.

    Attributes:
        name: unique; also of the files that it writes.
        arguments: after `python -m`.
        limit_s: seconds after which it is ended.
        measures: whether it writes its figures as JSON where `--json` says.
    """

    name: str
    arguments: tuple[str, ...]
    limit_s: float
    measures: bool = True


def commands(part: str, *, rehearse: bool) -> list[Command]:
    """The commands of a part; on a CPU where it is rehearsed."""
    device = "cpu" if rehearse else "cuda"
    small, large = ("qwen3-26m", "qwen3-26m") if rehearse else ("qwen3-0.6b", "qwen3-8b")

    def bench(name: str, workload: str, *more: str, model: str = small, limit_s: float = 250) -> Command:
        size = ("--users", "2", "--shared", "64", "--out", "8", "--repeat", "1") if rehearse else ()
        dtype = "float32" if rehearse else "bfloat16"
        arguments = ("parrot_nb.bench", workload, "--model", PREFIX + model, "--device", device, "--dtype", dtype, *more, *size)
        return Command(name, arguments, limit_s)

    def tests(name: str, *what: str, limit_s: float) -> Command:
        return Command(name, ("pytest", "-q", "-p", "no:cacheprovider", *what), limit_s, measures=False)

    def off(*names: str) -> tuple[str, ...]:
        return ("--off", ",".join(names[:1] if rehearse else names))

    match part:
        case "kernels":
            case_ = ("--case", "3,64,10", "--repeat", "1") if rehearse else ()
            on_stand_in = ("tests/engine/test_standin.py",)
            return [
                tests("kernel tests", *(on_stand_in if rehearse else ("-m", "gpu", "tests/kernels")), limit_s=250),
                Command("kernels", ("parrot_nb.bench", "kernels", "--device", device, *case_), 250),
            ]
        case "engine":
            on_stand_in = ("tests/engine/test_gpu_work.py",)
            return [
                tests("engine tests", *(on_stand_in if rehearse else ("-m", "gpu", "tests/engine")), limit_s=250),
                bench("step", "unshared", "--users", "16", *off("graphs", "lookahead", "fused")),
            ]
        case "single":
            return [
                bench("single small", "single", "--systems", "parrot" if rehearse else "parrot,hf"),
                bench("single large", "single", model=large),
            ]
        case "apps":
            wide = ("--users", "64", "--shared", "4096", "--own", "64", "--out", "64")
            return [
                bench("copilot", "copilot", *wide, *off("two_phase", "graphs", "fused", "lookahead"), limit_s=200),
                bench("multi_agent", "multi_agent", limit_s=100),
                bench("mixed", "mixed", limit_s=100),
                bench("pipeline", "pipeline", *off("streaming"), limit_s=100),
            ]
    raise ValueError(part)


Run = Callable[[Command, Path, float], tuple[int | None, str]]


def run_command(command: Command, into: Path, limit_s: float) -> tuple[int | None, str]:
    """Run a command in a process of its own; returns its exit status, None where it was cut off, and what it printed."""
    given = [sys.executable, "-m", *command.arguments]
    if command.measures:
        given += ["--json", str(into / f"{command.name}.json".replace(" ", "_"))]
    try:
        done = subprocess.run(given, capture_output=True, text=True, timeout=limit_s, check=False)  # noqa: S603 - our own commands
    except subprocess.TimeoutExpired as error:
        return None, error.stdout.decode(errors="replace") if isinstance(error.stdout, bytes) else error.stdout or ""
    return done.returncode, done.stdout + done.stderr


class Plan:
    """Plan of a GPU run: what is to be run, and what has been.

    Args:
        into: the folder of all files.
        rehearse: on a CPU.
        run: runs a command.
        clock: seconds.
    """

    def __init__(
        self, into: Path, *, rehearse: bool, run: Run = run_command, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._into, self._rehearse, self._run, self._clock = into, rehearse, run, clock
        into.mkdir(parents=True, exist_ok=True)
        self._file = into / STATE
        self._done: dict[str, Any] = json.loads(self._file.read_text(encoding="utf-8")) if self._file.is_file() else {}
        if self._done.get("rehearsed", rehearse) != rehearse:
            raise ValueError(f"{into} holds what was {'measured' if rehearse else 'rehearsed'}: give --into another folder.")
        self._done["rehearsed"] = rehearse

    def part(self, name: str, say: Callable[[str], None]) -> bool:
        """Run what is left of a part; returns True if all of it has ended well."""
        end, well = self._clock() + PART_S, True
        results = self._done.setdefault(name, {})
        for command in commands(name, rehearse=self._rehearse):
            if results.get(command.name, {}).get("status") == "ok":
                say(f"{command.name}: done before")
                continue
            left_s = end - self._clock()
            if left_s < 5:
                say(f"{command.name}: not begun, since the part has had {PART_S:.0f} s; run it again to go on")
                return False
            result = results[command.name] = self._outcome(command, min(left_s, command.limit_s))
            well = well and result["status"] == "ok"
            say(f"{command.name}: {result['status']} after {result['seconds']:.0f} s")
            self._keep()
        return well

    def _outcome(self, command: Command, limit_s: float) -> dict[str, Any]:
        if command.arguments[0] == "pytest" and importlib.util.find_spec("pytest") is None:
            return {"status": NEEDS_PYTEST, "seconds": 0.0, "command": " ".join(command.arguments)}
        start_s = self._clock()
        code, printed = self._run(command, self._into, limit_s)
        (self._into / f"{command.name}.txt".replace(" ", "_")).write_text(printed, encoding="utf-8")
        status = "ok" if code == 0 else "cut off" if code is None else f"failed with {code}"
        last = next((line for line in reversed(printed.splitlines()) if line.strip()), "")
        seconds = self._clock() - start_s
        return {"status": status, "seconds": seconds, "command": "python -m " + " ".join(command.arguments), "last": last}

    def _keep(self) -> None:
        self._file.write_text(json.dumps(self._done, indent=1) + "\n", encoding="utf-8")
        figures = {"machine": machine(), **self._done, "figures": self._figures()}
        (self._into / FIGURES).write_text(json.dumps(figures, indent=1) + "\n", encoding="utf-8")
        (self._into / TABLE).write_text(render(figures), encoding="utf-8")

    def _figures(self) -> dict[str, Any]:
        found = {}
        for part in PARTS:
            for command in commands(part, rehearse=self._rehearse):
                file = self._into / f"{command.name}.json".replace(" ", "_")
                if self._done.get(part, {}).get(command.name, {}).get("status") == "ok" and file.is_file():
                    found[command.name] = json.loads(file.read_text(encoding="utf-8"))
        return found


def weight_bytes(shape: str) -> int:
    """Bytes of weights that a decode step of a model reads, in bfloat16; see `SHAPES`."""
    config = SHAPES[shape]
    hidden, heads, kv_heads = (config[f"{name}"] for name in ("hidden_size", "num_attention_heads", "num_key_value_heads"))
    dim = config.get("head_dim", hidden // heads)
    layer = hidden * dim * (2 * heads + 2 * kv_heads) + 3 * hidden * config["intermediate_size"]
    return int(BYTES * (config["num_hidden_layers"] * layer + config["vocab_size"] * hidden))


def render(found: Mapping[str, Any]) -> str:
    """Render the findings as Markdown."""
    here = found["machine"]
    versions = ", ".join(f"{name} {version}" for name, version in here["versions"].items())
    device = "A rehearsal on a CPU: nothing here is a figure of a GPU." if found["rehearsed"] else f"{here['gpu']}"
    lines = [f"# GPU run, {here['date']}", "", f"{device} {here['processor']}, {here['cores']} cores; {versions}", ""]
    lines += ["| part | command | result | seconds | last line |", "|---|---|---|---|---|"]
    for part in PARTS:
        for name, result in found.get(part, {}).items():
            last = result.get("last", "").replace("|", "/")[:120]
            lines.append(f"| {part} | {name} | {result['status']} | {result['seconds']:.0f} | {last} |")
    figures = found["figures"]
    ceiling = None
    if "kernels" in figures:
        lines += [
            "",
            "| attention case | system | us per layer | share of a copy's bandwidth | TFLOP/s |",
            "|---|---|---|---|---|",
        ]
        for one in figures["kernels"]["figures"]:
            ceiling = one["ceiling_bytes_per_s"]
            share = one["ideal_bytes"] / one["seconds"] / ceiling
            flops = one["flop"] / one["seconds"] / 1e12
            lines.append(f"| {one['case']} | {one['system']} | {one['seconds'] * 1e6:.1f} | {share:.0%} | {flops:.2f} |")
    runs = [(name, result) for name, result in figures.items() if name != "kernels"]
    if runs:
        lines += ["", "| run | model | system | tokens/s | share of the bandwidth bound of one stream |", "|---|---|---|---|---|"]
        lines += [line for name, result in runs for line in _rows(name, result, ceiling)]
    return "\n".join(lines) + "\n"


def _rows(name: str, result: Mapping[str, Any], ceiling: float | None) -> list[str]:
    """Lines of a benchmark: its best cold run. The bound of one stream is what reading all weights once for each token allows."""
    lines, shape = [], result["model"].removeprefix(PREFIX)
    for row in result["rows"]:
        cold = [run for run in row["runs"] if run["cold"]]
        if not cold:
            lines.append(f"| {name} | {shape} | {row['system']} | did not run: {row['error']} | |")
            continue
        pace = max(run["decoded_tokens"] / run["seconds"] for run in cold)
        is_single = result["workload"] == "single" and ceiling is not None and shape in SHAPES
        share = f"{pace * weight_bytes(shape) / ceiling:.0%}" if is_single and ceiling is not None else ""
        lines.append(f"| {name} | {shape} | {row['system']} | {pace:.0f} | {share} |")
    return lines


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def main(arguments: Sequence[str]) -> int:
    """The command's line after `gpu`."""
    line = argparse.ArgumentParser(prog="python -m parrot_nb.bench gpu", description=(__doc__ or "").partition("\n")[0])
    line.add_argument("--part", choices=PARTS, help="one of the parts; all in order if not given")
    line.add_argument("--into", type=Path, help="folder of all files: build/gpu, or build/gpu-rehearsal")
    line.add_argument("--rehearse", action="store_true", help="on a CPU and on a stand-in for a device, small")
    line.add_argument("--again", action="store_true", help="run again what has ended well before")
    asked = line.parse_args(arguments)
    import torch

    if not asked.rehearse and not torch.cuda.is_available():
        sys.stderr.write("There is no CUDA device here: make gpu REHEARSE=1 runs every part on the CPU.\n")
        return 2
    into = asked.into or Path("build/gpu-rehearsal" if asked.rehearse else "build/gpu")
    if asked.again:
        (into / STATE).unlink(missing_ok=True)
    try:
        plan = Plan(into, rehearse=asked.rehearse)
    except ValueError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    well = True
    for part in [asked.part] if asked.part else PARTS:
        well = plan.part(part, _say) and well  # one that fails does not keep the others from running
    sys.stdout.write(f"The table: {into / TABLE}\n")
    return 0 if well else 1
