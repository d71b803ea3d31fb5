"""A fused decoder's layers through `torch.compile`: what lies between two matrix products becomes one loop.

Worth it where a step is short and its operations are many; the first steps take twenty seconds or so. Attention and
the cache stay what they are: a single operation that the compiler does not look into.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from types import FunctionType, MethodType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from parrot_kernels import attention, write_kv
from parrot_nb.engine.embedded.families import LayerSizes
from parrot_nb.engine.embedded.fused import FusedDecoder, Layer
from parrot_nb.engine.embedded.linear import GatedLinear, Linear
from parrot_nb.engine.embedded.quantized_linear import QuantizedGatedLinear, QuantizedLinear
from parrot_nb.engine.embedded.step import Run

Quantized = QuantizedLinear | QuantizedGatedLinear
PART = "layers compiled by torch.compile"
# What calls the loops is C++ as well: a decoding step has hundreds of them.
OPTIONS: dict[str, Any] = {"cpp_wrapper": True}
ANY_THREAD_SINCE = (2, 13)  # of torch; 2.11 is known to crash
_thread: threading.Thread | None = None  # that compiles, with an older one


class CompiledDecoder:
    """Meets `Decoder`; as the fused decoder that it is made of, whose plain weights it keeps. Copies for the products the compiler
    lays out itself, for steps of one row and of several, so those of the fused decoder can go.

    Args:
        fused: on a CPU.
    """

    def __init__(self, fused: FusedDecoder) -> None:
        self.name, self.device, self.dtype, self.shapes = fused.name, fused.device, fused.dtype, fused.shapes
        self.num_embeddings = fused.num_embeddings
        self.parts: tuple[str, ...] = (*fused.parts, PART)
        self._ends = fused.ends
        self._sizes = {layer.sizes.index: layer.sizes for layer in fused.layers}
        self._quantized = {
            i: linear for layer in fused.layers for i, linear in _numbered(layer).items() if isinstance(linear, Quantized)
        }
        self._compiled = torch.compile(_apart(_Layers(fused.layers)), dynamic=True, fullgraph=True, options=OPTIONS)

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run, rows: Tensor | None) -> Tensor:
        """Logits [len(rows), V] after the given rows, or after all; token_ids and positions are int64 [T]."""
        x, angles = self._ends.first(token_ids, positions, self.dtype)
        with _computing(self._sizes, self._quantized, run):
            x = self._compiled(x, *(part for pair in angles for part in pair))
        return self._ends.logits(x, None, rows)

    @staticmethod
    def compiling() -> Any:
        """A context in which the first steps are to be computed: one of one row, and one of several."""
        import torch._inductor.config as inductor

        # Weights are laid out for the products, as the fused decoder's are; the number of threads may change later (`crew`).
        return inductor.patch({"freezing": True, "cpp.dynamic_threads": True})


def may_compile_anywhere() -> bool:
    """Whether this torch compiles in any thread."""
    return tuple(int(part) for part in torch.__version__.split(".")[:2]) >= ANY_THREAD_SINCE


def may_compile() -> bool:
    """Whether this thread may. Before `ANY_THREAD_SINCE` a second one that does takes the process down; and one thread for all
    engines, kept for that, would have OpenMP's threads sleep between any two loops, which costs what compiling gains."""
    global _thread
    if may_compile_anywhere():
        return True
    _thread = _thread or threading.current_thread()
    return _thread is threading.current_thread()


def copied_bytes(fused: FusedDecoder) -> int:
    """Bytes of the layers' matrices, which the compiler copies for each way that it computes a step; quantised ones it does not."""
    linears = [linear for layer in fused.layers for linear in _numbered(layer).values()]
    return sum(linear.num_bytes for linear in linears if not isinstance(linear, Quantized))


LINEARS = ("qkv", "out", "gate_up", "down")


