"""Sources of rows: a data frame of whichever library, or dicts in a list or as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

from parrot_nb.errors import ArgumentError
from parrot_nb.language.notify import message_of


class Source(Protocol):
    """A table, read row by row.

    Attributes:
        columns: names of its columns, those that are strings.
        frame: the data frame as it was given, or None.
    """

    columns: tuple[str, ...]
    frame: Any

    @property
    def num_rows(self) -> int | None:
        """Count of rows; None while an iterable goes on."""

    @property
    def num_drawn(self) -> int:
        """Count of rows that can be read now."""

    def has(self, position: int) -> bool:
        """Whether there is such a row; of an iterable, draws up to it."""

    def cells(self, position: int) -> Mapping[str, Any]:
        """The cells of a row by column. Raises ArgumentError where the row is no dict, or the iterable raised instead of giving it."""


class FrameSource:
    """A data frame as it was when it was given.

    Args:
        frame: of a library that narwhals knows.
        table: the same, as narwhals sees it.
    """

    def __init__(self, frame: Any, table: Any) -> None:
        # A shallow copy: columns that the user adds later are not in it, and pandas copies what is written to.
        self.frame = frame.copy(deep=False) if table.implementation.is_pandas_like() else frame
        self.columns = tuple(column for column in table.columns if isinstance(column, str))
        self._table = table
        self._cells: dict[str, list[Any]] = {}
        self._num_rows = len(table)

    @property
    def num_rows(self) -> int:
        """Count of rows."""
        return self._num_rows

    @property
    def num_drawn(self) -> int:
        """Count of rows."""
        return self._num_rows

    def has(self, position: int) -> bool:
        """Whether there is such a row."""
        return position < self._num_rows

    def cells(self, position: int) -> Mapping[str, Any]:
        """The cells of a row, by column."""
        return {column: values[position] for column, values in self._cells.items()}

    def use(self, columns: Iterable[str]) -> None:
        """Read these columns, once: `cells` has no others."""
        self._cells = {column: self._table.get_column(column).to_list() for column in columns}


class DictSource:
    """Dicts in a list, or from an iterable as far as it has been drawn.

    Args:
        items: a list, or any iterable.
    """

    frame = None

    @property
    def items(self) -> list[Any]:
        """The rows that have been drawn."""
        return self._items

    def __init__(self, items: Iterable[Any]) -> None:
        self._more: Iterator[Any] | None = None
        if isinstance(items, Sequence):
            self._items = list(items)
        else:
            self._more = iter(items)
            self._items = []
            self.has(0)
        dicts = (item for item in self._items if isinstance(item, Mapping))
        self.columns = tuple(dict.fromkeys(key for item in dicts for key in item if isinstance(key, str)))

    @property
    def num_rows(self) -> int | None:
        """Count of rows; None while more may come."""
        return len(self._items) if self._more is None else None

    @property
    def num_drawn(self) -> int:
        """Count of rows that have been drawn."""
        return len(self._items)

    def has(self, position: int) -> bool:
        """Whether there is such a row; draws up to it."""
        while len(self._items) <= position and self._more is not None:
            try:
                self._items.append(next(self._more))
            except StopIteration:
                self._more = None
            except Exception as error:  # the iterable is the user's
                self._more = None
                self._items.append(_ended_by(error, len(self._items)))
        return position < len(self._items)

    def cells(self, position: int) -> Mapping[str, Any]:
        """The cells of a row, by column."""
        item = self._items[position]
        if isinstance(item, ArgumentError):
            raise item.with_traceback(None)
        if not isinstance(item, Mapping):
            raise ArgumentError(f"Row {position} is a value of type {type(item).__name__}: give a dict of its cells.")
        return item

    def use(self, columns: Iterable[str]) -> None:
        """Do nothing: a dict has all its cells at hand."""


def source_of(value: Any, called: str) -> FrameSource | DictSource:
    """The source of a table's rows.

    Args:
        value: a data frame, or an iterable of dicts.
        called: what to call the map in errors.

    Raises:
        ArgumentError: a lazy frame, or one with two columns of the same name.
    """
    import narwhals as nw

    twice = [column for column, count in Counter(_names(value)).items() if count > 1]
    if twice:
        raise ArgumentError(f"{called}: the table has the column '{twice[0]}' twice: rename one of them.")
    table = nw.from_native(value, pass_through=True)
    if isinstance(table, nw.LazyFrame):
        raise ArgumentError(f"{called}: the table is lazy: collect() it first.")
    if isinstance(table, nw.DataFrame):
        return FrameSource(table.to_native(), table)
    return DictSource(value)


def _ended_by(error: Exception, position: int) -> ArgumentError:
    """The last row of an iterable that raised."""
    ended = ArgumentError(
        f"The table ended at row {position} with an error ({type(error).__name__}: {message_of(error)}): mend what it is read "
        "from, and map over the rest."
    )
    ended.__cause__ = error
    return ended


def _names(value: Any) -> list[Any]:
    """Names of a data frame's columns; none of what has no list of them, or would have to compute it."""
    if not hasattr(type(value), "shape"):
        return []
    names = getattr(value, "column_names", None)
    return list(getattr(value, "columns", ()) if names is None else names)
