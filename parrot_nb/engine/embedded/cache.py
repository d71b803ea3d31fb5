"""The paged KV cache: who owns which page, and the memory behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class PagePool:
    """Which pages are free. Every page is either free or owned by one context.

    Args:
        num_pages: how many there are.
        page_size: tokens a page holds.
    """

    def __init__(self, num_pages: int, page_size: int) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self._free = list(range(num_pages - 1, -1, -1))
        self._owned: set[int] = set()

    @property
    def num_free(self) -> int:
        """Pages that nobody owns."""
        return len(self._free)

    @property
    def num_owned(self) -> int:
        """Pages that a context owns."""
        return len(self._owned)

    @property
    def num_tokens(self) -> int:
        """Tokens that all pages together hold."""
        return self.num_pages * self.page_size

    def pages_for(self, num_tokens: int) -> int:
        """Pages that so many tokens of one context need."""
        return -(-num_tokens // self.page_size)

    def take(self, count: int) -> list[int]:
        """Own `count` pages; the caller has made sure that so many are free."""
        assert count <= len(self._free), f"{count} pages were asked for, {len(self._free)} are free"
        taken = [self._free.pop() for _ in range(count)]
        self._owned.update(taken)
        return taken

    def give_back(self, pages: Sequence[int]) -> None:
        """Free pages. A page that is not owned is our own bug."""
        assert self._owned.issuperset(pages), "a page was freed twice"
        self._owned.difference_update(pages)
        self._free.extend(pages)


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps for a token."""

    num_kv_heads: int
    key_dim: int
    value_dim: int

    def num_bytes(self, itemsize: int) -> int:
        """Bytes for one token."""
        return self.num_kv_heads * (self.key_dim + self.value_dim) * itemsize


class KVMemory:
    """The tensors behind the pages: per layer, keys [num_slots, Hkv, D] and values [num_slots, Hkv, Dv].

    Zeroed, because what a mask leaves out is still multiplied by zero, and zero times garbage may be NaN.
    """

    def __init__(self, shapes: dict[int, LayerShape], num_slots: int, dtype: torch.dtype, device: torch.device) -> None:
        import torch

        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        for layer, shape in shapes.items():
            self.keys[layer] = torch.zeros(num_slots, shape.num_kv_heads, shape.key_dim, dtype=dtype, device=device)
            self.values[layer] = torch.zeros(num_slots, shape.num_kv_heads, shape.value_dim, dtype=dtype, device=device)
