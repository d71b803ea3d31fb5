"""What a ragged step's attention must do: made once per step, used by every layer.

A step is T rows (new tokens) of several contexts, back to back. A row attends to the tokens of its own context up to
and including itself. KV lives in slots; a page is `page_size` slots in a row, and a context's tokens lie in its pages
in order.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class ContextRows:
    """One context's part in a step.

    Attributes:
        num_cached_tokens: tokens whose KV is in its pages already.
        num_new_tokens: rows of this step, at least 1.
        pages: its pages in order; room for cached and new tokens.
    """

    num_cached_tokens: int
    num_new_tokens: int
    pages: Sequence[int]


@dataclass(frozen=True, slots=True)
class PrefillRows:
    """Several rows of one context: rows `start` to `end` of the step attend causally to `slots`. `slots`: int64 [L]."""

    start: int
    end: int
    slots: Tensor


@dataclass(frozen=True, slots=True)
class DecodeRows:
    """One row each of B contexts. L is the longest context of them.

    Attributes:
        rows: int64 [B], their rows in the step.
        slots: int64 [B, L], the slots of their tokens, padded with slot 0.
        lengths: int64 [B], how many of these are theirs.
    """

    rows: Tensor
    slots: Tensor
    lengths: Tensor


@dataclass(frozen=True, slots=True)
class AttentionPlan:
    """See the module.

    Attributes:
        num_rows: T.
        new_slots: int64 [T], the slot that each row's own key and value go to.
        decode: the contexts that have one row, or None.
        prefills: the contexts that have more.
    """

    num_rows: int
    new_slots: Tensor
    decode: DecodeRows | None
    prefills: tuple[PrefillRows, ...]

    @classmethod
    def build(cls, contexts: Sequence[ContextRows], page_size: int, device: torch.device | str = "cpu") -> AttentionPlan:
        """The plan of a step whose rows are those of `contexts`, in order.

        Raises:
            ValueError: a context has no row, or too few pages.
        """
        new_slots: list[Tensor] = []
        prefills: list[PrefillRows] = []
        single_rows: list[int] = []
        single_slots: list[Tensor] = []
        row = 0
        for context in contexts:
            length = context.num_cached_tokens + context.num_new_tokens
            if context.num_new_tokens < 1:
                raise ValueError("A context in a step needs at least one row.")
            if length > len(context.pages) * page_size:
                raise ValueError(f"{length} tokens do not fit into {len(context.pages)} pages of {page_size}.")
            pages = torch.tensor(context.pages, dtype=torch.int64)
            slots = (pages[:, None] * page_size + torch.arange(page_size)).flatten()[:length]
            new_slots.append(slots[context.num_cached_tokens :])
            if context.num_new_tokens == 1:
                single_rows.append(row)
                single_slots.append(slots)
            else:
                prefills.append(PrefillRows(row, row + context.num_new_tokens, slots.to(device)))
            row += context.num_new_tokens
        decode = None
        if single_rows:
            decode = DecodeRows(
                rows=torch.tensor(single_rows, dtype=torch.int64, device=device),
                slots=torch.nn.utils.rnn.pad_sequence(single_slots, batch_first=True).to(device),
                lengths=torch.tensor([len(slots) for slots in single_slots], dtype=torch.int64, device=device),
            )
        return cls(row, torch.cat(new_slots).to(device), decode, tuple(prefills))
