"""Tests of the engine that know of no GPU, with their engines on a stand-in for one."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

FOLDER = Path(__file__).parent


@pytest.mark.minutes
def test_choices_are_scored_on_a_stand_in():
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--device", "stand-in"]
    done = subprocess.run(
        [*command, str(FOLDER / "test_scored_choices.py")], cwd=FOLDER.parents[1], capture_output=True, text=True, timeout=280,
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-3000:]
    assert " passed" in done.stdout
    assert "failed" not in done.stdout
