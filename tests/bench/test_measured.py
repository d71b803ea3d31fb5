"""The paper's figures on the real engine: on sizes small enough for a test, in the processes that measure."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from parrot_nb import Session
from parrot_nb.bench import __main__ as bench
from parrot_nb.bench.latencies import latencies
from parrot_nb.bench.measured import Sweep, sweeps
from parrot_nb.bench.runner import Result, Row, Run
from parrot_nb.bench.worker import counter, run_once
from parrot_nb.bench.workloads import Sizes, text_writer
from parrot_nb.runtime.events import CallAdded, CallChanged, TextAppended

SMALL = Sizes(users=4, shared=40, own=8, out=4, chunks=3, chunk=20, files=2, turns=2)
NUMBER = r"\d+(\.\d+)?"


def small(number: str, index: int = 0) -> Sweep:
    """A sweep of that figure, on small sizes that differ in what it varies."""
    sweep = [sweep for sweep in sweeps() if sweep.number == number][index]
    varied = {name: [getattr(size, name) for size in sweep.sizes] for name in ("apps", "rate", "target")}
    return replace(
        sweep,
        sizes=[SMALL.but(**{name: max(min(v[i], 20), 0) for name, v in varied.items()}) for i in range(len(sweep.sizes))][:2],
    )


def test_every_figure_that_can_be_measured_is_there():
    assert {sweep.number for sweep in sweeps()} == {"11a", "11b", "12b", "14a", "14b", "15", "17", "18a", "19", ""}
    for sweep in sweeps():
        assert len(set(sweep.sizes)) == len(sweep.sizes)
        assert len(sweep.sizes) == 1 or sweep.setting.count("/") >= len(sweep.sizes) - 1, "the setting says what is varied"


@pytest.mark.minutes
def test_ratios_to_baselines():
    lines = small("12b").measure(1)
    assert [line.paper for line in lines] == ["", "1.38 / 1.52 / 1.63 / 1.68x for 10/15/20/25"]
    assert all(re.fullmatch(rf"{NUMBER}x / {NUMBER}x", line.here) for line in lines), lines
    assert "`generate` in static batches takes" in lines[0].setting


@pytest.mark.minutes
def test_requests_that_come_over_time():
    lines = small("17").measure(1)
    assert [line.setting.rpartition(": ")[2] for line in lines] == [
        f"{who}, ms a token with waiting" for who in ("parrot_nb", "parrot_nb without sharing", "throughput-centric")
    ]
    assert all(re.fullmatch(rf"{NUMBER} / {NUMBER}", line.here) for line in lines), lines


@pytest.mark.minutes
def test_chats_beside_a_map_reduce():
    lines = small("19").measure(1)
    assert [line.paper for line in lines] == ["45 / 78 / 41", "149 / 185 / 828", "23.2 / 24.5 / 86.4"]
    assert all(re.fullmatch(rf"{NUMBER} / {NUMBER} / {NUMBER}", line.here) for line in lines), lines


@pytest.mark.minutes
def test_streaming_where_it_gains_nothing():
    sweep = next(sweep for sweep in sweeps() if sweep.workload == "pipeline")
    (line,) = replace(sweep, sizes=[SMALL.but(users=1, out=40)]).measure(1)
    assert line.setting.endswith("parrot_nb with streaming takes")
    assert re.fullmatch(rf"{NUMBER}x", line.here)


@pytest.mark.minutes
def test_guesses_and_the_memo():
    lines = replace(next(sweep for sweep in sweeps() if sweep.model == "default"), sizes=[Sizes(chunks=2, chunk=60)]).measure(1)
    assert lines[-1].here.startswith("0 steps, ")
    assert re.fullmatch(rf"{NUMBER} / {NUMBER}", lines[-2].here)


def test_steps_with_guesses_are_those_of_runs_that_start_with_nothing():
    """A warm run guesses from the text of the run before it, which is the same."""
    sweep = next(sweep for sweep in sweeps() if "on what parrot-tiny knows" in sweep.setting)

    def row(system: str, cold_steps: int, warm_steps: int) -> Row:
        runs = [Run(cold, 1.0, 10, 0, 100, ("a",), steps=cold_steps if cold else warm_steps) for cold in (True, False) * 3]
        return Row(system, "float32", sweep.sizes[0], runs)

    rows = [row("parrot", 170, 170), row("hf", 0, 0), row("parrot +drafts", 57, 20), row("parrot +memo", 170, 0)]
    told = {line.setting.rpartition(": ")[2]: line.here for line in sweep.lines(Result("chain", "default", rows))}
    assert told["steps without guesses / with"] == "170 / 57"
    assert told["run again with the memo"] == "0 steps, 1000 ms"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--measured", "--only", "13"], "There is no figure '13' that is measured: choose from 11a, 11b, 12b, 14a,"),
        (["--measured", "--only", "12a"], "19, streaming, guesses, or leave out --measured."),
        (["--only", "15"], "There is no figure '15' that is simulated: choose from 11a, 11b, 12a,"),
        (["--only", "11a, guesses"], "18a, 19, scheduling, or add --measured."),
        (["--measured", "--repeat", "0"], "--repeat must be at least 1, not 0."),
        (["--repeat", "5"], "add --measured."),
    ],
)
def test_what_cannot_be_asked_for_is_refused_with_what_can(capsys, arguments, told):
    assert bench.main(["paper", *arguments]) == 2
    said = capsys.readouterr()
    assert told in said.err
    assert not said.out


def test_what_has_no_number_is_asked_for_by_name(monkeypatch, capsys):
    asked = []
    monkeypatch.setattr(Sweep, "measure", lambda sweep, repeat, _tell: asked.append((sweep.workload, repeat)) or [])
    assert bench.main(["paper", "--measured", "--only", "guesses,streaming", "--repeat", "2"]) == 0
    assert asked == [("pipeline", 2), ("chain", 2), ("map_reduce", 2), ("multi_agent", 2)]


def test_what_calls_took_is_read_from_the_log():
    log = [
        CallAdded(1.0, 7, "chat", "semantic", (), (70,), None),
        CallAdded(1.0, 8, "code", "native", (), (80,), None),
        CallChanged(2.0, 7, "pending", "queued", None, None),
        CallChanged(2.5, 7, "running", "prefill", None, None),
        TextAppended(3.0, 70, "a", 1),
        TextAppended(3.1, 70, "bc", 2),
        TextAppended(3.5, 70, "d", 1),
        TextAppended(3.6, 80, "x", 0),
        CallChanged(4.0, 7, "done", "ended", None, None),
        CallAdded(5.0, 9, "chat", "semantic", (), (90,), None),  # does not end
    ]
    found = latencies(log)
    assert set(found) == {"chat"}
    chat = found["chat"]
    assert (chat.calls, chat.last_s) == (1, 3.0)
    assert chat.per_token_s == pytest.approx(2.0 / 4)
    assert chat.tpot_s == pytest.approx((0.05 + 0.05 + 0.4) / 3)
    assert chat.tpot_p95_s == pytest.approx(0.05), "of three the second: the last is beyond 95 of 100"


def test_applications_at_once_requests_over_time_and_targets():
    with Session(dtype="float32", device="cpu", off=("memo",)) as session:
        write = text_writer(counter(session), 0)
        one, two = (run_once(session, "chain", SMALL.but(apps=apps), write) for apps in (1, 2))
        assert (len(two["texts"]), two["texts"][0], two["decoded"]) == (2, one["texts"][0], 2 * one["decoded"])
        at_once, over_time = (run_once(session, "gpts", SMALL.but(rate=rate), write) for rate in (0, 50))
        assert over_time["texts"] == at_once["texts"]
        session.reset()
        chats = run_once(session, "mixed", SMALL.but(apps=2, target=30), write)
        assert set(chats["latencies"]) == {"chat", "map", "reduce"}
        assert chats["latencies"]["chat"]["calls"] == 2 * SMALL.turns
        paces = {call.name: call.outputs[0].target for call in session.calls() if call.outputs[0].target is not None}
        assert set(paces) == {"chat"}
        assert paces["chat"].tpot_s == pytest.approx(0.03)
