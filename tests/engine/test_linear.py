"""Products with what follows them, plain and laid out for oneDNN, against float64."""

from __future__ import annotations

import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_kernels.references_elementwise import gated_reference
from parrot_nb.engine.embedded.linear import (
    FUSED_ACTIVATIONS,
    PACKED_BYTES,
    SMALL_BYTES,
    GatedLinear,
    Linear,
    has_packed_products,
    pays_to_pack,
)

pytestmark = pytest.mark.cpu_kinds
DTYPES = [torch.float32, torch.bfloat16, torch.float16]
KINDS = [(dtype, False) for dtype in DTYPES] + [(dtype, True) for dtype in DTYPES if has_packed_products(dtype)]
CLOSE = {torch.float32: 1e-5, torch.bfloat16: 2.0**-6, torch.float16: 2.0**-9}

cases = given(
    rows=st.sampled_from([1, 2, 3, 4, 5, 16, 33]),
    inner=st.sampled_from([8, 24, 64]),
    outer=st.sampled_from([8, 40, 96]),
    kind=st.sampled_from(KINDS),
    with_bias=st.booleans(),
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
def test_a_product_and_what_it_is_added_to(rows, inner, outer, kind, with_bias, seed):
    dtype, pack = kind
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
def test_a_gate(activation, rows, inner, outer, kind, with_bias, seed):
    dtype, pack = kind
    x, weight, bias = drawn(rows, inner, 2 * outer, dtype, with_bias, seed)
    found = GatedLinear(weight, bias, activation, pack=pack)(x)
    assert found.shape == (rows, outer)
    assert_close(found, gated_reference(product(x, weight, bias), activation), dtype)


@pytest.mark.parametrize("dtype", [dtype for dtype, pack in KINDS if pack], ids=str)
def test_a_packed_weight_is_the_only_copy_and_unpacks_to_the_same_bits(dtype):
    torch.manual_seed(0)
    wide = torch.randn(2 * SMALL_BYTES // 1024 // dtype.itemsize, 1024).to(dtype)
    for make in (lambda w, pack: Linear(w, pack=pack), lambda w, pack: GatedLinear(w, None, "silu", pack=pack)):
        weight = wide.clone()
        kept = weakref.ref(weight)
        packed, plain = make(weight, True), make(wide, False)
        del weight
        assert kept() is None, "the plain weight is not kept"
        assert torch.equal(packed.weight, wide)
        for rows in (1, 5):
            x = torch.randn(rows, 1024).to(dtype) / 32
            torch.testing.assert_close(packed(x), plain(x), rtol=CLOSE[dtype], atol=4 * CLOSE[dtype])
            torch.testing.assert_close(packed.widened()(x.float()), plain.widened()(x.float()), rtol=0, atol=0)


def test_weights_are_packed_where_this_machine_has_products_for_them(monkeypatch):
    cpu = torch.device("cpu")
    assert not pays_to_pack(torch.float64, cpu)
    assert not pays_to_pack(torch.float32, torch.device("meta"))
    for dtype in DTYPES:
        assert pays_to_pack(dtype, cpu) is has_packed_products(dtype)
        assert pays_to_pack(dtype, cpu, plain_bytes=PACKED_BYTES) is has_packed_products(dtype)
        assert not pays_to_pack(dtype, cpu, plain_bytes=PACKED_BYTES + 1)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert not any(has_packed_products(dtype) for dtype in DTYPES)


def test_with_onednn_switched_off_nothing_is_packed(monkeypatch):
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    assert not any(has_packed_products(dtype) for dtype in DTYPES)


@pytest.mark.parametrize("dtype", DTYPES, ids=str)
def test_what_is_said_of_this_machine_is_so(dtype):
    """Asked of oneDNN itself, which refuses what it has no products for."""
    if not torch.backends.mkldnn.is_available() or not torch.backends.mkldnn.enabled:
        pytest.skip("there is no oneDNN here")
    try:
        packed = Linear(torch.ones(8, 8, dtype=dtype), pack=True)(torch.ones(5, 8, dtype=dtype))
    except RuntimeError:
        packed = None
    assert has_packed_products(dtype) is (packed is not None)
