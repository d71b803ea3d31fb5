"""The gate of a gated feed-forward layer:  out[t, f] = act(gate_up[t, f]) * gate_up[t, F + f].

act is silu (x * sigmoid(x)), gelu (x * Phi(x)) or gelu_tanh, its approximation. Rounding is that of transformers: act is
computed in float32 and rounded to the dtype, then multiplied. `gated_reference` is the truth. On CUDA one Triton
program does a piece of one row.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton

Kind = Literal["silu", "gelu", "gelu_tanh"]
KINDS: tuple[Kind, ...] = ("silu", "gelu", "gelu_tanh")


def gated(gate_up: Tensor, kind: Kind) -> Tensor:
    """Gated activation of an MLP: act(gate) * up.

    Args:
        gate_up: [T, 2F], rows of any stride, any float dtype; the gate is the first half.
        kind: act: "silu", "gelu" or "gelu_tanh".

    Returns:
        [T, F], contiguous, in the input's dtype.

    Raises:
        ValueError: an odd number of columns, or a kind that is not known.
    """
    if kind not in KINDS:
        raise ValueError(f"An activation {kind!r} is not known; known are {', '.join(KINDS)}.")
    if gate_up.shape[-1] % 2:
        raise ValueError(f"{gate_up.shape[-1]} columns are not a gate and as many to multiply with it.")
    if backend.serves(gate_up):
        return gated_triton(gate_up, kind)
    gate, up = gate_up.chunk(2, dim=-1)
    act = F.silu(gate) if kind == "silu" else F.gelu(gate, approximate="tanh" if kind == "gelu_tanh" else "none")
    return act.mul_(up)


if triton is not None:

    @triton.jit
    def _gated_kernel(p_gate_up, p_out, stride_row, WIDTH: tl.constexpr, KIND: tl.constexpr, BLOCK: tl.constexpr):
        i_row = tl.program_id(0).to(tl.int64)
        o = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
        m = o < WIDTH
        p_gate = p_gate_up + i_row * stride_row + o
        b_gate = tl.load(p_gate, mask=m, other=0.0)
        b_up = tl.load(p_gate + WIDTH, mask=m, other=0.0)
        b_x = b_gate.to(tl.float32)
        if KIND == "silu":
            b_act = b_x * tl.sigmoid(b_x)
        elif KIND == "gelu":
            b_act = b_x * 0.5 * (1 + tl.erf(b_x * 0.7071067811865476))  # 1 / sqrt(2)
        else:  # (1 + tanh(z)) / 2 = sigmoid(2z), with z = sqrt(2 / pi) * (x + 0.044715 x^3)
            b_act = b_x * tl.sigmoid(1.5957691216057308 * (b_x + 0.044715 * b_x * b_x * b_x))
        b_out = b_act.to(b_gate.dtype).to(tl.float32) * b_up.to(tl.float32)
        tl.store(p_out + i_row * WIDTH + o, b_out.to(b_gate.dtype), mask=m)

    def gated_triton(gate_up: Tensor, kind: Kind) -> Tensor:
        """`gated` as a Triton kernel, for float32 and narrower; on the CPU only under TRITON_INTERPRET=1."""
        if gate_up.stride(1) != 1:
            gate_up = gate_up.contiguous()
        num_rows, width = gate_up.shape[0], gate_up.shape[1] // 2
        out = torch.empty(num_rows, width, dtype=gate_up.dtype, device=gate_up.device)
        if out.numel():
            block = min(1024, triton.next_power_of_2(width))  # 4 warps with 8 elements per thread: 16 bytes of bf16 per load
            grid = (num_rows, triton.cdiv(width, block))
            with launching(gate_up):
                _gated_kernel[grid](gate_up, out, gate_up.stride(0), WIDTH=width, KIND=kind, BLOCK=block)
        return out

else:

    def gated_triton(gate_up: Tensor, kind: Kind) -> Tensor:
        """`gated` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
