"""Weights as small integers: products, rows and copies against float64 arithmetic on the same integers."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded import int_weights, quantized_linear
from parrot_nb.engine.embedded.int_weights import GROUP, Int4Rows, Int4Weight, Int8Weight, int4_chunks, int4_rows
from parrot_nb.engine.embedded.linear import GatedLinear, Linear, has_packed_products
from parrot_nb.engine.embedded.quantized_linear import QuantizedGatedLinear, QuantizedLinear

pytestmark = pytest.mark.cpu_kinds
ROUNDING = 2.0**-7  # of a bfloat16 result, and of a weight that was rounded to bfloat16 on the way


def drawn(outer: int, inner: int, seed: int) -> torch.Tensor:
    torch.manual_seed(seed)
    return torch.randn(outer, inner) / inner**0.5


def by_hand(kind: str, weight: torch.Tensor) -> torch.Tensor:
    """What a quantised weight stands for, float64 [N, K]."""
    if kind == "int4":
        rows = int4_rows(weight)
        groups = (rows.levels.double() - 8).unflatten(1, (-1, GROUP))
        return (groups * rows.scales.double()[..., None] + rows.zeros.double()[..., None]).flatten(1)
    scale = (weight.abs().amax(1) / 127).to(torch.bfloat16).double()[:, None]
    return (weight.double() / scale).round().clamp(-127, 127) * scale


def quantised(kind: str, weight: torch.Tensor) -> Int4Weight | Int8Weight:
    return Int8Weight(weight) if kind == "int8" else Int4Weight((weight.shape[0], weight.shape[1]), int4_chunks(weight))


def assert_close(found: torch.Tensor, expected: torch.Tensor) -> None:
    size = expected.abs().amax().clamp_min(1e-3)
    assert found.dtype == torch.bfloat16
    assert float((found.double() - expected).abs().amax() / size) <= ROUNDING


@settings(max_examples=60, deadline=None)
@given(
    kind=st.sampled_from(["int4", "int8"]),
    rows=st.integers(1, 64),
    outer=st.sampled_from([1, 8, 63, 64, 65, 200]),
    groups=st.integers(1, 6),
    seed=st.integers(0, 2**31),
)
def test_a_product_is_that_of_the_dequantised_weight(kind, rows, outer, groups, seed):
    weight = drawn(outer, GROUP * groups, seed)
    x = torch.randn(rows, weight.shape[1]).to(torch.bfloat16)
    assert_close(quantised(kind, weight).product(x), x.double() @ by_hand(kind, weight).T)


@settings(max_examples=60, deadline=None)
@given(kind=st.sampled_from(["int4", "int8"]), outer=st.integers(1, 200), groups=st.integers(1, 4), seed=st.integers(0, 2**31))
def test_rows_are_read_as_they_were_kept(kind, outer, groups, seed):
    weight = drawn(outer, GROUP * groups, seed)
    kept, expected = quantised(kind, weight), by_hand(kind, weight)
    rows = torch.randint(outer, (7,))
    torch.testing.assert_close(kept.rows(rows).double(), expected[rows], rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(kept.dequantized().double(), expected, rtol=1e-6, atol=1e-7)


@settings(max_examples=40, deadline=None)
@given(outer=st.integers(1, 130), groups=st.integers(1, 3), seed=st.integers(0, 2**31))
def test_a_layout_that_is_not_known_is_read_by_multiplying(outer, groups, seed):
    weight = drawn(outer, GROUP * groups, seed)
    kept = quantised("int4", weight)
    expected = kept.dequantized()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(int_weights, "int4_layout", lambda: None)
        assert torch.equal(kept.dequantized(), expected)


@settings(max_examples=60, deadline=None)
@given(scale=st.sampled_from([0.0, 1e-6, 1.0, 1e4]), offset=st.sampled_from([0.0, -3.0, 100.0]), seed=st.integers(0, 2**31))
def test_int4_is_off_by_half_a_step_at_most_and_by_less_than_a_range_rounded(scale, offset, seed):
    weight = drawn(16, 64, seed) * scale + offset
    groups = weight.unflatten(1, (-1, GROUP))
    step = ((groups.amax(-1) - groups.amin(-1)) / 15)[..., None]
    rounding = groups.abs().amax(-1, keepdim=True) * 2.0**-8 + step * 2.0**-4  # scale and zero in bfloat16
    error = (int4_rows(weight).dequantized() - weight).unflatten(1, (-1, GROUP)).abs()
    assert bool((error.square().mean(-1) <= ((step / 2 + rounding)[..., 0]).square()).all())


def test_rows_that_are_missing_are_noticed():
    with pytest.raises(ValueError, match="3 rows were given for a weight of 4"):
        Int4Weight((4, GROUP), [Int4Rows(torch.zeros(3, GROUP, dtype=torch.uint8), torch.ones(3, 1), torch.ones(3, 1))])


@pytest.mark.parametrize("kind", ["int4", "int8"])
@pytest.mark.parametrize("with_copy", [True, False])
@pytest.mark.parametrize("with_bias", [True, False])
def test_all_numbers_of_rows_multiply_the_same_weight(monkeypatch, kind, with_copy, with_bias):
    monkeypatch.setattr(quantized_linear, "MANY_ROWS", 48)
    weight = drawn(96, 64, 0)
    bias = torch.randn(96).to(torch.bfloat16) if with_bias else None
    integers, packs = quantised(kind, weight), has_packed_products(torch.bfloat16)
    copy = integers.dequantized(torch.bfloat16)
    linear = QuantizedLinear(integers, bias, 4, Linear(copy, bias, pack=packs) if with_copy else None)
    gated = QuantizedGatedLinear(integers, bias, "silu", 4, GatedLinear(copy, bias, "silu", pack=packs) if with_copy else None)
    exact = by_hand(kind, weight)
    for rows in range(1, 65):
        x = torch.randn(rows, 64).to(torch.bfloat16)
        residual = torch.randn(rows, 96).to(torch.bfloat16)
        expected = x.double() @ exact.T + (0 if bias is None else bias.double())
        assert_close(linear(x), expected)
        whole, delta = linear.onto(x, residual)
        assert_close(whole if delta is None else whole + delta, residual.double() + expected)
        gate, up = expected.chunk(2, -1)
        activated = torch.nn.functional.silu(gate) * up
        assert float((gated(x).double() - activated).abs().amax()) <= 4 * ROUNDING * float(activated.abs().amax())
    wide = torch.randn(3, 64)
    torch.testing.assert_close(linear.widened()(wide), (wide.double() @ exact.T + (0 if bias is None else bias.double())).float())
