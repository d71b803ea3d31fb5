"""The solution of every exercise passes its own check, where a reader would run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_nb.lessons import lesson
from parrot_nb.lessons.content import numbers

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_every_solution_is_right(tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "IPYTHONDIR": str(tmp_path),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("solve.py"))],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert [int(number) for number in found] == numbers()
    for number in numbers():
        told = found[str(number)]
        expected = {str(i): True for i in range(1, len(lesson(number).exercises) + 1)}
        assert told == {"right": expected, "errors": []}, f"lesson {number}"
