"""What a plain value looks like in a prompt."""

from __future__ import annotations

import math
from typing import Any

from parrot_nb.errors import InputValueError


def to_text(value: Any, where: str) -> str:
    """The text of a string, number, bool, or a list or dict of these, as `str` writes it.

    Args:
        value: the value; NumPy scalars count as the number they hold.
        where: what to call it in the error, such as "argument 'x' of f".

    Raises:
        InputValueError: the value has no one obvious text; says what to do instead.
    """
    value = _scalar(value)
    if isinstance(value, str):
        text = str(value)
    else:
        _check(value, where)
        text = str(value)
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputValueError(
            f"{where} holds half a character (lone surrogate) at position {error.start}: clean it with .encode('utf-8', 'replace').decode()."
        ) from None
    return text


def _check(value: Any, where: str) -> None:
    """Refuse what `str` would turn into something that nobody meant; iterative, so that depth costs no stack."""
    pending, inside = [value], set()
    while pending:
        item = _scalar(pending.pop())
        if isinstance(item, (list, dict)):
            if id(item) in inside:
                continue
            inside.add(id(item))
            pending.extend(item if isinstance(item, list) else [*item.keys(), *item.values()])
        elif isinstance(item, float) and not math.isfinite(item):
            raise InputValueError(f"{where} is {item}: a number without a value has no place in a prompt; replace it first.")
        elif not isinstance(item, (str, bool, int, float)):
            raise InputValueError(f"{where} is {_described(item)}: {_remedy(item)}")


def _scalar(value: Any) -> Any:
    """A NumPy scalar as the Python number it holds."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


def _described(value: Any) -> str:
    return "None" if value is None else f"of type {type(value).__name__}"


def _remedy(value: Any) -> str:
    kind = type(value).__name__
    if value is None:
        return "give a value, or '' for an empty text."
    if isinstance(value, (bytes, bytearray)):
        return "decode it first, with .decode()."
    if kind in ("DataFrame", "Series"):
        return "choose its text first, for example with .to_markdown() or .to_csv()."
    if kind in ("ndarray", "Tensor"):
        return "turn it into a list first, with .tolist()."
    if isinstance(value, (tuple, set, frozenset)):
        return "turn it into a list first, with list(...)."
    return "turn it into a string first, with str(...) or your own formatting."
