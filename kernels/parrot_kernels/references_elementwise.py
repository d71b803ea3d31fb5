"""The truth that the norm, activation, rope, penalty, mask and sampling kernels are tested against: plain, slow, in float64.

Sampling is written out in Python integers and floats, one row at a time, with Philox as its paper gives it (Salmon et
al., "Parallel random numbers: as easy as 1, 2, 3", SC'11).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor


def rms_norm_reference(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """[..., D], [D] -> float64 [..., D]: what `parrot_kernels.norm.rms_norm` computes without a residual."""
    x, weight = x.double(), weight.double()
    return x / torch.sqrt((x * x).mean(dim=-1, keepdim=True) + eps) * weight


def gated_reference(gate_up: Tensor, kind: str) -> Tensor:
    """[T, 2F] -> float64 [T, F]: what `parrot_kernels.activation.gated` computes."""
    gate, up = gate_up.double().chunk(2, dim=-1)
    match kind:
        case "silu":
            act = gate / (1 + torch.exp(-gate))
        case "gelu":
            act = gate * 0.5 * (1 + torch.erf(gate / math.sqrt(2)))
        case _:
            act = gate * 0.5 * (1 + torch.tanh(math.sqrt(2 / math.pi) * (gate + 0.044715 * gate**3)))
    return act * up


def rotated_reference(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """[T, H, D], [T, R], [T, R] -> float64 [T, H, D]: the first R of D rotated by halves, the rest as it is."""
    x, cos, sin = x.double(), cos.double(), sin.double()
    half = cos.shape[1] // 2
    out = x.clone()
    for row in range(x.shape[0]):
        for i in range(half):
            first, second = x[row, :, i], x[row, :, i + half]
            out[row, :, i] = first * cos[row, i] - second * sin[row, i]
            out[row, :, i + half] = second * cos[row, i + half] + first * sin[row, i + half]
    return out


def masked_reference(logits: list[list[float]], masks: list[list[int]], rows: list[int]) -> list[list[float]]:
    """[B][V], [S][W], [S] -> [B][V]: what `parrot_kernels.bitmask.mask_logits` computes."""
    out = [list(row) for row in logits]
    for mask, row in zip(masks, rows, strict=True):
        bits = sum((word % 2**32) << (32 * i) for i, word in enumerate(mask))
        out[row] = [x if bits >> token & 1 else -math.inf for token, x in enumerate(out[row])]
    return out


def philox_reference(key: tuple[int, int], counter: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """Philox-4x32-10: four uint32 from a key of two and a counter of four."""
    (k0, k1), (c0, c1, c2, c3) = key, counter
    for _ in range(10):
        first, second = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (second >> 32) ^ c1 ^ k0, second % 2**32, (first >> 32) ^ c3 ^ k1, first % 2**32
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c0, c1, c2, c3


def bits_reference(seed: int, position: int, num_tokens: int) -> list[int]:
    """The uint32 of each token: word v % 4 of block v // 4 of the stream that seed and position name."""
    key = (seed % 2**32, (seed >> 32) % 2**32)
    bits: list[int] = []
    for block in range(-(-num_tokens // 4)):
        bits += philox_reference(key, (block, position % 2**32, (position >> 32) % 2**32, 0))
    return bits[:num_tokens]


def kept_reference(logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float) -> list[int]:
    """The tokens that the filters leave, in order of index."""
    most = max(logits)
    scaled = [(x - most) / temperature for x in logits]
    kept = sorted(range(len(scaled)), key=lambda i: (-scaled[i], i))  # likeliest first, then lowest index
    if 0 < top_k < len(kept):
        kept = [i for i in kept if scaled[i] >= scaled[kept[top_k - 1]]]
    if top_p < 1:
        total, before = math.fsum(math.exp(scaled[i]) for i in kept), 0.0
        inside: list[int] = []
        for i in kept:
            if inside and before >= top_p * total:
                break
            inside.append(i)
            before += math.exp(scaled[i])
        kept = inside
    return sorted(i for i in kept if math.exp(scaled[i]) >= min_p)


def penalised_reference(
    logits: list[float], prompt: Iterable[int], chosen: Iterable[int], repetition: float, presence: float, frequency: float
) -> list[float]:
    """One row of `parrot_kernels.penalties.penalise`, from the tokens themselves."""
    out, counts = list(logits), Counter(chosen)
    for token in {*prompt, *counts}:
        out[token] = out[token] / repetition if out[token] >= 0 else out[token] * repetition
    for token, count in counts.items():
        out[token] -= count * frequency + presence
    return out


def sample_reference(
    logits: list[float], temperature: float, top_k: int, top_p: float, min_p: float, seed: int, position: int
) -> int:
    """One row of `parrot_kernels.sample.sample_tokens`."""
    if any(math.isnan(x) for x in logits) or not any(math.isfinite(x) for x in logits):
        return -1
    if temperature <= 0:
        return logits.index(max(logits))
    bits = bits_reference(seed, position, len(logits))
    return max(
        kept_reference(logits, temperature, top_k, top_p, min_p),
        key=lambda i: (logits[i] / temperature - math.log(-math.log1p(-(bits[i] + 0.5) / 2**32)), -i),
    )
