"""Byte pair encoding, learnt: which pairs of symbols to join, in order.

Our own, so that the merges depend on the text alone: not on a library's version, hash order or number of threads.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from itertools import pairwise

Pair = tuple[str, str]


def learn_merges(word_counts: Mapping[str, int], num_merges: int) -> list[Pair]:
    """The first `num_merges` merges of the words, each the most frequent pair at its time (among equals the first in
    alphabetical order).

    Args:
        word_counts: how often each word occurs; a word's characters are its first symbols.
        num_merges: how many to learn; fewer come back only when no pair of symbols is left.

    """
    words = [list(word) for word in word_counts]
    counts = list(word_counts.values())
    pair_counts: Counter[Pair] = Counter()
    words_with: defaultdict[Pair, set[int]] = defaultdict(set)
    for i, word in enumerate(words):
        for pair in pairwise(word):
            pair_counts[pair] += counts[i]
            words_with[pair].add(i)

    merges: list[Pair] = []
    while len(merges) < num_merges and pair_counts:
        best = min(pair_counts, key=lambda pair: (-pair_counts[pair], pair))
        merges.append(best)
        for i in words_with.pop(best):
            for pair in pairwise(words[i]):
                pair_counts[pair] -= counts[i]
                if not pair_counts[pair]:
                    del pair_counts[pair]
            words[i] = _joined(words[i], best)
            for pair in pairwise(words[i]):
                pair_counts[pair] += counts[i]
                words_with[pair].add(i)
    return merges


def _joined(word: list[str], pair: Pair) -> list[str]:
    joined: list[str] = []
    i = 0
    while i < len(word):
        if tuple(word[i : i + 2]) == pair:
            joined.append(word[i] + word[i + 1])
            i += 2
        else:
            joined.append(word[i])
            i += 1
    return joined
