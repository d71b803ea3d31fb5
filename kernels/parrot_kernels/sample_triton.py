"""`parrot_kernels.sample_tokens` in Triton: five launches, whatever is asked, each of several programs a row where it reads a row.

    nearest   the largest logit of each part of a row, and where it is
    bounds    how many tokens, or what mass, have d within each of NUM_BOUNDS fixed bounds
    bounds    the same for NUM_BOUNDS finer ones, up to the least bound that holds all that the filters keep
    list      the tokens within the least of these; without filters, each part's draw
    choose    one program a row: the exact thresholds among the listed tokens, and the draw

A row of logits is read four times. Only where more than MOST_LISTED tokens are within the last bound, `choose` works on the row
itself. d is as `parrot_kernels.sample` has it; a float >= 0 is ordered like its bits, which are bisected to the
threshold, each pass over the listed tokens going on to a d that occurs. Masses are sums of 64-bit integers, exp(-d) in units of
2^-42: the order in which programs list tokens, which is another in each run, changes no result. References:
`sample_reference`, `sample_tokens_torch`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from parrot_kernels.backend import launching, tl, triton

NO_TOKEN = -1  # of a row from which none can be chosen
INFINITY_BITS = 0x7F800000  # of float32
TINY = 1e-30  # the least top_p: it keeps the likeliest token
BLOCK = 4096  # tokens of a program that reads a part of a row
LANES = 128  # of these, tokens that are held against the bounds at once
NUM_BOUNDS = 16  # coarse ones: 0.5, 0.75, 1, 1.5, ..., 64, and infinity: bits that are FIRST_BOUND and steps of half an octave
FIRST_BOUND, BOUND_STEP = 0x3F000000, 0x400000
MOST_LISTED = 16384
LIST_BLOCK = 2048  # listed tokens that a program reads at once
MAX_TOKENS = 2**20  # of a vocabulary: so many masses of 1 fit into 64 bits, and counts are exact in float32
LAUNCHES = 5


if triton is not None:

    @triton.jit
    def _below(p_logits, o, m, most, temperature):
        """The d of tokens o; infinity where m is false."""
        b = tl.load(p_logits + o, mask=m, other=float("-inf")).to(tl.float32)
        return tl.where(b == most, 0.0, tl.div_rn(most - b, temperature))

    @triton.jit
    def _mass(b_below):
        """exp(-d) in units of 2^-42."""
        return (tl.exp(-b_below) * 4398046511104.0 + 0.5).to(tl.int64)

    @triton.jit
    def _nearest(p_most, p_where, p_state, i_row, V: tl.constexpr, PARTS: tl.constexpr, BLOCK_PARTS: tl.constexpr):
        """A row's largest logit, where it is first, and whether a token can be chosen at all."""
        o = tl.arange(0, BLOCK_PARTS)
        b_most = tl.load(p_most + i_row * PARTS + o, mask=o < PARTS, other=float("-inf"))
        b_where = tl.load(p_where + i_row * PARTS + o, mask=o < PARTS, other=V)
        b_state = tl.load(p_state + i_row * PARTS + o, mask=o < PARTS, other=0)
        most = tl.max(b_most)
        has_nan, has_finite = tl.max(b_state & 1) == 1, tl.max(b_state & 2) == 2
        return most, tl.min(tl.where(b_most == most, b_where, V)), has_finite & (has_nan == 0)

    @triton.jit
    def _bound_bits(i_bound, NUM_BOUNDS: tl.constexpr, FIRST: tl.constexpr, STEP: tl.constexpr, INFINITY_BITS: tl.constexpr):
        """Bits of the coarse bounds of these numbers; 0 before the first."""
        return tl.where(i_bound < 0, 0, tl.where(i_bound < NUM_BOUNDS - 1, FIRST + i_bound * STEP, INFINITY_BITS))

    @triton.jit
    def _all_within(p_within, i_row, NUM_BOUNDS: tl.constexpr, PARTS: tl.constexpr, BLOCK_PARTS: tl.constexpr):
        """What all parts of a row have within each bound, int64 [NUM_BOUNDS]."""
        i_part = tl.arange(0, BLOCK_PARTS)[:, None]
        o = (i_row * PARTS + i_part) * NUM_BOUNDS + tl.arange(0, NUM_BOUNDS)[None, :]
        return tl.sum(tl.load(p_within + o, mask=i_part < PARTS, other=0), axis=0)

    @triton.jit
    def _enough(b_within, wanted, NUM_BOUNDS: tl.constexpr):
        """Number of the least bound within which there are `wanted`."""
        return tl.min(tl.where(b_within.to(tl.float32) >= wanted, tl.arange(0, NUM_BOUNDS), NUM_BOUNDS - 1))

    @triton.jit
    def _refined(
        p_within, i_row, by_count, top_k, top_p,
        TINY: tl.constexpr, NUM_BOUNDS: tl.constexpr, FIRST: tl.constexpr, STEP: tl.constexpr, INFINITY_BITS: tl.constexpr,
        PARTS: tl.constexpr, BLOCK_PARTS: tl.constexpr,
    ):  # fmt: skip
        """How many tokens or what mass is wanted; bits of the coarse bound before the least that has it, and the step of the finer
        bounds between these two."""
        b_within = _all_within(p_within, i_row, NUM_BOUNDS, PARTS, BLOCK_PARTS)
        wanted = tl.where(by_count, top_k.to(tl.float32), tl.maximum(top_p, TINY) * tl.max(b_within).to(tl.float32))
        i_bound = _enough(b_within, wanted, NUM_BOUNDS)
        least = _bound_bits(i_bound - 1, NUM_BOUNDS, FIRST, STEP, INFINITY_BITS)
        return wanted, least, (_bound_bits(i_bound, NUM_BOUNDS, FIRST, STEP, INFINITY_BITS) - least) // NUM_BOUNDS

    @triton.jit
    def _logarithm(b_bits):
        """Words of noise -> log(-log(1 - u))."""
        b_u = tl.minimum((b_bits.to(tl.float32) + 0.5) * 2.3283064365386963e-10, 0.9999999403953552)  # 2^-32, 1 - 2^-24
        # The GPU's log is not exact near 1, so that a small u needs the series, whose next term is 1e-8 of it at 1/64.
        b_series = b_u * (1 + b_u * (0.5 + b_u * (0.3333333333333333 + b_u * 0.25)))
        return tl.log(tl.where(b_u < 0.015625, b_series, -tl.log(1 - b_u)))

    @triton.jit
    def _words(seed, position, b_block):
        """Words of noise of blocks of four tokens, uint32."""
        b_zero = b_block * 0
        b_low = b_zero + (position & 0xFFFFFFFF).to(tl.uint32)
        b_high = b_zero + ((position >> 32) & 0xFFFFFFFF).to(tl.uint32)
        return tl.philox(seed, b_block, b_low, b_high, b_zero)

    @triton.jit
    def _noise_from(seed, position, start, BLOCK: tl.constexpr):
        """log(-log(1 - u)) of the tokens from `start` on, one call of Philox for four."""
        b_0, b_1, b_2, b_3 = _words(seed, position, (start // 4 + tl.arange(0, BLOCK // 4)).to(tl.uint32))
        return _logarithm(tl.interleave(tl.interleave(b_0, b_2), tl.interleave(b_1, b_3)))

    @triton.jit
    def _noise_of(seed, position, o):
        """log(-log(1 - u)) of tokens o."""
        b_0, b_1, b_2, b_3 = _words(seed, position, (o // 4).to(tl.uint32))
        b_word = o % 4
        return _logarithm(tl.where(b_word < 2, tl.where(b_word == 0, b_0, b_1), tl.where(b_word == 2, b_2, b_3)))

    @triton.jit
    def _nearest_kernel(
        p_logits, p_most, p_where, p_state, p_num_listed, stride_row, V: tl.constexpr, PARTS: tl.constexpr, BLOCK: tl.constexpr
    ):
        i_row, i_part = tl.program_id(0).to(tl.int64), tl.program_id(1)  # addresses are int64: logits may pass 2^31 elements
        o = i_part * BLOCK + tl.arange(0, BLOCK)
        b = tl.load(p_logits + i_row * stride_row + o, mask=o < V, other=float("-inf")).to(tl.float32)
        m_nan = b != b  # noqa: PLR0124 - which holds of NaN alone
        b_state = m_nan.to(tl.int32) + 2 * (tl.abs(b) < float("inf")).to(tl.int32)
        b = tl.where(m_nan, float("-inf"), b)
        most = tl.max(b)
        place = i_row * PARTS + i_part
        tl.store(p_most + place, most)
        tl.store(p_where + place, tl.min(tl.where(b == most, o, V)))
        tl.store(p_state + place, tl.max(b_state & 1) + tl.max(b_state & 2))
        if i_part == 0:
            tl.store(p_num_listed + i_row, 0)

    @triton.jit
    def _bounds_kernel(
        p_logits,
        p_temperature,
        p_top_k,
        p_top_p,
        p_most,
        p_where,
        p_state,
        p_within,  # int64 [B, PARTS, NUM_BOUNDS]
        p_finer,  # the same
        stride_row,
        V: tl.constexpr,
        IS_FINER: tl.constexpr,
        TINY: tl.constexpr,
        NUM_BOUNDS: tl.constexpr,
        FIRST: tl.constexpr,
        STEP: tl.constexpr,
        INFINITY_BITS: tl.constexpr,
        PARTS: tl.constexpr,
        BLOCK_PARTS: tl.constexpr,
        BLOCK: tl.constexpr,
        LANES: tl.constexpr,
    ):
        i_row, i_part = tl.program_id(0).to(tl.int64), tl.program_id(1)
        most, _, usable = _nearest(p_most, p_where, p_state, i_row, V, PARTS, BLOCK_PARTS)
        temperature, top_k, top_p = tl.load(p_temperature + i_row), tl.load(p_top_k + i_row), tl.load(p_top_p + i_row)
        by_count = (top_k > 0) & (top_k < V)
        if usable & (temperature > 0) & (by_count | (top_p < 1)):
            i_bound = tl.arange(0, NUM_BOUNDS)
            b_bits = _bound_bits(i_bound, NUM_BOUNDS, FIRST, STEP, INFINITY_BITS)
            if IS_FINER:
                _wanted, least, step = _refined(
                    p_within, i_row, by_count, top_k, top_p, TINY, NUM_BOUNDS, FIRST, STEP, INFINITY_BITS, PARTS, BLOCK_PARTS
                )
                b_bits = least + (i_bound + 1) * step
            b_bound = b_bits.to(tl.float32, bitcast=True)
            b_within = tl.zeros((LANES, NUM_BOUNDS), tl.int64)
            for start in range(0, BLOCK, LANES):
                o = i_part * BLOCK + start + tl.arange(0, LANES)
                b_below = _below(p_logits + i_row * stride_row, o, o < V, most, temperature)
                b_amount = tl.where(o < V, tl.where(by_count, 1, _mass(b_below)), 0)
                b_within += tl.where(b_below[:, None] <= b_bound[None, :], b_amount[:, None], 0)
            p_found = p_finer if IS_FINER else p_within
            tl.store(p_found + (i_row * PARTS + i_part) * NUM_BOUNDS + i_bound, tl.sum(b_within, axis=0))

    @triton.jit
    def _list_kernel(
        p_logits,
        p_temperature,
        p_top_k,
        p_top_p,
        p_min_p,
        p_seeds,
        p_positions,
        p_most,
        p_where,
        p_state,
        p_within,
        p_finer,
        p_listed,  # int32 [B, LISTED]
        p_num_listed,
        p_score,
        p_drawn,
        stride_row,
        V: tl.constexpr,
        TINY: tl.constexpr,
        NUM_BOUNDS: tl.constexpr,
        FIRST: tl.constexpr,
        STEP: tl.constexpr,
        INFINITY_BITS: tl.constexpr,
        LISTED: tl.constexpr,
        PARTS: tl.constexpr,
        BLOCK_PARTS: tl.constexpr,
        BLOCK: tl.constexpr,
    ):
        i_row, i_part = tl.program_id(0).to(tl.int64), tl.program_id(1)
        most, _, usable = _nearest(p_most, p_where, p_state, i_row, V, PARTS, BLOCK_PARTS)
        temperature, top_k, top_p = tl.load(p_temperature + i_row), tl.load(p_top_k + i_row), tl.load(p_top_p + i_row)
        by_count = (top_k > 0) & (top_k < V)
        if usable & (temperature > 0):
            start = i_part * BLOCK
            o = start + tl.arange(0, BLOCK)
            b_below = _below(p_logits + i_row * stride_row, o, o < V, most, temperature)
            if by_count | (top_p < 1):
                wanted, least, step = _refined(
                    p_within, i_row, by_count, top_k, top_p, TINY, NUM_BOUNDS, FIRST, STEP, INFINITY_BITS, PARTS, BLOCK_PARTS
                )
                i_bound = _enough(_all_within(p_finer, i_row, NUM_BOUNDS, PARTS, BLOCK_PARTS), wanted, NUM_BOUNDS)
                bound = (least + (i_bound + 1) * step).to(tl.float32, bitcast=True)
                b_near = ((b_below <= bound) & (o < V)).to(tl.int32)
                count = tl.sum(b_near)
                if count > 0:
                    b_place = tl.atomic_add(p_num_listed + i_row, count) + tl.cumsum(b_near, 0) - b_near
                    tl.store(p_listed + i_row * LISTED + b_place, o, mask=(b_near == 1) & (b_place < LISTED))
            else:
                b_score = b_below + _noise_from(tl.load(p_seeds + i_row), tl.load(p_positions + i_row), start, BLOCK)
                m = (tl.exp(-b_below) >= tl.minimum(tl.load(p_min_p + i_row), 1.0)) & (o < V)
                b_score = tl.where(m, b_score, float("inf"))
                score = tl.min(b_score)
                tl.store(p_score + i_row * PARTS + i_part, score)
                tl.store(p_drawn + i_row * PARTS + i_part, tl.min(tl.where(b_score == score, o, V)))

    @triton.jit
    def _listed_tokens(p_listed, start, count, is_listed, BLOCK: tl.constexpr):
        """Tokens `start` to `start + BLOCK` of a list, or of the whole row, and which of these there are."""
        o = start + tl.arange(0, BLOCK)
        m_there = o < count
        return tl.where(is_listed, tl.load(p_listed + o, mask=o < tl.where(is_listed, count, 0), other=0), o), m_there

    @triton.jit
    def _within(p_logits, p_listed, count, is_listed, most, temperature, bound, by_mass, BLOCK: tl.constexpr):
        """Mass or number of the tokens with d <= bound, the largest d of these, and the least d beyond."""
        b_amount = tl.zeros((BLOCK,), tl.int64)
        b_last = tl.zeros((BLOCK,), tl.float32)
        b_next = tl.full((BLOCK,), float("inf"), tl.float32)
        for start in range(0, count, BLOCK):
            o, m_there = _listed_tokens(p_listed, start, count, is_listed, BLOCK)
            b_below = _below(p_logits, o, m_there, most, temperature)
            m = (b_below <= bound) & m_there
            b_amount += tl.where(m, tl.where(by_mass, _mass(b_below), 1), 0)
            b_last = tl.where(m, tl.maximum(b_last, b_below), b_last)
            b_next = tl.where(m_there & (b_below > bound), tl.minimum(b_next, b_below), b_next)
        return tl.sum(b_amount), tl.max(b_last), tl.min(b_next)

    @triton.jit
    def _bits_within(p_logits, p_listed, count, is_listed, most, temperature, by_mass, wanted, bits, BLOCK: tl.constexpr):
        """Bits of the least d within which there are `wanted`; at most `bits`. Each pass narrows to d that occur."""
        least = tl.full((), 0, tl.int32)
        while least < bits:
            middle = (least + (bits - least) // 2).to(tl.float32, bitcast=True)
            amount, last, following = _within(p_logits, p_listed, count, is_listed, most, temperature, middle, by_mass, BLOCK)
            is_enough = amount.to(tl.float32) >= wanted
            bits = tl.where(is_enough, last.to(tl.int32, bitcast=True), bits)
            least = tl.where(is_enough, least, following.to(tl.int32, bitcast=True))
        return bits

    @triton.jit
    def _num_tied(p_logits, p_listed, count, is_listed, most, temperature, d, end, BLOCK: tl.constexpr):
        """Number of the tokens below `end` that have this d."""
        b_tied = tl.zeros((BLOCK,), tl.int32)
        for start in range(0, count, BLOCK):
            o, m_there = _listed_tokens(p_listed, start, count, is_listed, BLOCK)
            b_tied += ((_below(p_logits, o, m_there, most, temperature) == d) & m_there & (o < end)).to(tl.int32)
        return tl.sum(b_tied)

    @triton.jit
    def _end_of_tied(
        p_logits, p_listed, count, is_listed, most, temperature, d, before, limit, V: tl.constexpr, BLOCK: tl.constexpr
    ):
        """Where the tokens end that have this d and less than `limit` before them: the mass `before`, and those of a lower index."""
        end = tl.full((), V, tl.int32)
        num_tied = _num_tied(p_logits, p_listed, count, is_listed, most, temperature, d, end, BLOCK)
        mass = _mass(d)
        num_kept, most_kept = tl.full((), 1, tl.int32), num_tied  # the first has less than the limit before it
        while num_kept < most_kept:
            middle = num_kept + (most_kept - num_kept) // 2
            is_kept = (before + middle.to(tl.int64) * mass).to(tl.float32) < limit
            num_kept, most_kept = tl.where(is_kept, middle + 1, num_kept), tl.where(is_kept, most_kept, middle)
        if num_kept < num_tied:
            least = tl.full((), 0, tl.int32)
            while least < end:
                middle = least + (end - least) // 2
                found = _num_tied(p_logits, p_listed, count, is_listed, most, temperature, d, middle, BLOCK)
                end, least = tl.where(found >= num_kept, middle, end), tl.where(found >= num_kept, least, middle + 1)
        return end

    @triton.jit
    def _choose_kernel(
        p_logits, p_temperature, p_top_k, p_top_p, p_min_p, p_seeds, p_positions, p_most, p_where, p_state, p_within, p_finer,
        p_listed, p_num_listed, p_score, p_drawn, p_chosen, stride_row, V: tl.constexpr, INFINITY_BITS: tl.constexpr,
        TINY: tl.constexpr, NO_TOKEN: tl.constexpr, NUM_BOUNDS: tl.constexpr, LISTED: tl.constexpr, PARTS: tl.constexpr,
        BLOCK_PARTS: tl.constexpr, BLOCK: tl.constexpr,
    ):  # fmt: skip
        i_row = tl.program_id(0).to(tl.int64)
        most, chosen, usable = _nearest(p_most, p_where, p_state, i_row, V, PARTS, BLOCK_PARTS)
        temperature, top_k, top_p = tl.load(p_temperature + i_row), tl.load(p_top_k + i_row), tl.load(p_top_p + i_row)
        by_count, by_mass = (top_k > 0) & (top_k < V), top_p < 1
        if usable & (temperature > 0):
            if by_count | by_mass:
                p_logits += i_row * stride_row
                p_listed += i_row * LISTED
                num_listed = tl.load(p_num_listed + i_row)
                is_listed = num_listed <= LISTED
                count = tl.where(is_listed, num_listed, V)
                bits = tl.full((), INFINITY_BITS, tl.int32)
                if by_count:
                    wanted = top_k.to(tl.float32)
                    bits = _bits_within(p_logits, p_listed, count, is_listed, most, temperature, False, wanted, bits, BLOCK)
                end = tl.full((), V, tl.int32)
                if by_mass:
                    if by_count:
                        bound = bits.to(tl.float32, bitcast=True)
                        total, _, _ = _within(p_logits, p_listed, count, is_listed, most, temperature, bound, True, BLOCK)
                    else:
                        total = tl.max(_all_within(p_within, i_row, NUM_BOUNDS, PARTS, BLOCK_PARTS))
                    limit = tl.maximum(top_p, TINY) * total.to(tl.float32)
                    bits = _bits_within(p_logits, p_listed, count, is_listed, most, temperature, True, limit, bits, BLOCK)
                    before = tl.full((), 0, tl.int64)
                    if bits > 0:
                        bound = (bits - 1).to(tl.float32, bitcast=True)
                        before, _, _ = _within(p_logits, p_listed, count, is_listed, most, temperature, bound, True, BLOCK)
                    d = bits.to(tl.float32, bitcast=True)
                    end = _end_of_tied(p_logits, p_listed, count, is_listed, most, temperature, d, before, limit, V, BLOCK)
                furthest = bits.to(tl.float32, bitcast=True)
                min_p = tl.minimum(tl.load(p_min_p + i_row), 1.0)
                b_best = tl.full((BLOCK,), float("inf"), tl.float32)
                b_where = tl.full((BLOCK,), V, tl.int32)
                for start in range(0, count, BLOCK):
                    o, m_there = _listed_tokens(p_listed, start, count, is_listed, BLOCK)
                    b_below = _below(p_logits, o, m_there, most, temperature)
                    m = m_there & (tl.exp(-b_below) >= min_p) & ((b_below < furthest) | ((b_below == furthest) & (o < end)))
                    b_score = b_below + _noise_of(tl.load(p_seeds + i_row), tl.load(p_positions + i_row), o)
                    m = m & ((b_score < b_best) | ((b_score == b_best) & (o < b_where)))
                    b_best, b_where = tl.where(m, b_score, b_best), tl.where(m, o, b_where)
                chosen = tl.min(tl.where(b_best == tl.min(b_best), b_where, V))
            else:
                o = tl.arange(0, BLOCK_PARTS)
                b_score = tl.load(p_score + i_row * PARTS + o, mask=o < PARTS, other=float("inf"))
                b_drawn = tl.load(p_drawn + i_row * PARTS + o, mask=o < PARTS, other=V)
                chosen = tl.min(tl.where(b_score == tl.min(b_score), b_drawn, V))
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
        """`sample_tokens` by Triton kernels; on the CPU only under TRITON_INTERPRET=1.

        Raises:
            ValueError: a vocabulary of more than MAX_TOKENS.
        """
        if logits.stride(1) != 1:
            logits = logits.contiguous()
        num_rows, num_tokens = logits.shape
        if num_tokens > MAX_TOKENS:
            raise ValueError(f"The kernels choose among at most {MAX_TOKENS} tokens, not {num_tokens}.")
        chosen = torch.empty(num_rows, dtype=torch.int64, device=logits.device)
        if not num_rows:
            return chosen
        temperature, top_k, top_p, min_p, seeds, positions = (
            values.contiguous() for values in (temperature, top_k, top_p, min_p, seeds, positions)
        )
        block = max(4, min(BLOCK, triton.next_power_of_2(num_tokens)))  # Philox gives four at a time
        parts, num_kept = triton.cdiv(num_tokens, block), min(num_tokens, MOST_LISTED)

        def room(dtype: torch.dtype, *shape: int) -> Tensor:
            return torch.empty(num_rows, *shape, dtype=dtype, device=logits.device)

        most, score = room(torch.float32, parts), room(torch.float32, parts)
        where, state, drawn = room(torch.int32, parts), room(torch.int32, parts), room(torch.int32, parts)
        within, finer = room(torch.int64, parts, NUM_BOUNDS), room(torch.int64, parts, NUM_BOUNDS)
        listed, num_listed = room(torch.int32, num_kept), room(torch.int32)
        nearest, stride = (most, where, state), logits.stride(0)
        settings = (temperature, top_k, top_p, min_p, seeds, positions)
        found = (*nearest, within, finer, listed, num_listed, score, drawn)
        sizes = {"V": num_tokens, "PARTS": parts}
        common = {**sizes, "NUM_BOUNDS": NUM_BOUNDS, "BLOCK_PARTS": triton.next_power_of_2(parts)}
        bounds = {"FIRST": FIRST_BOUND, "STEP": BOUND_STEP, "INFINITY_BITS": INFINITY_BITS, "TINY": TINY}
        with launching(logits):
            _nearest_kernel[(num_rows, parts)](logits, *nearest, num_listed, stride, BLOCK=block, num_warps=8, **sizes)
            for is_finer in (False, True):
                _bounds_kernel[(num_rows, parts)](
                    logits, temperature, top_k, top_p, *nearest, within, finer, stride,
                    IS_FINER=is_finer, BLOCK=block, LANES=min(LANES, block), num_warps=4, **common, **bounds,
                )  # fmt: skip
            _list_kernel[(num_rows, parts)](
                logits, *settings, *found, stride, LISTED=num_kept, BLOCK=block, num_warps=8, **common, **bounds
            )
            _choose_kernel[(num_rows,)](
                logits, *settings, *found, chosen, stride, INFINITY_BITS=INFINITY_BITS, TINY=TINY, NO_TOKEN=NO_TOKEN,
                LISTED=num_kept, BLOCK=max(4, min(LIST_BLOCK, triton.next_power_of_2(num_kept))), num_warps=8, **common,
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
        """`sample_tokens` by Triton kernels."""
        raise RuntimeError("Triton is not installed.")
