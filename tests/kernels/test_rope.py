"""Rotation and KV write: torch against float64 and transformers; Triton interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from parrot_kernels.references_elementwise import rms_norm_reference, rotated_reference
from parrot_kernels.rope import rope_and_write

KERNELS = Path(__file__).parents[2] / "kernels"
CHECK = """
import sys, torch
from parrot_kernels.references_elementwise import rms_norm_reference, rotated_reference
from parrot_kernels.rope import rope_and_write_triton
device = sys.argv[1]
torch.manual_seed(0)
shapes = [(1, 1, 1, 2, 2, 2), (5, 4, 2, 6, 7, 4), (3, 6, 3, 64, 48, 32), (2, 32, 8, 128, 128, 128), (0, 2, 1, 8, 8, 8)]
for rows, heads, kv_heads, k_dim, v_dim, rotary_dim in shapes:
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        close = {torch.float32: 1e-5, torch.float16: 2.0**-8, torch.bfloat16: 2.0**-5}[dtype]
        for norm in (None, dtype, torch.float32):
            sizes = [heads * k_dim, kv_heads * k_dim, kv_heads * v_dim]
            query, key, value = torch.randn(rows, sum(sizes), device=device).to(dtype).split(sizes, dim=1)
            query, key, value = query.view(rows, heads, k_dim), key.view(rows, kv_heads, k_dim), value.view(rows, kv_heads, v_dim)
            cos, sin = torch.rand(2, rows, rotary_dim, device=device).to(dtype)
            weights = torch.randn(2, k_dim, device=device).to(norm or dtype)
            k_cache = torch.full((rows + 5, kv_heads, k_dim), float("nan"), device=device, dtype=dtype)
            v_cache = torch.full((rows + 5, kv_heads, v_dim), float("nan"), device=device, dtype=dtype)
            slots = torch.randperm(rows + 5, device=device)[:rows]
            options = {"q_weight": weights[0], "k_weight": weights[1], "eps": 1e-5} if norm else {}
            out = rope_and_write_triton(query, key, value, cos, sin, k_cache, v_cache, slots, **options)
            assert out.shape == query.shape and out.is_contiguous() and out.dtype == dtype
            if norm:
                query, key = rms_norm_reference(query, weights[0], 1e-5), rms_norm_reference(key, weights[1], 1e-5)
            torch.testing.assert_close(out.double(), rotated_reference(query, cos, sin), rtol=close, atol=close)
            torch.testing.assert_close(k_cache[slots].double(), rotated_reference(key, cos, sin), rtol=close, atol=close)
            assert torch.equal(v_cache[slots], value)
            rest = [i for i in range(rows + 5) if i not in slots.tolist()]
            assert k_cache[rest].isnan().all() and v_cache[rest].isnan().all(), "wrote outside its slots"
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
    rows=st.integers(0, 4),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    half=st.integers(1, 8),
    passing=st.integers(0, 5),
    v_dim=st.integers(1, 9),
    dtype=st.sampled_from([torch.float64, torch.float32, torch.bfloat16]),
    norm=st.sampled_from(["", "narrow", "wide"]),
    fused=st.booleans(),
    seed=st.integers(0, 2**31),
)
def test_torch_against_float64(rows, kv_heads, group, half, passing, v_dim, dtype, norm, fused, seed):
    torch.manual_seed(seed)
    k_dim = 2 * half + passing
    sizes = [kv_heads * group * k_dim, kv_heads * k_dim, kv_heads * v_dim]
    parts = torch.randn(rows, sum(sizes)).to(dtype).split(sizes, dim=1)
    query, key, value = (
        (part if fused else part.clone()).view(rows, heads, dim)
        for part, heads, dim in zip(parts, (kv_heads * group, kv_heads, kv_heads), (k_dim, k_dim, v_dim), strict=True)
    )
    cos, sin = torch.rand(2, rows, 2 * half).to(dtype)
    q_weight, k_weight = torch.randn(2, k_dim).to(torch.float32 if norm == "wide" else dtype)
    k_cache = torch.full((rows + 3, kv_heads, k_dim), float("nan"), dtype=dtype)
    v_cache = torch.full((rows + 3, kv_heads, v_dim), float("nan"), dtype=dtype)
    slots = torch.randperm(rows + 3)[:rows]
    before = query.clone(), key.clone(), value.clone()
    if norm:
        out = rope_and_write(query, key, value, cos, sin, k_cache, v_cache, slots, q_weight=q_weight, k_weight=k_weight, eps=1e-5)
    else:
        out = rope_and_write(query, key, value, cos, sin, k_cache, v_cache, slots)
    assert all(torch.equal(*pair) for pair in zip((query, key, value), before, strict=True)), "inputs are left alone"
    assert out.stride(-1) == 1
    assert out.dtype == dtype
    if norm:
        query, key = rms_norm_reference(query, q_weight, 1e-5), rms_norm_reference(key, k_weight, 1e-5)
    close = {8: 1e-12, 4: 1e-5, 2: 2.0**-5}[dtype.itemsize]
    torch.testing.assert_close(out.double(), rotated_reference(query, cos, sin), rtol=close, atol=close)
    torch.testing.assert_close(k_cache[slots].double(), rotated_reference(key, cos, sin), rtol=close, atol=close)
    assert torch.equal(v_cache[slots], value)
    rest = [i for i in range(rows + 3) if i not in slots.tolist()]
    assert k_cache[rest].isnan().all()
    assert v_cache[rest].isnan().all()


def test_as_transformers():
    from transformers.models.llama.modeling_llama import apply_rotary_pos_emb

    torch.manual_seed(2)
    query, key, value = torch.randn(9, 8, 32), torch.randn(9, 2, 32), torch.randn(9, 2, 32)
    angles = torch.arange(9)[:, None] / 10000 ** (torch.arange(16) / 16)
    cos, sin = angles.cos().repeat(1, 2), angles.sin().repeat(1, 2)
    want_query, want_key = apply_rotary_pos_emb(query.transpose(0, 1), key.transpose(0, 1), cos, sin, unsqueeze_dim=0)
    k_cache, v_cache = torch.zeros(2, 12, 2, 32)
    slots = torch.arange(3, 12)
    out = rope_and_write(query, key, value, cos, sin, k_cache, v_cache, slots)
    torch.testing.assert_close(out, want_query.transpose(0, 1), rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(k_cache[slots], want_key.transpose(0, 1), rtol=1e-6, atol=1e-6)


def test_what_does_not_fit_is_refused():
    query, cache = torch.ones(2, 1, 4), torch.ones(3, 1, 4)
    slots = torch.arange(2)
    with pytest.raises(ValueError, match="dtype"):
        rope_and_write(query, query, query, torch.ones(2, 4), torch.ones(2, 4), cache.half(), cache, slots)
    for shape in [(2, 3), (2, 6), (1, 4)]:
        with pytest.raises(ValueError, match="Angles"):
            rope_and_write(query, query, query, torch.ones(shape), torch.ones(shape), cache, cache, slots)
    with pytest.raises(ValueError, match="neither"):
        rope_and_write(query, query, query, torch.ones(2, 4), torch.ones(2, 4), cache, cache, slots, q_weight=torch.ones(4))
    with pytest.raises(ValueError, match="Norms"):
        norms = {"q_weight": torch.ones(4).half(), "k_weight": torch.ones(4).half()}
        rope_and_write(query, query, query, torch.ones(2, 4), torch.ones(2, 4), cache, cache, slots, **norms)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert check("cpu", TRITON_INTERPRET="1") == "all close"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert check("cuda") == "all close"
