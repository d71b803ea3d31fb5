"""`python -m parrot_nb.bench neighbour`: what it prints, over tiny sizes."""

from __future__ import annotations

import os
import re

import pytest

from parrot_nb.bench.neighbour import SPINS, WAYS, Figures, main, rows


def test_it_prints_a_line_for_each_way_and_leaves_the_environment(capsys, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    monkeypatch.setenv(SPINS, "123")
    assert main(["--texts", "2", "--out", "2", "--repeat", "1"]) == 0
    printed = capsys.readouterr().out
    for way in WAYS:
        assert re.search(rf"^{way} +[\d.]+ s( +[\d.]+ s, [\d.]+ x){{3}}$", printed, re.MULTILINE), printed
    assert "2 texts of 2 tokens" in printed
    assert os.environ[SPINS] == "123"


def test_times_are_told_as_multiples_of_idle():
    assert rows({"way": Figures(2.0, 4.0, 3.0, 2.0)}) == [("way", "2.00 s", "4.00 s, 2.00 x", "3.00 s, 1.50 x", "2.00 s, 1.00 x")]


@pytest.mark.parametrize("option", ["--texts", "--out", "--repeat"])
def test_nothing_to_measure_is_refused(option, capsys):
    assert main([option, "0"]) == 2
    assert option in capsys.readouterr().err
