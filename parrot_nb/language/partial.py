"""JSON that is still being written, as Python: what of it is certain."""

from __future__ import annotations

import json
import re
from typing import Any

MAX_DEPTH = 100  # of containers in each other; what is nested deeper is left out until it is whole

_SPACE = re.compile(r"[ \t\r\n]*")
_STRING = re.compile(r'"((?:[^"\\]|\\u[0-9a-fA-F]{4}|\\[^u])*)("?)')
_WORD = re.compile(r"[-+.0-9A-Za-z]+")


class _Nothing:
    """Mark of a value of which nothing is certain yet."""


def partial_json(text: str) -> Any:
    """The value that a beginning of JSON has so far: containers with the fields and items that have come, a string as far as it
    has come; None where nothing is certain. A number counts once something follows on it, a field once its value has begun."""
    value, _ = _value(text, _space(text, 0), 0)
    return None if value is _Nothing else value


def _space(text: str, position: int) -> int:
    match = _SPACE.match(text, position)
    assert match is not None, "the pattern matches the empty text"
    return match.end()


def _value(text: str, position: int, depth: int) -> tuple[Any, int]:
    """The value that begins here, and where the text goes on behind it; the text's end where that is inside of it."""
    match text[position : position + 1]:
        case '"':
            value, end, _ = _string(text, position)
            return value, end
        case "{" if depth < MAX_DEPTH:
            return _object(text, position + 1, depth)
        case "[" if depth < MAX_DEPTH:
            return _array(text, position + 1, depth)
    word = _WORD.match(text, position)
    if word is None or word.end() == len(text):
        return _Nothing, len(text)
    try:
        return json.loads(word[0]), word.end()
    except ValueError:
        return _Nothing, len(text)


def _string(text: str, position: int) -> tuple[str, int, bool]:
    """The string that begins here, the place behind it, and whether it has ended."""
    match = _STRING.match(text, position)
    assert match is not None, "a string begins here"
    written, closed = match[1], bool(match[2])
    whole = json.loads(f'"{written}"', strict=False)
    if not closed and "\ud800" <= whole[-1:] <= "\udbff":  # half of a character that is spelled out
        whole = whole[:-1]
    return whole, match.end() if closed else len(text), closed


def _object(text: str, position: int, depth: int) -> tuple[dict[str, Any], int]:
    found: dict[str, Any] = {}
    while (position := _space(text, position)) < len(text):
        if text[position] == "}":
            return found, position + 1
        if text[position] == ",":
            position += 1
            continue
        if text[position] != '"':
            break
        key, position, closed = _string(text, position)
        position = _space(text, position)
        if not closed or text[position : position + 1] != ":":
            break
        value, position = _value(text, _space(text, position + 1), depth + 1)
        if value is not _Nothing:
            found[key] = value
    return found, len(text)


def _array(text: str, position: int, depth: int) -> tuple[list[Any], int]:
    found: list[Any] = []
    while (position := _space(text, position)) < len(text):
        if text[position] == "]":
            return found, position + 1
        if text[position] == ",":
            position += 1
            continue
        value, position = _value(text, position, depth + 1)
        if value is not _Nothing:
            found.append(value)
    return found, len(text)
