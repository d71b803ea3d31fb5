"""Checks of answers. Each returns what is not right about an answer, in one sentence, or None where it is right."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parrot_nb.language import SemanticFunction

OPINIONS = {
    "The new website is wonderful.": "positive",
    "I think the old printer is useless.": "negative",
    "The report is not helpful.": "negative",
    "The camera is on the table.": "neutral",
}
THINGS = ("website", "printer", "report", "camera", "menu", "poster", "guide", "budget")
SAID = {
    "positive": ("wonderful", "not useless"),
    "negative": ("awful", "not helpful"),
    "neutral": ("in the hall", "on the table"),
}


def compared(answer: Any, right: Any, within: float) -> str | None:
    """Compare a value with the right one: numbers within a relative tolerance, texts without regard to case and to blanks at
    their ends, lists of words as sets, other lists item by item."""
    if isinstance(right, (int, float)):
        return _number(answer, right, within)
    if isinstance(right, str):
        if not isinstance(answer, str):
            return f"The answer is a text, not {_kind(answer)}."
        return None if answer.strip().casefold() == right.strip().casefold() else "That is another text."
    if isinstance(right, Mapping):
        return _mapping(answer, right)
    if isinstance(answer, (str, bytes, Mapping)) or not hasattr(answer, "__iter__"):
        return f"The answer is a list, not {_kind(answer)}."
    given = list(answer)
    if all(isinstance(item, str) for item in right):
        missing, wrong = set(right) - set(given), set(given) - set(right)
        said = [f"{len(missing)} missing"] * bool(missing) + [f"{len(wrong)} too many"] * bool(wrong)
        return f"Not these names: {', '.join(said)}." if said else None
    if len(given) != len(right):
        return f"The answer has {len(right)} numbers, not {len(given)}."
    bad = [i for i, pair in enumerate(zip(given, right, strict=True), 1) if _number(*pair, within) is not None]
    return f"Not right at {', '.join(map(str, bad))} of {len(right)}." if bad else None


def _mapping(answer: Any, right: Mapping[str, Any]) -> str | None:
    if not isinstance(answer, Mapping):
        return f"The answer is a dictionary, not {_kind(answer)}."
    wrong = sum(answer.get(key) != value for key, value in right.items()) + sum(key not in right for key in answer)
    return f"{wrong} of its entries {'is' if wrong == 1 else 'are'} not right." if wrong else None


def _number(answer: Any, right: float, within: float) -> str | None:
    try:
        value = math.nan if isinstance(answer, (str, bool)) else float(answer)
    except (TypeError, ValueError):
        value = math.nan
    if math.isnan(value):
        return f"The answer is a number, not {_kind(answer)}."
    if math.isclose(value, right, rel_tol=within, abs_tol=1e-9):
        return None
    return f"{value:g} is too {'small' if value < right else 'large'}."


def _kind(answer: Any) -> str:
    return type(answer).__name__


def three_phase(answer: Any) -> str | None:
    """Compare `three_phase(query, shared, halves, own)` with plain attention on random numbers."""
    import torch

    if not callable(answer):
        return f"The answer is the function three_phase, not {_kind(answer)}."
    random = torch.Generator().manual_seed(7)

    def draw(*shape: int) -> Any:
        return torch.randn(*shape, dtype=torch.float64, generator=random)

    users, dim = 6, 8
    query, shared = draw(users, dim), (draw(11, dim), draw(11, dim))
    halves, own = (draw(2, 5, dim), draw(2, 5, dim)), (draw(users, 3, dim), draw(users, 3, dim))
    which = torch.arange(users) // (users // 2)
    keys, values = (
        torch.cat([every.expand(users, -1, -1), half[which], each], 1)
        for every, half, each in zip(shared, halves, own, strict=True)
    )
    expected = torch.nn.functional.scaled_dot_product_attention(query[:, None], keys, values)[:, 0]
    found = answer(query, shared, halves, own)
    if not isinstance(found, torch.Tensor) or found.shape != expected.shape:
        return f"The result has shape [users, dim], here {list(expected.shape)}, not {list(getattr(found, 'shape', ()))}."
    off = float((found - expected).abs().max())
    return None if off < 1e-9 else f"The largest difference to plain attention is {off:.2g}."


def mood(answer: Any) -> str | None:
    """Run a prompt of the reader's on four opinions; its values are members of an enumeration."""
    if not isinstance(answer, SemanticFunction):
        return f"The answer is the function that your %%semantic cell defines, not {_kind(answer)}."
    moods = answer.map(list(OPINIONS)).get()
    if not all(isinstance(each, enum.Enum) for each in moods):
        return "The output has no type yet, so its value is a text."
    wrong = sum(each.name != right for each, right in zip(moods, OPINIONS.values(), strict=True))
    return f"{wrong} of {len(moods)} moods are not right." if wrong else None


def better(answer: Any) -> str | None:
    """Compare a function with the first prompt of the exercise, on opinions that did not choose it."""
    from parrot_nb.tables import compare

    if not isinstance(answer, SemanticFunction):
        return f"The answer is a function, such as `tuned.best`, not {_kind(answer)}."
    feeling = SemanticFunction('{{input:message}}\nMood: {{output:word: "positive" | "negative" | "neutral"}}', name="feeling")
    others: Sequence[dict[str, str]] = [
        {"message": f"I think the {size} {thing} is {word}.", "label": label}
        for label, words in SAID.items()
        for word in words
        for thing in THINGS
        for size in ("new", "old")
    ][1::2]
    difference = compare({"feeling": feeling, "yours": answer}, others, expected="label").differences["yours"]
    return None if difference.is_real and difference.mean > 0 else f"It is not better than `feeling`: {difference}."


CHECKERS: Mapping[str, Callable[[Any], str | None]] = {"three_phase": three_phase, "mood": mood, "better": better}
