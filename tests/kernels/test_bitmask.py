"""Masks of tokens: torch against a plain loop; Triton equals torch bit for bit, interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import sys

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from test_penalties_kernel import run_python

from parrot_kernels import mask_logits
from parrot_kernels.references_elementwise import masked_reference

CHECK = """
import sys, torch
from parrot_kernels.bitmask import mask_logits_torch, mask_logits_triton
device = sys.argv[1]
torch.manual_seed(0)
for dtype in (torch.float32, torch.bfloat16, torch.float16):
    for num_rows, size, num_masks, num_words in ((1, 1, 1, 1), (3, 50, 2, 2), (4, 4097, 4, 129), (3, 9000, 2, 200), (2, 100, 1, 9)):
        logits = (torch.randn(num_rows, size + 3)[:, :size] * 8).to(dtype)
        logits[0, 0] = float("nan")
        masks = torch.randint(-2**31, 2**31, (num_masks, num_words + 1), dtype=torch.int64).int()[:, :num_words]
        rows = torch.randperm(num_rows)[:num_masks].int()
        want = mask_logits_torch(logits.clone(), masks, rows)
        found = logits.clone().to(device)
        mask_logits_triton(found, masks.to(device), rows.to(device))
        assert torch.equal(found.cpu().nan_to_num(7), want.nan_to_num(7)), (dtype, num_rows, size)
        assert torch.equal(found.cpu().isnan(), want.isnan())
assert mask_logits_triton(logits, masks[:0], rows[:0]) is logits
sys.stdout.write("all equal")
"""


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_every_token_against_a_loop(data):
    num_rows, size, num_words = (data.draw(st.integers(1, most)) for most in (4, 100, 4))
    rows = data.draw(st.lists(st.integers(0, num_rows - 1), unique=True, max_size=num_rows))
    words = st.lists(st.integers(-(2**31), 2**31 - 1), min_size=num_words, max_size=num_words)
    masks = [data.draw(words) for _ in rows]
    logits = torch.randn(num_rows, size)
    found = mask_logits(
        logits.clone(),
        torch.tensor(masks, dtype=torch.int32).reshape(len(rows), num_words),
        torch.tensor(rows, dtype=torch.int32),
    )
    assert found.tolist() == masked_reference(logits.tolist(), masks, rows)


def test_what_does_not_fit_is_refused():
    logits, masks, rows = torch.zeros(2, 40), torch.zeros(2, 2, dtype=torch.int32), torch.zeros(2, dtype=torch.int32)
    with pytest.raises(ValueError, match="Logits must be floating-point"):
        mask_logits(logits.int(), masks, rows)
    with pytest.raises(ValueError, match="masks must be"):
        mask_logits(logits, masks.long(), rows)
    with pytest.raises(ValueError, match="rows must be"):
        mask_logits(logits, masks, rows[:1])


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert run_python(CHECK, "cpu", TRITON_INTERPRET="1") == "all equal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert run_python(CHECK, "cuda") == "all equal"
