"""Triton is imported where its kernels can run, and nowhere else."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch

from parrot_kernels import backend

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


class OnAGpu:
    """As much of a tensor as is asked."""

    is_cuda = True


def test_a_thread_does_without_triton_and_others_do_not(monkeypatch):
    monkeypatch.setattr(backend, "enabled", True)
    found = []
    with backend.without():
        with backend.without():
            pass
        assert not backend.serves(OnAGpu())
        other = threading.Thread(target=lambda: found.append(backend.serves(OnAGpu())))
        other.start()
        other.join()
    assert found == [True]
    assert backend.serves(OnAGpu())


NUMBERS = """
import triton
from parrot_kernels import norm, penalties
print(*[p.do_not_specialize for k in (norm._rms_norm_kernel, penalties._penalise_kernel) for p in k.params if p.name in ("num_rows", "N")])
"""


def test_numbers_that_change_from_step_to_step_compile_nothing():
    pytest.importorskip("triton")
    assert loaded(NUMBERS) == ["True", "True"]
