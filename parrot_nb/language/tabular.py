"""The seam between `f.map` and maps over tables: what counts as a table, and who maps over it.

`language` knows no table library: a floor above provides the map, as a session provides the host.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

from parrot_nb.errors import ArgumentError
from parrot_nb.language.calls import Call
from parrot_nb.language.handles import Handle
from parrot_nb.language.host import Host
from parrot_nb.language.variable import SemanticVariable, VariableList

TableMap = Callable[[Host, Any, Any, Mapping[str, Any]], Any]
TableReader = Callable[[Any, str], list[Mapping[str, Any]]]
TableCalls = Callable[[Any, Any, Mapping[str, Any]], list[Call]]

_NO_TABLE = (str, bytes, Mapping, set, frozenset, range, SemanticVariable, VariableList)
_map_table: TableMap | None = None
_read_table: TableReader | None = None
_make_calls: TableCalls | None = None


def provide_tables(map_table: TableMap, read_table: TableReader, make_calls: TableCalls) -> None:
    """Called once, by `parrot_nb.tables`: how to map a function over a table, to read one whole, and to make the calls of its rows."""
    global _map_table, _read_table, _make_calls
    _map_table, _read_table, _make_calls = map_table, read_table, make_calls


def rows_of(table: Any, called: str) -> list[Mapping[str, Any]]:
    """The cells of each row of a table by column. Raises ArgumentError where it cannot be used."""
    assert _read_table is not None, "parrot_nb.tables provides it when it is imported"
    return _read_table(table, called)


def calls_over_table(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Call] | None:
    """The calls of a map over the table that is the first argument, not submitted; None where that is no table that can be read
    twice. Rows whose cells are no values have none. Raises ArgumentError as the map does."""
    if len(args) != 1 or isinstance(args[0], Iterator) or not _looked_into(args[0])[0]:
        return None
    assert _make_calls is not None, "parrot_nb.tables provides it when it is imported"
    return _make_calls(function, args[0], kwargs)


def mapped_over_table(host: Host, function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Any, Sequence[Any]]:
    """Map a function over the table that is its first argument.

    Returns:
        The rows, or None where the first argument is no table; and the arguments, of which an iterator has lost no item.

    Raises:
        ArgumentError: there are other positional arguments beside the table, or the table cannot be used.
    """
    if not args:
        return None, args
    if isinstance(args[0], Handle) and hasattr(args[0], "to_frame"):
        raise ArgumentError(f"{function.name}.map() takes a table, and was given the rows of a map: map over their to_frame().")
    is_table, value = _looked_into(args[0])
    if not is_table:
        return None, (value, *args[1:])
    if len(args) > 1:
        raise ArgumentError(
            f"{function.name}.map() takes one table and nothing else by position: name the columns, as in parameter='column'."
        )
    assert _map_table is not None, "parrot_nb.tables provides it when it is imported"
    return _map_table(host, function, value, kwargs), args


def _looked_into(value: Any) -> tuple[bool, Any]:
    """Whether a value is a table: a data frame, or an iterable whose first item is a dict; and the value as it was."""
    if isinstance(value, _NO_TABLE) or not isinstance(value, Iterable):
        return _is_frame(value), value
    if _is_frame(value):
        return True, value
    if isinstance(getattr(value, "shape", None), tuple):  # an array, a column
        return False, value
    if isinstance(value, Sequence):
        return len(value) > 0 and isinstance(value[0], Mapping), value
    items = iter(value)
    first = next(items, None)
    if not isinstance(value, Iterator):
        return isinstance(first, Mapping), value
    return isinstance(first, Mapping), items if first is None else chain([first], items)


def _is_frame(value: Any) -> bool:
    """True for data frames of pandas, polars, pyarrow and the like; asked of the class, since a lazy frame computes its columns."""
    kind = type(value)
    return any(hasattr(kind, name) for name in ("columns", "column_names")) and any(
        hasattr(kind, name) for name in ("shape", "collect_schema")
    )
