"""Memory that SmolLM2 takes once it is loaded: one copy of its weights, and little else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = [pytest.mark.real, pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")]
ROOT = Path(__file__).parents[2]

LOADS = """
import os, sys, torch

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
from parrot_nb.engine.embedded import load_engine
engine = load_engine(sys.argv[1], device="cpu", dtype="bfloat16")
assert engine.model.swapped
print(resident() - before, "transformers" in sys.modules)
"""


def test_one_copy_of_the_weights_and_a_hundred_megabytes(smollm2_folder):
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(smollm2_folder)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    taken, transformers = done.stdout.split()
    weights = sum(file.stat().st_size for file in smollm2_folder.glob("*.safetensors"))
    assert int(taken) <= 1.3 * weights + 100e6
    assert transformers == "False"
