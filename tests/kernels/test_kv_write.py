"""The Triton KV write: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

KERNELS = Path(__file__).parents[2] / "kernels"
CHECK = """
import sys, torch
from parrot_kernels.kv_write import write_kv_triton
device = sys.argv[1]
torch.manual_seed(0)
for heads, k_dim, v_dim, rows, slots in [(1, 8, 8, 1, 4), (2, 5, 7, 6, 40), (3, 64, 64, 17, 64), (8, 128, 128, 3, 9)]:
    for dtype in (torch.float32, torch.float16):
        key = torch.randn(heads, rows, k_dim, device=device).to(dtype).transpose(0, 1)
        value = torch.randn(rows, heads, v_dim, device=device).to(dtype)
        k_cache = torch.full((slots, heads, k_dim), float("nan"), device=device, dtype=dtype)
        v_cache = torch.full((slots, heads, v_dim), float("nan"), device=device, dtype=dtype)
        where = torch.randperm(slots, device=device)[:rows]
        write_kv_triton(key, value, k_cache, v_cache, where)
        assert torch.equal(k_cache[where], key) and torch.equal(v_cache[where], value), (heads, k_dim, dtype)
        rest = [i for i in range(slots) if i not in where.tolist()]
        assert k_cache[rest].isnan().all() and v_cache[rest].isnan().all(), "wrote outside its slots"
sys.stdout.write("all equal")
"""


def check(device: str, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(KERNELS), **environment}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, device], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert check("cpu", TRITON_INTERPRET="1") == "all equal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert check("cuda") == "all equal"
