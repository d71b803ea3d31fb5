"""The paged KV cache: which page holds which tokens, who uses it, and what is given up when pages run short.

Full pages live in a prefix tree: a node is one page, its path from the root spells all tokens before it, so equal
prefixes are the same pages, whoever computed them. A context's lease holds a path of nodes and, after it, pages of its own
that are not full yet. A node that no lease holds stays cached until its page is needed.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.lease import Lease

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from parrot_nb.engine.embedded.device import Device

CACHE_LINE_BYTES = 64
MAX_EXPECTED = 64  # expected prefixes that eviction looks at: the soonest


@dataclass(eq=False, slots=True)
class PageNode:
    """A page in the prefix tree.

    Attributes:
        page: where it lies.
        tokens: what it holds; fewer than a page's only at the end of a text, and then it has no children.
        num_users: leases that hold it. A node's users hold its ancestors too.
        last_used: tick of its last release.
        computed: its KV is there; else a step computes it, and those that hold it are in that step.
    """

    page: int
    tokens: tuple[int, ...]
    parent: PageNode | None
    children: dict[tuple[int, ...], PageNode] = field(default_factory=dict)
    num_users: int = 0
    last_used: int = 0
    computed: bool = True
    evicted: bool = False


@dataclass(slots=True)
class _Expected:
    """A prefix that somebody will fill soon."""

    token_ids: Sequence[int]
    keys: list[tuple[int, ...]]  # its full pages
    next_use: int


class PageCache:
    """All pages. Each is free, cached (in the tree, held by no lease), or owned (held by one lease or several).

    Args:
        num_pages: how many there are.
        page_size: tokens a page holds.
        shares: keep a prefix tree at all; otherwise pages go back as soon as their context does.

    Attributes:
        root: of the prefix tree; no page.
    """

    def __init__(self, num_pages: int, page_size: int, *, shares: bool = True) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.shares = shares
        self._free = bytearray(b"\1" * num_pages)  # as bytes, so that a run of free pages is one `find`
        self._num_free = num_pages
        self._num_cached = 0
        self.root = PageNode(-1, (), None)
        self._ticks = itertools.count(1)
        self._leaves: list[tuple[int, int, PageNode]] = []  # evictable, the longest unused first; may hold stale entries
        self._awaited: list[tuple[int, int, PageNode]] = []  # evictable but expected, the furthest use first
        self._order = itertools.count()
        self._expected: dict[Hashable, _Expected] = {}
        self._next_uses: dict[PageNode, int] | None = {}  # None: to be made anew

    # Counts

    @property
    def num_free(self) -> int:
        """Pages that hold nothing."""
        return self._num_free

    @property
    def num_cached(self) -> int:
        """Pages that hold a prefix which no context uses."""
        return self._num_cached

    @property
    def num_owned(self) -> int:
        """Pages that a lease holds."""
        return self.num_pages - self._num_free - self._num_cached

    @property
    def num_available(self) -> int:
        """Pages that `take` can give."""
        return self._num_free + self._num_cached

    def cached_tokens(self, tokens: Sequence[int]) -> int:
        """Return how many of these tokens, from the first on, lie in computed full pages."""
        node, size = self.root, self.page_size
        for start in range(0, len(tokens) - size + 1, size):
            child = node.children.get(tuple(tokens[start : start + size]))
            if child is None or not child.computed:
                return start
            node = child
        return len(tokens) // size * size

    def lease(self, tokens: Sequence[int]) -> Lease:
        """A lease for a context of these tokens, which may grow; it holds nothing yet."""
        return Lease(self, tokens)

    # Bookkeeping for leases, which alone call it

    def take(self, count: int, after: int | None = None) -> list[int]:
        """Own `count` pages, those after the page `after` if they are free, else neighbours if there are such: what lies in a row
        need not be put together to be read. Cached ones are given up as needed. The caller has made sure that so many are available."""
        assert count <= self.num_available, f"{count} pages were asked for, {self.num_available} are available"
        while self._num_free < count:
            self._evict()
        wanted = b"\1" * count
        next_to_it = after is not None and self._free[after + 1 : after + 1 + count] == wanted
        start = after + 1 if after is not None and next_to_it else self._free.find(wanted)
        pages = list(range(start, start + count)) if start >= 0 else []
        while len(pages) < count:
            pages.append(self._free.find(1, pages[-1] + 1 if pages else 0))
        for page in pages:
            self._free[page] = 0
        self._num_free -= count
        return pages

    def give_back(self, pages: Sequence[int]) -> None:
        """Free pages that stand in no node."""
        for page in pages:
            assert not self._free[page], "a page was freed twice"
            self._free[page] = 1
        self._num_free += len(pages)

    def hold(self, node: PageNode) -> None:
        """Count one more lease that holds a node."""
        if not node.num_users:
            self._num_cached -= 1
        node.num_users += 1

    def let_go(self, node: PageNode) -> None:
        """Count one lease less. A node that none holds stays cached, unless the step that was to compute it failed."""
        node.num_users -= 1
        node.last_used = next(self._ticks)
        if not node.num_users:
            self._num_cached += 1
            if node.computed:
                self._maybe_evictable(node)
            else:
                self._drop(node)

    def add(self, parent: PageNode, page: int, tokens: tuple[int, ...]) -> PageNode:
        """Put an owned page into the tree, held by nobody yet; it counts as owned."""
        node = parent.children[tokens] = PageNode(page, tokens, parent)
        if self._expected:
            self._next_uses = None
        return node

    def keep(self, parent: PageNode, page: int, tokens: tuple[int, ...]) -> bool:
        """Put an owned page that is not full into the tree, held by nobody: it is cached. False if the tree has these tokens."""
        if tokens in parent.children:
            return False
        node = self.add(parent, page, tokens)
        node.last_used = next(self._ticks)
        self._num_cached += 1
        self._maybe_evictable(node)
        return True

    # Giving back

    def clear(self) -> None:
        """Free every cached page."""
        while self._num_cached:
            self._evict()

    # Other sizes

    def grow(self, num_pages: int) -> None:
        """Have more pages, all free."""
        more = num_pages - self.num_pages
        self._free += b"\1" * more
        self._num_free += more
        self.num_pages = num_pages

    def shrink(self, num_pages: int) -> bool:
        """Have only the first pages, and give up what is cached in the others; False, and nothing is given up, if a lease holds one
        of them."""
        gone, pending = [], [(child, False) for child in self.root.children.values()]
        while pending:
            node, goes = pending.pop()
            if goes := goes or node.page >= num_pages:  # what follows a page is of no use without it
                gone.append(node)
            pending += [(child, goes) for child in node.children.values()]
        cached = sum(node.page >= num_pages for node in gone)
        owned = self._free.count(0, num_pages) - cached
        if owned or any(node.num_users for node in gone):
            return False
        for node in reversed(gone):  # children first
            self._drop(node)
        del self._free[num_pages:]
        self._num_free -= self.num_pages - num_pages
        self.num_pages = num_pages
        return True

    # What will be used

    def expect(self, key: Hashable, token_ids: Sequence[int], next_use: int) -> None:
        """Expect these tokens to be filled; the smaller `next_use`, the sooner. Replaces what `key` said before."""
        before, size = self._expected.get(key), self.page_size
        if before is not None and before.token_ids is token_ids:
            before.next_use = next_use
        else:
            keys = [tuple(token_ids[i : i + size]) for i in range(0, len(token_ids) - size + 1, size)]
            self._expected[key] = _Expected(token_ids, keys, next_use)
        self._next_uses = None

    def forget(self, key: Hashable) -> None:
        """Withdraw the expectation under this key."""
        if self._expected.pop(key, None) is not None:
            self._next_uses = None

    # Helpers

    def _maybe_evictable(self, node: PageNode) -> None:
        if node.parent is not None and not node.num_users and not node.children and not node.evicted:
            heapq.heappush(self._leaves, (node.last_used, next(self._order), node))

    def _evict(self) -> None:
        """Free one cached page: the longest unused of those that nobody expects, else the one whose next use is
        furthest away."""
        next_uses = self._refreshed()
        while self._leaves:
            last_used, _, node = heapq.heappop(self._leaves)
            if node.num_users or node.children or node.evicted or node.last_used != last_used:
                continue
            if node in next_uses:
                heapq.heappush(self._awaited, (-next_uses[node], next(self._order), node))
                continue
            self._drop(node)
            return
        while True:
            _, _, node = heapq.heappop(self._awaited)  # there is one: cached pages form subtrees, so a leaf of them exists
            if not node.num_users and not node.children and not node.evicted:
                self._drop(node)
                return

    def _drop(self, node: PageNode) -> None:
        assert node.parent is not None
        node.evicted = True
        del node.parent.children[node.tokens]
        self._num_cached -= 1
        self.give_back([node.page])
        self._maybe_evictable(node.parent)

    def _refreshed(self) -> dict[PageNode, int]:
        """The next use of every node on an expected prefix."""
        if self._next_uses is None:
            self._next_uses = {}
            for expected in heapq.nsmallest(MAX_EXPECTED, self._expected.values(), key=lambda e: e.next_use):
                node = self.root
                for key in expected.keys:
                    child = node.children.get(key)
                    if child is None:
                        break
                    node = child
                    self._next_uses.setdefault(node, expected.next_use)
            for _, _, node in self._awaited:  # they may be expected no longer, or at another time
                self._maybe_evictable(node)
            self._awaited.clear()
        return self._next_uses


@dataclass(frozen=True, slots=True)
class LayerShape:
    """Shape of the keys and values that one attention layer keeps for a token."""

    num_heads: int
    num_kv_heads: int
    key_dim: int
    value_dim: int

    def num_bytes(self, itemsize: int) -> int:
        """Bytes for one token."""
        return self.num_kv_heads * (self.key_dim + self.value_dim) * itemsize


class KVMemory:
    """The tensors behind the pages: per layer, keys [num_slots, Hkv, D] and values [num_slots, Hkv, Dv].

    Zeroed, because what a mask leaves out may still be multiplied by zero, and zero times garbage may be NaN.
    """

    def __init__(self, shapes: dict[int, LayerShape], num_slots: int, dtype: torch.dtype, device: torch.device) -> None:
        self.keys: dict[int, Tensor] = {}
        self.values: dict[int, Tensor] = {}
        for layer, shape in shapes.items():
            self.keys[layer] = _zeros((num_slots, shape.num_kv_heads, shape.key_dim), dtype, device)
            self.values[layer] = _zeros((num_slots, shape.num_kv_heads, shape.value_dim), dtype, device)

    def resize(self, num_slots: int) -> None:
        """Have other tensors, with what the old ones hold as far as there is room for it; layer by layer, so that no more than one
        layer is there twice.

        Raises:
            torch.OutOfMemoryError: all layers have the smaller of both sizes then.
        """
        least = min(num_slots, next(iter(self.keys.values())).shape[0])
        try:
            for tensors in (self.keys, self.values):
                for layer, old in tensors.items():
                    tensors[layer] = _resized(old, num_slots)
        except Exception:
            self._cut(least)
            raise

    def _cut(self, num_slots: int) -> None:
        """Shorten what is longer; by a view, which frees nothing, where there is no room for a copy."""
        for tensors in (self.keys, self.values):
            for layer, old in tensors.items():
                if old.shape[0] > num_slots:
                    try:
                        tensors[layer] = _resized(old, num_slots)
                    except Exception:
                        tensors[layer] = old[:num_slots]

    def copy(self, copies: Sequence[tuple[int, int, int]], page_size: int, device: Device) -> None:
        """Copy the beginnings of pages, all at once: (from page, to page, tokens) each. A page may be read and written."""
        import torch

        if not copies:
            return
        source = [a * page_size + i for a, _, count in copies for i in range(count)]
        target = [b * page_size + i for _, b, count in copies for i in range(count)]
        sources, targets = device.send(torch.tensor([source, target]))
        for memory in (*self.keys.values(), *self.values.values()):
            memory.index_copy_(0, targets, memory.index_select(0, sources))


def _resized(old: Tensor, num_slots: int) -> Tensor:
    """A copy with so many slots; those that the old one lacks are zero."""
    new = _zeros((num_slots, *old.shape[1:]), old.dtype, old.device)
    kept = min(num_slots, old.shape[0])
    new[:kept].copy_(old[:kept])
    return new


def _zeros(shape: tuple[int, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """Zeros; on the CPU such that the machine gives the memory when it is first written, not seconds of it at load."""
    import torch

    if device.type != "cpu":
        return torch.zeros(shape, dtype=dtype, device=device)
    import numpy as np

    num_bytes = math.prod(shape) * dtype.itemsize
    raw = torch.from_numpy(np.zeros(num_bytes + CACHE_LINE_BYTES, dtype=np.uint8))
    offset = -raw.data_ptr() % CACHE_LINE_BYTES
    return raw[offset : offset + num_bytes].view(dtype).view(shape)
