"""Attention of a ragged step in torch: the CPU's path, and every device's without Triton.

For row t of a context, query head h, key head h // (Hq / Hkv), and its context's positions j:

    s_j = scale * q_t . k_j        (softcap: s_j = c * tanh(s_j / c))
    out_t = sum_j softmax(s)_j v_j    over j <= t, and t - j < window; a sink adds exp(sink_h) to the denominator

A segment that rows share is one matrix product for all of them, the query heads of a key head stacked as further rows.
The own ends of contexts with equally many rows are one padded batch per length class; a long prefill chunk is a product
with what lies before it and a causal one with itself. Results merge by log-sum-exp:

    out = (1 - w) out_1 + w out_2    with w = sigmoid(lse_2 - lse_1)

Nothing here loops over the contexts of a decode step. Reference: `parrot_kernels.reference.attention_reference`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from parrot_kernels.segments import Segment

MIN_CLASS_TOKENS = 64  # own ends up to here are one batch: padding costs less than another batch would
MOST_APART, LEAST_TOKENS_APART = 2, 800  # runs of an own segment that are attended to where they are; shorter ones are copied
MAX_END_ROWS = 32  # contexts with up to so many rows are batched; more fill a product of their own


@dataclass(frozen=True, slots=True)
class Run:
    """Tokens in the cache: `slots` is a slice where they lie in a row, else int64 [L]."""

    slots: slice | Tensor

    @classmethod
    def of(cls, pages: Sequence[int], num_tokens: int, page_size: int, device: torch.device | str) -> Run:
        """The first `num_tokens` tokens of pages."""
        if pages[-1] - pages[0] == len(pages) - 1 and all(b - a == 1 for a, b in itertools.pairwise(pages)):
            return cls(slice(pages[0] * page_size, pages[0] * page_size + num_tokens))
        grid = torch.tensor(pages, dtype=torch.int64)[:, None] * page_size + torch.arange(page_size)
        return cls(grid.flatten()[:num_tokens].to(device))

    def part(self, start: int, end: int) -> Run:
        """Tokens `start` to `end` of it."""
        if isinstance(self.slots, slice):
            return Run(slice(self.slots.start + start, self.slots.start + end))
        return Run(self.slots[start:end])

    def take(self, cache: Tensor) -> Tensor:
        """[num_slots, H, D], contiguous -> [1, H, L, D], a view where that is possible."""
        _, num_heads, dim = cache.shape
        if isinstance(self.slots, slice):  # in one call: a decoding step makes many such views
            size = (1, num_heads, self.slots.stop - self.slots.start, dim)
            start = cache.storage_offset() + self.slots.start * num_heads * dim
            return cache.as_strided(size, (0, dim, num_heads * dim, 1), start)
        return cache.index_select(0, self.slots).transpose(0, 1)[None]


@dataclass(frozen=True, slots=True)
class SharedRun:
    """Rows that all see a run of tokens.

    Attributes:
        first: position of the run's first token.
        num_tokens: of the run.
        own: all own segments of the step.
        masks: made on first need, by window.
    """

    rows: slice
    run: Run
    first: int
    num_tokens: int
    own: Sequence[Segment]
    masks: dict[int, Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None) -> Tensor | None:
        """[R, L], what a window lets through; None where that is all."""
        if window is None:
            return None
        if window not in self.masks:
            self.masks[window] = self._seen(window)
        return self.masks[window]

    def _seen(self, window: int) -> Tensor | None:
        ends = [(s.first + s.num_tokens, s.num_rows) for s in self.own if self.rows.start <= s.row_start < self.rows.stop]
        if self.first > max(end for end, _ in ends) - 1 - window:
            return None
        positions = torch.cat([torch.arange(end - num_rows, end) for end, num_rows in ends])
        return torch.arange(self.first, self.first + self.num_tokens) > positions[:, None] - window


@dataclass(frozen=True, slots=True)
class Chunk:
    """Rows of one context, by themselves: they see all of its own segment before them, and causally themselves."""

    rows: slice
    run: Run
    num_before: int


@dataclass(frozen=True, slots=True)
class Ends:
    """Own segments of B contexts with n rows each, padded to the longest; L tokens.

    Attributes:
        rows: slice, or int64 [B * n].
        num_rows: n.
        slots: int64 [B * L], padded with each context's last.
        lengths: int64 [B].
        masks: made on first need, by window, dtype and query heads per key head.
    """

    rows: slice | Tensor
    num_rows: int
    slots: Tensor
    lengths: Tensor
    masks: dict[tuple[int | None, torch.dtype, int], Tensor | None] = field(default_factory=dict)

    def mask(self, window: int | None, dtype: torch.dtype, group: int) -> Tensor | None:
        """[B, 1, n * G or 1, L] in `dtype`, 0 or -inf; None where nothing is masked."""
        key = (window, dtype, group)
        if key not in self.masks:
            num_contexts = self.lengths.shape[0]
            position = torch.arange(self.slots.shape[0] // num_contexts, device=self.slots.device)
            row = self.lengths[:, None] - self.num_rows + torch.arange(self.num_rows, device=self.slots.device)  # [B, n]
            seen = position <= row[..., None]  # [B, n, L]
            if window is not None:
                seen &= position > row[..., None] - window
            if self.num_rows > 1:
                seen = seen.repeat_interleave(group, 1)
            bias = torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill_(~seen, float("-inf"))
            self.masks[key] = None if bool(seen.all()) else bias[:, None]
        return self.masks[key]


@dataclass(frozen=True, slots=True)
class HostPlan:
    """A step's segments as torch runs them."""

    shared: tuple[SharedRun, ...]
    chunks: tuple[Chunk, ...]
    ends: tuple[Ends, ...]

    @classmethod
    def build(cls, segments: Sequence[Segment], page_size: int, device: torch.device | str) -> HostPlan:
        """Build the plan from the segments of a step."""
        own = [s for s in segments if s.own]
        classes: dict[tuple[int, int], list[Segment]] = {}
        for segment in own:
            length_class = max(segment.num_tokens, MIN_CLASS_TOKENS).bit_length()
            classes.setdefault((segment.num_rows, length_class), []).append(segment)
        batches = [group for (num_rows, _), group in classes.items() if len(group) > 1 and num_rows <= MAX_END_ROWS]
        batched = {segment for group in batches for segment in group}
        seen = [s for s in segments if not s.own]
        chunks = []
        for s in own:
            if s not in batched:
                before = _apart(s, page_size)  # pages that lie elsewhere are attended to where they are, as if they were shared
                seen += before
                num_apart = sum(part.num_tokens for part in before)
                run = Run.of(s.pages[num_apart // page_size :], s.num_tokens - num_apart, page_size, device)
                chunks.append(Chunk(slice(s.row_start, s.row_end), run, s.num_tokens - num_apart - s.num_rows))
        shared = [
            SharedRun(
                rows=slice(s.row_start, s.row_end),
                run=Run.of(s.pages, s.num_tokens, page_size, device),
                first=s.first,
                num_tokens=s.num_tokens,
                own=own,
            )
            for s in seen
        ]
        return cls(tuple(shared), tuple(chunks), tuple(_ends(group, page_size, device) for group in batches))


def _apart(segment: Segment, page_size: int) -> list[Segment]:
    """The beginnings of an own segment that lie in memory apart from its end, each in a row: a prompt whose first pages were
    cached has such. None where they are many, or copying all of it together costs less than attending to them apart."""
    cuts = [i + 1 for i, (a, b) in enumerate(itertools.pairwise(segment.pages)) if b - a != 1]
    if not cuts or len(cuts) > MOST_APART or segment.num_tokens < LEAST_TOKENS_APART:
        return []
    if cuts[-1] * page_size > segment.num_tokens - segment.num_rows:  # its rows themselves lie apart
        return []
    parts = []
    for start, end in itertools.pairwise([0, *cuts]):
        first, num_tokens = segment.first + start * page_size, (end - start) * page_size
        parts.append(replace(segment, first=first, num_tokens=num_tokens, pages=segment.pages[start:end], own=False))
    return parts


def _ends(segments: Sequence[Segment], page_size: int, device: torch.device | str) -> Ends:
    first, last = segments[0].row_start, segments[-1].row_end
    num_rows = segments[0].num_rows
    rows: slice | Tensor = slice(first, last)
    if last - first != len(segments) * num_rows:
        starts = torch.tensor([s.row_start for s in segments], dtype=torch.int64)
        rows = (starts[:, None] + torch.arange(num_rows)).flatten().to(device)
    most_pages = max(len(s.pages) for s in segments)
    most_tokens = max(s.num_tokens for s in segments)
    pages = torch.tensor([s.pages + s.pages[-1:] * (most_pages - len(s.pages)) for s in segments], dtype=torch.int64)
    slots = (pages[:, :, None] * page_size + torch.arange(page_size)).flatten(1)
    lengths = torch.tensor([s.num_tokens for s in segments], dtype=torch.int64)
    # Padding repeats a context's last token: what lies beyond it may be anything, and zero times NaN is NaN.
    slots = slots.gather(1, torch.minimum(torch.arange(most_tokens), lengths[:, None] - 1))
    return Ends(rows, num_rows, slots.flatten().to(device), lengths.to(device))


@dataclass(frozen=True, slots=True)
class Terms:
    """Terms by which scores become weights; the same for all segments."""

    scale: float
    window: int | None = None
    softcap: float | None = None

    def attend(
        self, query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, *, causal: bool = False
    ) -> tuple[Tensor, Tensor]:
        """Query [B, H, N, D], key [B, H, L, D], value [B, H, L, Dv], mask 0 or -inf, broadcastable to [B, H, N, L]
        -> out [B, H, N, Dv] in the value's dtype and log-sum-exp [B, H, N]. `causal` with N = L only."""
        if self.softcap is None and query.device.type == "cpu" and query.shape[-1] == value.shape[-1]:
            if mask is not None:
                mask = mask.expand(query.shape[0], mask.shape[1], query.shape[2], key.shape[2])
            out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                query, key, value, 0.0, causal, attn_mask=mask, scale=self.scale
            )
            return out, lse
        scores = (query @ key.transpose(-1, -2)).float() if query.dtype.itemsize < 4 else query @ key.transpose(-1, -2)
        scores = scores * self.scale
        if self.softcap is not None:
            scores = self.softcap * torch.tanh(scores / self.softcap)
        if causal:
            past = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
            scores = scores.masked_fill(~past, float("-inf"))
        if mask is not None:
            scores = scores + mask
        lse = torch.logsumexp(scores, dim=-1)
        weights = torch.exp(scores - lse.clamp_min(torch.finfo(lse.dtype).min)[..., None])  # all masked: zeros, not NaN
        return weights.to(value.dtype) @ value, lse


def attention_host(
    query: Tensor, k_cache: Tensor, v_cache: Tensor, plan: HostPlan, terms: Terms, sinks: Tensor | None = None
) -> Tensor:
    """Shapes as `parrot_kernels.attention`."""
    num_rows, num_heads, _ = query.shape
    num_kv_heads, value_dim = v_cache.shape[1:]
    group = num_heads // num_kv_heads
    grouped = query.view(num_rows, num_kv_heads, group, -1)
    own = [(ends.rows, _ends_attend(grouped[ends.rows], k_cache, v_cache, ends, terms)) for ends in plan.ends]
    own += [(chunk.rows, _chunk(grouped[chunk.rows], k_cache, v_cache, chunk, terms)) for chunk in plan.chunks]
    if len(own) == 1:  # of all rows: nothing to put together
        out, lse = own[0][1]
    else:
        out = query.new_empty(num_rows, num_kv_heads, group, value_dim)
        lse = own[0][1][1].new_empty(num_rows, num_kv_heads, group)
        for rows, (found, its) in own:
            out[rows], lse[rows] = found, its
    runs = list(_seen_runs(plan.shared, terms.window, query, group))
    for shared, bias, blind in runs:
        found, its = _stacked(grouped[shared.rows], shared.run.take(k_cache), shared.run.take(v_cache), terms, bias)
        if blind is not None:
            found, its = found.masked_fill(blind[..., None], 0), its.masked_fill(blind, float("-inf"))
        last = shared is runs[-1][0] and sinks is None
        _merge(out[shared.rows], lse[shared.rows], found, its, keep_lse=not last)
    if sinks is not None:  # a sink takes part in the softmax and gives nothing
        out = out * torch.sigmoid(lse - sinks.to(lse.dtype).view(num_kv_heads, group))[..., None].to(out.dtype)
    return out.reshape(num_rows, num_heads, value_dim).contiguous()


def _seen_runs(
    shared: Sequence[SharedRun], window: int | None, query: Tensor, group: int
) -> Iterator[tuple[SharedRun, Tensor | None, Tensor | None]]:
    """The runs of which a window lets something through, with the bias [1, 1, R * G, L] of their scores and the rows
    [R, 1, 1] that see nothing, where there are such."""
    for run in shared:
        seen = run.mask(window)
        if seen is None:
            yield run, None, None
        elif bool(seen.any()):
            bias = torch.zeros(seen.shape, dtype=query.dtype, device=query.device)
            bias = bias.masked_fill_(~seen.to(query.device), float("-inf")).repeat_interleave(group, 0)[None, None]
            blind = ~seen.any(1)
            yield run, bias, blind.to(query.device)[:, None, None] if bool(blind.any()) else None


def _ends_attend(query: Tensor, k_cache: Tensor, v_cache: Tensor, ends: Ends, terms: Terms) -> tuple[Tensor, Tensor]:
    """Rows [B * n, Hkv, G, D] -> [B * n, Hkv, G, Dv] and [B * n, Hkv, G]."""
    num_contexts, num_new = ends.lengths.shape[0], ends.num_rows
    num_kv_heads, group = query.shape[1:3]
    key = k_cache.index_select(0, ends.slots).view(num_contexts, -1, *k_cache.shape[1:]).transpose(1, 2)
    value = v_cache.index_select(0, ends.slots).view(num_contexts, -1, *v_cache.shape[1:]).transpose(1, 2)
    mask = ends.mask(terms.window, query.dtype, group)
    if num_new == 1:
        return terms.attend(query, key, value, mask)
    stacked = query.view(num_contexts, num_new, num_kv_heads, group, -1).transpose(1, 2).flatten(2, 3)  # [B, Hkv, n * G, D]
    out, lse = terms.attend(stacked, key, value, mask)
    out = out.unflatten(2, (num_new, group)).transpose(1, 2).flatten(0, 1)
    return out, lse.unflatten(2, (num_new, group)).transpose(1, 2).flatten(0, 1)


def _stacked(query: Tensor, key: Tensor, value: Tensor, terms: Terms, bias: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Rows [R, Hkv, G, D] against one run: the G query heads of a key head as rows of one product.
    -> [R, Hkv, G, Dv] and [R, Hkv, G]."""
    num_rows, num_kv_heads, group, dim = query.shape
    stacked = query.transpose(0, 1).reshape(1, num_kv_heads, num_rows * group, dim)
    out, lse = terms.attend(stacked, key, value, bias)
    out = out.reshape(num_kv_heads, num_rows, group, -1).transpose(0, 1)
    return out, lse.reshape(num_kv_heads, num_rows, group).transpose(0, 1)


def _chunk(query: Tensor, k_cache: Tensor, v_cache: Tensor, chunk: Chunk, terms: Terms) -> tuple[Tensor, Tensor]:
    """Rows [n, Hkv, G, D] -> [n, Hkv, G, Dv] and [n, Hkv, G]."""
    num_rows, num_kv_heads, group, dim = query.shape
    before, window = chunk.num_before, terms.window
    heads = query.reshape(num_rows, num_kv_heads * group, dim).transpose(0, 1)[None]

    def each_head(cache: Tensor, run: Run) -> Tensor:  # [1, Hq, L, D]
        return run.take(cache)[:, :, None].expand(-1, -1, group, -1, -1).flatten(1, 2)

    if window is not None and window < before + num_rows:  # one masked product over what the window can reach
        first = max(0, before + 1 - window)
        position = torch.arange(first, before + num_rows, device=query.device)
        row = torch.arange(before, before + num_rows, device=query.device)[:, None]
        seen = (position <= row) & (position > row - window)
        bias = torch.zeros(seen.shape, dtype=query.dtype, device=query.device).masked_fill_(~seen, float("-inf"))
        run = chunk.run.part(first, before + num_rows)
        out, lse = terms.attend(heads, each_head(k_cache, run), each_head(v_cache, run), bias[None, None])
        return out[0].transpose(0, 1).unflatten(1, (num_kv_heads, group)), lse[0].t().unflatten(1, (num_kv_heads, group))
    if num_rows == 1:  # nothing of it is masked
        return _stacked(query, chunk.run.take(k_cache), chunk.run.take(v_cache), terms)
    run = chunk.run.part(before, before + num_rows)
    out, lse = terms.attend(heads, each_head(k_cache, run), each_head(v_cache, run), None, causal=True)
    out = out[0].transpose(0, 1).unflatten(1, (num_kv_heads, group))
    lse = lse[0].t().unflatten(1, (num_kv_heads, group))
    if before:
        run = chunk.run.part(0, before)
        _merge(out, lse, *_stacked(query, run.take(k_cache), run.take(v_cache), terms), keep_lse=True)
    return out, lse


def _merge(out: Tensor, lse: Tensor, more: Tensor, its: Tensor, *, keep_lse: bool) -> None:
    """Fold another partial result into `out` [..., Dv] and, if it is still needed, `lse` [...], in place."""
    out.lerp_(more, torch.sigmoid(its - lse)[..., None].to(out.dtype))
    if keep_lse:
        lse.copy_(torch.logaddexp(lse, its))
