"""Metrics: how right a value is, from 0 to 1, beside what was expected."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from enum import Enum
from functools import partial
from typing import Any

from parrot_nb.errors import ArgumentError, InputValueError
from parrot_nb.language.text import to_text

Metric = Callable[[Any, Any], Any]
_WORD = re.compile(r"\w+")


def metric_named(name: str, tolerance: float) -> Metric:
    """The metric of that name. Raises ArgumentError for an unknown one."""
    metrics: Mapping[str, Metric] = {
        "exact": is_equal,
        "contains": contains,
        "number": partial(is_near, tolerance=tolerance),
        "regex": matches,
        "f1": f1,
    }
    if name not in metrics:
        raise ArgumentError(
            f"metric must be one of {', '.join(map(repr, metrics))}, or a function of value and expected, not {name!r}."
        )
    return metrics[name]


def is_equal(value: Any, expected: Any) -> bool:
    """Whether a value is the expected one, or has the same text but for white space around it."""
    try:
        equal = value == expected
        if isinstance(equal, bool) and equal:
            return True
    except Exception:  # values are of anybody's classes
        return False
    return _text(value).strip() == _text(expected).strip()


def contains(value: Any, expected: Any) -> bool:
    """Whether a value's text has the expected text in it, in whatever case."""
    return _text(expected).strip().casefold() in _text(value).casefold()


def is_near(value: Any, expected: Any, tolerance: float = 0.0) -> bool:
    """Whether a value is a number at most `tolerance` away from the expected one."""
    found, wanted = _number(value), _number(expected)
    if wanted is None:
        raise ArgumentError(f"metric='number' expects numbers, not {expected!r}: choose another metric or another column.")
    return found is not None and abs(found - wanted) <= tolerance


def matches(value: Any, expected: Any) -> bool:
    """Whether the expected regular expression is found in a value's text."""
    try:
        return re.search(_text(expected), _text(value)) is not None
    except re.error as error:
        raise ArgumentError(f"metric='regex' expects regular expressions, not {expected!r} ({error}): mend it.") from None


def f1(value: Any, expected: Any) -> float:
    """The F1 of two sets: of the items of lists and sets, else of the words of a text, in whatever case."""
    found, wanted = _items(value), _items(expected)
    if not found and not wanted:
        return 1.0
    return 2 * len(found & wanted) / (len(found) + len(wanted))


def checked_score(score: Any, metric: str, position: int) -> float:
    """A score that a metric gave. Raises ArgumentError unless it is True, False or a number from 0 to 1."""
    if isinstance(score, Enum):
        score = score.value
    try:
        number = float(score)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if isinstance(score, str) or not 0 <= number <= 1:
        raise ArgumentError(f"metric '{metric}' gave {score!r:.60} for row {position}: give True, False or a number from 0 to 1.")
    return number


def is_missing(value: Any) -> bool:
    """Whether a cell holds no value: None, NaN, NaT or NA."""
    if value is None:
        return True
    try:
        return bool(value != value)  # noqa: PLR0124 - NaN and NaT equal nothing
    except Exception:  # NA cannot say; neither can an array, which is a value
        return type(value).__name__ == "NAType"


def _text(value: Any) -> str:
    try:
        return to_text(value, "a value")
    except InputValueError:
        return str(value)


def _number(value: Any) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return number if math.isfinite(number) else None


def _items(value: Any) -> set[str]:
    if isinstance(value, Collection) and not isinstance(value, (str, bytes, Mapping)):
        return {_text(item).strip().casefold() for item in value}
    return {word.casefold() for word in _WORD.findall(_text(value))}
