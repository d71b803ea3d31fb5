"""Cells of the table view: the text that is shown of a value, and the keys by which values are ordered."""

from __future__ import annotations

import math
from collections.abc import Sequence
from decimal import Decimal
from fractions import Fraction
from numbers import Number
from typing import Any

from parrot_nb.errors import InputValueError
from parrot_nb.language.escaping import visible
from parrot_nb.language.text import to_text
from parrot_nb.notebook.widget.details import safe_repr
from parrot_nb.tables.frames import Kind, kind_of

SHOWN_CHARS = 300  # of a cell: no column is wider
NUMBERS = (int, float, Decimal, Fraction)
Key = tuple[int, Any]
MISSING: Key = (2, "")


def full_text(value: Any) -> str | None:
    """A value's text as a prompt has it; its repr where no prompt could read it; None for a missing one."""
    if is_missing(value):
        return None
    try:
        text = value if type(value) is str else to_text(value, "a cell")
    except InputValueError:
        text = safe_repr(value)
    except Exception:  # cells are of anybody's classes
        text = f"<{type(value).__name__}>"
    return visible(text)


def short_text(value: Any) -> str | None:
    """A value's text on one line, cut where a page would not show it."""
    if type(value) is str and len(value) > 4 * SHOWN_CHARS:
        value = value[: 4 * SHOWN_CHARS]
    text = full_text(value)
    if text is None:
        return None
    flat = " ".join(text[: 4 * SHOWN_CHARS].split())
    return flat if len(flat) <= SHOWN_CHARS else flat[: SHOWN_CHARS - 1] + "…"


def is_missing(value: Any) -> bool:
    """Whether a value is None, NaN or a library's own word for a gap."""
    if value is None:
        return True
    if isinstance(value, float):
        return math.isnan(value)
    if type(value) is Decimal:
        return value.is_nan()
    return type(value).__name__ in ("NAType", "NaTType")


def kind_shown(values: Sequence[Any]) -> Kind:
    """The kind of a column's values, by which a page aligns them: also other libraries' numbers are numbers."""
    kind = kind_of(values)
    types = {type(value) for value in values if value is not None}  # not the values: their methods are anybody's
    if kind == "any" and types and all(issubclass(each, Number) and not issubclass(each, (bool, complex)) for each in types):
        return "float"
    return kind


def sort_key(value: Any) -> Key:
    """Order of values: numbers by size, then texts by their letters, then gaps."""
    if is_missing(value):
        return MISSING
    if isinstance(value, NUMBERS):
        return 0, value
    if type(value).__module__ == "numpy":  # asked first: another object's attributes are code of the user's
        item = getattr(value, "item", None)
        if callable(item) and isinstance(number := item(), NUMBERS):
            return 0, number
    return 1, (short_text(value) or "").casefold()
