"""`python -m parrot_nb.bench busy`: the shape of what it prints, over tiny sizes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from parrot_nb.bench import busy
from parrot_nb.bench.busy import IDLE, LOADS, Figures, Sizes, footer, loads, render, rows

ROOT = Path(__file__).parents[2]
MADE = Figures(
    threads="1",
    first_token_s=4.04,
    texts_s={IDLE: 0.5, "Python loop": 0.6, "JSON parsing": 0.5},
    given_up=[],
    loop_alone_s=0.01,
    loop_beside_s=0.0112,
    get_s=0.0007,
    call_s=0.00009,
    call_made_s=0.00002,
    call_cpu_s=0.00012,
    join_s=0.00005,
    join_made_s=0.00001,
    join_cpu_s=None,
)


def bench(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", **environment}
    return subprocess.run(
        [sys.executable, "-m", "parrot_nb.bench", "busy", *arguments],
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )


@pytest.mark.slow
def test_both_kinds_are_measured_side_by_side(tmp_path):
    file = tmp_path / "figures.json"
    done = bench(
        "--texts", "2", "--out", "3", "--calls", "20", "--repeat", "1", "--limit", "20", "--device", "cpu", "--threads", "1", "--json", str(file),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    table, said = done.stdout.split("\n\n")
    lines = [re.split(r"\s{2,}", line) for line in table.splitlines()]
    assert lines[0] == ["", "process", "x idle", "thread", "x idle"]
    assert [line[0] for line in lines[1:]] == [
        f"2 texts, {IDLE}",
        *(f"beside {name}" for name in LOADS),
        "part of a Python loop, alone",
        "beside 16 texts",
        "memoised get()",
        "a memoised call of 20",
        "making it",
        "CPU time for it, both sides",
        "a join of 20",
        "making the join",
        "CPU time for the join, both sides",
        "first token of a fresh process",
    ]
    assert all(len(line) == 5 for line in lines if line[0].startswith("beside")), "each with its ratio"
    assert "OMP_NUM_THREADS=1" in said
    measured = json.loads(file.read_text())["figures"]
    assert list(measured) == ["process", "thread"]
    for figures in measured.values():
        assert list(figures["texts_s"]) == [IDLE, *LOADS]
        assert all(seconds > 0 for seconds in figures["texts_s"].values())


def test_the_table():
    thread = replace(MADE, texts_s={**MADE.texts_s, "Python loop": 60.0}, given_up=["Python loop"])
    lines = {line[0]: line[1:] for line in rows({"process": MADE, "thread": thread}, Sizes())}
    assert lines["beside Python loop"] == ("0.60 s", "1.20", "> 60.00 s", "> 120.00")
    assert lines["beside 16 texts"] == ("11.2 ms", "1.12", "11.2 ms", "1.12")
    assert lines["memoised get()"] == ("0.70 ms", "", "0.70 ms", "")
    assert lines["CPU time for it, both sides"] == ("120 us", "", "120 us", "")
    assert lines["CPU time for the join, both sides"] == ("", "", "", ""), "where nothing tells it"
    alone = rows({"thread": MADE}, Sizes())
    assert {line[1:3] for line in alone} == {("", "")}
    assert render(alone, markdown=True).splitlines()[1].count("---") == 5


def test_without_pandas_two_rows_are_left_out(monkeypatch):
    monkeypatch.setattr(busy.importlib.util, "find_spec", lambda _: None)
    assert list(loads()) == ["Python loop", "JSON parsing"]
    assert "without df.groupby().sum() and df.apply: pandas is not installed" in footer({"process": MADE}, "default")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--kinds", "process,cloud"], "no kind of runtime 'cloud'"),
        (["--texts", "0"], "--texts must be at least 1"),
        (["--model", "random:gpt-9"], "no random model 'gpt-9'"),
    ],
)
def test_mistakes_are_one_sentence(arguments, told):
    done = bench(*arguments)
    assert done.returncode == 2
    assert told in done.stderr
    assert done.stderr.count("\n") == 1