def _numbered(layer: Layer) -> dict[int, Linear | GatedLinear]:
    """A layer's products, by numbers that no other layer's have."""
    return {len(LINEARS) * layer.sizes.index + i: getattr(layer, name) for i, name in enumerate(LINEARS)}


NORMS = ("attention_norm", "attention_post_norm", "mlp_norm", "mlp_post_norm")


class _Layers(nn.Module):
    """All layers, from embedded rows to those before the last norm, both [T, H]; angles are cosines and sines [T, R] of each
    rotary embedding. The layers themselves are not kept: they would keep the copies that are replaced."""

    def __init__(self, layers: tuple[Layer, ...]) -> None:
        super().__init__()
        self._sizes = tuple(layer.sizes for layer in layers)
        self._quantized: dict[str, tuple[int, int]] = {}  # products that the compiler calls: their numbers and widths
        for layer in layers:
            index = layer.sizes.index
            for (number, linear), name in zip(_numbered(layer).items(), LINEARS, strict=True):
                if isinstance(linear, Quantized):
                    self._quantized[f"{name}{index}"] = number, linear.num_outputs
                    continue
                self._keep(f"{name}{index}", linear.weight)
                self._keep(f"{name}{index}_bias", linear.bias)
            for name in NORMS:
                self._keep(f"{name}{index}", getattr(layer, name))
            self._keep(f"head_norm{index}", _head_norm(layer))
        self.eval()

    def _keep(self, name: str, weight: Tensor | None) -> None:
        self.register_parameter(name, None if weight is None else nn.Parameter(weight, requires_grad=False))

    def _linear(self, x: Tensor, name: str) -> Tensor:
        if name in self._quantized:
            out: Tensor = torch.ops.parrot_nb.multiply(x, *self._quantized[name])
            return out
        return F.linear(x, getattr(self, name), getattr(self, f"{name}_bias"))

    def _gated(self, x: Tensor, name: str, sizes: LayerSizes) -> Tensor:
        """The gated product; one with quantised weights applies the gate itself."""
        if name in self._quantized:
            return self._linear(x, name)
        gate, up = self._linear(x, name).chunk(2, dim=-1)
        return _activated(gate, sizes.activation) * up

    def _norm(self, x: Tensor, name: str, sizes: LayerSizes) -> Tensor:
        """Normed rows, where the layer has such a norm."""
        weight = getattr(self, f"{name}{sizes.index}")
        return x if weight is None else _normed(x, weight, sizes.eps)

    def forward(self, x: Tensor, *angles: Tensor) -> Tensor:
        for sizes in self._sizes:
            i, num_heads, key_end = sizes.index, sizes.num_heads, sizes.num_heads + sizes.num_kv_heads
            cos, sin = angles[2 * sizes.rotary][:, None], angles[2 * sizes.rotary + 1][:, None]
            qkv = self._linear(self._norm(x, "attention_norm", sizes), f"qkv{i}").view(x.shape[0], -1, sizes.head_dim)
            heads = _rotated(self._norm(qkv[:, :key_end], "head_norm", sizes), cos, sin)
            attended = torch.ops.parrot_nb.attend(
                heads[:, :num_heads].contiguous(), heads[:, num_heads:].contiguous(), qkv[:, key_end:].contiguous(), i
            )
            x = x + self._norm(self._linear(attended.view(x.shape[0], -1), f"out{i}"), "attention_post_norm", sizes)
            inner = self._gated(self._norm(x, "mlp_norm", sizes), f"gate_up{i}", sizes)
            x = x + self._norm(self._linear(inner, f"down{i}"), "mlp_post_norm", sizes)
        return x


def _apart(layers: _Layers) -> Callable[..., Tensor]:
    """Their `forward` with a code object of its own. The compiler counts what it has compiled by code object, refuses after
    eight, and looks through all of it at each step; engines that shared one would use it up for one another."""
    forward = _Layers.forward
    return MethodType(FunctionType(forward.__code__.replace(), forward.__globals__, forward.__name__), layers)


