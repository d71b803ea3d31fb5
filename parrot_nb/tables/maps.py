"""Maps over tables: one call per row."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from typing import Any

from parrot_nb.errors import OptionError
from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host
from parrot_nb.language.tabular import provide_tables
from parrot_nb.tables.binding import bind_columns
from parrot_nb.tables.feed import Feed
from parrot_nb.tables.rows import Rows
from parrot_nb.tables.source import source_of

ON_ERROR = ("keep", "raise")


def map_table(host: Host, function: Any, table: Any, given: Mapping[str, Any]) -> Rows:
    """One call per row of a table; the first of them enter at once.

    Args:
        host: session that runs them.
        function: semantic or native.
        table: a data frame, or an iterable of dicts; an iterator is drawn from as rows enter, on whatever thread moves the map on.
        given: by parameter, the column that it reads, or a value that is the same for all rows; and `on_error`, unless the function
            has a parameter of that name.

    Raises:
        ArgumentError: a table that cannot be used, or that lacks a column.
        OptionError: an unknown `on_error`.
    """
    given = dict(given)
    on_error = "keep" if "on_error" in function.signature.parameters else given.pop("on_error", "keep")
    if on_error not in ON_ERROR:
        raise OptionError(f"on_error must be 'keep' or 'raise', not {on_error!r}.")
    source = source_of(table, f"{function.name}.map()")
    binding = bind_columns(function, source.columns, given, dicts=source.frame is None)
    source.use(binding.columns.values())
    feed = Feed(host, function, source, binding, stops=on_error == "raise")
    feed.advance()
    return Rows(host, function, source, feed, on_error)


def read_table(table: Any, called: str) -> list[Mapping[str, Any]]:
    """The cells of each row of a table, by column.

    Raises:
        ArgumentError: a table that cannot be used, or a row that is no dict.
    """
    source = source_of(table, called)
    source.use(source.columns)
    rows: list[Mapping[str, Any]] = []
    while source.has(len(rows)):
        rows.append(source.cells(len(rows)))
    return rows


def table_calls(function: Any, table: Any, given: Mapping[str, Any]) -> list[Call]:
    """The calls of a table's rows, not submitted; none for a row whose cells cannot be used, which a map says when it comes to it.

    Raises:
        ArgumentError: a table that cannot be used, or that lacks a column.
    """
    given = {name: value for name, value in given.items() if name != "on_error" or name in function.signature.parameters}
    source = source_of(table, f"{function.name}.map()")
    binding = bind_columns(function, source.columns, given, dicts=source.frame is None)
    source.use(binding.columns.values())
    calls: list[Call] = []
    position = 0
    while source.has(position):
        with contextlib.suppress(Exception):  # cells are of anybody's classes
            args, named = binding.arguments(source.cells(position))
            calls.append(function.make_call(args, named))
        position += 1
    return calls


provide_tables(map_table, read_table, table_calls)
