"""The work that one rendering of a chat template may do.

Every loop turn, call, filter, test, operator and output is charged to one budget, by the size of what goes in and what comes
out. What is made from much smaller parts (padding, joining, formatting) is judged before it is made, since Python holds the
interpreter's lock while it makes it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, ItemsView, Iterable, Iterator, KeysView, ValuesView
from functools import wraps
from typing import Any

BUDGET_UNITS = 5_000_000  # of a rendering: a second at most; a character that is made is one unit
CALL_UNITS, TURN_UNITS, ITEM_UNITS, NODE_UNITS = 20, 20, 5, 2
MAX_BITS = 4096  # of a number
MAX_TEXT_CHARS = 2_000_000  # of one text or list
MAX_ARGUMENT = 100_000  # of a width, a count or the like
ESCAPED_CHARS = 10  # that one character may become where a value is shown, as in \U0001f600
# Methods of Python's own types that make nothing large, or only what is judged below.
METHODS: dict[type, frozenset[str]] = {
    str: frozenset({
        "capitalize", "casefold", "center", "count", "endswith", "find", "index", "isalnum", "isalpha", "isascii", "isdecimal", "isdigit",
        "isidentifier", "islower", "isnumeric", "isprintable", "isspace", "istitle", "isupper", "join", "ljust", "lower", "lstrip",
        "partition", "removeprefix", "removesuffix", "replace", "rfind", "rindex", "rjust", "rpartition", "rsplit", "rstrip", "split",
        "splitlines", "startswith", "strip", "swapcase", "title", "upper", "zfill",
    }),
    dict: frozenset({"copy", "get", "items", "keys", "values"}),
    list: frozenset({"copy", "count", "index"}),
    tuple: frozenset({"count", "index"}),
    range: frozenset({"count", "index"}),
    int: frozenset({"bit_length"}),
    float: frozenset({"is_integer"}),
}  # fmt: skip
WIDE_FIELD = re.compile(r":[^{}]*(\d{5}|\{)")  # of str.format: a wide one, or one whose width is given


class TemplateTooLargeError(Exception):
    """A chat template does or makes more than it may; the message is the rest of a sentence about it."""


class Budget:
    """Work that a rendering may still do, in units."""

    def __init__(self) -> None:
        self._left = BUDGET_UNITS

    def begin(self) -> None:
        """Start another rendering."""
        self._left = BUDGET_UNITS

    def spend(self, units: int) -> None:
        """Charge units. Raises TemplateTooLargeError when there are none left."""
        self._left -= units
        if self._left < 0:
            raise TemplateTooLargeError("does more work than a chat template may")

    def charge(self, *values: Any) -> int:
        """Charge the size of values, with all that is in them; returns the units."""
        before, pending = self._left, list(values)
        while pending:
            match pending.pop():
                case str() | bytes() as text:
                    self.spend(1 + len(text))
                case bool() | float() | None:
                    self.spend(1)
                case int() as number:
                    self.spend(1 + number.bit_length() // 8)
                case dict() as mapping:
                    self.spend(1 + ITEM_UNITS * len(mapping))
                    pending += mapping
                    pending += mapping.values()
                case list() | tuple() | set() | frozenset() | KeysView() | ValuesView() | ItemsView() as items:
                    self.spend(1 + ITEM_UNITS * len(items))
                    pending += items
                case range() as numbers:
                    self.spend(1 + ITEM_UNITS * len(numbers))
                case _:
                    self.spend(1)
        return before - self._left

    def charge_items(self, *values: Any) -> int:
        """Charge values that are passed on unread: lists by the number of their items, all else as `charge` does; returns the units."""
        before = self._left
        for value in values:
            if isinstance(value, (list, tuple)):
                self.spend(1 + ITEM_UNITS * len(value))
            else:
                self.charge(value)
        return before - self._left

    def cut(self, value: Any) -> Any:
        """Charge a slice; returns it."""
        self.charge_items(value)
        return value

    def made(self, value: Any) -> Any:
        """Charge what was made, at once or as it comes; returns it."""
        if isinstance(value, Iterator):
            return self._metered(value)
        self.charge(value)
        return value

    def _metered(self, items: Iterator[Any]) -> Iterator[Any]:
        for item in items:
            self.charge(item)
            self.spend(ITEM_UNITS)
            yield item

    def turns(self, items: Iterable[Any]) -> Iterator[Any]:
        """Charge each item that a loop takes."""
        iterator = iter(items)  # here, so that what has no items fails where it did

        def taken() -> Iterator[Any]:
            for item in iterator:
                self.spend(TURN_UNITS)
                yield item

        return taken()

    def arguments(self, values: Iterable[Any]) -> None:
        """Charge numbers among arguments by their value, since some are widths and counts."""
        for value in values:
            if isinstance(value, int):
                if abs(value) > MAX_ARGUMENT:
                    raise TemplateTooLargeError(f"gives {value if value.bit_length() < 100 else 'a huge number'} as an argument")
                self.spend(abs(value))

    def room(self, size: int) -> None:
        """Refuse what would be made, by its size in characters, items or bytes."""
        if size > MAX_TEXT_CHARS:
            raise TemplateTooLargeError("would make something too large")
        self.spend(0)

    # Results that may be larger than their parts

    def operate(self, operator: str, left: Any, right: Any) -> None:
        """Judge an operation before it is done."""
        self.spend(CALL_UNITS)
        units = self.charge_items(left, right) if operator == "+" else self.charge(left, right)
        match operator, left, right:
            case "**", int(), int():
                if abs(left).bit_length() * max(right, 0) > MAX_BITS:
                    raise TemplateTooLargeError("would make too large a number")
            case "*", int(), int():
                if left.bit_length() + right.bit_length() > MAX_BITS:
                    raise TemplateTooLargeError("would make too large a number")
            case ("*", int(), (str() | list() | tuple()) as item) | ("*", (str() | list() | tuple()) as item, int()):
                self.room(len(item) * (right if item is left else left))
            case "%", str(), _:
                self.formatted(left, units)
            case _:
                self.room(units)

    def formatted(self, text: str, units: int) -> None:
        """Judge `text % values`, values of so many units."""
        widths = _widths(text)
        self.room(len(text) + sum(widths) + len(widths) * ESCAPED_CHARS * units)

    def method(self, owner: Any, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """Judge a method of one of Python's own types; returns the arguments, iterators among them as lists."""
        kind = next((kind for kind in METHODS if isinstance(owner, kind)), None)
        if kind is None or name not in METHODS[kind]:
            raise TemplateTooLargeError(f"calls {type(owner).__name__}.{name}, which chat templates may not")
        self.arguments((*args, *kwargs.values()) if kind is str else ())
        args = tuple(list(self.made(arg)) if isinstance(arg, Iterator) else arg for arg in args)
        units = self.charge(owner, *args, *kwargs.values())
        if kind is str and name == "join" and args and not isinstance(args[0], str):
            self.room(units + len(owner) * _length(args[0]))
        elif kind is str and name == "join" and args:
            self.room(units + len(owner) * len(args[0]))
        elif kind is str and name == "replace" and len(args) > 1 and all(isinstance(arg, str) for arg in args[:2]):
            self.replaced(owner, args[0], args[1])
        return args

    def replaced(self, text: str, old: str, new: str) -> None:
        """Judge `text.replace(old, new)`."""
        self.room(len(text) + text.count(old) * len(new))

    def bounded_format(self, text: str, call: Callable[..., str]) -> Callable[..., str]:
        """Return `text.format`, judged when it is called."""

        @wraps(call)
        def bounded(*args: Any, **kwargs: Any) -> str:
            if WIDE_FIELD.search(text):
                raise TemplateTooLargeError("formats a field of a great width")
            units = self.charge(text, *args, *kwargs.values())
            self.room(len(text) + text.count("{") * (ESCAPED_CHARS * units + 10_000))
            return call(*args, **kwargs)

        return bounded


def _length(items: Any) -> int:
    return len(items) if hasattr(items, "__len__") else 0


def _widths(text: str) -> list[int]:
    """Widths and precisions of the fields of a `%` format, 0 where one has none."""
    found, i = list[int](), 0
    while (i := text.find("%", i)) >= 0:
        i += 1
        if text[i : i + 1] == "(":
            depth = 0
            while i < len(text):  # names may hold brackets in pairs
                depth += (text[i] == "(") - (text[i] == ")")
                i += 1
                if depth == 0:
                    break
        field = re.compile(r"[#0\- +]*(\*|\d*)(?:\.(\*|\d*))?").match(text, i)
        numbers = [number for number in (field.groups() if field else ()) if number]
        if any(number == "*" or len(number) > 4 for number in numbers):
            raise TemplateTooLargeError("formats a field of a great width")
        found.append(sum(map(int, numbers)))
        i = max(i, field.end() if field else i) + 1
    return found
