"""Events as JSON and back: our own record of a run, exact, so that it can be shown again."""

from __future__ import annotations

import sys
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from enum import Enum
from functools import cache
from typing import Any, get_args, get_origin, get_type_hints

from parrot_nb.runtime import events
from parrot_nb.runtime.events import Event

KINDS: dict[str, type[Any]] = {kind.__name__: kind for kind in get_args(Event)}


def to_json(event: Event) -> dict[str, Any]:
    """An event as plain values; what has its default is left out."""
    return {"event": type(event).__name__, **_plain(event)}


def from_json(record: Mapping[str, Any]) -> Event:
    """The event that `to_json` wrote.

    Raises:
        ValueError: it is none.
    """
    if not isinstance(record, Mapping) or record.get("event") not in KINDS:
        raise ValueError(f"not an event: {str(record)[:60]}")
    event: Event = _made(KINDS[record["event"]], {k: v for k, v in record.items() if k != "event"})
    return event


def _plain(value: Any) -> Any:
    if is_dataclass(value):
        pairs = ((f, getattr(value, f.name)) for f in fields(value))
        return {f.name: _plain(v) for f, v in pairs if v != f.default}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, tuple):
        return [_plain(item) for item in value]
    return value


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    return get_type_hints(kind, {**vars(sys.modules[kind.__module__]), **vars(events)})


def _made(kind: Any, value: Any) -> Any:
    """A value of a type, out of plain ones; checked, since files come from anywhere."""
    origin = get_origin(kind)
    if is_dataclass(kind) and isinstance(kind, type):
        if not isinstance(value, Mapping) or not set(value) <= set(_hints(kind)):
            raise ValueError(f"not a {kind.__name__}: {str(value)[:60]}")
        try:
            return kind(**{name: _made(_hints(kind)[name], item) for name, item in value.items()})
        except TypeError as error:
            raise ValueError(f"not a {kind.__name__}: {error}") from None
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in get_args(kind):
            return None
        (kind,) = [k for k in get_args(kind) if k is not type(None)]
        return _made(kind, value)
    if origin is tuple:
        return _tuple(get_args(kind), value)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(value)
    known = get_args(kind) if origin is typing.Literal else ()
    fits = value in known if known else isinstance(value, (int, float) if kind is float else kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise ValueError(f"unusable value {str(value)[:60]!r}")
    return float(value) if kind is float else value


def _tuple(kinds: tuple[Any, ...], value: Any) -> tuple[Any, ...]:
    if not isinstance(value, Sequence) or isinstance(value, str):
        raise ValueError(f"not a list: {str(value)[:60]}")  # noqa: TRY004 - a file's fault, not a caller's
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return tuple(_made(kinds[0], item) for item in value)
    if len(kinds) != len(value):
        raise ValueError(f"not {len(kinds)} values: {str(value)[:60]}")
    return tuple(_made(kind, item) for kind, item in zip(kinds, value, strict=True))
