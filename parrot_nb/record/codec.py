"""Events as JSON and back: our own record of a run, exact, so that it can be shown again. It has the form of the wire."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from parrot_nb.runtime.events import Event


def to_json(event: Event) -> dict[str, Any]:
    """An event as plain values; what has its default is left out where it stands in the event itself."""
    return msgspec.to_builtins(event, str_keys=True)  # type: ignore[no-any-return]


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
    for name, value in record.items():  # what a part of an event holds besides, the converter passes over
        if isinstance(value, Mapping) and not value.keys() <= written[name].keys():
            raise ValueError(f"unknown: {', '.join(map(str, value.keys() - written[name].keys()))}")
    return event
