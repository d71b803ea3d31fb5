"""Memory of a loaded model, measured in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
LOADS = """
import os, sys, torch

def resident() -> int:
    return int(open("/proc/self/statm").read().split()[1]) * os.sysconf("SC_PAGE_SIZE")

before = resident()
from parrot_nb.engine.embedded import load_engine
engine = load_engine(sys.argv[1], device="cpu", dtype="bfloat16")
assert "weights laid out for oneDNN" in engine.model.swapped
print(resident() - before, "transformers" in sys.modules)
"""


def check_one_copy(folder: Path) -> None:
    """Assert that a checkpoint takes 1.3 times its weights and 100 MB at most, and is loaded without transformers."""
    done = subprocess.run(
        [sys.executable, "-c", LOADS, str(folder)],
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    taken, transformers = done.stdout.split()
    weights = sum(file.stat().st_size for file in folder.glob("*.safetensors"))
    assert int(taken) <= 1.3 * weights + 100e6
    assert transformers == "False"
