"""`python -m parrot_nb.bench rows` and `calls`: tiny sizes, and how figures are told."""

from __future__ import annotations

import pytest

from parrot_nb.bench.__main__ import main
from parrot_nb.bench.parts import PARTS, render
from parrot_nb.bench.rows import Figures, Memory, compared_line, memory_line


@pytest.mark.slow
def test_a_map_writes_what_the_engine_alone_writes(capsys):
    assert main(["rows", "--rows", "20", "--part", "10", "--out", "3", "--kinds", "thread"]) == 0
    line = capsys.readouterr().out.splitlines()[0]
    assert line.startswith("thread: 20 rows: engine ")
    assert "times; CPU time" in line


@pytest.mark.slow
def test_each_part_of_a_call_takes_some_time(capsys):
    assert main(["calls", "--calls", "20", "--repeat", "1"]) == 0
    header, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert header.split()[-2:] == ["call", "join"]
    assert [line.split(":")[0] for line in lines[:-1]] == list(PARTS)
    assert all(float(line.split()[-2]) > 0 for line in lines)
    assert [line.split(":")[0] for line in lines if float(line.split()[-1]) == 0] == ["prompt"]  # which a join has not


@pytest.mark.parametrize("command", ["rows", "calls"])
def test_an_unknown_kind_is_refused_in_a_sentence(command, capsys):
    assert main([command, "--kinds", "cloud"]) == 2
    assert "'cloud': choose from" in capsys.readouterr().err


def test_what_is_made_or_of_the_prompt_is_no_part_of_scheduling_and_wire():
    seconds = dict(zip(PARTS, (1e-5, 2e-6, 3e-6, 2e-5, 4e-6, 5e-6), strict=True))
    assert render({"join": seconds}).splitlines()[-1].split()[-1] == "14.0"


def test_figures_are_told_in_a_sentence():
    figures = Figures(10.0, 11.0, 1.1, 9.0, 9.9, 1.1, 100)
    assert compared_line("process", figures) == (
        "process: 100 rows: engine 10.00 s, map 11.00 s, 1.100 times; CPU time 9.00 s and 9.90 s, 1.100 times"
    )
    assert Memory(1, 2, (40.0, 300.0), (50.0, 310.0)).grown_mb == 20.0
    assert memory_line("thread", Memory(1, 2, (40.0, 300.0), (50.0, 310.0))).endswith("310 MB after 2: +20 MB")
