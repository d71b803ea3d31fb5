"""The table beside the paper's figures: made by the command, and in the document as the command prints it."""

from __future__ import annotations

import pytest

from parrot_nb.bench import __main__ as bench
from parrot_nb.bench import paper


def ratios(text: str) -> list[float]:
    return [float(part.removesuffix("x")) for part in text.split(" / ")]


def test_multi_agent_gains_more_the_more_files_there_are():
    latency, throughput, unshared = (ratios(figure.here) for figure in paper._multi_agent())
    assert latency == sorted(latency)
    assert latency[-1] >= 5
    assert all(a >= b >= c for a, b, c in zip(latency, throughput, unshared, strict=True))


def test_mixed_is_near_the_better_one_in_both():
    chat, _, reduce = (ratios(figure.here) for figure in paper._mixed())
    ours, throughput, latency = range(3)
    assert chat[ours] <= 1.2 * chat[latency] < chat[throughput]
    assert reduce[ours] <= 1.1 * reduce[throughput] < reduce[latency]


@pytest.mark.minutes
def test_the_command_prints_every_figure(capsys):
    assert bench.main(["paper"]) == 0
    printed = capsys.readouterr().out
    for number in ("11a", "11b", "12a", "12b", "14a", "14b", "17", "18a", "19"):
        assert f"| {number} " in printed
    assert "Microseconds a call" in printed


def test_only_what_was_asked_for_is_computed(monkeypatch, capsys):
    def refused(*_: object) -> object:
        raise AssertionError("not asked for")

    monkeypatch.setattr(paper, "SIMULATED", dict.fromkeys(paper.SIMULATED, refused) | {"18a": paper._multi_agent})
    monkeypatch.setattr(paper, "scheduling_us", refused)
    assert bench.main(["paper", "--only", "18a"]) == 0
    assert capsys.readouterr().out.count("| 18a ") == 3
