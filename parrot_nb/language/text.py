"""What a plain value looks like in a prompt."""

from __future__ import annotations

import math
from typing import Any

from parrot_nb.errors import InputValueError


def to_text(value: Any, where: str) -> str:
    """The text of a string, number, bool, or a list or dict of these, as `str` writes it.

    Args:
        value: the value; NumPy scalars count as the number they hold, special kinds of list and dict as plain ones.
        where: what to call it in the error, such as "argument 'x' of f()".

    Raises:
        InputValueError: the value has no one obvious text; says what to do instead.
    """
    value = _scalar(value)
    try:
        text = str(value) if isinstance(value, str) else str(_plain(value, where, {}))
    except RecursionError:
        raise InputValueError(f"{where} is nested too deeply: turn it into a string first, with json.dumps(...).") from None
    except ValueError as error:  # Python writes no whole numbers of thousands of digits
        if isinstance(error, InputValueError):
            raise
        raise InputValueError(f"{where} holds a number of too many digits: turn it into a string first.") from None
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise InputValueError(
            f"{where} holds half a character (lone surrogate) at position {error.start}: clean it with .encode('utf-8', 'replace').decode()."
        ) from None
    return text


def _plain(item: Any, where: str, copies: dict[int, Any]) -> Any:
    """`item` in plain Python types. `copies` holds the containers met so far by identity: one may contain itself."""
    item = _scalar(item)
    if isinstance(item, (list, dict)) and id(item) in copies:
        return copies[id(item)]
    if isinstance(item, list):
        row: list[Any] = []
        copies[id(item)] = row
        row += [_plain(element, where, copies) for element in item]
        return row
    if isinstance(item, dict):
        table: dict[Any, Any] = {}
        copies[id(item)] = table
        table.update({_plain(key, where, copies): _plain(element, where, copies) for key, element in item.items()})
        return table
    if isinstance(item, float) and not math.isfinite(item):
        raise InputValueError(
            f"{where} {'holds' if copies else 'is'} {item}: a number without a value has no place in a prompt; replace it first."
        )
    if isinstance(item, bool):
        return item
    for kind in (str, int, float):
        if isinstance(item, kind):
            return item if type(item) is kind else kind(item)
    what = "None" if item is None else f"a value of type {type(item).__name__}"
    raise InputValueError(f"{where} {'holds' if copies else 'is'} {what}: {_remedy(item)}")


def _scalar(value: Any) -> Any:
    """A NumPy scalar as the Python number it holds."""
    if type(value).__module__ == "numpy" and getattr(value, "shape", None) == () and hasattr(value, "item"):
        return value.item()
    return value


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
