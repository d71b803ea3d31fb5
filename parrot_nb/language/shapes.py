"""Python types as JSON schemas, and JSON values as values of these types."""

from __future__ import annotations

import collections.abc
import dataclasses
import datetime as dt
import decimal
import enum
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.language import scalars
from parrot_nb.language.grammar import Grammar
from parrot_nb.language.scalars import UnusableTypeError
from parrot_nb.language.type_expression import Bounded, Constant, Json, Matching, OneOf

MAX_DEPTH = 50
MAX_SPELLED_OUT = 1_000  # numbers within bounds that are written as a list


@dataclass(frozen=True, slots=True)
class Shape:
    """Form of a type's values: how they are written and read.

    Attributes:
        schema: of their JSON.
        load: makes a value of its JSON as `json.loads` gives it. Raises ValueError, or whatever the user's classes raise.
        is_plain: True if an output that is such a value alone is written as its JSON: numbers, true, false and null.
        choices: the texts that such an output can be, by what they stand for, where these are few; else None.
        pattern: a regular expression of such an output, where its JSON would be a string in quotes or more than one kind; else None.
        refuses: True if `load` may refuse JSON that obeys the schema.
        is_text: True if any text at all is one: in a union it comes last.
        members: of a union.
    """

    schema: dict[str, Any]
    load: Callable[[Any], Any]
    is_plain: bool = False
    choices: Mapping[str, Any] | None = None
    pattern: str | None = None
    refuses: bool = False
    is_text: bool = False
    members: tuple[Shape, ...] = ()

    def read(self, text: str) -> Any:
        """The value of an output that was written by `choices` or `pattern`. Raises ValueError."""
        if self.choices is not None:
            if text not in self.choices:
                raise ValueError(f"{text!r} is none of {', '.join(self.choices)}")
            return self.choices[text]
        for member in self.members:
            try:
                return member.read(text)
            except ValueError:
                continue
        if self.members:
            raise ValueError(f"{text!r} is of none of the types")
        return self.load(loads(text) if self.is_plain else text)


def loads(text: str) -> Any:
    """A JSON text as Python, numbers to the digit. Raises ValueError; also for a key that is there twice."""
    return json.loads(text, object_pairs_hook=_unique, parse_float=decimal.Decimal, parse_constant=_no_number)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = next(key for i, (key, _) in enumerate(pairs) if key in dict(pairs[:i]))
        raise ValueError(f"the key {twice!r} is there twice")
    return found


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no number of JSON")


_SCALARS: Mapping[Any, Shape] = {
    str: Shape({"type": "string"}, scalars.load_str, pattern=r"(?s:.*)", is_text=True),
    int: Shape({"type": "integer"}, scalars.load_int, is_plain=True, pattern=scalars.INTEGER),
    float: Shape({"type": "number"}, scalars.load_float, is_plain=True, pattern=scalars.NUMBER),
    bool: Shape({"type": "boolean"}, scalars.load_bool, is_plain=True, choices={"true": True, "false": False}),
    type(None): Shape({"type": "null"}, scalars.load_none, is_plain=True, choices={"null": None}),
    decimal.Decimal: Shape({"type": "number"}, scalars.load_decimal, is_plain=True, pattern=scalars.DECIMAL),
    dt.date: Shape(
        {"type": "string", "pattern": f"^{scalars.DATE}$"}, scalars.load_date, pattern=scalars.DATE
    ),
    dt.datetime: Shape(
        {"type": "string", "pattern": f"^{scalars.DATETIME}$"}, scalars.load_datetime, pattern=scalars.DATETIME
    ),
    Json: Shape({}, scalars.load_any, is_plain=True, refuses=True),  # the same key twice
}  # fmt: skip
_ANY = (Any, object, Json)
_LISTS = (list, collections.abc.Sequence, collections.abc.Iterable, collections.abc.Collection, collections.abc.MutableSequence)
_DICTS = (dict, collections.abc.Mapping, collections.abc.MutableMapping)
_SETS = (set, frozenset, collections.abc.Set)


