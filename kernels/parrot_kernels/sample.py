"""Logits to token ids, on the device. With d[v] = (max(logits) - logits[v]) / temperature >= 0 a row's token is

    argmin d                                                         temperature 0: greedy, the lowest index wins ties
    argmin d[v] + log(-log(1 - u[v]))   over the v that are kept     else: Gumbel-max, a sample of softmax(-d)

    top-k keeps d <= the k-th smallest, ties and all;
    top-p keeps, of these, the smallest d, lowest index first, while the mass before them is less than top_p;
    min-p keeps, of these, exp(-d) >= min_p.

u[v] is uniform noise, a pure function of seed, position and v: word v % 4 of Philox-4x32-10 with the seed as its key and
(v // 4, position, 0) as its counter. The torch path and the kernel draw the same u bit for bit, so that a seed gives the
same sample on every device up to the rounding of logits. `sample_reference` is the truth.

`parrot_kernels.sample_triton` has the kernels.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import backend
from parrot_kernels.sample_triton import MAX_TOKENS, NO_TOKEN, TINY, sample_tokens_triton

LOW_BITS = 0xFFFFFFFF


def sample_tokens(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """Choose one token per row. On CUDA with Triton this never waits for the device and can be captured in a graph.

    Args:
        logits: [B, V], any float dtype.
        temperature: float32 [B]; 0 is greedy.
        top_k: int32 [B]; 0, or V and more, keeps all.
        top_p: float32 [B]; 1 and more keeps all; the likeliest token is always kept.
        min_p: float32 [B]; 0 keeps all, 1 only the likeliest.
        seeds: int64 [B], of each row's generation.
        positions: int64 [B], how many tokens each generation has sampled before.

    Returns:
        int64 [B]: token ids; -1 for a row whose logits hold NaN or no finite value.

    Raises:
        ValueError: shapes or dtypes that are not these.
    """
    if logits.ndim != 2 or not logits.is_floating_point() or logits.shape[1] == 0:
        raise ValueError(f"Logits must be floats [B, V], not {list(logits.shape)} of {logits.dtype}.")
    for name, values, dtype in (
        ("temperature", temperature, torch.float32),
        ("top_k", top_k, torch.int32),
        ("top_p", top_p, torch.float32),
        ("min_p", min_p, torch.float32),
        ("seeds", seeds, torch.int64),
        ("positions", positions, torch.int64),
    ):
        if values.shape != logits.shape[:1] or values.dtype != dtype:
            raise ValueError(f"{name} must be {dtype} [{logits.shape[0]}], not {list(values.shape)} of {values.dtype}.")
    if backend.serves(logits) and logits.shape[1] <= MAX_TOKENS:
        return sample_tokens_triton(logits, temperature, top_k, top_p, min_p, seeds, positions)
    return sample_tokens_torch(logits, temperature, top_k, top_p, min_p, seeds, positions)


def sample_tokens_torch(
    logits: Tensor,
    temperature: Tensor,
    top_k: Tensor,
    top_p: Tensor,
    min_p: Tensor,
    seeds: Tensor,
    positions: Tensor,
) -> Tensor:
    """`sample_tokens` in torch; greedy rows cost one argmax."""
    most, chosen = logits.max(dim=-1)  # NaN wins
    usable = most.isfinite()
    if not usable.all():
        usable = ~most.isnan() & logits.isfinite().any(dim=-1)  # infinity beside finite logits is chosen
        chosen.masked_fill_(~usable, NO_TOKEN)
    rows = (usable & (temperature > 0)).nonzero().squeeze(1)
    if rows.shape[0]:
        x, most = logits[rows].float(), most[rows].float().unsqueeze(1)
        below = ((most - x) / temperature[rows].unsqueeze(1)).masked_fill_(x == most, 0)  # inf - inf, too, is 0
        kept = _kept(below, top_k[rows], top_p[rows], min_p[rows])
        noise = uniform(seeds[rows], positions[rows], below.shape[1]).neg_().log1p_().neg_().log_()
        chosen[rows] = torch.argmin(noise.add_(below).masked_fill_(~kept, torch.inf), dim=-1)
    return chosen


def _kept(below: Tensor, top_k: Tensor, top_p: Tensor, min_p: Tensor) -> Tensor:
    """float32 [N, V] -> bool [N, V]: what the filters leave of d."""
    num_tokens = below.shape[1]
    kept = torch.exp(-below) >= min_p.clamp(max=1).unsqueeze(1)
    by_count, by_mass = (top_k > 0) & (top_k < num_tokens), top_p < 1
    rows = (by_count | by_mass).nonzero().squeeze(1)
    if rows.shape[0]:
        below, by_mass = below[rows], by_mass[rows]
        nearest = below.sort(dim=-1).values
        wanted = torch.where(by_count, top_k, num_tokens)[rows].long().unsqueeze(1)
        most = nearest.gather(1, wanted - 1)
        inside = below <= most
        if by_mass.any():
            inside &= _nucleus(below, nearest, nearest <= most, top_p[rows]) | ~by_mass.unsqueeze(1)
        kept[rows] &= inside
    return kept


def _nucleus(below: Tensor, nearest: Tensor, counted: Tensor, top_p: Tensor) -> Tensor:
    """[N, V], the same in ascending order, which of these count -> bool [N, V]: the likeliest of mass top_p."""
    weight = torch.exp(-nearest).double().mul_(counted)
    limit = top_p.clamp(min=TINY).unsqueeze(1) * weight.sum(dim=-1, keepdim=True).float()
    before = weight.cumsum(dim=-1).sub_(weight).float()
    num_inside = (before < limit).sum(dim=-1, keepdim=True)
    most = nearest.gather(1, num_inside - 1)
    if (nearest.gather(1, num_inside.clamp(max=nearest.shape[1] - 1)) > most).all():  # no tie at the edge
        return below <= most
    is_tied = below == most
    num_tied = num_inside - (nearest < most).sum(dim=-1, keepdim=True)
    return (below < most) | (is_tied & (is_tied.cumsum(dim=-1) <= num_tied))


def uniform(seeds: Tensor, positions: Tensor, num_tokens: int) -> Tensor:
    """int64 [B], [B] -> float32 [B, V], in (0, 1): the noise of the module's docstring."""
    words = philox_bits(seeds, positions, num_tokens)
    # float32 has a step of 2^-24 below 1, but 2^-56 near 0, where -log(1 - u) decides among many tokens
    return words.float().add_(0.5).mul_(2.0**-32).clamp_(max=1 - 2.0**-24)


