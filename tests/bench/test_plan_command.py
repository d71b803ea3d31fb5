"""The command that holds a plan's seconds against the real ones: what it prints, and what of it is no measurement."""

from __future__ import annotations

import re

import pytest

from parrot_nb.bench.__main__ import main
from parrot_nb.bench.plans import Trial, rows


def test_ratios_are_medians_and_the_worst_is_furthest_from_one():
    trials = [Trial(1.0, 1.1), Trial(2.0, 1.0), Trial(1.0, 1.5)]
    assert rows({"single": trials}) == [("single", "1.00 s", "1.10 s", "1.10", "0.50")]


def test_a_plan_of_no_seconds_has_no_ratio():
    assert rows({"single": [Trial(0.0, 1.0)]}) == [("single", "0.00 s", "1.00 s", "-", "-")]
    assert rows({"single": [Trial(0.0, 1.0), Trial(1.0, 2.0)]}) == [("single", "0.50 s", "1.50 s", "2.00", "2.00")]


@pytest.mark.slow
def test_each_application_is_planned_and_run(capsys):
    assert main(["plan", "--model", "default", "--workloads", "single", "--repeat", "1"]) == 0
    header, row, _, bound, _ = capsys.readouterr().out.splitlines()
    assert re.split(r"\s{2,}", header) == ["application", "planned", "took", "took / planned", "worst"]
    assert re.fullmatch(r"single\s+\d+\.\d\d s\s+\d+\.\d\d s\s+\d+\.\d\d\s+\d+\.\d\d", row)
    assert re.fullmatch(r"[01] of 1 plans within 20% of the real time, on default in float32", bound)


@pytest.mark.parametrize(
    ("arguments", "said"), [(["--workloads", "nothing"], "no workload 'nothing'"), (["--repeat", "0"], "at least 1")]
)
def test_mistakes_are_said(capsys, arguments, said):
    assert main(["plan", *arguments]) == 2
    assert said in capsys.readouterr().err
