"""Evaluation: how good a function's values are on a table that says what was expected."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_nb.errors import ArgumentError, InputValueError
from parrot_nb.language import NativeFunction, SemanticFunction
from parrot_nb.language.calling import map_over
from parrot_nb.language.escaping import visible
from parrot_nb.language.host import current_host
from parrot_nb.language.text import to_text
from parrot_nb.tables import frames
from parrot_nb.tables.binding import Function
from parrot_nb.tables.intervals import Interval, mean_interval
from parrot_nb.tables.measuring import Measurement, begin, together
from parrot_nb.tables.metrics import checked_score, is_missing, metric_named
from parrot_nb.tables.rows import Row, Rows
from parrot_nb.tables.source import DictSource, source_of

FAILED = "(failed)"  # in place of a value, in a confusion matrix


@dataclass(frozen=True, slots=True)
class Scored:
    """A row with its score.

    Attributes:
        row: of the map.
        value: of the output that is judged; None where the row failed.
        expected: what the table says.
        score: from 0 to 1; 0 where the row failed.
    """

    row: Row
    value: Any
    expected: Any
    score: float


@dataclass(frozen=True)
class Evaluation:
    """Scores of a function on a table; made by `P.evaluate`.

    Attributes:
        name: of the function.
        metric: by which rows were scored.
        scores: of all rows, in order; a row that failed has 0.
        score: their mean.
        interval: confidence interval of the mean, for rows of this kind; None without rows.
        rows: of the map.
        expected: what the table says, in order.
        seconds: that the map took.
    """

    name: str
    metric: str
    scores: tuple[float, ...]
    score: float
    interval: Interval | None
    rows: Rows = field(repr=False)
    expected: tuple[Any, ...] = field(repr=False)
    seconds: float = 0.0
    output: int = field(default=0, repr=False)

    @property
    def num_failed(self) -> int:
        """Count of rows that failed."""
        return len(self.rows.failed)

    @property
    def confusion(self) -> dict[str, dict[str, int]] | None:
        """For an output that is a choice or a bool: expected text -> value's text -> count of rows, "(failed)" among the values. None
        for other outputs."""
        column = self._column()
        labels = column.categories or (("True", "False") if column.kind == "bool" else ())
        if not labels:
            return None
        values = [FAILED if self.rows.outputs(i) is None else _label(value) for i, value in enumerate(column.values)]
        counts = Counter(zip(map(_label, self.expected), values, strict=True))
        known = dict.fromkeys([*labels, *(given for given, _ in counts)])
        others = [value for value in dict.fromkeys(values) if value not in labels]
        across = [*labels, *sorted(others, key=lambda value: value == FAILED)]
        return {given: {value: counts[given, value] for value in across} for given in known}

    def worst(self, count: int = 10) -> list[Scored]:
        """The rows with the lowest scores, those that failed first."""
        values = self._column().values
        order = sorted(range(len(self.scores)), key=lambda i: (self.scores[i], self.rows.outputs(i) is not None, i))
        return [Scored(self.rows[i], values[i], self.expected[i], self.scores[i]) for i in order[:count]]

    def to_frame(
        self,
        *,
        usage: bool = False,
        flatten: bool = False,
        inputs: bool = True,
        prefix: str = "",
        backend: str | None = None,
    ) -> Any:
        """The rows as `Rows.to_frame` gives them, with a column `score`."""
        score = frames.Column(f"{prefix}score", list(self.scores), "float")
        return self.rows.frame_with([score], usage=usage, flatten=flatten, inputs=inputs, prefix=prefix, backend=backend)

    @property
    def tokens(self) -> dict[str, int]:
        """Tokens of all rows: "prefilled", "reused" and "decoded"; and "remembered", the rows that were taken from the memo."""
        usages = [self.rows.usage(position) for position in range(len(self.rows))]
        computed = [usage for usage in usages if not usage.from_memo]
        return {
            "prefilled": sum(usage.prefilled_tokens for usage in computed),
            "reused": sum(usage.reused_tokens for usage in computed),
            "decoded": sum(usage.decoded_tokens for usage in computed),
            "remembered": len(usages) - len(computed),
        }

    @property
    def summary(self) -> str:
        """The score in a line: of what, by which metric, with its interval and the rows that failed."""
        rows = f"{len(self.scores):,} row{'s' * (len(self.scores) != 1)}"
        failed = f", {self.num_failed:,} failed" if self.num_failed else ""
        said = "" if self.interval is None else f" {self.interval!r} ({self.interval.confidence:.0%}, {self.interval.method})"
        return f"{self.name}, {self.metric}: {self.score:.3f}{said} on {rows}{failed}"

    @property
    def table(self) -> list[list[str]]:
        """The confusion matrix with its headers; empty for outputs that have none."""
        if not (confusion := self.confusion):
            return []
        across = list(next(iter(confusion.values())))
        return [["expected \\ value", *across], *([given, *map(str, row.values())] for given, row in confusion.items())]

    def __repr__(self) -> str:
        return visible("\n".join([self.summary, *aligned(self.table)]))

    def _column(self) -> frames.Column:
        return self.rows.output_columns()[self.output]


def evaluate(
    function: Function,
    table: Any,
    /,
    expected: str,
    metric: str | Callable[[Any, Any], Any] | Function = "exact",
    *,
    output: str | None = None,
    tolerance: float = 0.0,
    confidence: float = 0.95,
    **columns: Any,
) -> Evaluation:
    """Map a function over a table, and score its values against a column; waits for all rows.

    Args:
        function: semantic or native.
        table: a data frame or an iterable of dicts.
        expected: column that says what is right.
        metric: "exact", "contains" (text), "number" (within `tolerance`), "regex" (the column holds expressions), "f1" (of sets, or of
            words); or a function of value and expected, plain, native or semantic, that gives True, False or a number from 0 to 1. A
            native or semantic one may have parameters `value`, `expected`, and any that the mapped function has.
        output: that is scored, of several.
        tolerance: largest difference that counts as right, for "number".
        confidence: of the interval.
        columns: as for `f.map`.

    Raises:
        ArgumentError: a column that is not there or has gaps, or a metric that gives something else.
        CallCancelledError: everything was cancelled before the function, or the one that judges it, had begun.
    """
    if not isinstance(function, (SemanticFunction, NativeFunction)):
        raise ArgumentError(
            f"P.evaluate() takes a semantic or native function, not {type(function).__name__}: decorate it first."
        )
    if not 0 < confidence < 1:
        raise ArgumentError(f"confidence must be between 0 and 1, such as 0.95, not {confidence!r}.")
    place = _place(function, output)
    table, wanted = expected_of(table, expected)
    judge = metric_named(metric, tolerance) if isinstance(metric, str) else metric
    name = metric if isinstance(metric, str) else getattr(metric, "name", getattr(metric, "__name__", type(metric).__name__))
    if not callable(judge):
        raise ArgumentError(f"metric must be a name or a function, not {type(metric).__name__}.")
    is_node = isinstance(judge, (SemanticFunction, NativeFunction))
    began_s = time.monotonic()
    with together([function.name]) as measuring:
        host = current_host()
        host.when_cancelled(measuring.heard_cancel)
        measuring.check(function.name)
        rows: Rows = map_over(host, function, (table,), columns)
        measurement = Measurement(function.name, str(name), rows, wanted, place, confidence, None if is_node else judge)
        begin(measuring, measurement)
        try:
            rows.wait(measurement.advance)
            seconds = time.monotonic() - began_s
            measurement.advance()
        except BaseException:  # of the judge, which is the user's: the rows would go on for nobody
            rows.cancel()
            raise
        if is_node:
            measuring.check(name)
            measurement.scores[:] = _judged(rows, wanted, judge, str(name), place)
        scores = tuple(measurement.scores)
    mean = sum(scores) / len(scores) if scores else float("nan")
    interval = mean_interval(scores, confidence)
    return Evaluation(function.name, str(name), scores, mean, interval, rows, tuple(wanted), seconds, place)


def expected_of(table: Any, column: str) -> tuple[Any, list[Any]]:
    """A table that can be read more than once, and the cells of a column. Raises ArgumentError where it is not there or has gaps."""
    source = source_of(table, "P.evaluate()")
    if isinstance(source, DictSource):
        while source.num_rows is None:
            source.has(source.num_drawn)
        table = source.items
    if column not in source.columns:
        raise ArgumentError(f"The table has no column '{column}' that says what is expected: name one of its columns.")
    source.use([column])
    cells = [source.cells(position).get(column) for position in range(source.num_drawn)]
    if (gap := next((i for i, cell in enumerate(cells) if is_missing(cell)), None)) is not None:
        raise ArgumentError(f"Row {gap} has no '{column}' to score against: leave out the rows without one first.")
    return table, cells


def aligned(table: Sequence[Sequence[str]]) -> list[str]:
    """Lines of a table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in table) for i in range(len(table[0]))] if table else []
    return [
        "  ".join(cell.rjust(width) if i else cell.ljust(width) for i, (cell, width) in enumerate(zip(row, widths, strict=True)))
        for row in table
    ]


def _place(function: Function, output: str | None) -> int:
    names = function.output_names
    if output is None and len(names) > 1:
        raise ArgumentError(
            f"{function.name}() has several outputs ({', '.join(names)}): say which is scored, as in output='{names[0]}'."
        )
    if output is not None and output not in names:
        raise ArgumentError(f"{function.name}() has no output '{output}': choose from {', '.join(names)}.")
    return 0 if output is None else names.index(output)


def _judged(rows: Rows, expected: Sequence[Any], judge: Any, name: str, place: int) -> tuple[float, ...]:
    """Scores of all rows by a judge that is a node of the graph, in a map of its own."""
    values = [rows.outputs(position) for position in range(len(rows))]
    scores = [0.0] * len(values)
    judged = [(i, value[place]) for i, value in enumerate(values) if value is not None]
    cells = [{**rows[i].inputs, "value": value, "expected": expected[i]} for i, value in judged]
    given = map_over(current_host(), judge, (cells,), {"on_error": "raise"}).get() if cells else []
    for (i, _), score in zip(judged, given, strict=True):
        scores[i] = checked_score(score, name, i)
    return tuple(scores)


def _label(value: Any) -> str:
    try:
        return to_text(value, "a value")
    except InputValueError:
        return str(value)
