"""The rows of a table view in the order that its reader asked for, read a window at a time."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from parrot_nb.language.nodes import State
from parrot_nb.language.notify import message_of
from parrot_nb.notebook.grid.cells import MISSING, Key, full_text, kind_shown, short_text, sort_key
from parrot_nb.tables import Comparison, Evaluation, Rows
from parrot_nb.tables.frames import Kind, output_column
from parrot_nb.tables.intervals import Interval
from parrot_nb.tables.measuring import Measurement, Measuring

Role = Literal["input", "expected", "output", "score", "state", "row"]
Source = Rows | Evaluation | Comparison | Measuring
ROW, STATE, ERROR = "row", "state", "error"  # keys of the columns that every table has
RANKS: dict[str, int] = {"failed": 0, "cancelled": 1, "running": 2, "pending": 3, "done": 4}  # what asks most for attention first
SAMPLED_ROWS = 40  # from which a column's kind is told where its type does not say it
REORDER_S = 1.0  # between orders of rows that fill in; a table that is slow to order waits for longer
COST_SHARE = 5
AT_ONCE_ROWS = 5_000  # of a longer table, the order is found on a thread of its own: others wait for whoever asks


@dataclass(frozen=True, slots=True)
class Column:
    """A column of the view.

    Attributes:
        key: by which the page names it.
        name: shown above it.
        role: of its cells.
        side: place of its function among several; 0 for what they share.
        kind: of its values.
        at: place among the outputs of its function, of an output.
    """

    key: str
    name: str
    role: Role
    side: int
    kind: Kind
    at: int = 0


@dataclass(frozen=True, slots=True)
class Query:
    """Rows and order that a reader asked for.

    Attributes:
        sort: key of the column to sort by; None for the table's own order.
        descending: whether the greatest comes first; gaps come last either way.
        states: of the rows to show; all if empty.
        text: that one of a row's cells has in it, in whatever case.
        failed_first: whether rows that failed or were cancelled come before the others.
        differing: whether only rows are shown on which the functions differ.
    """

    sort: str | None = None
    descending: bool = False
    states: frozenset[str] = frozenset()
    text: str = ""
    failed_first: bool = False
    differing: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether it asks for all rows in the table's own order."""
        return self == Query()


@dataclass(slots=True)
class Side:
    """One function's part.

    Attributes:
        name: of the function.
        rows: of its map; None before it begins.
        measured: what its rows score; None for a map alone.
    """

    name: str
    rows: Rows | None
    measured: Evaluation | Measurement | None = None

    def score(self, position: int) -> float | None:
        """Score of a row, once it has one."""
        scores = () if self.measured is None else self.measured.scores
        return scores[position] if position < len(scores) else None


@dataclass(slots=True)
class _Order:
    """An order of rows, once `positions` are found.

    Attributes:
        query: that it answers.
        counts: what there was to order.
        positions: of the rows that the query lets through; None where these cannot be ordered, or not yet.
        is_over: whether they have been searched.
        made_s: when that was, on the clock of `time.monotonic`.
        cost_s: how long it took.
    """

    query: Query = field(default_factory=Query)
    counts: tuple[Any, ...] = ()
    positions: Sequence[int] | None = None
    is_over: bool = False
    made_s: float = 0.0
    cost_s: float = 0.0


