"""A context's part of the page cache: its pages, its path in the prefix tree, and how many of its tokens are computed."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.cache import PageCache, PageNode

MAX_COMPARED = 64  # children that are compared for a beginning in common: the youngest are the likeliest
MAX_STEPS = 2  # one that runs, and one that was planned ahead of its result


class Lease:
    """The pages of one context, and how many of its tokens have their KV there. The only writer of both.

    `PageCache.lease` makes one for each context. Its calls are legal in this order, which is asserted:

    1. At rest: `adopt` and `follow` use pages that others have computed or are about to, `extend` owns pages for the tokens that
       a step is to compute; from then on the lease is planned.
    2. Planned: `announce` and `copy`, each at most once, then `begin`; from then on a step runs. `failed` takes the plan back.
    3. Running: `extend` and `begin(ahead=True)`, for one step more. Steps end in the order in which they began, each by
       `computed` or, if it was planned ahead, `in_vain`; `failed` ends all of them. With the last one the lease is at rest again.
       `confirm` may follow `computed`, once for each guess of that step that was right.
    4. `release` and `truncate` at rest or while only a step runs that was planned ahead: the caller ends that one by `in_vain`.
    5. `abandon` at any time, when no step will be heard of again; the lease is at rest.

    Args:
        cache: of the pages.
        tokens: of the context; they may grow, and change behind what `truncate` keeps.

    Attributes:
        pages: in order; the first are those of `nodes`, the others the context's own.
        nodes: the context's path in the prefix tree.
        num_cached: how many tokens, from the front, have their KV in `pages`.
        reused_tokens: tokens found computed since `pop_reused`; those that had been counted before a `release` are left out.
    """

    def __init__(self, cache: PageCache, tokens: Sequence[int]) -> None:
        self._cache = cache
        self._size = cache.page_size
        self._tokens = tokens
        self._pages: list[int] = []
        self._nodes: list[PageNode] = []
        self.pages: Sequence[int] = self._pages
        self.nodes: Sequence[PageNode] = self._nodes
        self.num_cached = self.reused_tokens = 0
        self._most_cached = 0  # the largest `num_cached` so far: what lies below it has been counted
        self._planned = False
        self._ends: list[int] = []  # of the steps that run: up to where they compute, guesses included
        self._counts = False  # whether what the oldest of these computes counts whatever has become of the generation
        self._confirmable = 0  # up to where the last step that ended has computed guesses
        self._before: tuple[int, int] | None = (
            None  # `_most_cached` and `reused_tokens` before the planned step's part in others' work
        )
        self._copied = False

    @property
    def num_steps(self) -> int:
        """Steps that read and write the pages now."""
        return len(self._ends)

    def missing_pages(self, end: int) -> int:
        """Number of pages that `extend` would have to own for the tokens up to `end`."""
        return max(0, -(-end // self._size) - len(self._pages))

    # At rest

    def adopt(self) -> None:
        """Use the computed pages of the tree that hold the next tokens. At least the last token is left to compute: a sample
        needs its logits."""
        assert self._at_rest, "pages are adopted before a step is planned"
        size, tokens = self._size, self._tokens
        if not self._cache.shares or self.num_cached != len(self._pages) * size:
            return  # in the middle of a page of its own
        node, end = self._last_node, self.num_cached + size
        while end < len(tokens):
            child = node.children.get(tuple(tokens[end - size : end]))
            if child is None or not child.computed:
                break
            self._hold(child)
            self._reuse(end)
            node, end = child, end + size

    def in_work(self) -> list[PageNode]:
        """The pages of the next tokens that another context computes in the step being planned. A context of that step can use
        them: a layer writes what is new before it reads. As with `adopt`, the last token is left to compute."""
        found: list[PageNode] = []
        size, tokens = self._size, self._tokens
        if not self._cache.shares or self.num_cached != len(self._pages) * size:
            return found
        node, end = self._last_node, self.num_cached + size
        while end < len(tokens):
            child = node.children.get(tuple(tokens[end - size : end]))
            if child is None or child.computed:
                break
            found.append(child)
            node, end = child, end + size
        return found

    def follow(self, nodes: Sequence[PageNode]) -> None:
        """Use pages that are `in_work`; `extend` and `begin` must follow, for the same step."""
        assert self._at_rest, "pages are followed before a step is planned"
        self._remember()
        for node in nodes:
            assert not node.computed, "a computed page is adopted"
            self._hold(node)
        self._reuse(self.num_cached + len(nodes) * self._size)

    def extend(self, end: int) -> None:
        """Own pages for the tokens up to `end`, of which `missing_pages` must be available."""
        assert not self._planned, "the step planned before has not begun"
        assert len(self._ends) < MAX_STEPS, "one step is planned ahead at most"
        assert end > self.num_cached, "a step computes something"
        count = self.missing_pages(end)
        if count:
            self._pages += self._cache.take(count, self._pages[-1] if self._pages else None)
        self._planned = True

    # Planned

    def announce(self, end: int) -> None:
        """Put the pages into the tree that the planned step fills, which computes the tokens up to `end`."""
        assert self._planned, "pages are announced once they are owned"
        assert not self._ends, "a step planned ahead announces nothing"
        size, nodes, cache = self._size, self._nodes, self._cache
        while cache.shares and len(nodes) < end // size:
            node, tokens = self._last_node, self._page_tokens(len(nodes))
            if tokens in node.children:  # cached, and computed again for what the model says after it
                return
            child = cache.add(node, self._pages[len(nodes)], tokens)
            child.num_users, child.computed = 1, False
            nodes.append(child)

    def copy(self, end: int) -> tuple[int, int, int] | None:
        """Let the planned step begin with a copy from the cached page that begins most like the tokens up to `end`: where
        contexts part inside a page. Returns (from page, to page, tokens); None where there is no such page."""
        assert self._planned, "there is no page to copy to yet"
        assert not self._ends, "a step planned ahead copies nothing"
        assert not self._copied, "a step copies at most once into each context"
        i_page, rest = divmod(self.num_cached, self._size)
        if not self._cache.shares or rest or len(self._nodes) < i_page:
            return None
        wanted = self._tokens[self.num_cached : min(end, self.num_cached + self._size)]
        node = self._nodes[i_page - 1] if i_page else self._cache.root
        best, most = -1, 0
        for child in itertools.islice(reversed(node.children.values()), MAX_COMPARED):
            same = _num_same(child.tokens, wanted)
            if same > most and child.computed:
                best, most = child.page, same
        if not most:
            return None
        self._remember()
        self._copied = True
        self._reuse(self.num_cached + most)
        return best, self._pages[i_page], most

    def begin(self, end: int, *, ahead: bool = False) -> None:
        """Have the planned step run, which computes the tokens up to `end`, guesses included."""
        assert self._planned, "pages come before the step"
        assert end <= len(self._pages) * self._size, "the step would write past the pages"
        assert ahead == bool(self._ends), "a step begins at rest, or ahead of the result of one that runs"
        self._planned = False
        self._ends.append(end)
        self._counts |= not ahead

    # Running

    def computed(self, end: int) -> int:
        """The oldest step has computed the tokens up to `end`. Returns how many of them are counted for the first time."""
        assert self._ends, "no step runs"
        assert self.num_cached < end <= self._ends[0], "a step computes what comes next, as far as was planned"
        self._confirmable = self._ended()
        self._before, self._copied = None, False
        new = max(0, end - self._most_cached)
        self._has(end)
        self._publish()
        return new

    def confirm(self) -> None:
        """Count the next token, which the step that has just ended had guessed and computed."""
        assert self.num_cached < self._confirmable, "the step has not guessed so far"
        self._has(self.num_cached + 1)
        self._publish()

    def in_vain(self) -> None:
        """The oldest step, planned ahead, has ended after all for nothing: what it continued had ended before."""
        assert self._ends, "no step runs"
        assert not self._counts, "what a step computes counts unless it was planned ahead"
        self._ended()

    def failed(self) -> None:
        """The planned or the oldest step has failed, and with it one that was planned ahead of its result: return to what the lease
        held before they were planned. Pages which they should have filled leave the tree."""
        assert self._ends or self._planned, "no step can have failed"
        self._ends.clear()
        self._counts = self._planned = False
        size, nodes = self._size, self._nodes
        keep = len(nodes)
        while keep and not nodes[keep - 1].computed:
            keep -= 1
        if keep < len(nodes):
            self.num_cached = min(self.num_cached, keep * size)
        elif self._copied:  # the page may lack what was to be copied
            self.num_cached -= self.num_cached % size
        if self._before is not None:
            self._most_cached, self.reused_tokens = self._before
        self._before, self._copied = None, False
        self._shorten(keep, -(-self.num_cached // size))

    # Giving back

    def release(self) -> None:
        """Give up all pages: computed ones stay cached, and the tokens are to be computed again, uncounted."""
        self._give_up(0)

    def truncate(self, num_tokens: int) -> None:
        """Give up what comes after the first `num_tokens` tokens, and perhaps the last of these: those after them will change."""
        self._give_up(num_tokens)
        self._most_cached = num_tokens

    def abandon(self) -> None:
        """Count what is planned or runs as failed: nothing will be heard of it again."""
        if self._planned or self._ends:
            self.failed()

    def pop_reused(self) -> int:
        """Number of tokens found computed since the last call."""
        reused, self.reused_tokens = self.reused_tokens, 0
        return reused

    # Helpers

    @property
    def _at_rest(self) -> bool:
        return not self._planned and not self._ends

    @property
    def _last_node(self) -> PageNode:
        return self._nodes[-1] if self._nodes else self._cache.root

    def _page_tokens(self, i_page: int) -> tuple[int, ...]:
        return tuple(self._tokens[i_page * self._size : (i_page + 1) * self._size])

    def _hold(self, node: PageNode) -> None:
        self._cache.hold(node)
        self._nodes.append(node)
        self._pages.append(node.page)

    def _reuse(self, end: int) -> None:
        self.reused_tokens += max(0, end - max(self.num_cached, self._most_cached))
        self._has(end)

    def _has(self, end: int) -> None:
        self.num_cached = end
        self._most_cached = max(self._most_cached, end)

    def _remember(self) -> None:
        """Save the counts that a failing step restores, so that no token counts as reused that nobody came to compute."""
        if self._before is None:
            self._before = self._most_cached, self.reused_tokens

    def _ended(self) -> int:
        self._counts = False
        return self._ends.pop(0)

    def _publish(self) -> None:
        """Put full, computed pages into the tree. A page that somebody else has put there first replaces the context's own."""
        size, nodes, cache = self._size, self._nodes, self._cache
        for i in range(min(len(nodes), self.num_cached // size) - 1, -1, -1):
            if nodes[i].computed:
                break
            nodes[i].computed = True
        while cache.shares and len(nodes) < self.num_cached // size:
            i_page = len(nodes)
            tokens = self._page_tokens(i_page)
            child = self._last_node.children.get(tokens)
            if child is None:
                child = cache.add(self._last_node, self._pages[i_page], tokens)
                child.num_users = 1
                nodes.append(child)
                continue
            cache.give_back([self._pages[i_page]])
            cache.hold(child)
            self._pages[i_page] = child.page
            nodes.append(child)

    def _give_up(self, keep_tokens: int) -> None:
        assert not self._planned, "a planned step needs the pages"
        assert not self._counts, "a step that runs needs the pages"
        size = self._size
        if self._cache.shares:
            keep = min(keep_tokens // size, len(self._nodes))
            self._keep_end()
            self._shorten(keep, keep)
            self.num_cached = min(self.num_cached, keep * size)
        else:  # all pages are its own: none is written by others
            self._shorten(0, -(-keep_tokens // size))
            self.num_cached = min(self.num_cached, keep_tokens)
        self._confirmable = 0

    def _shorten(self, num_nodes: int, num_pages: int) -> None:
        """Keep so many nodes, and so many pages with those of the nodes."""
        nodes, pages = self._nodes, self._pages
        self._cache.give_back(pages[max(len(nodes), num_pages) :])
        for node in reversed(nodes[num_nodes:]):
            self._cache.let_go(node)
        del nodes[num_nodes:], pages[max(num_nodes, num_pages) :]

    def _keep_end(self) -> None:
        """Have the tree keep the computed beginning of the last page, to be copied by whoever goes on from it."""
        i_page, rest = divmod(self.num_cached, self._size)
        if not rest or len(self._nodes) != i_page or len(self._pages) == i_page:
            return
        tokens = tuple(self._tokens[self.num_cached - rest : self.num_cached])
        if len(tokens) == rest and self._cache.keep(self._last_node, self._pages[i_page], tokens):
            del self._pages[i_page]


def _num_same(a: Sequence[int], b: Sequence[int]) -> int:
    """Return the number of elements that two sequences begin with in common."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
