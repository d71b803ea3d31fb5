"""Which rows of a step read which tokens: the tree of shared pages, cut into segments.

Contexts whose pages begin alike share these pages' KV. Drawn as a tree, each node is a run of pages, and the rows of
the contexts below a node all attend to the whole run. A segment is such a run with its rows: read once for all of them
(phase one of the paper's kernel, generalised from one prefix to a tree), or one context's own rest (phase two). Every
row's segments together hold exactly the tokens it may see; their results merge by log-sum-exp.

A run is worth a segment of its own only if what it saves in reading outweighs what it costs in partial results and an
extra launch (`Costs`); otherwise its tokens stay with the segments further down, so that sharing never loses.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass


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
class Segment:
    """Rows of a step and a run of tokens that they attend to.

    Attributes:
        row_start, row_end: the rows, neighbours in the step.
        first: position of the run's first token in each of these rows' contexts; a multiple of the page size.
        num_tokens: length of the run.
        pages: where they lie; the last may be filled in part.
        own: the run ends with these rows' own new tokens, so that row i sees all but the last
            `row_end - row_start - 1 - i` of it. Otherwise every row sees the whole run.
    """

    row_start: int
    row_end: int
    first: int
    num_tokens: int
    pages: tuple[int, ...]
    own: bool

    @property
    def num_rows(self) -> int:
        """Number of rows that attend."""
        return self.row_end - self.row_start


@dataclass(frozen=True, slots=True)
class Costs:
    """Savings and costs of sharing, in bytes moved per layer.

    Attributes:
        token_bytes: keys and values of one token, read once more for every context that reads it by itself.
        row_bytes: one row's partial result, written and read once more for every segment of its own.
        segment_bytes: what starting one more piece of work costs, as the bytes that could move meanwhile.
    """

    token_bytes: int
    row_bytes: int
    segment_bytes: int

    def pays(self, num_contexts: int, num_rows: int, num_tokens: int) -> bool:
        """Whether a run that so many contexts share is worth a segment."""
        saved = (num_contexts - 1) * num_tokens * self.token_bytes
        return saved > num_rows * self.row_bytes + self.segment_bytes


def cut(contexts: Sequence[ContextRows], page_size: int, costs: Costs | None) -> list[Segment]:
    """The segments of a step whose rows are those of `contexts`, in order. Pure.

    Sharing is found between neighbours: give the contexts sorted by their pages. With `costs` None nothing is shared.

    Returns:
        Shared segments and own ones; exactly one own segment per context, in the contexts' order.

    Raises:
        ValueError: a context has no row, or too few pages.
    """
    starts = [0]
    for context in contexts:
        length = context.num_cached_tokens + context.num_new_tokens
        if context.num_new_tokens < 1:
            raise ValueError("A context in a step needs at least one row.")
        if length > len(context.pages) * page_size:
            raise ValueError(f"{length} tokens do not fit into {len(context.pages)} pages of {page_size}.")
        starts.append(starts[-1] + context.num_new_tokens)
    shared: list[Segment] = []
    begins = [0] * len(contexts)  # pages of each context that shared segments hold
    if costs is not None and len(contexts) > 1:
        alike = [_num_alike(a, b, page_size) for a, b in itertools.pairwise(contexts)]
        groups = [(0, len(contexts), 0)]  # contexts low to high have `taken` pages in segments already
        while groups:
            low, high, taken = groups.pop()
            if high - low < 2:
                continue
            common = min(alike[low : high - 1])
            num_tokens = (common - taken) * page_size
            if common > taken and costs.pays(high - low, starts[high] - starts[low], num_tokens):
                run = tuple(contexts[low].pages[taken:common])
                shared.append(Segment(starts[low], starts[high], taken * page_size, num_tokens, run, own=False))
                begins[low:high] = [common] * (high - low)
                taken = common
            cuts = [low, *(i + 1 for i in range(low, high - 1) if alike[i] == common), high]
            groups += [(a, b, taken) for a, b in itertools.pairwise(cuts)]
    return shared + [
        _own(context, start, begin, page_size) for context, start, begin in zip(contexts, starts, begins, strict=False)
    ]


def _own(context: ContextRows, start: int, begin: int, page_size: int) -> Segment:
    length = context.num_cached_tokens + context.num_new_tokens
    pages = tuple(context.pages[begin : -(-length // page_size)])
    return Segment(start, start + context.num_new_tokens, begin * page_size, length - begin * page_size, pages, own=True)


def _num_alike(a: ContextRows, b: ContextRows, page_size: int) -> int:
    """Return how many pages both begin with, as far as both have them full and computed: by bisection on slices, which
    compare without a Python loop."""
    most = min(a.num_cached_tokens, b.num_cached_tokens) // page_size
    low, high = 0, most
    while low < high:
        middle = (low + high + 1) // 2
        if a.pages[low:middle] == b.pages[low:middle]:
            low = middle
        else:
            high = middle - 1
    return low
