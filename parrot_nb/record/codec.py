"""Events as JSON and back: our own record of a run, exact, so that it can be shown again. It has the form of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from parrot_nb.runtime.events import Event

MAX_SECONDS = 1e12  # of a clock, thirty thousand years; far from where sums and microseconds become infinite
MAX_COUNT = 2**53  # where JSON's numbers are exact


def to_json(event: Event) -> dict[str, Any]:
    """An event as plain values; what has its default is left out where it stands in the event itself."""
    return msgspec.to_builtins(event, str_keys=True)  # type: ignore[no-any-return]


def _odd_number(value: Any) -> int | float | None:
    """The first number that is none, or beyond what any run can count or last; None without one."""
    pending = [value]
    while pending:
        match pending.pop():
            case float() as number if not abs(number) <= MAX_SECONDS:  # NaN is not either
                return number
            case bool():
                pass
            case int() as number if abs(number) > MAX_COUNT:
                return number
            case Mapping() as mapping:
                pending += mapping.values()
            case list() | tuple() as items:
                pending += items
    return None


def from_json(record: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote.

    Raises:
        ValueError: it is none.
    """
    try:
        event: Event = msgspec.convert(record, Event, strict=True)
    except (msgspec.ValidationError, OverflowError, TypeError) as error:
        raise ValueError(str(error)) from None
    written = to_json(event)
    if (odd := _odd_number(written)) is not None:
        raise ValueError(f"no event holds the number {odd!r:.40}")
    for name, value in record.items():  # what a part of an event holds besides, the converter passes over
        if isinstance(value, Mapping) and not value.keys() <= written[name].keys():
            raise ValueError(f"unknown: {', '.join(map(str, value.keys() - written[name].keys()))}")
    return event
