r"""Type expressions of placeholders and signatures: `int`, `"high" | "low"`, `list[Item][1..5]`, `/\d{4}/`, `json`.

The grammar is that of Python's annotations, less calls and operators, and with a few forms of its own:

    "a" | "b"          one of these texts (as `Literal["a", "b"]`)
    int[0..10]         a number within bounds, either of which may be left out
    str[..80]          a text of so many characters; a list of so many items: `list[T][1..5]`
    /[A-Z]{2}\d+/      a text that the regular expression matches as a whole
    json               any JSON value

Names are looked up where the prompt is defined, then among Python's own types and those of `typing`, `datetime` and `decimal`.
"""

from __future__ import annotations

import ast
import builtins
import datetime as dt
import decimal
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from parrot_nb.errors import TemplateError

ErrorAt = Callable[[str, int], TemplateError]

TYPES = ("str", "int", "float", "bool", "list", "dict", "tuple", "date", "datetime", "Decimal", "Literal", "Optional", "json")
MAX_DEPTH = 50
DEFAULTS: Mapping[str, Any] = {
    **{name: getattr(typing, name) for name in ("Any", "Literal", "Optional", "Union", "List", "Dict", "Tuple")},
    **{name: getattr(dt, name) for name in ("date", "datetime")},
    "Decimal": decimal.Decimal,
}

_SPACE = re.compile(r"\s*")
_NAME = re.compile(r"[^\W\d]\w*")
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?")
_STRING = re.compile(r"""'(?:[^'\\\r\n]|\\[^\r\n])*'|"(?:[^"\\\r\n]|\\[^\r\n])*\"""")
_REGEX = re.compile(r"/((?:[^/\\\r\n]|\\[^\r\n])+)/")
_BOUND = r"(-?\d+(?:\.\d+)?)?"
_BOUNDS = re.compile(rf"\[\s*{_BOUND}\s*\.\.\s*{_BOUND}\s*\]")


@dataclass(frozen=True, slots=True)
class Bounded:
    """A type with bounds: of a number's value, a text's characters or a list's items; None is no bound."""

    base: Any
    low: int | float | None
    high: int | float | None


@dataclass(frozen=True, slots=True)
class Matching:
    """A text that a regular expression matches as a whole."""

    pattern: str


@dataclass(frozen=True, slots=True)
class OneOf:
    """A union."""

    members: tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Constant:
    """A value that stands for itself."""

    value: Any


class Json:
    """The type of any JSON value."""


@dataclass(frozen=True, slots=True)
class TypeExpression:
    """A type as it was written.

    Attributes:
        type: what it evaluates to: a type, or one of this module's forms.
        text: the expression.
        start: index of its first character.
        end: index after its last one.
    """

    type: Any
    text: str
    start: int
    end: int


def parse_type(source: str, position: int, namespace: Mapping[str, Any], error_at: ErrorAt) -> TypeExpression:
    """Parse the type expression that begins at `position` and evaluate it.

    Args:
        source: the text that holds it.
        position: where it begins, white space included.
        namespace: names of whoever wrote it.
        error_at: makes the error of a message and an index.

    Raises:
        TemplateError: the expression is malformed, or names something unknown.
    """
    reader = _Reader(source, position, namespace, error_at)
    start = reader.position
    found = reader.union(0)
    end = reader.end
    return TypeExpression(found, source[start:end], start, end)


