"""Matrix products of a decoder with quantised weights: by torch's products of integers for few rows, where reading the weight takes
the time, and in bfloat16 for many, where multiplying does.

Beside the integers a copy in bfloat16 may be kept for steps of many rows; without it the weight is widened some rows at a time for a
prompt. All of them multiply the same dequantised weight, so a text does not change with what computes it but for roundings.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_kernels import gated
from parrot_nb.engine.embedded.families import Activation
from parrot_nb.engine.embedded.fused import Linears, PackedLinears, Weights
from parrot_nb.engine.embedded.int_weights import GROUP, Int4Rows, Int4Weight, Int8Weight, IntWeight, int4_chunks, int4_layout
from parrot_nb.engine.embedded.linear import GatedLinear, Linear, WideGatedLinear, WideLinear, has_packed_products

Quantization = Literal["int8", "int4"]
# Up to so many rows the product of integers is the faster one on CPUs with products of bfloat16 (Zen 4, Sapphire Rapids). They are
# not measured anew at each load: where one product ends and the other begins shows in a text's roundings.
FEW_ROWS: dict[Quantization, int] = {"int8": 4, "int4": 8}
MANY_ROWS = 256  # from here on widening the weight takes less time than the product of integers loses
WIDENED_BYTES = 2**22  # of bfloat16 at a time
DENSE_BYTES = torch.bfloat16.itemsize
DENSE_SHARE = 0.25  # of the free memory that copies in bfloat16 may take


class QuantizedLinear(Linear):
    """x @ weight.T + bias with a quantised weight.

    Args:
        weight: [N, K].
        bias: [N].
        few_rows: up to so many rows are multiplied by integers where there is a copy.
        dense: the same product in bfloat16, for more rows; None if it is not kept.
    """

    def __init__(self, weight: IntWeight, bias: Tensor | None, few_rows: int, dense: Linear | None) -> None:
        self.bias, self.integers, self.dense = bias, weight, dense
        self._few_rows = few_rows
        self.num_bytes, self.num_outputs = weight.num_bytes, weight.shape[0]

    @property
    def weight(self) -> Tensor:
        """The dequantised weight in float32, [N, K], made anew by each access."""
        return self.integers.dequantized()

    @property
    def is_packed(self) -> bool:
        """True if a copy is laid out for oneDNN."""
        return self.dense is not None and self.dense.is_packed

    def __call__(self, x: Tensor) -> Tensor:
        """Multiply bfloat16 x [T, K] by the weight, which gives [T, N]."""
        if self.dense is not None and x.shape[0] > self._few_rows:
            return self.dense(x)
        out = self.integers.product(x) if x.shape[0] < MANY_ROWS else _by_tiles(x, self.integers)
        return out if self.bias is None else out + self.bias

    def onto(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        """Return the product added to a residual [T, N] and None, or the residual and the product that is still to be added to it."""
        if self.dense is not None and x.shape[0] > self._few_rows:
            return self.dense.onto(x, residual)
        return residual, self(x)

    def row_reader(self, plain: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Return a reader of the weight's rows, in bfloat16; None where they cannot be read as they are kept."""
        if isinstance(self.integers, Int4Weight) and int4_layout() is None:
            return None
        dtype = plain.dtype  # the reader must not keep `plain` itself
        return lambda rows: self.integers.rows(rows).to(dtype)

    def widened(self) -> WideLinear:
        """Return the same product in float32."""
        return WideLinear(self)


class QuantizedGatedLinear(GatedLinear):
    """act(x @ gate.T + gate_bias) * (x @ up.T + up_bias) with a quantised weight.

    Args:
        weight: gate above up, [2F, K].
        bias: [2F].
        activation: act.
        few_rows: up to so many rows are multiplied by integers where there is a copy.
        dense: the same in bfloat16, for more rows; None if it is not kept.
    """

    def __init__(
        self, weight: IntWeight, bias: Tensor | None, activation: Activation, few_rows: int, dense: GatedLinear | None
    ) -> None:
        self.bias, self.activation = bias, activation
        self._linear = QuantizedLinear(weight, bias, few_rows, None)
        self.dense, self._few_rows = dense, few_rows
        self.num_bytes, self.num_outputs = weight.num_bytes, weight.shape[0] // 2

    @property
    def weight(self) -> Tensor:
        """The dequantised weights in float32, [2F, K], made anew by each access."""
        return self._linear.weight

    @property
    def is_packed(self) -> bool:
        """True if a copy is laid out for oneDNN."""
        return self.dense is not None and self.dense.is_packed

    def __call__(self, x: Tensor) -> Tensor:
        """bfloat16 [T, K] -> [T, F]."""
        if self.dense is not None and x.shape[0] > self._few_rows:
            return self.dense(x)
        return gated(self._linear(x), self.activation)

    def widened(self) -> GatedLinear:
        """Return the same in float32."""
        return WideGatedLinear(self)