def philox_bits(seeds: Tensor, positions: Tensor, num_tokens: int) -> Tensor:
    """int64 [B], [B] -> int64 [B, V]: uint32 words of Philox-4x32-10, computed in int64, where products wrap."""
    rounds = torch.arange(10, device=seeds.device)
    k0s = ((seeds & LOW_BITS).unsqueeze(1) + rounds * 0x9E3779B9 & LOW_BITS).split(1, dim=1)  # 10 of [B, 1]
    k1s = ((seeds >> 32 & LOW_BITS).unsqueeze(1) + rounds * 0xBB67AE85 & LOW_BITS).split(1, dim=1)
    c0 = torch.arange(-(-num_tokens // 4), device=seeds.device).expand(seeds.shape[0], -1)  # [B, V / 4]
    c1, c2, c3 = (positions & LOW_BITS).unsqueeze(1), (positions >> 32 & LOW_BITS).unsqueeze(1), torch.zeros_like(k0s[0])
    for k0, k1 in zip(k0s, k1s, strict=True):
        first, second = c0 * 0xD2511F53, (c2 * 0xCD9E8D57).expand_as(c0)  # c1 and c3 are all the product: the mask comes after
        c0 = (second >> 32).bitwise_xor_(c1).bitwise_xor_(k0).bitwise_and_(LOW_BITS)
        c2 = (first >> 32).bitwise_xor_(c3).bitwise_xor_(k1).bitwise_and_(LOW_BITS)
        c1, c3 = second, first
    return torch.stack((c0, c1, c2, c3), dim=-1).bitwise_and_(LOW_BITS).flatten(1)[:, :num_tokens]
