"""Gated activations: torch against float64 and transformers; Triton interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from parrot_kernels.activation import KINDS, gated
from parrot_kernels.references_elementwise import gated_reference

KERNELS = Path(__file__).parents[2] / "kernels"
CHECK = """
import sys, torch
from parrot_kernels.activation import KINDS, gated, gated_triton
from parrot_kernels.references_elementwise import gated_reference
device = sys.argv[1]
torch.manual_seed(0)
for rows, width in [(1, 1), (3, 5), (7, 64), (2, 1030), (0, 8)]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        ulp = {torch.float32: 2.0**-20, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}[dtype]
        for kind in KINDS:
            gate_up = (torch.randn(rows, 2 * width + 3, device=device) * 3).to(dtype)[:, 1 : 2 * width + 1]
            out = gated_triton(gate_up, kind)
            assert out.shape == (rows, width) and out.dtype == dtype and out.is_contiguous()
            torch.testing.assert_close(out.double(), gated_reference(gate_up, kind), rtol=ulp, atol=1e-5)
sys.stdout.write("all close")
"""


def check(device: str, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(KERNELS), **environment}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, device], env=env, capture_output=True, text=True, timeout=200, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.cpu_kinds
@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(0, 5),
    width=st.integers(1, 40),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16, torch.float16]),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31),
)
def test_torch_against_float64(rows, width, dtype, kind, seed):
    generator = torch.Generator().manual_seed(seed)
    gate_up = (3 * torch.randn(rows, 2 * width + 2, generator=generator)).to(dtype)[:, 1:-1]
    out = gated(gate_up, kind)
    assert out.shape == (rows, width)
    assert out.dtype == dtype
    assert out.is_contiguous()
    tolerance = {8: 1e-12, 4: 1e-5, 2: 2.0**-6 if dtype == torch.bfloat16 else 2.0**-9}[dtype.itemsize]
    torch.testing.assert_close(out.double(), gated_reference(gate_up, kind), rtol=tolerance, atol=min(tolerance, 1e-5))


@pytest.mark.parametrize(("kind", "name"), [("silu", "silu"), ("gelu", "gelu"), ("gelu_tanh", "gelu_pytorch_tanh")])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_as_transformers(kind, name, dtype):
    from transformers.activations import ACT2FN

    gate_up = torch.randn(7, 64).to(dtype)
    gate, up = gate_up.chunk(2, dim=-1)
    assert torch.equal(gated(gate_up, kind), ACT2FN[name](gate) * up)


def test_what_does_not_fit_is_refused():
    with pytest.raises(ValueError, match="relu"):
        gated(torch.ones(2, 4), "relu")
    with pytest.raises(ValueError, match="5 columns"):
        gated(torch.ones(2, 5), "silu")


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert check("cpu", TRITON_INTERPRET="1") == "all close"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert check("cuda") == "all close"
