"""Triton is imported where its kernels can run, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
LOADED = "import sys; from parrot_kernels.backend import triton; print('triton' in sys.modules, triton is not None)"


def loaded(code: str = LOADED, **env: str) -> list[str]:
    kept = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-c", code]
    whole = {**kept, "PYTHONPATH": str(ROOT / "kernels"), **env}
    done = subprocess.run(command, env=whole, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout.split()


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_without_a_gpu_it_is_not_imported():
    assert loaded() == ["False", "False"]


def test_it_is_imported_for_the_interpreter_and_for_who_compiles():
    pytest.importorskip("triton")
    assert loaded(TRITON_INTERPRET="1") == ["True", "True"]
    assert loaded(f"import triton; {LOADED}") == ["True", "True"]
