"""What is learnt from words depends on the words alone."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from parrot_nb.tiny.bpe import learn_merges
from parrot_nb.tiny.meetings import draw_part
from parrot_nb.tiny.words import Draw

WORDS = st.dictionaries(st.text("abcd", min_size=1, max_size=8), st.integers(1, 9), max_size=12)


def brute_force(word_counts: dict[str, int], num_merges: int) -> list[tuple[str, str]]:
    """Count all pairs anew before every merge."""
    words = {tuple(word): count for word, count in word_counts.items()}
    merges = []
    for _ in range(num_merges):
        pairs: Counter[tuple[str, str]] = Counter()
        for word, count in words.items():
            for pair in pairwise(word):
                pairs[pair] += count
        if not pairs:
            break
        best = min(pairs.items(), key=lambda item: (-item[1], item[0]))[0]
        merges.append(best)
        merged: dict[tuple[str, ...], int] = {}
        for word, count in words.items():
            symbols = list(word)
            i = 0
            while i < len(symbols) - 1:
                if (symbols[i], symbols[i + 1]) == best:
                    symbols[i : i + 2] = ["".join(best)]
                i += 1
            merged[tuple(symbols)] = merged.get(tuple(symbols), 0) + count
        words = merged
    return merges


@given(WORDS, st.integers(0, 20))
def test_incremental_counts_give_the_merges_of_counting_anew(word_counts, num_merges):
    assert learn_merges(word_counts, num_merges) == brute_force(word_counts, num_merges)


def test_the_order_of_words_does_not_matter():
    draw = Draw(1)
    counts = Counter(word for _ in range(40) for word in draw_part(draw, 2)[0].split(" "))
    backwards = dict(reversed(counts.items()))
    assert learn_merges(counts, 200) == learn_merges(backwards, 200)


def test_equal_counts_merge_in_alphabetical_order():
    assert learn_merges({"zy": 1, "ab": 1}, 2) == [("a", "b"), ("z", "y")]
