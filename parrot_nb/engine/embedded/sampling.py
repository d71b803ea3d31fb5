"""Logits to token ids. Greedy is exact argmax; a sample uses noise that depends on its seed and position alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from parrot_nb.engine.protocol import Sampling

if TYPE_CHECKING:
    from torch import Tensor

_MASK = 2**64 - 1


def sample(logits: Tensor, samplings: Sequence[Sampling], seeds: Sequence[int], positions: Sequence[int]) -> list[int | None]:
    """Choose one token per row.

    Args:
        logits: [B, V], any float dtype.
        samplings: B, how each row chooses.
        seeds: B, of each row's generation.
        positions: B, how many tokens each generation has sampled before.

    Returns:
        B token ids; None for a row whose logits hold NaN or no finite value.
    """
    import torch

    logits = logits.float()
    usable = (~torch.isnan(logits).any(dim=-1) & torch.isfinite(logits).any(dim=-1)).tolist()
    chosen: list[int | None] = list(torch.argmax(logits, dim=-1).tolist())
    for i, sampling in enumerate(samplings):
        if not usable[i]:
            chosen[i] = None
        elif sampling.temperature > 0:
            chosen[i] = _draw(filtered(logits[i], sampling), seeds[i], positions[i])
    return chosen


def filtered(logits: Tensor, sampling: Sampling) -> Tensor:
    """[V] -> [V]: logits over temperature, with -inf for what top-k, then top-p, then min-p leave out."""
    import torch

    logits = logits - logits.max()  # so that a tiny temperature cannot overflow
    logits = logits / sampling.temperature
    if 0 < sampling.top_k < logits.shape[0]:
        least = torch.topk(logits, sampling.top_k).values[-1]
        logits = logits.masked_fill(logits < least, float("-inf"))
    if sampling.top_p < 1:
        ordered, order = torch.sort(logits, descending=True, stable=True)
        probabilities = torch.softmax(ordered, dim=-1)
        before = probabilities.cumsum(dim=-1) - probabilities  # mass of the likelier ones: the first is always kept
        drop = torch.zeros_like(logits, dtype=torch.bool).scatter(0, order, before >= sampling.top_p)
        logits = logits.masked_fill(drop, float("-inf"))
    if sampling.min_p > 0:
        probabilities = torch.softmax(logits, dim=-1)
        logits = logits.masked_fill(probabilities < sampling.min_p * probabilities.max(), float("-inf"))
    return logits


def _draw(logits: Tensor, seed: int, position: int) -> int:
    """Gumbel-max: argmax of logits plus Gumbel noise is a sample of their softmax."""
    import torch

    generator = torch.Generator("cpu").manual_seed(mixed(seed, position))  # on the CPU everywhere: one seed, one sample
    uniform = torch.rand(logits.shape[0], generator=generator, dtype=torch.float64)
    noise = -torch.log(-torch.log(uniform.clamp_min(1e-300)))
    return int(torch.argmax(logits.double() + noise.to(logits.device)))


def mixed(seed: int, position: int) -> int:
    """A well-spread 63-bit number from a seed and a position (splitmix64's finaliser), so that neighbours share nothing."""
    z = (seed * 0x9E3779B97F4A7C15 + (position + 1) * 0xD1B54A32D192ED03) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return (z ^ (z >> 31)) >> 1
