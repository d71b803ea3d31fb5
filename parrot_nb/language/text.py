"""Text of a plain value in a prompt."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import date, time, timedelta
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any
from uuid import UUID

from parrot_nb.errors import InputValueError

_Path = tuple["_Path", str] | None  # how to get to an item from the value: the way to what holds it, and the step from there


def to_text(value: Any, where: str) -> str:
    """Return the text of a plain value.

    Strings stand for themselves, and so do the values and names of enum members: a member's value if that is a string or
    the member a number, else its name. Numbers, `Decimal` and `Fraction` are written as `str` writes them, as are paths, UUIDs
    and `timedelta`; dates and times in ISO 8601. Lists, tuples, sets and dicts of these are written as `str` writes them, but sets
    in order (numbers by size, then strings, then all else by its text, fractions too), and dates, paths and the like in quotes.

    Args:
        value: the value; NumPy scalars count as the value they hold, special kinds of list, tuple, set and dict as plain ones.
        where: what to call it in the error, such as "argument 'x' of f()".

    Raises:
        InputValueError: the value, or one in it, has no one obvious text; says where it is and what to do instead.
    """
    try:
        leaf = _leaf(value, where, None)
        text = _container(value, where, None, frozenset()) if leaf is None else leaf[0]
    except RecursionError:
        raise InputValueError(f"{where} is nested too deeply: turn it into a string first, with json.dumps(...).") from None
    except ValueError as error:  # Python writes no whole numbers of thousands of digits
        if isinstance(error, InputValueError):
            raise
        raise InputValueError(f"{where} holds a number of too many digits: turn it into a string first.") from None
    return checked_characters(text, where)


def checked_characters(text: str, where: str) -> str:
    """Return `text`, unless it holds what no encoding can write.

    Raises:
        InputValueError: it holds a lone surrogate.
    """
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputValueError(
            f"{where} holds half a character (lone surrogate) at position {error.start}: clean it with .encode('utf-8', 'replace').decode()."
        ) from None
    return text


def _written(item: Any, where: str, path: _Path, above: frozenset[int]) -> str:
    """The text of an item of a container; `above` are the identities of the containers that it is in."""
    leaf = _leaf(item, where, path)
    if leaf is None:
        return _container(item, where, path, above)
    text, in_quotes = leaf
    return repr(text) if in_quotes else text


def _leaf(item: Any, where: str, path: _Path) -> tuple[str, bool] | None:
    """The text of a value that is no container, and whether it is in quotes inside one; None for other values."""
    item = _scalar(item)
    if isinstance(item, Enum):
        of_value = isinstance(item.value, str) or isinstance(item, (int, float))
        item = item.value if of_value else item.name or str(item)
    if isinstance(item, str):
        return str.__str__(item), True
    if isinstance(item, bool):
        return str(item), False
    if isinstance(item, int):
        return int.__repr__(item), False
    if isinstance(item, (float, Decimal)):
        if not (math.isfinite(item) if isinstance(item, float) else item.is_finite()):
            raise InputValueError(
                f"{_found(where, path, str(item))}: a number without a value has no place in a prompt; replace it first."
            )
        return float.__repr__(item) if isinstance(item, float) else str(item), False
    if isinstance(item, Fraction):
        return str(item), False
    if isinstance(item, (date, time)) and item == item:  # noqa: PLR0124 - pandas' NaT is a datetime that equals nothing
        return item.isoformat(), True
    if isinstance(item, (PurePath, UUID, timedelta)):
        return str(item), True
    return None


def _container(item: Any, where: str, path: _Path, above: frozenset[int]) -> str:
    """The text of a list, tuple, set or dict; one that contains itself is written as Python does."""
    if not isinstance(item, (list, tuple, set, frozenset, dict)):
        what = "None" if item is None else f"a value of type {type(item).__name__}"
        raise InputValueError(f"{_found(where, path, what)}: {_remedy(item)}")
    if id(item) in above:
        return "{...}" if isinstance(item, dict) else "(...)" if isinstance(item, tuple) else "[...]"
    above |= {id(item)}
    if isinstance(item, dict):
        pairs = (
            f"{_written(key, where, (path, ' as a key'), above)}: {_written(element, where, (path, f'[{_shown(key)}]'), above)}"
            for key, element in item.items()
        )
        return f"{{{', '.join(pairs)}}}"
    if isinstance(item, (set, frozenset)):
        texts = [_written(element, where, (path, " in a set"), above) for element in item]
        ranked = sorted(zip(map(_rank, item), texts, strict=True))
        return f"{{{', '.join(text for _, text in ranked)}}}" if ranked else "set()"
    texts = list(_items(item, where, path, above))
    if isinstance(item, list):
        return f"[{', '.join(texts)}]"
    return f"({texts[0]},)" if len(texts) == 1 else f"({', '.join(texts)})"


def _items(row: list[Any] | tuple[Any, ...], where: str, path: _Path, above: frozenset[int]) -> Iterator[str]:
    for i, element in enumerate(row):
        yield _written(element, where, (path, f"[{i}]"), above)


def _rank(item: Any) -> tuple[int, Any]:
    """Where an element of a set stands: numbers first, by size, then strings, then all else. What ranks equal is ordered by its text."""
    item = _scalar(item)
    if isinstance(item, (int, float, Decimal)):  # no Fraction, which does not compare with a Decimal
        return 0, item
    return (1, str.__str__(item)) if isinstance(item, str) else (2, None)


def _scalar(value: Any) -> Any:
    """A NumPy scalar as the Python value that it holds."""
    if type(value).__module__ != "numpy" or getattr(value, "shape", None) != () or not hasattr(value, "item"):
        return value
    # Of times finer than microseconds, item() is a bare count.
    return str(value) if type(value).__name__ in ("datetime64", "timedelta64") and str(value) != "NaT" else value.item()


def _shown(key: Any) -> str:
    text = repr(key)
    return text if len(text) <= 40 else f"{text[:39]}…"


def _found(where: str, path: _Path, what: str) -> str:
    """Say that there is `what` at the end of a path."""
    if path is None:
        return f"{where} is {what}"
    steps = []
    while path is not None:
        path, step = path
        steps.append(step)
    at = "".join(reversed(steps))
    return f"{where} holds {what}{' at ' if at.startswith('[') else ''}{at}"


def _remedy(value: Any) -> str:
    kind = type(value).__name__
    if value is None:
        return "give a value, or '' for an empty text."
    if kind in ("NaTType", "datetime64", "timedelta64"):
        return "replace what is missing first."
    if kind in ("SemanticVariable", "VariableList"):
        return "give it as an argument of its own, or as an item of the outermost list."
    if kind == "Rows":
        return "use get() and choose from its values, or map over to_frame()."
    if isinstance(value, (bytes, bytearray)):
        return "decode it first, with .decode()."
    if kind == "Series":
        return "use .map(...) of the function for one call per item, or choose one text, as with .to_string()."
    if kind == "DataFrame":
        return "choose its text first, for example with .to_markdown() or .to_csv()."
    if kind in ("ndarray", "Tensor"):
        return "turn it into a list first, with .tolist()."
    if isinstance(value, Iterator) or kind in ("range", "dict_keys", "dict_values", "dict_items", "deque"):
        return "turn it into a list first, with list(...)."
    return "turn it into a string first, with str(...) or your own formatting."
