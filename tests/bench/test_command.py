"""`python -m parrot_nb.bench`, its table and its JSON."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_nb.bench import Result, Row, Run, Sizes, footer, render, runner
from parrot_nb.bench.runner import check_systems
from parrot_nb.bench.table import cells
from parrot_nb.bench.worker import open_session
from parrot_nb.tiny import default_model

ROOT = Path(__file__).parents[2]


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    return subprocess.run(
        [sys.executable, "-m", "parrot_nb.bench", *arguments], env=env, capture_output=True, text=True, timeout=250, check=False
    )


@pytest.mark.slow
def test_the_whole_way(tmp_path):
    file = tmp_path / "figures.json"
    sizes = ["--users", "2,3", "--shared", "60"]
    done = bench(
        "copilot", "--systems", "parrot,hf,http://127.0.0.1:9/v1", "--off", "sharing", "--on", "memo", "--model", "default", "--dtype", "float32",
        "--repeat", "2", "--device", "cpu", "--json", str(file), *sizes,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].split()[:2] == ["system", "dtype"]
    assert [line.split("  ")[0] for line in lines[1:11]] == [
        f"{system} ({users} users)"
        for users in (2, 3)
        for system in ("parrot", "hf", "http://127.0.0.1:9/v1", "parrot -sharing", "parrot +memo")
    ]
    assert "check the address" in lines[3]
    assert re.split(r"\s{2,}", lines[2])[-2:] == ["2 of 2", "2 of 2"], "the same as ours, and right"
    figures = json.loads(file.read_text())
    parrot, hf, server, alone, memo = figures["rows"][:5]
    assert [len(row["runs"]) for row in (parrot, hf, server, alone)] == [4, 2, 0, 4]
    assert len({run["decoded_tokens"] for row in (parrot, hf, alone) for run in row["runs"]}) == 1
    assert all(run["right"] == 2 for row in (parrot, hf, alone) for run in row["runs"])
    assert alone["runs"][0]["reused_tokens"] == 0 < parrot["runs"][0]["reused_tokens"]
    assert parrot["runs"][1]["cold"] is False
    assert [run["decoded_tokens"] for run in memo["runs"]] == [parrot["runs"][0]["decoded_tokens"], 0] * 2
    assert [run["texts"] for run in memo["runs"]] == [parrot["runs"][0]["texts"]] * 4
    if sys.platform == "linux":
        assert all(run["cpu_s"] > 0 for row in (parrot, hf, alone) for run in row["runs"])
    assert figures["machine"]["cores"] == os.cpu_count()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing"], "no workload 'nothing'"),
        (["copilot", "--systems", "parrot,vllm"], "no system 'vllm'"),
        (["copilot", "--off", "magic"], "no optimisation 'magic'"),
        (["copilot", "--on", "magic"], "no 'magic' to turn on"),
        (["copilot", "--dtype", "int4"], "no dtype 'int4'"),
        (["copilot", "--users", "0"], "--users must be at least 1"),
        (["copilot", "--repeat", "0"], "--repeat must be at least 1"),
        (["copilot", "--model", "random:gpt-9"], "no random model 'gpt-9'"),
        (["copilot", "--json", "/no/such/folder/x.json"], "give --json another"),
    ],
)
def test_mistakes_are_one_sentence(arguments, told):
    done = bench(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1


def test_what_the_user_says_twice_runs_once():
    assert check_systems(["parrot", "hf", "parrot"], ["sharing", "sharing"]) == ["parrot", "hf", "parrot -sharing"]


def test_the_warm_up_is_as_large_as_any_size_that_is_measured(monkeypatch):
    """Threads, memory and compiled code are then as they will be in every run that counts."""
    ran: list[Sizes] = []

    class Worker:
        error = None

        def __init__(self, *_: object) -> None: ...

        def run(self, _workload: str, sizes: Sizes, *, cold: bool) -> Run:
            ran.append(sizes)
            return Run(cold, 1.0, 1, 0, 1, ("a",))

        def close(self) -> None: ...

    monkeypatch.setattr(runner, "_Worker", Worker)
    monkeypatch.setattr(runner, "find_model", lambda _: None)
    swept = [Sizes(chunk=chunk, apps=apps, rate=3, seed=2) for chunk, apps in ((64, 1), (512, 1), (64, 4))]
    runner.run("chain", dtype="float32", sizes=swept, repeat=1, warm=False)
    small, whole, *measured = ran
    assert measured == swept
    assert whole == Sizes(chunk=512, apps=4, seed=2)
    assert (small.chunk, small.apps) == (64, 4)


def test_a_row_of_quantised_weights_is_named_by_them_and_promises_no_equal_text(monkeypatch):
    started: list[tuple[str, str]] = []

    class Worker:
        error = None

        def __init__(self, system: str, dtype: str, *_: object) -> None:
            started.append((system, dtype))

        def run(self, _workload: str, _sizes: Sizes, *, cold: bool) -> Run:
            return Run(cold, 1.0, 1, 0, 1, ("a",))

        def close(self) -> None: ...

    monkeypatch.setattr(runner, "_Worker", Worker)
    monkeypatch.setattr(runner, "find_model", lambda _: None)
    for dtype in ("float32", "best"):
        started.clear()
        result = runner.run("chain", systems=["parrot"], on=["int8", "int4"], device="cpu", dtype=dtype, repeat=1, warm=False)
        assert started[-2:] == [("parrot +int8", "int8"), ("parrot +int4", "int4")]
        assert [row.dtype for row in result.rows][1:] == ["int8", "int4"]
        assert [line[13] for line in cells(result)] == ["", "", ""]


def test_a_reproducible_row_runs_a_reproducible_engine():
    found = {}
    for on in ((), ("reproducible",)):
        with open_session("parrot", model="default", dtype="bfloat16", device="cpu", kv_memory="32MB", on=on) as session:
            found[on] = "row by row in fixed blocks" in str(session.load_model(str(default_model())).swapped)
    assert found == {(): False, ("reproducible",): True}


def row(system: str, seconds: list[float], *, error: str | None = None, dtype: str = "float32", texts=("a", "b")) -> Row:
    return Row(
        system,
        dtype,
        Sizes(),
        [
            Run(cold=True, seconds=s, prefilled_tokens=10, reused_tokens=2, decoded_tokens=100, texts=texts, cpu_s=1.5 * s)
            for s in seconds
        ],
        error,
    )


def test_figures_of_the_table():
    result = Result(
        "copilot",
        "model",
        [
            row("parrot", [1.0, 2.0, 4.0]),
            row("hf", [9.0, 8.0, 10.0], texts=("a", "c")),
            row("hf-cb", [6.0]),
            row("parrot -fused", [], error="it broke"),
        ],
    )
    table = cells(result)
    assert table[0][2:9] == ("2.00", "1.00-4.00", "3.00", "50", "", "3.00", "4.50")
    assert table[1][2:9] == ("9.00", "8.00-10.00", "13.50", "11", "", "0.67", "1.00")
    assert table[1][13] == "1 of 2"
    assert table[3][2] == "did not run: it broke"
    text = render(result)
    assert len({line.index("prefilled") for line in text.splitlines() if "prefilled" in line}) == 1
    assert render(result, markdown=True).splitlines()[1].count("---") == 15


def test_the_footer_says_how_a_dtype_was_chosen():
    trials_s = {"parrot": {"bfloat16": 2.0, "float32": 1.5}, "hf": {"bfloat16": None, "float32": 8.0}}
    told = footer(Result("copilot", "model", [], trials_s))
    assert "(parrot: bfloat16 2.00 s, float32 1.50 s; hf: bfloat16 failed, float32 8.00 s)" in told
    assert "dtype" not in footer(Result("copilot", "model", []))


def test_importing_the_bench_loads_no_torch():
    code = "import sys, parrot_nb.bench; sys.exit('torch' in sys.modules)"
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"}
    assert subprocess.run([sys.executable, "-c", code], env=env, check=False).returncode == 0