class Shaper:
    """Finds the shapes of types. One per output: it collects what schemas refer to.

    Args:
        namespace: names of whoever wrote the type, for annotations in quotes.

    Attributes:
        definitions: schemas by name, for `$defs`.
    """

    def __init__(self, namespace: Mapping[str, Any]) -> None:
        self.definitions: dict[str, Any] = {}
        self._namespace = namespace
        self._objects: dict[Any, Shape] = {}  # classes with fields, which may refer to themselves
        self._depth = 0

    def shape(self, kind: Any) -> Shape:
        """The shape of a type. Raises UnusableTypeError."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise UnusableTypeError("it is nested too deeply: make it flatter")
        try:
            return self._shape(kind)
        finally:
            self._depth -= 1

    def _shape(self, kind: Any) -> Shape:
        kind = type(None) if kind is None else kind
        kind = Json if any(kind is anything for anything in _ANY) else kind
        match kind:
            case Constant():
                return _choices([kind.value])
            case enum.Enum():
                return _choices([kind])
            case Matching(pattern):
                return Shape({"type": "string", "pattern": f"^(?:{pattern})$"}, scalars.load_str, pattern=pattern, is_text=True)
            case Bounded():
                return self._bounded(kind)
            case Grammar():
                raise UnusableTypeError("a grammar is the type of a whole output, not a part of another type")
            case OneOf(members):
                return self._union(members)
            case str() | typing.ForwardRef():
                return self._shape(self._named(kind))
            case typing.NewType():
                return self._shape(kind.__supertype__)
        origin, arguments = typing.get_origin(kind), typing.get_args(kind)
        if origin in (typing.Union, types.UnionType):
            return self._union(arguments)
        if origin is typing.Literal:
            return _choices(arguments)
        if origin is typing.Annotated or _is_pydantic(kind):
            return self._pydantic(kind)
        if origin in (typing.Required, typing.NotRequired):
            return self._shape(arguments[0])
        return self._container(kind, origin or kind, arguments) if isinstance(origin or kind, type) else self._unknown(kind)

    def _container(self, kind: Any, base: type, arguments: Sequence[Any]) -> Shape:
        if (found := _SCALARS.get(base)) is not None:
            return found
        if base in _LISTS:
            return self._list(arguments[0] if arguments else Json)
        if base is tuple:
            return self._tuple(arguments)
        if base in _DICTS:
            return self._dict(*(arguments or (str, Json)))
        if base in _SETS:
            raise UnusableTypeError("JSON has no sets: use list[...] and make a set of the value")
        if issubclass(base, enum.Enum):
            return _enumeration(base)
        if dataclasses.is_dataclass(base) or typing.is_typeddict(base) or hasattr(base, "_field_defaults"):
            return self._fields(kind, base)
        return self._unknown(kind)

    def _unknown(self, kind: Any) -> Shape:
        name = getattr(kind, "__qualname__", None) or repr(kind)[:60]
        raise UnusableTypeError(
            f"no text stands for '{name}': use numbers, texts, choices, dates, lists, dicts, a dataclass, TypedDict or pydantic model"
        )

    def _named(self, kind: Any) -> Any:
        name = kind if isinstance(kind, str) else kind.__forward_arg__
        try:
            return typing.get_type_hints(types.SimpleNamespace(__annotations__={"it": name}), dict(self._namespace))["it"]
        except Exception:  # the annotation is the user's
            raise UnusableTypeError(f"'{name}' is not known where the type is defined: define it first") from None

    def _bounded(self, kind: Bounded) -> Shape:
        base, low, high = kind.base, kind.low, kind.high
        if base in (int, float, decimal.Decimal):
            if base is int and (isinstance(low, float) or isinstance(high, float)):
                raise UnusableTypeError("the bounds of an int are whole numbers")
            found = _SCALARS[base]
            limits = {"minimum": low, "maximum": high}
            schema = {**found.schema, **{name: value for name, value in limits.items() if value is not None}}
            pattern = None
            if base is int and low is not None and high is not None and high - low < MAX_SPELLED_OUT:
                pattern = "|".join(map(str, range(int(low), int(high) + 1)))
            return Shape(schema, found.load, is_plain=True, pattern=pattern)
        if any(isinstance(value, float) or (value is not None and value < 0) for value in (low, high)):
            raise UnusableTypeError("the bounds of a length are whole numbers, 0 or more")
        if base is str:
            pattern = f"(?s:.{{{low or 0},{'' if high is None else high}}})"
            schema = {"type": "string", **_limits("minLength", low, "maxLength", high)}
            return Shape(schema, scalars.load_str, pattern=pattern, is_text=True)
        found = self.shape(base)
        if found.schema.get("type") != "array" or "prefixItems" in found.schema:
            raise UnusableTypeError("bounds are for int, float, Decimal, str and list[...]")
        return dataclasses.replace(found, schema={**found.schema, **_limits("minItems", low, "maxItems", high)})

    def _union(self, members: Sequence[Any]) -> Shape:
        members = [Constant(member) if isinstance(member, enum.Enum) else member for member in members]
        constants = [member.value for member in members if isinstance(member, Constant)]
        if len(constants) == len(members):
            return _choices(constants)
        shapes = [self.shape(member) for member in members if not isinstance(member, Constant)]
        shapes = [_choices(constants), *shapes] if constants else shapes
        shapes.sort(key=lambda shape: shape.is_text)  # what any text is would hide the others
        choices = [shape.choices for shape in shapes]
        pattern = None
        if not any(choice is None and shape.pattern is None for choice, shape in zip(choices, shapes, strict=True)):
            pattern = "|".join(f"(?:{shape.pattern or '|'.join(map(escaped, shape.choices or ()))})" for shape in shapes)
        merged: dict[str, Any] | None = {}
        for choice in choices:
            merged = None if merged is None or choice is None or merged.keys() & choice.keys() else {**merged, **choice}
        return Shape(
            {"anyOf": [shape.schema for shape in shapes]},
            _first_of(shapes),
            is_plain=all(shape.is_plain for shape in shapes),
            choices=merged,
            pattern=pattern,
            refuses=any(shape.refuses for shape in shapes),
            is_text=any(shape.is_text for shape in shapes),
            members=tuple(shapes),
        )

    def _list(self, item: Any) -> Shape:
        inner = self.shape(item)

        def load(value: Any) -> list[Any]:
            if not isinstance(value, list):
                raise scalars.refusal(value, "is no list")
            return [inner.load(each) for each in value]

        return Shape({"type": "array", "items": inner.schema}, load, refuses=inner.refuses)

    def _tuple(self, items: Sequence[Any]) -> Shape:
        if not items or items[-1] is ...:
            found = self._list(items[0] if items else Json)
            return dataclasses.replace(found, load=lambda value: tuple(found.load(value)))
        inner = [self.shape(item) for item in items]

        def load(value: Any) -> tuple[Any, ...]:
            if not isinstance(value, list) or len(value) != len(inner):
                raise scalars.refusal(value, f"is no list of {len(inner)} items")
            return tuple(shape.load(each) for shape, each in zip(inner, value, strict=True))

        schema = {"type": "array", "prefixItems": [s.schema for s in inner], "items": False, "minItems": len(inner)}
        return Shape(schema, load, refuses=any(shape.refuses for shape in inner))

    def _dict(self, key: Any, item: Any) -> Shape:
        if key is not str:
            raise UnusableTypeError("the keys of JSON are texts: use dict[str, ...]")
        inner = self.shape(item)

        def load(value: Any) -> dict[str, Any]:
            if not isinstance(value, dict):
                raise scalars.refusal(value, "is no dict")
            return {name: inner.load(each) for name, each in value.items()}

        return Shape({"type": "object", "additionalProperties": inner.schema}, load, refuses=True)  # the same key twice

    def _fields(self, kind: Any, base: Any) -> Shape:
        """A class with fields, written as an object. Fields that have a default may be left out."""
        if (known := self._objects.get(kind)) is not None:
            return known
        name = f"d{len(self._objects)}"
        inner: dict[str, Shape] = {}
        required = _required(base)

        def load(value: Any) -> Any:
            if not isinstance(value, dict) or not required <= value.keys() <= inner.keys():
                raise scalars.refusal(value, f"is no {base.__name__}")
            return base(**{field: inner[field].load(each) for field, each in value.items()})

        refuses = hasattr(base, "__post_init__")
        self._objects[kind] = Shape({"$ref": f"#/$defs/{name}"}, load, refuses=refuses)
        try:
            hints = typing.get_type_hints(base, localns=dict(self._namespace), include_extras=True)
        except Exception as error:  # annotations are the user's
            raise UnusableTypeError(
                f"the fields of '{base.__name__}' cannot be read ({error}): define their types first"
            ) from None
        fields = [f.name for f in dataclasses.fields(base) if f.init] if dataclasses.is_dataclass(base) else list(hints)
        for field in fields:
            inner[field] = self.shape(hints[field])
        self.definitions[name] = {
            "type": "object",
            "properties": {field: shape.schema for field, shape in inner.items()},
            "required": [field for field in inner if field in required],
            "additionalProperties": False,
        }
        found = dataclasses.replace(self._objects[kind], refuses=refuses or any(shape.refuses for shape in inner.values()))
        self._objects[kind] = found
        return found

    def _pydantic(self, kind: Any) -> Shape:
        from parrot_nb.language.pydantic_types import adapted

        if kind not in self._objects:
            schema, load, definitions = adapted(kind, f"m{len(self._objects)}")
            self.definitions.update(definitions)
            self._objects[kind] = Shape(schema, load, is_plain=schema.get("type") in ("integer", "number"), refuses=True)
        return self._objects[kind]


def escaped(text: str) -> str:
    """A text as a regular expression that Python and Rust both read."""
    return "".join(f"\\{char}" if char in r"\.+*?()|[]{}^$#&-~/" else char for char in text)


def _choices(values: Sequence[Any]) -> Shape:
    """One of some values, each written as it stands."""
    texts: dict[str, Any] = {}
    for value in values:
        if not isinstance(value, (str, int, float, bool, enum.Enum, type(None))):
            raise UnusableTypeError(f"a choice is a text, a number, True, False or None, not {type(value).__name__}")
        text = _written(value)
        if text in texts:
            raise UnusableTypeError(f"the choice {text!r} is there twice")
        if not text:
            raise UnusableTypeError("a choice must not be empty")
        texts[text] = value
    loads = [(value.value if isinstance(value, enum.Enum) else value, value) for value in values]

    def load(value: Any) -> Any:
        for written, choice in loads:
            if type(written) is type(value) and written == value:
                return choice
        raise scalars.refusal(value, "is none of the choices")

    return Shape({"enum": [written for written, _ in loads]}, load, choices=texts)


def _written(value: Any) -> str:
    if isinstance(value, enum.Enum):
        value = value.value
    return "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)


def _enumeration(kind: type[enum.Enum]) -> Shape:
    """A member of an enumeration, by its value where these are texts, else by its name: a number tells a model nothing."""
    members = list(kind)
    if not members:
        raise UnusableTypeError(f"'{kind.__name__}' has no members")
    texts = {m.value if all(isinstance(each.value, str) for each in members) else m.name: m for m in members}

    def load(value: Any) -> enum.Enum:
        if value not in texts:
            raise scalars.refusal(value, f"is no {kind.__name__}")
        return texts[value]

    return Shape({"enum": list(texts)}, load, choices=texts)


def _required(base: Any) -> set[str]:
    """Names of the fields without a default."""
    if dataclasses.is_dataclass(base):
        nothing = dataclasses.MISSING
        return {f.name for f in dataclasses.fields(base) if f.init and f.default is nothing and f.default_factory is nothing}
    if typing.is_typeddict(base):
        return set(base.__required_keys__)
    return set(base._fields) - set(base._field_defaults)


def _first_of(shapes: Sequence[Shape]) -> Callable[[Any], Any]:
    def load(value: Any) -> Any:
        for shape in shapes:
            try:
                return shape.load(value)
            except Exception:  # noqa: S112 - the constructor is the user's; the next member may take it
                continue
        raise scalars.refusal(value, "is of none of the types")

    return load


def _is_pydantic(kind: Any) -> bool:
    return hasattr(kind, "__pydantic_core_schema__") or hasattr(kind, "__get_pydantic_core_schema__")


def _limits(low_name: str, low: Any, high_name: str, high: Any) -> dict[str, int]:
    return {name: value for name, value in ((low_name, low), (high_name, high)) if value is not None}
