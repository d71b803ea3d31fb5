"""Intervals and tests against their definitions, by brute force."""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import pytest

from parrot_nb.tables import intervals


def binomial_tail(num_rows: int, at_least: int, share: float) -> float:
    return sum(math.comb(num_rows, k) * share**k * (1 - share) ** (num_rows - k) for k in range(at_least, num_rows + 1))


@pytest.mark.parametrize(("right", "rows"), [(0, 1), (1, 1), (0, 10), (10, 10), (3, 10), (29, 30), (97, 200)])
@pytest.mark.parametrize("confidence", [0.8, 0.95])
def test_an_exact_interval_ends_where_what_was_seen_would_be_too_rare(right, rows, confidence):
    low, high = intervals.exact_interval(right, rows, confidence)
    tail = (1 - confidence) / 2
    assert low == 0.0 if right == 0 else binomial_tail(rows, right, low) == pytest.approx(tail)
    assert high == 1.0 if right == rows else 1 - binomial_tail(rows, right + 1, high) == pytest.approx(tail)


@pytest.mark.parametrize(("lost", "won"), [(0, 0), (1, 0), (0, 5), (3, 8), (8, 3), (5, 5), (40, 20)])
def test_mcnemar_counts_all_splits_at_least_as_uneven(lost, won):
    num = lost + won
    uneven = [k for k in range(num + 1) if abs(k - (num - k)) >= abs(lost - won)]
    expected = Fraction(sum(math.comb(num, k) for k in uneven), 2**num)
    assert intervals.mcnemar(lost, won) == pytest.approx(float(expected))


@pytest.mark.parametrize(
    ("lost", "won", "rows"), [(0, 0, 10), (0, 1, 5), (3, 8, 20), (8, 3, 20), (5, 0, 5), (2, 2, 4), (40, 20, 200)]
)
def test_a_paired_interval_ends_where_what_was_seen_is_two_deviations_off(lost, won, rows):
    """Given the difference, the share of lost rows is the likeliest: found here by trying all."""
    low, high = intervals.paired_interval(lost, won, rows)
    for end in (low, high):
        if abs(end) == 1:
            continue

        def likelihood(share: float, end: float = end) -> float:
            terms = ((lost, share), (won, share + end), (rows - lost - won, 1 - 2 * share - end))
            return sum(count * math.log(p) for count, p in terms if count)

        least, most = max(0.0, -end), (1 - end) / 2
        shares = [least + (most - least) * (i + 0.5) / 20_000 for i in range(20_000)]
        share = max(shares, key=likelihood)
        deviation = math.sqrt(rows * (2 * share + end - end * end))
        assert abs(won - lost - rows * end) / deviation == pytest.approx(1.95996, abs=5e-3)
    assert low <= (won - lost) / rows <= high


@pytest.mark.parametrize("differences", [[], [0.0, 0.0], [0.5], [0.1, 0.2, 0.3, -0.1], [0.25, -0.25, 0.5, 0.5, 0.0, 1.0]])
def test_sign_flips_are_all_tried_for_few_rows(differences):
    sums = [
        abs(sum(s * d for s, d in zip(signs, differences, strict=True)))
        for signs in itertools.product([1, -1], repeat=len(differences))
    ]
    expected = sum(value >= abs(sum(differences)) - 1e-12 for value in sums) / len(sums)
    assert intervals.sign_flip(differences) == pytest.approx(expected)


def test_sign_flips_of_many_rows_are_sampled():
    rows = random.Random(1)
    assert intervals.sign_flip([rows.uniform(-1, 1) for _ in range(60)]) > 0.05
    assert intervals.sign_flip([rows.uniform(-0.2, 1) for _ in range(60)]) < 0.01


@pytest.mark.parametrize(
    ("probability", "degrees", "expected"), [(0.975, 1, 12.7062), (0.975, 4, 2.7764), (0.975, 30, 2.0423), (0.995, 9, 3.2498)]
)
def test_quantiles_of_t_are_those_of_the_tables(probability, degrees, expected):
    assert intervals.t_quantile(probability, degrees) == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize(
    ("values", "adjusted"), [([], []), ([0.04], [0.04]), ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]), ([0.9, 0.8], [1.0, 1.0])]
)
def test_several_comparisons_are_adjusted_for(values, adjusted):
    assert intervals.holm(values) == pytest.approx(adjusted)


@pytest.mark.parametrize("num_rows", [5, 20])
def test_bootstrap_intervals_hold_the_mean_about_as_often_as_they_say(num_rows):
    """The plain percentiles of five rows hold it in about 82 % of cases."""
    draws = random.Random(7)
    held = 0
    for _ in range(120):
        scores = [min(1.0, max(0.0, draws.gauss(0.5, 0.15))) for _ in range(num_rows)]
        low, high = intervals.bootstrap_interval(scores)
        held += low <= 0.5 <= high
    assert 0.87 <= held / 120 <= 0.995


def test_equal_scores_are_no_certainty():
    for scores, low, high in (([1.0] * 10, 0.692, 1.0), ([0.0] * 10, 0.0, 0.308), ([0.5] * 10, 0.346, 0.654)):
        found = intervals.mean_interval(scores)
        assert (found.low, found.high) == (pytest.approx(low, abs=1e-3), pytest.approx(high, abs=1e-3))
    halves = intervals.difference_interval([0.5] * 10, [0.5] * 10)
    assert (halves.low, halves.high) == (pytest.approx(-0.308, abs=1e-3), pytest.approx(0.308, abs=1e-3))
    same = intervals.difference_interval([1.0] * 10, [1.0] * 10)
    assert (same.low, same.high) == (pytest.approx(-0.278, abs=1e-3), pytest.approx(0.278, abs=1e-3))
    assert intervals.mean_interval([]) is None
    assert intervals.difference_interval([], []) is None


def test_the_same_scores_have_the_same_interval():
    scores = [0.1, 0.9, 0.4, 0.7]
    assert intervals.mean_interval(scores) == intervals.mean_interval(scores)
    assert intervals.mean_interval(scores).method == "bootstrap"
    assert repr(intervals.mean_interval([1.0, 0.0])) == "[0.013, 0.987]"
