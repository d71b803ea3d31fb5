"""Texts of plain values: how numbers, dates and the like are written, as regular expressions that Python and Rust both read."""

from __future__ import annotations

import datetime as dt
from decimal import Decimal
from typing import Any

INTEGER = r"-?(?:0|[1-9][0-9]*)"
NUMBER = INTEGER + r"(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?"
DECIMAL = INTEGER + r"(?:\.[0-9]+)?"

_LEAP_DAY = r"(?:[0-9]{2}(?:0[48]|[2468][048]|[13579][26])|(?:0[48]|[2468][048]|[13579][26])00)-02-29"
_ANY_YEAR = r"(?:[1-9][0-9]{3}|0[1-9][0-9]{2}|00[1-9][0-9]|000[1-9])"
_OTHER_DAY = (
    r"-(?:(?:0[13578]|1[02])-(?:0[1-9]|[12][0-9]|3[01])|(?:0[469]|11)-(?:0[1-9]|[12][0-9]|30)|02-(?:0[1-9]|1[0-9]|2[0-8]))"
)
DATE = f"(?:{_ANY_YEAR}{_OTHER_DAY}|{_LEAP_DAY})"  # of the calendar: no 30th of February
DATETIME = DATE + r"[T ](?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,6})?(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"


class UnusableTypeError(Exception):
    """A type that no text can stand for; the message says why, and what to do."""


def refusal(value: Any, why: str) -> ValueError:
    """The error of a JSON value that cannot be loaded."""
    return ValueError(f"{value!r} {why}")


def load_int(value: Any) -> int:
    """A JSON value as an int. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool):
        raise refusal(value, "is no whole number")
    return value


def load_float(value: Any) -> float:
    """A JSON value as a float. Raises ValueError."""
    if not isinstance(value, (int, float, Decimal)) or isinstance(value, bool):
        raise refusal(value, "is no number")
    return float(value)


def load_decimal(value: Any) -> Decimal:
    """A JSON value as a Decimal, to the digit. Raises ValueError."""
    if not isinstance(value, (int, Decimal)) or isinstance(value, bool):
        raise refusal(value, "is no number")
    return Decimal(value)


def load_bool(value: Any) -> bool:
    """A JSON value as a bool. Raises ValueError."""
    if not isinstance(value, bool):
        raise refusal(value, "is neither true nor false")
    return value


def load_none(value: Any) -> None:
    """A JSON null as None. Raises ValueError."""
    if value is not None:
        raise refusal(value, "is not null")


def load_str(value: Any) -> str:
    """A JSON value as a text. Raises ValueError."""
    if not isinstance(value, str):
        raise refusal(value, "is no text")
    return value


def load_any(value: Any) -> Any:
    """Any JSON value as `json.loads` gives it."""
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, list):
        return [load_any(item) for item in value]
    if isinstance(value, dict):
        return {key: load_any(item) for key, item in value.items()}
    return value


def load_date(value: Any) -> dt.date:
    """A JSON value as a date. Raises ValueError."""
    return dt.date.fromisoformat(load_str(value))


def load_datetime(value: Any) -> dt.datetime:
    """A JSON value as a point in time. Raises ValueError."""
    return dt.datetime.fromisoformat(load_str(value))