def _head_norm(layer: Layer) -> Tensor | None:
    """The weights of the norms of query and key heads, [Hq + Hkv, D]."""
    if layer.query_norm is None or layer.key_norm is None:
        return None
    sizes = layer.sizes
    return torch.cat(
        [
            layer.query_norm.expand(sizes.num_heads, sizes.head_dim),
            layer.key_norm.expand(sizes.num_kv_heads, sizes.head_dim),
        ]
    )


def _normed(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    wide = x.float()
    wide = wide * torch.rsqrt(wide.square().mean(-1, keepdim=True) + eps)
    return wide.to(weight.dtype).mul(weight).to(x.dtype)  # a weight in float32 is multiplied before rounding


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    rotary_dim = cos.shape[-1]
    turned, rest = x[..., :rotary_dim], x[..., rotary_dim:]
    first, second = turned.chunk(2, dim=-1)
    turned = turned * cos + torch.cat([-second, first], dim=-1) * sin
    return turned if rotary_dim == x.shape[-1] else torch.cat([turned, rest], dim=-1)


def _activated(gate: Tensor, kind: str) -> Tensor:
    if kind == "silu":
        return F.silu(gate)
    return F.gelu(gate, approximate="tanh" if kind == "gelu_tanh" else "none")


# What the compiler calls and does not look into. The plan and the cache of the step do not pass through it: they are
# those of the thread that computes.

_step = threading.local()


@contextmanager
def _computing(sizes: Mapping[int, LayerSizes], quantized: Mapping[int, Quantized], run: Run) -> Iterator[None]:
    _step.sizes, _step.quantized, _step.run, _step.failure = sizes, quantized, run, None
    try:
        yield
    except RuntimeError as error:  # C++ between us and an operation says that it failed, and not why
        if _step.failure is not None:
            raise _step.failure from None
        if "API call failed" in str(error):  # of operations that have worked: they fail where memory runs out
            raise MemoryError("An operation of a compiled layer failed, most likely for want of memory.") from error
        raise
    finally:
        del _step.sizes, _step.quantized, _step.run, _step.failure


def _attend(query: Tensor, key: Tensor, value: Tensor, index: int) -> Tensor:
    """Write keys and values [T, Hkv, D] into the cache, and attend with queries [T, Hq, D]."""
    try:
        sizes, run = _step.sizes[index], _step.run
        k_cache, v_cache = run.memory.keys[index], run.memory.values[index]
        write_kv(key, value, k_cache, v_cache, run.plan.new_slots)
        return attention(query, k_cache, v_cache, run.plan, scale=sizes.scale, window=sizes.window, softcap=sizes.softcap)
    except BaseException as error:
        _step.failure = error
        raise


def _multiply(x: Tensor, number: int, _width: int) -> Tensor:
    """Multiply rows [T, K] with a quantised weight: [T, width]."""
    try:
        out: Tensor = _step.quantized[number](x)
        return out.contiguous()
    except BaseException as error:
        _step.failure = error
        raise


_library = torch.library.Library("parrot_nb", "DEF")
_library.define("attend(Tensor query, Tensor key, Tensor value, int layer) -> Tensor")
_library.define("multiply(Tensor x, int number, int width) -> Tensor")
_library.impl("attend", _attend, "CPU")
_library.impl("multiply", _multiply, "CPU")


def _attended_shape(query: Tensor, _key: Tensor, _value: Tensor, _index: int) -> Tensor:
    return torch.empty_like(query, memory_format=torch.contiguous_format)


torch.library.register_fake("parrot_nb::attend", _attended_shape, lib=_library)


def _multiplied_shape(x: Tensor, _number: int, width: int) -> Tensor:
    return x.new_empty(x.shape[0], width)


torch.library.register_fake("parrot_nb::multiply", _multiplied_shape, lib=_library)
