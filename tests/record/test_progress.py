"""A line on a terminal while a script waits; nothing anywhere else."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_nb.engine.loads import LoadProgress
from parrot_nb.record.progress import Count
from parrot_nb.runtime import events

ROOT = Path(__file__).parents[2]
SCRIPT = """
import threading, time, parrot_nb as P
lock = threading.Lock()
@P.native_function
def slow(i):
    with lock:  # one after the other
        time.sleep(0.04)
with P.Session() as session:
    slow.map(list(range(60))).get()
    slow(1).get()
print("end")
"""


def environment() -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "COLUMNS": "70"}


@pytest.mark.parametrize("items", ["list(range(60))", "[{'i': n} for n in range(60)]"], ids=["list", "table"])
def test_a_script_on_a_terminal_shows_how_far_it_is_and_cleans_up(items):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", SCRIPT.replace("list(range(60))", items)]
    with subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, stderr=theirs, stdin=subprocess.DEVNULL) as script:
        os.close(theirs)
        written = b""
        while True:
            try:
                piece = os.read(ours, 65536)
            except OSError:  # Linux says so when the other end is closed
                break
            if not piece:
                break
            written += piece
        assert script.stdout is not None
        assert script.stdout.read().split() == [b"end"]
    os.close(ours)
    lines = [line.rstrip() for line in written.decode().split("\r")]
    counts = [tuple(map(int, m.groups())) for line in lines if (m := re.search(r"(\d+)/(\d+)", line))]
    assert counts, lines
    assert counts == sorted(counts)
    assert {total for _, total in counts} == {60}
    assert all(len(line) < 70 for line in lines)
    assert "\n" not in written.decode()
    assert lines[-1] == "", "the line is gone when the wait is over"


def test_without_a_terminal_nothing_is_written():
    done = subprocess.run([sys.executable, "-c", SCRIPT], env=environment(), capture_output=True, text=True, check=True)
    assert (done.stdout.split(), done.stderr) == (["end"], "")


def test_the_line_says_what_is_waited_for():
    log: list[events.Event] = [
        events.ModelChanged(10.0, "big-model", "loading"),
        events.CallAdded(10.0, 1, "write", "semantic", (), (2,), 1),
        events.CallChanged(10.0, 1, "running", "prefill"),
    ]
    count = Count()
    count.add(log)
    assert count.line(3.0, 13.0, 80) == "loading big-model · 3 s"
    half = LoadProgress("downloading", 2, 5, 120_000_000, 270_000_000, 5_000_000.0)
    count.add([events.ModelLoading(12.0, "big-model", half)])
    assert count.line(3.0, 13.0, 100) == "downloading big-model · 2 of 5 files · 120 of 270 MB · 5.0 MB/s · 30 s left"
    count.add([events.ModelLoading(12.0, "big-model", LoadProgress("packing"))])
    assert count.line(3.0, 13.0, 100) == "loading big-model · packing weights · 3 s"
    count.add([events.ModelChanged(14.0, "big-model", "ready"), events.TextAppended(15.0, 2, "ab", 1200)])
    assert count.line(4.0, 15.0, 80) == "write: 1,200 tokens, 4 s"
    count.add([events.CallAdded(15.0, 3, "write", "semantic", (), (4,), 1), events.CallChanged(16.0, 1, "done", "ended")])
    assert "1/2" in count.line(4.0, 16.0, 80)
    assert "calls" in count.line(4.0, 16.0, 80)
    assert len(count.line(4.0, 16.0, 20)) <= 20


def test_what_had_ended_before_the_wait_is_not_counted(make_calls):
    before = make_calls(5)
    count = Count(start=len(before))
    count.add(before)
    assert (count.num_calls, count.num_ended, count.num_tokens) == (0, 0, 0)
    count.add([events.CallAdded(9.0, 99, "f", "native", (), (100,), 2)])
    assert count.num_calls == 1
