"""Statistics of scores from 0 to 1, honest for few rows: confidence intervals, and tests of a difference between two functions.

All of it is done on scores of rows that stand for others of their kind, drawn independently.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

SEED = 0  # of resampling: the same scores have the same interval each time
NUM_RESAMPLES = 4_000
CHUNK = 2_000_000  # scores that are drawn at a time: 16 MB of their places
MAX_TERMS = 100_000  # of a continued fraction: some square roots of the number of rows are enough
EXACT_SIGNS = 16  # differing rows up to which all assignments of signs are tried


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval.

    Attributes:
        low: its lower end.
        high: its upper end.
        confidence: share of such intervals that hold the true value.
        method: "exact" (Clopper and Pearson, of scores 0 and 1), "score" (Tango, of their differences), "bootstrap", or "bound" where all
            scores are the same.
    """

    low: float
    high: float
    confidence: float
    method: str

    def __repr__(self) -> str:
        return f"[{self.low:.3f}, {self.high:.3f}]"


def mean_interval(scores: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """An interval for the mean of scores from 0 to 1; None without scores."""
    if not scores:
        return None
    if are_binary(scores):
        low, high = exact_interval(round(sum(scores)), len(scores), confidence)
        return Interval(low, high, confidence, "exact")
    return _interval(scores, confidence, 0.0, 1.0)


def difference_interval(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Interval | None:
    """An interval for the mean of the second scores less that of the first, of the same rows; None without any."""
    differences = [b - a for a, b in zip(first, second, strict=True)]
    if not differences:
        return None
    if are_binary(first, second):
        low, high = paired_interval(differences.count(-1.0), differences.count(1.0), len(differences), confidence)
        return Interval(low, high, confidence, "score")
    return _interval(differences, confidence, -1.0, 1.0)


def are_binary(*scores: Sequence[float]) -> bool:
    """Whether all scores are 0 or 1."""
    return all(set(each) <= {0.0, 1.0} for each in scores)


def _interval(values: Sequence[float], confidence: float, least: float, most: float) -> Interval:
    if len(set(values)) == 1:
        # All values that were seen are equal. Others may have gone unseen: with this share at least, the true ones are equal to them.
        share = ((1 - confidence) / 2) ** (1 / len(values))
        low, high = (share * values[0] + (1 - share) * end for end in (least, most))
        return Interval(low, high, confidence, "bound")
    low, high = bootstrap_interval(values, confidence)
    return Interval(max(low, least), min(high, most), confidence, "bootstrap")


def exact_interval(num_right: int, num_rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """The interval of Clopper and Pearson for a share: all shares under which what was seen, or more than it on either side, has at
    least half of the probability that the confidence leaves."""
    tail = (1 - confidence) / 2
    low = 0.0 if num_right == 0 else _quantile(lambda p: beta_cdf(p, num_right, num_rows - num_right + 1), tail)
    high = 1.0 if num_right == num_rows else _quantile(lambda p: beta_cdf(p, num_right + 1, num_rows - num_right), 1 - tail)
    return low, high


def paired_interval(num_lost: int, num_won: int, num_rows: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of Tango (1998) for the difference of two shares of the same rows: all differences that what was seen is not
    too far from, in standard deviations of what would be seen then.

    Args:
        num_lost: rows that only the first function has right.
        num_won: rows that only the second has right.
        num_rows: all rows.
        confidence: of the interval.
    """
    from statistics import NormalDist

    z = NormalDist().inv_cdf(1 - (1 - confidence) / 2)

    def distance(difference: float) -> float:
        b = (2 * num_rows - num_won + num_lost) * difference - num_won - num_lost
        c = -num_lost * difference * (1 - difference)
        lost = (math.sqrt(max(0.0, b * b - 8 * num_rows * c)) - b) / (4 * num_rows)  # the likeliest share, given the difference
        variance = num_rows * (2 * lost + difference * (1 - difference))
        above = num_won - num_lost - num_rows * difference
        return above / math.sqrt(variance) if variance > 1e-12 else math.copysign(math.inf, above) if above else 0.0

    seen = (num_won - num_lost) / num_rows
    low = _quantile(lambda share: distance(seen - share * (seen + 1)), z)  # the distance rises with every step away from `seen`
    high = _quantile(lambda share: -distance(seen + share * (1 - seen)), z)
    return seen - low * (seen + 1), seen + high * (1 - seen)


def bootstrap_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """The expanded percentile interval of the mean (Hesterberg, 2015): plain percentiles of few values are too narrow, so they are
    taken further out, as far as Student's t with its degrees of freedom asks for."""
    from statistics import NormalDist

    import numpy as np

    given = np.asarray(values, dtype=np.float64)
    num = len(given)
    random = np.random.default_rng(SEED)
    at_once = max(1, CHUNK // num)
    means = [
        given[random.integers(0, num, size=(min(at_once, NUM_RESAMPLES - start), num))].mean(axis=1)
        for start in range(0, NUM_RESAMPLES, at_once)
    ]
    wide = t_quantile(1 - (1 - confidence) / 2, num - 1) * math.sqrt(num / (num - 1))
    outside = NormalDist().cdf(-wide)
    low, high = np.quantile(np.concatenate(means), [outside, 1 - outside])
    return float(low), float(high)


def mcnemar(num_lost: int, num_won: int) -> float:
    """The exact two-sided p-value of McNemar's test.

    Args:
        num_lost: rows that only the first function has right.
        num_won: rows that only the second has right.
    """
    num = num_lost + num_won
    return 1.0 if num == 0 else min(1.0, 2 * beta_cdf(0.5, max(num_lost, num_won), min(num_lost, num_won) + 1))


def sign_flip(differences: Sequence[float]) -> float:
    """The two-sided p-value of paired differences, were each as likely to have the other sign: of all assignments of signs where few
    rows differ, else of random ones."""
    import numpy as np

    given = np.asarray([value for value in differences if value != 0], dtype=np.float64)
    num = len(given)
    if num == 0:
        return 1.0
    seen = abs(given.sum()) * (1 - 1e-9)  # sums that are equal but for rounding count
    if num <= EXACT_SIGNS:
        signs = 1 - 2 * ((np.arange(2**num)[:, None] >> np.arange(num)) & 1)
        return float((np.abs(signs @ given) >= seen).mean())
    random = np.random.default_rng(SEED)
    at_once = max(1, CHUNK // num)
    reached = 0
    for start in range(0, NUM_RESAMPLES, at_once):
        signs = random.integers(0, 2, size=(min(at_once, NUM_RESAMPLES - start), num)) * 2 - 1
        reached += int((np.abs(signs @ given) >= seen).sum())
    return (reached + 1) / (NUM_RESAMPLES + 1)


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values adjusted for being several (Holm): the more comparisons, the likelier that one looks real by chance."""
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, least = [1.0] * len(p_values), 0.0
    for rank, i in enumerate(order):
        least = max(least, min(1.0, p_values[i] * (len(p_values) - rank)))
        adjusted[i] = least
    return adjusted


def t_quantile(probability: float, degrees: int) -> float:
    """The quantile of Student's t, for probabilities above a half."""

    def cdf(t: float) -> float:
        return 1 - beta_cdf(degrees / (degrees + t * t), degrees / 2, 0.5) / 2

    high = 1.0
    while cdf(high) < probability:
        high *= 2
    return _quantile(lambda share: cdf(share * high), probability) * high


def beta_cdf(x: float, a: float, b: float) -> float:
    """The regularised incomplete beta function, by its continued fraction (Lentz)."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):  # there the fraction converges slowly
        return 1 - beta_cdf(1 - x, b, a)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    # 1 / (1 + d1 / (1 + d2 / ...)), from both ends at once: `c` and `d` are ratios of neighbouring numerators and denominators.
    c, d = 1.0, 1 / (1 - (a + b) * x / (a + 1))
    fraction = d
    for m in range(1, MAX_TERMS):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            c, d = 1 + term / c, 1 / (1 + term * d)
            fraction *= c * d
        if abs(c * d - 1) < 1e-15:
            break
    return front * fraction


def _quantile(cdf: Callable[[float], float], probability: float) -> float:
    """Where a rising function of 0 to 1 reaches a probability, by halving."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if cdf(middle) < probability else (low, middle)
    return (low + high) / 2
