"""The paged KV cache: which page holds which tokens, who uses it, and what is given up when pages run short.

Full pages live in a prefix tree: a node is one page, its path from the root spells all tokens before it, so equal
prefixes are the same pages, whoever computed them. A context holds a path of nodes and, after it, pages of its own that
are not full yet. A node that no context holds stays cached until its page is needed.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from parrot_nb.engine.embedded.context import Context

MAX_COMPARED = 64  # children that are compared for a beginning in common: the youngest are the likeliest
CACHE_LINE_BYTES = 64
MAX_EXPECTED = 64  # expected prefixes that eviction looks at: the soonest


@dataclass(eq=False, slots=True)
class PageNode:
    """A page in the prefix tree.

    Attributes:
        page: where it lies.
        tokens: what it holds; fewer than a page's only at the end of a text, and then it has no children.
        num_users: contexts that hold it. A node's users hold its ancestors too.
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
    """All pages. Each is free, cached (in the tree, held by nobody), or owned (held by one context or several).

    Args:
        num_pages: how many there are.
        page_size: tokens a page holds.
        shares: keep a prefix tree at all; otherwise pages go back as soon as their context does.
    """

    def __init__(self, num_pages: int, page_size: int, *, shares: bool = True) -> None:
        self.num_pages = num_pages
        self.page_size = page_size
        self.shares = shares
        self._free = bytearray(b"\1" * num_pages)  # as bytes, so that a run of free pages is one `find`
        self._num_free = num_pages
        self._num_cached = 0
        self._root = PageNode(-1, (), None)
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
        """Pages that a context uses."""
        return self.num_pages - self._num_free - self._num_cached

    @property
    def num_available(self) -> int:
        """Pages that `take` can give."""
        return self._num_free + self._num_cached

    # Pages for new tokens

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

    def _give_back(self, pages: Sequence[int]) -> None:
        for page in pages:
            assert not self._free[page], "a page was freed twice"
            self._free[page] = 1
        self._num_free += len(pages)

    # Sharing

    def adopt(self, context: Context) -> None:
        """Let a context that is about to compute a page use it where it is cached. At least its last token is left to
        compute: a sample needs its logits."""
        size = self.page_size
        if not self.shares or context.num_cached != len(context.pages) * size:
            return  # in the middle of a page of its own
        node = context.nodes[-1] if context.nodes else self._root
        end = context.num_cached + size
        while end < len(context.tokens):
            child = node.children.get(tuple(context.tokens[end - size : end]))
            if child is None or not child.computed:
                break
            self._hold(context, child)
            context.reuse(end)
            node, end = child, end + size

    def in_work(self, context: Context) -> list[PageNode]:
        """The pages after those a context has that another context computes in the step being planned. A context of that step
        can use them: a layer writes what is new before it reads. As with `adopt`, its last token is left to compute."""
        found: list[PageNode] = []
        if not self.shares or context.num_cached != len(context.pages) * self.page_size:
            return found
        node = context.nodes[-1] if context.nodes else self._root
        end = context.num_cached + self.page_size
        while end < len(context.tokens):
            child = node.children.get(tuple(context.tokens[end - self.page_size : end]))
            if child is None or child.computed:
                break
            found.append(child)
            node, end = child, end + self.page_size
        return found

    def follow(self, context: Context, nodes: Sequence[PageNode]) -> None:
        """Let a context of the step being planned use pages that are `in_work`."""
        for node in nodes:
            self._hold(context, node)
        context.reuse(context.num_cached + len(nodes) * self.page_size)

    def alike(self, context: Context, end: int) -> tuple[int, int] | None:
        """The cached page that begins most like what a context has to compute from here to `end`, and how many tokens
        they have in common: to copy where contexts part inside a page. The context has a page of its own there."""
        i_page, rest = divmod(context.num_cached, self.page_size)
        if not self.shares or rest or len(context.nodes) < i_page:
            return None
        wanted = context.tokens[context.num_cached : min(end, context.num_cached + self.page_size)]
        node = context.nodes[i_page - 1] if i_page else self._root
        best, most = -1, 0
        for child in itertools.islice(reversed(node.children.values()), MAX_COMPARED):
            same = _num_same(child.tokens, wanted)
            if same > most and child.computed:
                best, most = child.page, same
        return (best, most) if most else None

    def announce(self, context: Context, end: int) -> None:
        """Put the pages into the tree that a context fills in the step being planned, which computes its tokens up to `end`."""
        size = self.page_size
        while self.shares and len(context.nodes) < end // size:
            i_page = len(context.nodes)
            node = context.nodes[-1] if context.nodes else self._root
            tokens = tuple(context.tokens[i_page * size : (i_page + 1) * size])
            if tokens in node.children:  # cached, and computed again for what the model says after it
                return
            child = self._add(node, context.pages[i_page], tokens)
            child.num_users, child.computed = 1, False
            context.nodes.append(child)

    def publish(self, context: Context) -> None:
        """Put a context's full, computed pages into the tree. A page that somebody else has put there first replaces
        the context's own."""
        size = self.page_size
        for i in range(min(len(context.nodes), context.num_cached // size) - 1, -1, -1):
            if context.nodes[i].computed:
                break
            context.nodes[i].computed = True
        while self.shares and len(context.nodes) < context.num_cached // size:
            i_page = len(context.nodes)
            node = context.nodes[-1] if context.nodes else self._root
            tokens = tuple(context.tokens[i_page * size : (i_page + 1) * size])
            child = node.children.get(tokens)
            if child is None:
                child = self._add(node, context.pages[i_page], tokens)
                child.num_users = 1
                context.nodes.append(child)
                continue
            self._give_back([context.pages[i_page]])
            rest = context.pages[i_page + 1 :]
            del context.pages[i_page:]
            self._hold(context, child)
            context.pages += rest

    def release(self, context: Context, keep_tokens: int = 0) -> None:
        """A context keeps the nodes that lie within its first `keep_tokens` tokens, and gives up all pages after
        them. What it computed stays cached."""
        if not self.shares:  # its pages are all its own: none is written by others
            kept = -(-keep_tokens // self.page_size)
            self._give_back(context.pages[kept:])
            del context.pages[kept:]
            context.num_cached = min(context.num_cached, keep_tokens)
            return
        keep = min(keep_tokens // self.page_size, len(context.nodes))
        own = context.pages[len(context.nodes) :]
        self._keep_end(context, own)
        self._give_back(own)
        for node in reversed(context.nodes[keep:]):
            node.num_users -= 1
            node.last_used = next(self._ticks)
            if not node.num_users:
                self._num_cached += 1
                if node.computed:
                    self._maybe_evictable(node)
                else:  # the step that was to do so failed
                    self._drop(node)
        del context.nodes[keep:]
        del context.pages[keep:]
        context.num_cached = min(context.num_cached, keep * self.page_size)

    def clear(self) -> None:
        """Free every cached page."""
        while self._num_cached:
            self._evict()

    # What will be used

    def expect(self, key: Hashable, token_ids: Sequence[int], next_use: int) -> None:
        """Somebody will fill these tokens; the smaller `next_use`, the sooner. Replaces what `key` said before."""
        before, size = self._expected.get(key), self.page_size
        if before is not None and before.token_ids is token_ids:
            before.next_use = next_use
        else:
            keys = [tuple(token_ids[i : i + size]) for i in range(0, len(token_ids) - size + 1, size)]
            self._expected[key] = _Expected(token_ids, keys, next_use)
        self._next_uses = None

    def forget(self, key: Hashable) -> None:
        """Nobody expects it any more."""
        if self._expected.pop(key, None) is not None:
            self._next_uses = None

    # Helpers

    def _hold(self, context: Context, node: PageNode) -> None:
        if not node.num_users:
            self._num_cached -= 1
        node.num_users += 1
        context.nodes.append(node)
        context.pages.append(node.page)

    def _add(self, parent: PageNode, page: int, tokens: tuple[int, ...]) -> PageNode:
        node = parent.children[tokens] = PageNode(page, tokens, parent)
        if self._expected:
            self._next_uses = None
        return node

    def _keep_end(self, context: Context, own: list[int]) -> None:
        """Keep the computed beginning of a context's last page, to be copied by whoever goes on from it."""
        i_page, rest = divmod(context.num_cached, self.page_size)
        if not self.shares or not rest or not own or len(context.nodes) != i_page:
            return
        parent = context.nodes[-1] if context.nodes else self._root
        tokens = tuple(context.tokens[context.num_cached - rest : context.num_cached])
        if tokens in parent.children or len(tokens) != rest:
            return
        node = self._add(parent, own.pop(0), tokens)
        node.last_used = next(self._ticks)
        self._num_cached += 1
        self._maybe_evictable(node)

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
        self._give_back([node.page])
        self._maybe_evictable(node.parent)

    def _refreshed(self) -> dict[PageNode, int]:
        """The next use of every node on an expected prefix."""
        if self._next_uses is None:
            self._next_uses = {}
            for expected in heapq.nsmallest(MAX_EXPECTED, self._expected.values(), key=lambda e: e.next_use):
                node = self._root
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


def _num_same(a: Sequence[int], b: Sequence[int]) -> int:
    """How many elements two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))


@dataclass(frozen=True, slots=True)
class LayerShape:
    """What one attention layer keeps for a token."""

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

    def copy(self, copies: Sequence[tuple[int, int, int]], page_size: int) -> None:
        """Copy the beginnings of pages, all at once: (from page, to page, tokens) each. A page may be read and written."""
        import torch

        if not copies:
            return
        source = torch.tensor([a * page_size + i for a, _, count in copies for i in range(count)])
        target = torch.tensor([b * page_size + i for _, b, count in copies for i in range(count)])
        for memory in (*self.keys.values(), *self.values.values()):
            memory[target.to(memory.device)] = memory[source.to(memory.device)]


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
