"""Matrix products of a decoder with what follows them: a residual that is added, a gate that is activated and multiplied.

On the CPU a model's weights are laid out once for oneDNN, whose products then do what follows on their way out: at a
decoding step's width that saves calls, at a prompt's length passes over memory. What a product does on its way out is
rounded once, where transformers rounds after each operation. The packed weight replaces the plain one, which is unpacked
where something asks for it; only small float32 weights are kept in both forms.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_kernels import gated
from parrot_nb.engine.embedded.families import Activation
from parrot_nb.engine.embedded.packed_rows import packed_rows

# oneDNN's names for them, and the variants of those.
FUSED_ACTIVATIONS: dict[Activation, tuple[str, str]] = {
    "silu": ("swish", ""),
    "gelu": ("gelu", "none"),
    "gelu_tanh": ("gelu", "tanh"),
}
PACKED_BYTES = (
    2**30
)  # of weights are packed at most while plain copies of all stay: a model's own, to compare with, or a compiler's
SMALL_BYTES = 2**20  # a float32 weight of up to this size stays plain too, for products of few rows
LARGE_BYTES = 32 * 2**20  # rows of a weight of this size are read as it is packed, which takes longer but saves a copy
WIDE_ROWS = 4096  # of a weight are widened at a time where float32 is needed for comparison
FEW_ROWS = 4  # below, a product with a small float32 weight is faster plain than packed


def has_packed_products(dtype: torch.dtype) -> bool:
    """Return True if oneDNN multiplies packed weights of a dtype on this machine.

    That depends on how torch was built (macOS and ARM builds have no oneDNN), on `torch.backends.mkldnn.enabled`, and on the
    CPU: bfloat16 needs AVX-512 or AVX-NE-CONVERT, float16 AVX512-FP16 or AVX-NE-CONVERT.
    """
    if not (torch.backends.mkldnn.is_available() and torch.backends.mkldnn.enabled):
        return False
    if dtype == torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    if dtype == torch.float16:
        return bool(torch.ops.mkldnn._is_mkldnn_fp16_supported())
    return dtype == torch.float32


def pays_to_pack(dtype: torch.dtype, device: torch.device, *, plain_bytes: int = 0) -> bool:
    """Return True if weights are to be packed: this machine has products for them, and not too much stays plain meanwhile.

    Args:
        dtype: of the weights.
        device: where they are.
        plain_bytes: of plain weights that stay until all are packed; 0 where each goes as soon as it is.
    """
    return device.type == "cpu" and plain_bytes <= PACKED_BYTES and has_packed_products(dtype)


def joined(modules: list[torch.nn.Linear], *, views: bool = True) -> tuple[Tensor, Tensor | None]:
    """Weights [N, K] and biases [N] of modules on the same input, whose outputs lie side by side. Unless told otherwise, the
    modules' own weights become views of the joined one.

    Raises:
        KeyError: a module is more than a plain linear layer: an adapter, a quantised one, one with hooks.
    """
    if odd := [module for module in modules if type(module) is not torch.nn.Linear or _has_hooks(module)]:
        raise KeyError(type(odd[0]).__name__)
    with torch.no_grad():
        weight = modules[0].weight.data if len(modules) == 1 else torch.cat([m.weight.data for m in modules])
        start = 0
        for module in modules if views else ():
            end = start + module.weight.shape[0]
            module.weight.data = weight[start:end]
            start = end
        biases = [m.bias.data if m.bias is not None else m.weight.new_zeros(m.weight.shape[0]) for m in modules]
        return weight, torch.cat(biases) if any(m.bias is not None for m in modules) else None


def _has_hooks(module: torch.nn.Module) -> bool:
    return bool(module._forward_hooks or module._forward_pre_hooks)


class HasWeight(Protocol):
    """A linear layer: weight [N, K] and bias [N]."""

    @property
    def weight(self) -> Tensor:
        """[N, K]."""
        ...

    @property
    def bias(self) -> Tensor | None:
        """[N]."""
        ...


class Linear:
    """x @ weight.T + bias.

    Args:
        weight: [N, K].
        bias: [N].
        pack: lay the weight out for oneDNN, and keep it so.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None = None, *, pack: bool) -> None:
        self.bias = bias
        self.num_bytes = weight.nbytes
        self._packed = _packed(weight) if pack else None
        self._plain, self._plain_rows = _kept(weight, pack=pack)

    @property
    def weight(self) -> Tensor:
        """The plain weight [N, K], unpacked anew by each access where it is not kept."""
        return self._plain if self._plain is not None else _unpacked(self._packed)

    @property
    def is_packed(self) -> bool:
        """True if the weight is laid out for oneDNN."""
        return self._packed is not None

    def __call__(self, x: Tensor) -> Tensor:
        """[T, K] -> [T, N]."""
        if x.shape[0] < self._plain_rows:
            return F.linear(x, self.weight, self.bias)
        return _product(x, self._packed, self.bias)

    def onto(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        """The product [T, N] of x [T, K] on top of a residual [T, N]: the sum and None where that is done at once, else the
        residual and what is still to be added to it."""
        if x.shape[0] < self._plain_rows:
            return residual, F.linear(x, self.weight, self.bias)
        return _with(x, residual, self._packed, self.bias, "add"), None

    def row_reader(self, plain: Tensor) -> Callable[[Tensor], Tensor] | None:
        """Return a reader of the weight's rows where it is packed, large, and not kept plain; None if there is none.

        Args:
            plain: the weight, to compare with.
        """
        if self._packed is None or self._plain is not None or self.num_bytes < LARGE_BYTES:
            return None
        return packed_rows(self._packed, plain)

    def widened(self) -> WideLinear:
        """Return the same product in float32."""
        return WideLinear(self)


class WideLinear(Linear):
    """A product in float32 with a narrower weight, of which `WIDE_ROWS` rows at a time are widened: for comparison, not speed.

    Args:
        narrow: the layer whose weight it is; asked for it at each product.
    """

    def __init__(self, narrow: HasWeight) -> None:
        self._narrow = narrow

    @property
    def weight(self) -> Tensor:
        """The narrow weight [N, K]."""
        return self._narrow.weight

    @property
    def is_packed(self) -> bool:
        """False: the product is computed with plain rows."""
        return False

    def __call__(self, x: Tensor) -> Tensor:
        """[T, K] -> [T, N], any leading dimensions."""
        return _wide_product(x, self._narrow)

    def onto(self, x: Tensor, residual: Tensor) -> tuple[Tensor, Tensor | None]:
        """The residual, and the product that is still to be added to it."""
        return residual, self(x)


class GatedLinear:
    """act(x @ gate.T + gate_bias) * (x @ up.T + up_bias).

    Args:
        weight: gate above up, [2F, K].
        bias: [2F].
        activation: act.
        pack: lay both out for oneDNN, and keep them so.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, activation: Activation, *, pack: bool) -> None:
        self.bias, self.activation = bias, activation
        self.num_bytes = weight.nbytes
        self._halves = [_packed(half.contiguous()) for half in weight.chunk(2)] if pack else None
        self._plain, self._plain_rows = _kept(weight, pack=pack)
        self._biases = (None, None) if bias is None else bias.chunk(2)
        self._fused = FUSED_ACTIVATIONS[activation]

    @property
    def weight(self) -> Tensor:
        """The plain weights [2F, K], unpacked anew by each access where they are not kept."""
        return self._plain if self._plain is not None else torch.cat([_unpacked(half) for half in self._halves or ()])

    @property
    def is_packed(self) -> bool:
        """True if the weights are laid out for oneDNN."""
        return self._halves is not None

    def __call__(self, x: Tensor) -> Tensor:
        """[T, K] -> [T, F]."""
        if self._halves is None or x.shape[0] < self._plain_rows:
            return gated(F.linear(x, self.weight, self.bias), self.activation)
        gate = _product(x, self._halves[0], self._biases[0], *self._fused)
        return _with(x, gate, self._halves[1], self._biases[1], "mul")

    def widened(self) -> GatedLinear:
        """Return the same in float32."""
        return WideGatedLinear(self)


class WideGatedLinear(GatedLinear):
    """The same in float32 as a gated product with narrower weights, of which `WIDE_ROWS` rows at a time are widened.

    Args:
        narrow: the layer whose weights they are; asked for them at each product.
    """

    def __init__(self, narrow: GatedLinear) -> None:
        self.activation, self._narrow = narrow.activation, narrow

    def __call__(self, x: Tensor) -> Tensor:
        """[T, K] -> [T, F]."""
        return gated(_wide_product(x, self._narrow), self.activation)


def _kept(weight: Tensor, *, pack: bool) -> tuple[Tensor | None, float]:
    """The plain weight where it is kept, and the number of rows below which products are computed with it."""
    if not pack:
        return weight, inf
    return (weight, FEW_ROWS) if weight.dtype == torch.float32 and weight.nbytes <= SMALL_BYTES else (None, 0)


def _wide_product(x: Tensor, narrow: HasWeight) -> Tensor:
    out = torch.cat([F.linear(x, rows.float()) for rows in narrow.weight.split(WIDE_ROWS)], dim=-1)
    return out if narrow.bias is None else out + narrow.bias.float()


def _packed(weight: Tensor) -> Any:
    return torch.ops.mkldnn._reorder_linear_weight(weight)


def _unpacked(packed: Any) -> Tensor:
    plain: Tensor = packed.to_dense()
    return plain


def _product(x: Tensor, packed: Any, bias: Tensor | None, activation: str = "none", variant: str = "") -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, packed, bias, activation, [], variant)
    return out


def _with(x: Tensor, other: Tensor, packed: Any, bias: Tensor | None, operation: str) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, packed, bias, operation)
    return out
