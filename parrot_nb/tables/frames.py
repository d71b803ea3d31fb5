"""Rows as a data frame of the table's own library, or as dicts. No library is imported but the one that a user names."""

from __future__ import annotations

import dataclasses
import importlib
import json
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal

from parrot_nb.errors import ArgumentError
from parrot_nb.language import Usage
from parrot_nb.language.notify import message_of
from parrot_nb.language.type_expression import Bounded, OneOf
from parrot_nb.language.types import ValueType
from parrot_nb.tables.source import Source

Kind = Literal["int", "float", "bool", "text", "any"]
LIBRARIES = ("pandas", "polars")  # in this order where several are loaded
_SCALARS: dict[Any, Kind] = {bool: "bool", int: "int", float: "float", str: "text"}
_MAX_INT = 2**63


@dataclass(frozen=True, slots=True)
class Column:
    """A new column.

    Attributes:
        name: of the column.
        values: of each row; None where there is none.
        kind: of the values.
        categories: all texts that a value can be, of a choice; else none.
    """

    name: str
    values: list[Any]
    kind: Kind = "any"
    categories: tuple[str, ...] = ()


def output_column(name: str, values: list[Any], output: ValueType | None, *, semantic: bool) -> Column:
    """The column of an output: of its type, or where it has none, or is written by Python, of that of its values.

    Args:
        name: of the column.
        values: of each row.
        output: type of the output; None for text.
        semantic: whether a model writes it.
    """
    if output is None:
        return Column(name, values, "text" if semantic else kind_of(values))
    if output.form.kind == "choices":
        texts = json.loads(output.form.body)
        choices = [output.read(text) for text in texts]
        if all(choice is None or isinstance(choice, (str, Enum)) for choice in choices):
            pairs = [(choice, text) for choice, text in zip(choices, texts, strict=True) if choice is not None]
            shown = [next((text for choice, text in pairs if value is not None and choice == value), None) for value in values]
            return Column(name, shown, "text", tuple(text for _, text in pairs))
        return Column(name, values, kind_of(choices))
    kind = _SCALARS.get(_base(output.kind))
    return Column(name, values, kind or kind_of(values))


def flattened(column: Column, output: ValueType | None) -> list[Column]:
    """A column for each field of a column's models or dicts; the column itself where it has none."""
    rows = [None if value is None else _plain(value) for value in column.values]
    if not all(row is None or isinstance(row, Mapping) for row in rows):
        return [column]
    fields = dict.fromkeys([*_fields(None if output is None else _base(output.kind)), *(f for row in rows if row for f in row)])
    columns = []
    for field in fields:
        values = [None if row is None else row.get(field) for row in rows]
        columns.append(Column(f"{column.name}.{field}", values, kind_of(values)))
    return columns or [column]


def told(error: BaseException | None) -> str | None:
    """An error in words; None where there is none."""
    return None if error is None else f"{type(error).__name__}: {message_of(error)}"


def usage_columns(usages: Sequence[Usage], prefix: str) -> list[Column]:
    """Columns of tokens and seconds."""
    seconds = [usage.queued_s + usage.prefill_s + usage.decode_s for usage in usages]
    return [
        Column(f"{prefix}prefilled_tokens", [usage.prefilled_tokens for usage in usages], "int"),
        Column(f"{prefix}reused_tokens", [usage.reused_tokens for usage in usages], "int"),
        Column(f"{prefix}decoded_tokens", [usage.decoded_tokens for usage in usages], "int"),
        Column(f"{prefix}seconds", seconds, "float"),
        Column(f"{prefix}attempts", [usage.attempts for usage in usages], "int"),
        Column(f"{prefix}from_memo", [usage.from_memo for usage in usages], "bool"),
    ]


def to_dicts(source: Source, columns: Sequence[Column], inputs: bool) -> list[dict[str, Any]]:
    """A dict per row. Raises ArgumentError where a new key is there already."""
    given = _all_cells(source) if inputs else [{} for _ in range(source.num_drawn)]
    _check_new((key for cells in given for key in cells), columns, "to_dicts")
    return [{**cells, **{column.name: column.values[position] for column in columns}} for position, cells in enumerate(given)]


def to_frame(source: Source, columns: Sequence[Column], inputs: bool, backend: str | None) -> Any:
    """A data frame with new columns. Raises ArgumentError where a new column is there already, or no library is loaded."""
    import narwhals as nw

    frame = source.frame if source.frame is not None else _frame_of(source, _library(backend))
    table = nw.from_native(frame, eager_only=True)
    _check_new(table.columns if inputs else (), columns, "to_frame")
    library: Any = table.implementation.to_native_namespace()
    if table.implementation.is_pandas_like():
        frame = frame.copy(deep=False) if inputs else frame.loc[:, []].copy(deep=False)
        for column in columns:
            frame[column.name] = _pandas_series(library, column, frame.index)
        return frame
    if table.implementation.is_polars():
        series = [_polars_series(library, column) for column in columns]
        return frame.with_columns(series) if inputs else library.DataFrame(series)
    new = [nw.new_series(c.name, list(map(_plain, c.values)), backend=table.implementation) for c in columns]
    wide = table.with_columns(*new)
    return (wide if inputs else wide.select([column.name for column in columns])).to_native()


