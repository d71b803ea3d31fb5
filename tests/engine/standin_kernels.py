"""What the Triton kernels of `parrot_kernels` compute, in torch, for `standin`: each from the same tensors as the kernel itself."""

from __future__ import annotations

import sys

import torch
from standin_tensors import inner

import parrot_kernels
from parrot_kernels import activation, bitmask, kv_write, norm, penalties, rope, sample, sample_triton


def attend(query, k_cache, v_cache, plan, *, scale, window=None, softcap=None, sinks=None):
    """Attention by the tiles of a plan: a row's slots are those of its tiles."""
    pages, positions = inner(plan.pages), inner(plan.row_position).tolist()
    slots: list[list[torch.Tensor]] = [[] for _ in positions]
    places: list[list[torch.Tensor]] = [[] for _ in positions]
    for row, num_rows, page, first, num_tokens, _ in [*inner(plan.small).tolist(), *inner(plan.large).tolist()]:
        if num_rows:
            offsets = torch.arange(num_tokens)
            found = pages[page + offsets // plan.page_size] * plan.page_size + offsets % plan.page_size
            for i in range(row, row + num_rows):
                slots[i].append(found)
                places[i].append(first + offsets)
    out = query.new_zeros(query.shape[0], query.shape[1], v_cache.shape[2])
    group = query.shape[1] // k_cache.shape[1]
    for i, position in enumerate(positions):
        if not slots[i]:
            continue
        where, at = torch.cat(slots[i]), torch.cat(places[i])
        seen = (at <= position) & (at > (position - window if window is not None else -1))
        keys, values = (cache[where[seen]].float().repeat_interleave(group, 1) for cache in (k_cache, v_cache))
        scores = torch.einsum("hd,thd->ht", query[i].float(), keys) * scale
        if softcap is not None:
            scores = softcap * torch.tanh(scores / softcap)
        if sinks is not None:
            scores = torch.cat([scores, sinks.float().unsqueeze(1)], 1)
        weights = scores.softmax(-1)[:, : keys.shape[0]]
        out[i] = torch.einsum("ht,thd->hd", weights, values).to(out.dtype)
    return out


def one(*_, **__):
    return 1


def of_sampling(*_, **__):
    return sample_triton.LAUNCHES


def tiles_and_merge(query, k_cache, v_cache, plan, **_):
    return bool(plan.small.shape[0]) + bool(plan.large.shape[0]) + 1


def penalised(logits, rows, ids, counts, repetition, presence, frequency):
    return penalties.penalise(logits, rows, ids, counts, repetition, presence, frequency)


# The module that looks a launcher up, its name there, what it computes, how many launches that is.
KERNELS = (
    (norm, "rms_norm_triton", norm.rms_norm, one),
    (activation, "gated_triton", activation.gated, one),
    (rope, "rope_and_write_triton", rope.rope_and_write, one),
    (kv_write, "write_kv_triton", kv_write.write_kv, one),
    (sample, "sample_tokens_triton", sample.sample_tokens_torch, of_sampling),
    (penalties, "penalise_triton", penalised, one),
    (bitmask, "mask_logits_triton", bitmask.mask_logits_torch, one),
    (sys.modules[parrot_kernels.attention.__module__], "attention_tiled", attend, tiles_and_merge),
)