class Grid:
    """The rows of a map, an evaluation or a comparison, as a table.

    Args:
        source: what is shown.
        version: number of the order before any query.
    """

    def __init__(self, source: Source, version: int = 0) -> None:
        self.source = source
        self._version = version
        self._query = Query()
        self._order = _Order()
        self._coming: _Order | None = None  # being found on a thread
        self._counts: dict[str, int] = {}
        self._counts_until_s = 0.0
        self._sides: list[Side] = []
        self._begun = -1  # functions of a measuring that had begun when the sides were told

    # What there is

    @property
    def sides(self) -> list[Side]:
        """The functions, in order."""
        begun = len(self.source.parts) if isinstance(self.source, Measuring) else 0
        if begun != self._begun:
            self._begun, self._sides = begun, self._told()
        return self._sides

    def _told(self) -> list[Side]:
        match self.source:
            case Rows():
                return [Side(self.source.function.name, self.source)]
            case Evaluation():
                return [Side(self.source.name, self.source.rows, self.source)]
            case Comparison():
                return [Side(name, each.rows, each) for name, each in self.source.evaluations.items()]
            case _:
                begun = dict(zip(self.source.names, self.source.parts, strict=False))
                return [Side(name, part.rows if (part := begun.get(name)) else None, part) for name in self.source.names]

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it will change."""
        over = not isinstance(self.source, Measuring) or self.source.is_over
        return over and all(side.rows is None or side.rows.done() for side in self.sides)

    def cancel(self) -> None:
        """Cancel the rows that have not ended, and what would follow them. Returns at once."""
        if isinstance(self.source, Measuring):
            self.source.cancel()
        for side in self.sides:
            if side.rows is not None:
                side.rows.cancel()

    def columns(self) -> list[Column]:
        """All columns, inputs first; those of outputs by function."""
        sides = self.sides
        names: dict[str, int] = {}
        for i, side in enumerate(sides):
            for row in [] if side.rows is None else side.rows.head(SAMPLED_ROWS):
                for name in row.inputs:
                    names.setdefault(name, i)
        found = [Column(f"in:{name}", name, "input", i, self._input_kind(name, i)) for name, i in names.items()]
        measured = next((side.measured for side in sides if side.measured is not None), None)
        if measured is not None:
            found.append(Column("expected", "expected", "expected", 0, kind_shown(measured.expected[:SAMPLED_ROWS])))
        for i, side in enumerate(sides):
            found += [] if side.rows is None else self._outputs(i, side.rows)
            if side.measured is not None:
                found.append(Column(f"score:{i}", "score", "score", i, "float"))
        return found

    def _input_kind(self, name: str, side: int) -> Kind:
        rows = self.sides[side].rows
        return "any" if rows is None else kind_shown([row.inputs.get(name) for row in rows.head(SAMPLED_ROWS)])

    @staticmethod
    def _outputs(side: int, rows: Rows) -> list[Column]:
        types = getattr(getattr(rows.function, "template", None), "types", None)
        columns = []
        for at, name in enumerate(rows.function.output_names):
            shown = [values[at] for i in range(len(rows.head(SAMPLED_ROWS))) if (values := rows.outputs(i)) is not None]
            kind = output_column(name, shown, None if types is None else types.get(name), semantic=types is not None).kind
            kind = kind_shown(shown) if kind == "any" else kind
            columns.append(Column(f"out:{side}:{at}", name, "output", side, kind, at))
        return columns

    @property
    def num_rows(self) -> int:
        """Count of rows that are known."""
        rows = self.sides[0].rows
        return 0 if rows is None else sum(rows.counts.values()) if rows.num_rows is None else rows.num_rows

    def states(self) -> list[str]:
        """State of each row; of several functions that which asks most for attention."""
        sides = self.sides
        found: list[list[State]] = [side.rows.states() if side.rows is not None else [] for side in sides]
        if len(found) == 1:
            return list(found[0])
        count = self.num_rows
        pending: list[State] = ["pending"]
        full = [states + pending * (count - len(states)) for states in found]
        return [min(row, key=RANKS.__getitem__) for row in zip(*full, strict=False)]

    def counts(self) -> dict[str, int]:
        """How many rows are in each state."""
        sides = self.sides
        if len(sides) == 1 and sides[0].rows is not None:
            return {state: count for state, count in sides[0].rows.counts.items()}  # noqa: C416 - of another type
        now = time.monotonic()
        if now >= self._counts_until_s or self.is_settled:
            self._counts = dict(Counter(self.states()))
            self._counts_until_s = now + COST_SHARE * (time.monotonic() - now)
        return self._counts

    @property
    def num_scored(self) -> int:
        """Number of scores of all functions together."""
        return sum(len(side.measured.scores) for side in self.sides if side.measured is not None)

    def scores(self) -> list[tuple[str, int, float, Interval | None]]:
        """Of each function: name, rows scored so far, their mean score and its interval."""
        found = []
        for side in self.sides:
            match side.measured:
                case Evaluation() as done:
                    found.append((side.name, len(done.scores), done.score, done.interval))
                case Measurement() as running if running.scores:
                    found.append((side.name, *running.so_far()))
                case _:
                    pass
        return found

    def measures(self) -> list[list[str]]:
        """The measures of a result with their headers: a confusion matrix, or functions beside each other; none while rows run."""
        return self.source.table if isinstance(self.source, (Evaluation, Comparison)) else []

    # What is asked for

    @property
    def query(self) -> Query:
        """Rows and order that were asked for last."""
        return self._query

    @property
    def version(self) -> int:
        """Number of the query: rows that a page has are void under another one. An order that fills in keeps its number."""
        return self._version

    @property
    def num_matching(self) -> int:
        """Count of rows that the query lets through."""
        return len(self.order())

    def ask(self, query: Query) -> None:
        """Take over what a reader asks for; of a long table, the order before stays until the new one is found."""
        self._query = query
        if query.is_plain:
            self._version += 1
            self._order, self._coming = _Order(), None
        else:
            self._find(query, self._news())

    def reorder(self) -> bool:
        """Order the rows anew, if there is news of them and the last time is long enough ago; returns whether places changed."""
        if self._coming is not None:
            return self._take()
        order = self._order
        if self._query.is_plain or time.monotonic() - order.made_s < max(REORDER_S, COST_SHARE * order.cost_s):
            return False
        counts = self._news()
        return counts != order.counts and self._find(self._query, counts)

    @property
    def due(self) -> bool:
        """Whether rows may be out of the order that was asked for."""
        return self._coming is not None or (not self._query.is_plain and not self.is_settled)

    def order(self) -> Sequence[int]:
        """Positions of the rows that the query lets through, in its order."""
        positions = self._order.positions
        return range(self.num_rows) if positions is None else positions

    def _news(self) -> tuple[Any, ...]:
        scored = tuple(0 if side.measured is None else len(side.measured.scores) for side in self.sides)
        return self.num_rows, tuple(self.counts().items()), scored

    def _find(self, query: Query, counts: tuple[Any, ...]) -> bool:
        """Find the order of a query, of a long table on a thread of its own; returns whether places changed."""
        self._coming = order = _Order(query, counts)

        def run() -> None:
            began_s = time.monotonic()
            try:
                order.positions = self._ordered(query)
            finally:
                order.made_s = time.monotonic()
                order.cost_s = order.made_s - began_s
                order.is_over = True

        if self.num_rows > AT_ONCE_ROWS:
            threading.Thread(target=run, name="parrot-orders", daemon=True).start()
            return False
        run()
        return self._take()

    def _take(self) -> bool:
        """Take over the order that was being found, if it has been; returns whether places changed."""
        order, before = self._coming, self._order
        if order is None or not order.is_over:
            return False
        self._coming, self._order = None, order
        self._version += order.query != before.query
        return order.positions != before.positions

    def _ordered(self, query: Query) -> list[int]:
        states = self.states()
        found = [i for i, state in enumerate(states) if not query.states or state in query.states]
        words = query.text.casefold()
        columns = self.columns()
        if words:
            found = [i for i in found if any(words in (text or "").casefold() for text in self.texts(i, columns))]
        if query.differing:
            found = [i for i in found if any(self.differs(i, columns))]
        if query.sort is not None:
            keys = {i: self._key(query.sort, i, states, columns) for i in found}
            present = [i for i in found if keys[i] != MISSING]
            present.sort(key=keys.__getitem__, reverse=query.descending)
            found = present + [i for i in found if keys[i] == MISSING]
        if query.failed_first:
            found.sort(key=lambda i: states[i] not in ("failed", "cancelled"))
        return found

    def _key(self, sort: str, position: int, states: Sequence[str], columns: Sequence[Column]) -> Key:
        if sort == ROW:
            return 0, position
        if sort == STATE:
            return 0, RANKS[states[position]]
        column = next((each for each in columns if each.key == sort), None)
        return MISSING if column is None else sort_key(self.value(position, column))

    # Cells

    def value(self, position: int, column: Column) -> Any:
        """Value of a cell; None where there is none, or not yet."""
        side = self.sides[column.side]
        match column.role:
            case "input":
                return None if side.rows is None else side.rows.inputs(position).get(column.name)
            case "expected":
                expected = () if side.measured is None else side.measured.expected
                return expected[position] if position < len(expected) else None
            case "score":
                return side.score(position)
            case _:
                values = None if side.rows is None else side.rows.outputs(position)
                return None if values is None else values[column.at]

    def texts(self, position: int, columns: Sequence[Column]) -> list[str | None]:
        """Texts of a row's cells, each on one line. A row that failed says why in place of its first output."""
        found: list[str | None] = []
        for column in columns:
            value = self.value(position, column)
            text = f"{value:.3g}" if column.role == "score" and value is not None else short_text(value)
            if text is None and column.role == "output" and column.at == 0:
                text = self.error(position, column.side)
            found.append(text)
        return found

    def error(self, position: int, side: int) -> str | None:
        """Reason why a row has no value, on one line."""
        rows = self.sides[side].rows
        error = None if rows is None else rows.error(position)
        return None if error is None else short_text(message_of(error))

    def differs(self, position: int, columns: Sequence[Column]) -> list[bool]:
        """Of each column, whether it is an output whose value differs from that of the same place of the first function."""
        if len(self.sides) == 1:
            return [False] * len(columns)
        first = {c.at: full_text(self.value(position, c)) for c in columns if c.role == "output" and c.side == 0}
        return [
            c.role == "output"
            and c.side > 0
            and (text := full_text(self.value(position, c))) is not None
            and (beside := first.get(c.at)) is not None
            and text != beside
            for c in columns
        ]

    def window(self, start: int, count: int) -> list[list[Any]]:
        """Rows from one place of the order on: [position, [state of each function, ...], [text or None, ...], [differs, ...]]."""
        columns, sides = self.columns(), self.sides
        shown = self.order()[max(0, start) : max(0, start) + count]
        return [
            [
                position,
                ["pending" if side.rows is None else side.rows.state(position) for side in sides],
                self.texts(position, columns),
                [i for i, differs in enumerate(self.differs(position, columns)) if differs],
            ]
            for position in shown
        ]