def _pandas_series(library: Any, column: Column, index: Any) -> Any:
    gaps = any(value is None for value in column.values)
    dtype: Any = None
    match column.kind:
        case "int" if all(value is None or abs(value) < _MAX_INT for value in column.values):
            dtype = "Int64" if gaps else "int64"
        case "float":
            dtype = "float64"
        case "bool":
            dtype = "boolean" if gaps else "bool"
        case "text" if column.categories:
            dtype = library.CategoricalDtype(column.categories)
        case "text":
            dtype = None if any(value is not None for value in column.values) else "object"
        case _:
            dtype = "object" if any(isinstance(value, (Mapping, list, tuple)) for value in column.values) else None
    return library.Series(column.values, index=index, dtype=dtype)


def _polars_series(library: Any, column: Column) -> Any:
    values = list(map(_plain, column.values))
    kinds = {"int": library.Int64, "float": library.Float64, "bool": library.Boolean, "text": library.String, "any": None}
    dtype = library.Enum(column.categories) if column.categories else kinds[column.kind]
    if column.kind == "int" and any(value is not None and abs(value) >= _MAX_INT for value in values):
        dtype = None
    try:
        return library.Series(column.name, values, dtype=dtype, strict=False)
    except Exception:  # polars raises errors of many classes for what it has no type for: it keeps Python's objects then
        return library.Series(column.name, column.values, dtype=library.Object)


def _library(backend: str | None) -> Any:
    if backend is None:
        backend = next((name for name in LIBRARIES if name in sys.modules), None)
        if backend is None:
            raise ArgumentError("The table is no data frame: say to_frame(backend='pandas') or 'polars', or use to_dicts().")
    elif backend not in LIBRARIES:
        raise ArgumentError(f"backend must be one of {', '.join(map(repr, LIBRARIES))}, not {backend!r}.")
    try:
        return importlib.import_module(backend)
    except ImportError:
        raise ArgumentError(f"{backend} is not installed: install it, choose another backend, or use to_dicts().") from None


def _frame_of(source: Source, library: Any) -> Any:
    """The cells of dicts as a data frame."""
    given = _all_cells(source)
    columns = {key: [cells.get(key) for cells in given] for key in dict.fromkeys(key for cells in given for key in cells)}
    if library.__name__ == "pandas":
        return library.DataFrame(columns, index=range(len(given)))
    return library.DataFrame([_polars_series(library, Column(str(name), values)) for name, values in columns.items()])


def _all_cells(source: Source) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    if source.frame is not None:
        import narwhals as nw

        return list(nw.from_native(source.frame, eager_only=True).iter_rows(named=True))
    for position in range(source.num_drawn):
        try:
            found.append(source.cells(position))
        except ArgumentError:  # no dict: its row says so
            found.append({})
    return found


def _check_new(names: Iterable[Any], columns: Sequence[Column], method: str) -> None:
    known = set(names)
    new = [column.name for column in columns]
    if (both := next((name for name in new if new.count(name) > 1), None)) is not None:
        raise ArgumentError(f"Two new columns would be called '{both}': give that output, or that field, another name.")
    if (twice := next((column.name for column in columns if column.name in known), None)) is not None:
        raise ArgumentError(
            f"The table has a column '{twice}' of its own: put something before the new ones, as in {method}(prefix='new_')."
        )


def _plain(value: Any) -> Any:
    """A model or dataclass as a dict; anything else as it is."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return dataclasses.asdict(value)
    if hasattr(type(value), "model_dump") and hasattr(type(value), "model_fields"):  # a pydantic model
        return value.model_dump()
    return value


def _fields(kind: Any) -> list[str]:
    """Names of a class's fields; none of what has none."""
    if not isinstance(kind, type):
        return []
    if dataclasses.is_dataclass(kind):
        return [field.name for field in dataclasses.fields(kind)]
    if isinstance(fields := getattr(kind, "model_fields", None), Mapping):
        return list(fields)
    return list(kind.__annotations__) if typing.is_typeddict(kind) else []


def _base(kind: Any) -> Any:
    """A type without bounds, metadata and `None`."""
    if isinstance(kind, Bounded):
        return _base(kind.base)
    if typing.get_origin(kind) is typing.Annotated:
        return _base(typing.get_args(kind)[0])
    members: Sequence[Any] = kind.members if isinstance(kind, OneOf) else ()
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        members = typing.get_args(kind)
    own = [member for member in members if member not in (None, type(None))]
    return _base(own[0]) if len(own) == 1 else kind


def kind_of(values: Iterable[Any]) -> Kind:
    """Return the kind that all values are of, gaps aside; whole numbers beside others are numbers."""
    found = {type(value) for value in values if value is not None}
    if found == {int, float}:
        return "float"
    return _SCALARS.get(next(iter(found)), "any") if len(found) == 1 else "any"
