"""Products with what follows them, plain and laid out for oneDNN, against float64."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_kernels.references_elementwise import gated_reference
from parrot_nb.engine.embedded.linear import FUSED_ACTIVATIONS, PACKED_BYTES, GatedLinear, Linear, pays_to_pack

CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}

cases = given(
    rows=st.sampled_from([1, 2, 3, 4, 5, 16, 33]),
    inner=st.sampled_from([8, 24, 64]),
    outer=st.sampled_from([8, 40, 96]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    with_bias=st.booleans(),
    pack=st.booleans(),
    seed=st.integers(0, 2**31),
)


def drawn(rows: int, inner: int, outer: int, dtype: torch.dtype, with_bias: bool, seed: int):
    torch.manual_seed(seed)
    weight = (torch.randn(outer, inner) / inner**0.5).to(dtype)
    return torch.randn(rows, inner).to(dtype), weight, torch.randn(outer).to(dtype) if with_bias else None


def product(x, weight, bias):
    return torch.nn.functional.linear(x.double(), weight.double(), None if bias is None else bias.double())


def assert_close(found, expected, dtype):
    assert found.dtype == dtype
    torch.testing.assert_close(found.double(), expected, rtol=CLOSE[dtype], atol=4 * CLOSE[dtype])


@settings(max_examples=60, deadline=None)
@cases
def test_a_product_and_what_it_is_added_to(rows, inner, outer, dtype, with_bias, pack, seed):
    x, weight, bias = drawn(rows, inner, outer, dtype, with_bias, seed)
    residual = torch.randn(rows, outer).to(dtype)
    before = residual.clone()
    linear = Linear(weight, bias, pack=pack)
    assert_close(linear(x), product(x, weight, bias), dtype)
    total, rest = linear.onto(x, residual)
    assert_close(total if rest is None else total + rest, product(x, weight, bias) + before.double(), dtype)
    assert torch.equal(residual, before), "the residual is left alone"
    assert (rest is None) == (pack and (dtype != torch.float32 or rows >= 4))


@settings(max_examples=60, deadline=None)
@cases
@pytest.mark.parametrize("activation", FUSED_ACTIVATIONS)
def test_a_gate(activation, rows, inner, outer, dtype, with_bias, pack, seed):
    x, weight, bias = drawn(rows, inner, 2 * outer, dtype, with_bias, seed)
    found = GatedLinear(weight, bias, activation, pack=pack)(x)
    assert found.shape == (rows, outer)
    assert_close(found, gated_reference(product(x, weight, bias), activation), dtype)


def test_only_what_this_machine_has_products_for_is_laid_out(monkeypatch):
    cpu = torch.device("cpu")
    assert pays_to_pack(PACKED_BYTES, torch.float32, cpu)
    assert not pays_to_pack(PACKED_BYTES + 1, torch.float32, cpu)
    assert not pays_to_pack(1, torch.float64, cpu)
    assert not pays_to_pack(1, torch.float32, torch.device("meta"))
    for dtype, name in ((torch.bfloat16, "_is_mkldnn_bf16_supported"), (torch.float16, "_is_mkldnn_fp16_supported")):
        for has in (True, False):
            monkeypatch.setattr(torch.ops.mkldnn, name, lambda has=has: has)
            assert pays_to_pack(1, dtype, cpu) is has
