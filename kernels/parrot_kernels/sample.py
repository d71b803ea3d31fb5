"""Logits to token ids, on the device. With d[v] = (max(logits) - logits[v]) / temperature >= 0 a row's token is

    argmin d                                                         temperature 0: greedy, the lowest index wins ties
    argmin d[v] + log(-log(1 - u[v]))   over the v that are kept     else: Gumbel-max, a sample of softmax(-d)

    top-k keeps d <= the k-th smallest, ties and all;
    top-p keeps, of these, the smallest d, lowest index first, while the mass before them is less than top_p;
    min-p keeps, of these, exp(-d) >= min_p.

u[v] is uniform noise, a pure function of seed, position and v: word v % 4 of Philox-4x32-10 with the seed as its key and
(v // 4, position, 0) as its counter. The torch path and the kernel draw the same u bit for bit, so that a seed gives the
same sample on every device up to the rounding of logits. `sample_reference` is the truth.

The kernel does not sort: d, which as a float >= 0 is ordered like its bits, is bisected to the exact threshold, in at most
31 passes over a row. One Triton program does one row.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import backend, launching, tl, triton

NO_TOKEN = -1  # of a row from which none can be chosen
LOW_BITS = 0xFFFFFFFF
INFINITY_BITS = 0x7F800000  # of float32
TINY = 1e-30  # the least top_p: it keeps the likeliest token


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
    if backend.serves(logits):
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


if triton is not None:

    @triton.jit
    def _greedy(p_logits, V: tl.constexpr, BLOCK: tl.constexpr):
        """The largest logit, where it is first, and whether a token can be chosen at all."""
        b_best = tl.full((BLOCK,), float("-inf"), tl.float32)  # each lane keeps its best and where it first met it
        b_where = tl.arange(0, BLOCK)
        b_nan = tl.zeros((BLOCK,), tl.int32)
        b_finite = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, V, BLOCK):
            o = start + tl.arange(0, BLOCK)
            b = tl.load(p_logits + o, mask=o < V, other=float("-inf")).to(tl.float32)
            b_nan |= (b != b).to(tl.int32)  # noqa: PLR0124 - which holds of NaN alone
            b_finite |= (tl.abs(b) < float("inf")).to(tl.int32)
            m = b > b_best
            b_best = tl.where(m, b, b_best)
            b_where = tl.where(m, o, b_where)
        most = tl.max(b_best)
        return most, tl.min(tl.where(b_best == most, b_where, V)), (tl.max(b_nan) == 0) & (tl.max(b_finite) == 1)

    @triton.jit
    def _below(p_logits, o, V: tl.constexpr, most, temperature):
        """The d of tokens o; infinity beyond V."""
        b = tl.load(p_logits + o, mask=o < V, other=float("-inf")).to(tl.float32)
        return tl.where(b == most, 0.0, tl.div_rn(most - b, temperature))

    @triton.jit
    def _count_within(p_logits, V: tl.constexpr, most, temperature, bound, BLOCK: tl.constexpr):
        """How many tokens have d <= bound."""
        b_count = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, V, BLOCK):
            o = start + tl.arange(0, BLOCK)
            b_count += ((_below(p_logits, o, V, most, temperature) <= bound) & (o < V)).to(tl.int32)
        return tl.sum(b_count)

    @triton.jit
    def _mass_within(p_logits, V: tl.constexpr, most, temperature, bound, BLOCK: tl.constexpr):
        """Sum of exp(-d) over the tokens with d <= bound, the largest d of these, and the least d beyond."""
        b_mass = tl.zeros((BLOCK,), tl.float32)
        b_last = tl.zeros((BLOCK,), tl.float32)
        b_next = tl.full((BLOCK,), float("inf"), tl.float32)
        for start in range(0, V, BLOCK):
            b_below = _below(p_logits, start + tl.arange(0, BLOCK), V, most, temperature)
            m = b_below <= bound
            b_mass += tl.where(m, tl.exp(-b_below), 0.0)
            b_last = tl.where(m, tl.maximum(b_last, b_below), b_last)
            b_next = tl.where(m, b_next, tl.minimum(b_next, b_below))
        return tl.sum(b_mass), tl.max(b_last), tl.min(b_next)

    @triton.jit
    def _bits_of_count(p_logits, V: tl.constexpr, most, temperature, top_k, bits, BLOCK: tl.constexpr):
        """Bits of a d within which are the top_k nearest tokens, their ties, and no others; at most `bits`."""
        least = tl.full((), 0, tl.int32)
        while least < bits:
            middle = least + (bits - least) // 2
            count = _count_within(p_logits, V, most, temperature, middle.to(tl.float32, bitcast=True), BLOCK)
            bits = tl.where(count >= top_k, middle, bits)
            least = tl.where(count > top_k, least, tl.where(count < top_k, middle + 1, middle))
        return bits

    @triton.jit
    def _bits_of_mass(p_logits, V: tl.constexpr, most, temperature, limit, bits, BLOCK: tl.constexpr):
        """Bits of the least d within which there is a mass of `limit`; at most `bits`. Each pass narrows to d that occur."""
        least = tl.full((), 0, tl.int32)
        while least < bits:
            middle = (least + (bits - least) // 2).to(tl.float32, bitcast=True)
            mass, last, following = _mass_within(p_logits, V, most, temperature, middle, BLOCK)
            bits = tl.where(mass >= limit, last.to(tl.int32, bitcast=True), bits)
            least = tl.where(mass >= limit, least, following.to(tl.int32, bitcast=True))
        return bits

    @triton.jit
    def _log_exponential(seed, position, start, BLOCK: tl.constexpr):
        """log(-log(1 - u)) for the tokens from `start` on."""
        o_block = (start // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32)  # one call of Philox serves four tokens
        b_zero = o_block * 0
        b_low = b_zero + (position & 0xFFFFFFFF).to(tl.uint32)
        b_high = b_zero + ((position >> 32) & 0xFFFFFFFF).to(tl.uint32)
        b_0, b_1, b_2, b_3 = tl.philox(seed, o_block, b_low, b_high, b_zero)
        b_bits = tl.interleave(tl.interleave(b_0, b_2), tl.interleave(b_1, b_3))
        b_u = tl.minimum((b_bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.9999999403953552)  # 2^-32, 1 - 2^-24
        # The GPU's log is not exact near 1, so that a small u needs the series, whose next term is 1e-8 of it at 1/64.
        b_series = b_u * (1 + b_u * (0.5 + b_u * (0.3333333333333333 + b_u * 0.25)))
        return tl.log(tl.where(b_u < 0.015625, b_series, -tl.log(1 - b_u)))

    @triton.jit
    def _draw(
        p_logits, V: tl.constexpr, most, temperature, seed, position, most_k, most_p, before_tied, limit, min_p, BLOCK: tl.constexpr
    ):  # fmt: skip
        """Gumbel-max over what is kept: within most_k, most_p and min_p; of the tokens at most_p those with less than
        `limit` before them, where `before_tied` is before the first of them.
        """
        b_best = tl.full((BLOCK,), float("inf"), tl.float32)
        b_where = tl.arange(0, BLOCK)
        weight_tied = tl.exp(-most_p)
        num_tied = tl.full((), 0, tl.int32)
        for start in range(0, V, BLOCK):
            o = start + tl.arange(0, BLOCK)
            b_below = _below(p_logits, o, V, most, temperature)
            b_tied = ((b_below == most_p) & (o < V)).to(tl.int32)
            b_before = before_tied + (num_tied + tl.cumsum(b_tied, 0) - b_tied).to(tl.float32) * weight_tied
            num_tied += tl.sum(b_tied)
            m = (b_below <= most_k) & (tl.exp(-b_below) >= min_p)
            m = m & ((b_below < most_p) | ((b_tied == 1) & (b_before < limit)))
            b_score = b_below + _log_exponential(seed, position, start, BLOCK)
            m = m & (b_score < b_best)
            b_best = tl.where(m, b_score, b_best)
            b_where = tl.where(m, o, b_where)
        return tl.min(tl.where(b_best == tl.min(b_best), b_where, V))

    @triton.jit
    def _sample_kernel(
        p_logits,
        p_temperature,
        p_top_k,
        p_top_p,
        p_min_p,
        p_seeds,
        p_positions,
        p_chosen,
        stride_row,
        V: tl.constexpr,
        INFINITY_BITS: tl.constexpr,
        TINY: tl.constexpr,
        NO_TOKEN: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        i_row = tl.program_id(0).to(tl.int64)  # addresses are int64: logits may pass 2^31 elements
        p_logits += i_row * stride_row
        most, chosen, usable = _greedy(p_logits, V, BLOCK)
        temperature = tl.load(p_temperature + i_row)
        if usable & (temperature > 0):
            top_k = tl.load(p_top_k + i_row)
            top_p = tl.load(p_top_p + i_row)
            bits_k = tl.full((), INFINITY_BITS, tl.int32)
            if (top_k > 0) & (top_k < V):
                bits_k = _bits_of_count(p_logits, V, most, temperature, top_k, bits_k, BLOCK)
            most_k = bits_k.to(tl.float32, bitcast=True)
            most_p = tl.full((), float("inf"), tl.float32)
            before_tied = tl.full((), 0.0, tl.float32)
            limit = tl.full((), 1.0, tl.float32)
            if top_p < 1:
                mass, _, _ = _mass_within(p_logits, V, most, temperature, most_k, BLOCK)
                limit = tl.maximum(top_p, TINY) * mass
                bits_p = _bits_of_mass(p_logits, V, most, temperature, limit, bits_k, BLOCK)
                most_p = bits_p.to(tl.float32, bitcast=True)
                if bits_p > 0:
                    bound = (bits_p - 1).to(tl.float32, bitcast=True)
                    before_tied, _, _ = _mass_within(p_logits, V, most, temperature, bound, BLOCK)
            chosen = _draw(
                p_logits, V, most, temperature, tl.load(p_seeds + i_row), tl.load(p_positions + i_row),
                most_k, most_p, before_tied, limit, tl.minimum(tl.load(p_min_p + i_row), 1.0), BLOCK,
            )  # fmt: skip
        tl.store(p_chosen + i_row, tl.where(usable, chosen, NO_TOKEN).to(tl.int64))

    def sample_tokens_triton(
        logits: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        seeds: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """`sample_tokens` as a Triton kernel; on the CPU only under TRITON_INTERPRET=1."""
        if logits.stride(1) != 1:
            logits = logits.contiguous()
        num_rows, num_tokens = logits.shape
        chosen = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
        if num_rows:
            options = [values.contiguous() for values in (temperature, top_k, top_p, min_p, seeds, positions)]
            block = max(4, min(4096, triton.next_power_of_2(num_tokens)))  # Philox gives four at a time
            with launching(logits):
                _sample_kernel[(num_rows,)](
                    logits, *options, chosen, logits.stride(0),
                    V=num_tokens, INFINITY_BITS=INFINITY_BITS, TINY=TINY, NO_TOKEN=NO_TOKEN, BLOCK=block,
                    num_warps=16 if block >= 4096 else 4,  # one program has a whole vocabulary to read
                )  # fmt: skip
        return chosen

else:

    def sample_tokens_triton(
        logits: Tensor,
        temperature: Tensor,
        top_k: Tensor,
        top_p: Tensor,
        min_p: Tensor,
        seeds: Tensor,
        positions: Tensor,
    ) -> Tensor:
        """`sample_tokens` as a Triton kernel."""
        raise RuntimeError("Triton is not installed.")
