"""RMS norm: torch against float64 and transformers; Triton against torch, interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from parrot_kernels.norm import rms_norm
from parrot_kernels.references_elementwise import rms_norm_reference

KERNELS = Path(__file__).parents[2] / "kernels"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
ULP = {torch.float64: 2.0**-52, torch.float32: 2.0**-23, torch.float16: 2.0**-10, torch.bfloat16: 2.0**-7}
CHECK = """
import sys, torch
from parrot_kernels.norm import rms_norm_triton
from parrot_kernels.references_elementwise import rms_norm_reference
device = sys.argv[1]
torch.manual_seed(0)
for rows, dim in [(1, 1), (3, 5), (7, 64), (9, 100), (2, 1030), (1, 5000), (0, 8)]:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        ulp = {torch.float32: 2.0**-20, torch.float16: 2.0**-9, torch.bfloat16: 2.0**-6}[dtype]
        for wide in (False, True):
            x = (torch.randn(rows, 2, dim + 3, device=device) * 3).to(dtype)[:, :, :dim]
            residual, weight = torch.randn(rows, 2, dim, device=device).to(dtype), torch.randn(dim, device=device).to(torch.float32 if wide else dtype)
            out = rms_norm_triton(x, weight, 1e-6)
            torch.testing.assert_close(out.double(), rms_norm_reference(x, weight, 1e-6), rtol=ulp, atol=1e-6)
            out, h = rms_norm_triton(x, weight, 1e-6, residual)
            assert out.is_contiguous() and h.is_contiguous() and out.dtype == dtype
            # Triton's interpreter truncates where it should round to bfloat16
            torch.testing.assert_close(h, x + residual, rtol=ulp if (device, dtype) == ("cpu", torch.bfloat16) else 0, atol=0)
            torch.testing.assert_close(out.double(), rms_norm_reference(h, weight, 1e-6), rtol=ulp, atol=1e-6)
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
    shape=st.lists(st.integers(1, 5), max_size=2),
    dim=st.integers(1, 70),
    dtype=st.sampled_from([torch.float64, *DTYPES]),
    wide=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_torch_against_float64(shape, dim, dtype, wide, seed):
    generator = torch.Generator().manual_seed(seed)
    x, residual, weight = (torch.randn(s, generator=generator).to(dtype) for s in ((*shape, dim), (*shape, dim), (dim,)))
    weight = weight.float() if wide else weight
    out, h = rms_norm(x, weight, 1e-5, residual)
    assert torch.equal(h, x + residual)
    assert torch.equal(out, rms_norm(h, weight, 1e-5))
    assert out.dtype == dtype
    if wide and dtype.itemsize == 2:
        wide_out = rms_norm(h.float(), weight, 1e-5)
        assert torch.equal(out, wide_out.to(dtype)), "it is rounded once"
    want = rms_norm_reference(h, weight, 1e-5)
    torch.testing.assert_close(out.double(), want, rtol=8 * ULP[dtype] if dtype.itemsize > 2 else 2 * ULP[dtype], atol=1e-7)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("wide", [False, True])
def test_as_transformers(dtype, wide):
    from transformers.models.gemma.modeling_gemma import GemmaRMSNorm
    from transformers.models.llama.modeling_llama import LlamaRMSNorm

    torch.manual_seed(1)
    module = (GemmaRMSNorm if wide else LlamaRMSNorm)(96, eps=1e-6).to(dtype)
    torch.nn.init.normal_(module.weight)
    x = torch.randn(33, 96).to(dtype) * 4
    weight = module.weight.detach()
    out = rms_norm(x, 1 + weight.float() if wide else weight, 1e-6)
    tolerance = 1e-6 if dtype == torch.float32 else ULP[dtype]
    torch.testing.assert_close(out, module(x).detach(), rtol=tolerance, atol=1e-6)


def test_what_does_not_fit_is_refused():
    x = torch.ones(2, 4)
    with pytest.raises(ValueError, match="weight"):
        rms_norm(x, torch.ones(3), 1e-6)
    with pytest.raises(ValueError, match="weight"):
        rms_norm(x, torch.ones(4).half(), 1e-6)
    with pytest.raises(ValueError, match="residual"):
        rms_norm(x, torch.ones(4), 1e-6, torch.ones(1, 4))


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert check("cpu", TRITON_INTERPRET="1") == "all close"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert check("cuda") == "all close"
