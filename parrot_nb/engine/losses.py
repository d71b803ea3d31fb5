"""Handling of a device that computes nothing more: a runtime's own process ends, so that the next one starts anew."""

from __future__ import annotations

from collections.abc import Callable

_ends: list[Callable[[str], None]] = []


def end_when_lost(end: Callable[[str], None]) -> None:
    """Have a function, which is given the reason as a clause, end this process when a device is lost; from any thread."""
    _ends.append(end)


def device_is_lost(reason: str) -> None:
    """End the process if that was asked for; else return."""
    for end in _ends:
        end(reason)