def _by_tiles(x: Tensor, weight: IntWeight) -> Tensor:
    """A product in bfloat16, of which some rows of the weight are widened at a time."""
    rows = max(64, WIDENED_BYTES // 2 // weight.shape[1] // 64 * 64)
    tiles = torch.arange(weight.shape[0]).split(rows)
    return torch.cat([F.linear(x, weight.rows(tile).to(x.dtype)) for tile in tiles], dim=-1)


@dataclass
class QuantizedLinears(Linears):
    """Makes quantised products of a decoder's weights.

    Args:
        kind: "int8" or "int4".
        keeps_dense: keep copies in bfloat16 for steps of many rows.

    Attributes:
        integer_bytes: of the quantised weights made so far.
        plain_bytes: that they took in bfloat16.
        dense_bytes: of the copies that are kept.
        left: number of weights that stay in bfloat16, since their rows are no whole groups.
        exact: number of weights whose levels are a file's own.
        count: number of quantised weights.
        wide_head: whether the head has int8 weights though the layers have int4.
    """

    kind: Quantization
    keeps_dense: bool
    integer_bytes: int = field(default=0, init=False)
    plain_bytes: int = field(default=0, init=False)
    dense_bytes: int = field(default=0, init=False)
    left: int = field(default=0, init=False)
    exact: int = field(default=0, init=False)
    count: int = field(default=0, init=False)
    wide_head: bool = field(default=False, init=False)

    def __post_init__(self) -> None:
        self._packs = has_packed_products(torch.bfloat16)
        self._plain = PackedLinears(pack=self._packs)

    def linear(self, weights: Weights, names: Sequence[str]) -> Linear:
        """Return the product with weights that lie one below another."""
        shape = weights.shape(names)
        if not self._fits(shape):
            return self._plain.linear(weights, names)
        return self._product(self._integers(weights, names, shape), weights.bias(names))

    def head(self, weights: Weights, name: str, known: Tensor | None = None) -> Linear:
        """Return the product that gives logits, with int8 weights but where a file has int4 blocks of its own: int4 there costs more
        quality than in all layers. `known` is its weight, where that is an embedding which is read already."""
        shape = weights.shape([name]) if known is None else (known.shape[0], known.shape[1])
        if not self._fits(shape):
            return self._plain.head(weights, name, known)
        if self.kind == "int4" and weights.int4_blocks(name) is not None:
            return self._product(self._integers(weights, [name], shape), weights.bias([name]) if known is None else None)
        weight, bias = weights.joined([name]) if known is None else (known, None)
        self.wide_head = self.kind == "int4"
        return self._product(self._counted(Int8Weight(weight)), bias)

    def _product(self, integers: IntWeight, bias: Tensor | None) -> QuantizedLinear:
        few_rows = FEW_ROWS["int8" if isinstance(integers, Int8Weight) else "int4"]
        dense = Linear(self._copy(integers), bias, pack=self._packs) if self.keeps_dense else None
        return QuantizedLinear(integers, bias, few_rows, dense)

    def gated(self, weights: Weights, names: Sequence[str], activation: Activation) -> GatedLinear:
        """Return the gated product with gate above up."""
        shape = weights.shape(names)
        if not self._fits(shape):
            return self._plain.gated(weights, names, activation)
        integers, bias = self._integers(weights, names, shape), weights.bias(names)
        dense = GatedLinear(self._copy(integers), bias, activation, pack=self._packs) if self.keeps_dense else None
        return QuantizedGatedLinear(integers, bias, activation, FEW_ROWS[self.kind], dense)

    def describe(self) -> str:
        """Return what runs quantised, for people: memory before and after."""
        size = f"{self.plain_bytes / 2**20:.0f} MB of bfloat16 weights as {self.integer_bytes / 2**20:.0f} MB of {self.kind}"
        how = f" in groups of {GROUP}" if self.kind == "int4" else ", a scale for each row"
        how += ", the head as int8" if self.wide_head else ""
        own = f"; {self.exact} of {self.count} keep the file's own levels" if self.exact else ""
        left = f"; {self.left} stay in bfloat16, since their rows are no multiple of {GROUP}" if self.left else ""
        many = f"more than {FEW_ROWS[self.kind]} rows"
        if self.keeps_dense:
            return f"{size}{how}{own}{left}; {self.dense_bytes / 2**20:.0f} MB of bfloat16 beside them for steps of {many}"
        return f"{size}{how}{own}{left}; no bfloat16 beside them, for which memory is short, so steps of {many} are slower"

    def _fits(self, shape: tuple[int, int]) -> bool:
        fits = shape[1] % GROUP == 0
        self.left += not fits
        return fits

    def _integers(self, weights: Weights, names: Sequence[str], shape: tuple[int, int]) -> IntWeight:
        if self.kind == "int8":
            return self._counted(Int8Weight(weights.joined(names)[0]))
        blocks = [weights.int4_blocks(name) for name in names]
        self.exact += all(own is not None for own in blocks)
        return self._counted(Int4Weight(shape, self._int4(weights, dict(zip(names, blocks, strict=True)))))

    def _counted(self, integers: IntWeight) -> IntWeight:
        self.count += 1
        self.plain_bytes += DENSE_BYTES * integers.shape[0] * integers.shape[1]
        self.integer_bytes += integers.num_bytes
        return integers

    @staticmethod
    def _int4(weights: Weights, blocks: Mapping[str, Iterator[Int4Rows] | None]) -> Iterator[Int4Rows]:
        """Yield the rows of weights one below another: a file's own blocks where it has them."""
        for name, own in blocks.items():
            yield from own if own is not None else int4_chunks(weights.joined([name])[0])

    def _copy(self, integers: IntWeight) -> Tensor:
        dense = integers.dequantized(torch.bfloat16)
        self.dense_bytes += dense.nbytes
        return dense