class _Reader:
    def __init__(self, source: str, position: int, namespace: Mapping[str, Any], error_at: ErrorAt) -> None:
        self.source = source
        self.namespace = namespace
        self.error_at = error_at
        self.position = self.end = position
        self._moved(position)

    def _moved(self, end: int) -> None:
        """Go on after `end`, and the white space behind it."""
        self.end = end
        match = _SPACE.match(self.source, end)
        assert match is not None, "the pattern matches the empty text"
        self.position = match.end()

    def _take(self, text: str) -> bool:
        if not self.source.startswith(text, self.position):
            return False
        self._moved(self.position + len(text))
        return True

    def union(self, depth: int) -> Any:
        if depth > MAX_DEPTH:
            raise self.error_at("This type is nested too deeply: give its inner part a name.", self.position)
        members = [self._postfix(depth)]
        while self._take("|"):
            members.append(self._postfix(depth))
        return members[0] if len(members) == 1 else OneOf(tuple(members))

    def _postfix(self, depth: int) -> Any:
        start = self.position
        found = self._atom(depth)
        while self.source.startswith("[", self.position):
            if bounds := _BOUNDS.match(self.source, self.position):
                found = self._bounded(found, bounds)
            else:
                found = self._subscripted(found, start, depth)
        return found

    def _bounded(self, base: Any, bounds: re.Match[str]) -> Bounded:
        low, high = (None if text is None else float(text) if "." in text else int(text) for text in bounds.groups())
        if low is None and high is None:
            raise self.error_at("These bounds say nothing: write one at least, as in int[0..10] or str[..80].", self.position)
        if low is not None and high is not None and low > high:
            raise self.error_at(f"The bounds [{low}..{high}] leave nothing: put the lower one first.", self.position)
        self._moved(bounds.end())
        return Bounded(base, low, high)

    def _subscripted(self, base: Any, start: int, depth: int) -> Any:
        self._take("[")
        arguments: list[Any] = []
        while True:
            arguments.append(... if self._take("...") else self.union(depth + 1))
            if self._take("]"):
                break
            if not self._take(","):
                raise self.error_at("Expected , or ] in this type.", self.position)
        if base is typing.Literal:
            return self._literal(arguments, start)
        if base in (typing.Optional, typing.Union):
            return OneOf((*arguments, *((None,) if base is typing.Optional else ())))
        try:
            return base[arguments[0] if len(arguments) == 1 else tuple(arguments)]
        except Exception as error:  # the class is the user's
            shown = self.source[start : self.end]
            raise self.error_at(f"'{shown}' is no type ({type(error).__name__}: {error}).", start) from None

    def _literal(self, arguments: list[Any], start: int) -> Any:
        values = [argument.value if isinstance(argument, Constant) else argument for argument in arguments]
        if any(isinstance(value, (type, OneOf, Bounded, Matching)) for value in values):
            raise self.error_at("Literal[...] holds values, not types: write strings or numbers.", start)
        return OneOf(tuple(Constant(value) for value in values))

    def _atom(self, depth: int) -> Any:
        source, position = self.source, self.position
        if match := _STRING.match(source, position) or _NUMBER.match(source, position):
            self._moved(match.end())
            return Constant(ast.literal_eval(match[0]))
        if match := _REGEX.match(source, position):
            self._moved(match.end())
            return Matching(match[1].replace("\\/", "/"))
        if source.startswith("/", position):
            raise self.error_at("This regular expression is never closed: add /, and write \\/ for a slash in it.", position)
        if self._take("("):
            found = self.union(depth + 1)
            if not self._take(")"):
                raise self.error_at("Expected ) in this type.", self.position)
            return found
        if (name := _NAME.match(source, position)) is None:
            raise self.error_at(
                'Expected a type here, such as int, "a" | "b", list[str] or a class: leave an empty type out.', position
            )
        self._moved(name.end())
        if name[0] in ("None", "True", "False"):
            return None if name[0] == "None" else Constant(name[0] == "True")
        found = self._looked_up(name[0], position)
        while self.source.startswith(".", self.position) and (name := _NAME.match(source, self.position + 1)):
            found = self._attribute(found, name[0], position)
            self._moved(name.end())
        if isinstance(found, types.ModuleType):
            raise self.error_at(f"'{source[position : self.end]}' is a module: name a class of it.", position)
        return found

    def _looked_up(self, name: str, position: int) -> Any:
        known = self.namespace.get(name, self)
        if name == "json" and (known is self or isinstance(known, types.ModuleType)):
            return Json
        if known is not self:
            return known
        if name in DEFAULTS:
            return DEFAULTS[name]
        found = getattr(builtins, name, None)
        if isinstance(found, type):
            return found
        raise self.error_at(
            f"The type '{name}' is not known here: define or import it first, or put choices into quotes, as in \"{name}\".",
            position,
        )

    def _attribute(self, owner: Any, name: str, position: int) -> Any:
        try:
            return getattr(owner, name)
        except Exception:  # the object is the user's
            raise self.error_at(f"'{self.source[position : self.end]}' has no '{name}': check the spelling.", position) from None
