"""Measuring: scores of functions on a table while their rows end, for whoever shows them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

from parrot_nb.errors import CallCancelledError
from parrot_nb.tables.intervals import Interval, are_binary, mean_interval
from parrot_nb.tables.metrics import checked_score
from parrot_nb.tables.rows import Rows

MAX_RESAMPLED = 2_000  # scores whose interval, a bootstrap, is computed time and again


@dataclass
class Measurement:
    """A function that is being measured.

    Attributes:
        name: of the function.
        metric: by which rows are scored.
        rows: of the map.
        expected: what the table says, in order.
        output: place of the output that is scored.
        confidence: of the interval.
        judge: gives a value's score; None where that is a map of its own, which runs when all rows have ended.
        scores: of the first rows, in order, as far as they have ended.
        scored: is called when there is another score; it may only hand a message over.
    """

    name: str
    metric: str
    rows: Rows
    expected: Sequence[Any]
    output: int
    confidence: float
    judge: Callable[[Any, Any], Any] | None
    scores: list[float] = field(default_factory=list)
    scored: Callable[[], None] = lambda: None

    def advance(self) -> None:
        """Score the rows that have ended in the meantime (the thread that measures: a judge is the user's). A row that failed has 0."""
        if self.judge is None:
            return
        states = self.rows.states()
        while len(self.scores) < len(states) and states[len(self.scores)] in ("done", "failed", "cancelled"):
            position = len(self.scores)
            values = self.rows.outputs(position)
            given = 0.0
            if values is not None:
                given = checked_score(self.judge(values[self.output], self.expected[position]), self.metric, position)
            self.scores.append(given)
            self.scored()

    def so_far(self) -> tuple[int, float, Interval | None]:
        """Return how many rows are scored, their mean score and its interval; no interval where that takes long, or of no rows."""
        scores = self.scores[:]
        if not scores:
            return 0, float("nan"), None
        quick = len(scores) <= MAX_RESAMPLED or are_binary(scores)
        return len(scores), sum(scores) / len(scores), mean_interval(scores, self.confidence) if quick else None


class Measuring:
    """Functions that are measured on the same rows, one after the other.

    Args:
        names: of all of them.
        announced: whether anybody is told of it.

    Attributes:
        names: of all of them.
        announced: whether anybody is told of it.
        parts: those that have begun, in order.
        is_over: True when the last has ended, or one has raised.
        on_scored: is called for every score of any of them.
    """

    def __init__(self, names: Sequence[str], *, announced: bool = True) -> None:
        self.names = tuple(names)
        self.announced = announced
        self.parts: list[Measurement] = []
        self.is_over = False
        self.on_scored: Callable[[], None] = lambda: None
        self._cancelled = False

    def cancel(self) -> None:
        """Cancel the rows that have not ended, and begin with no other function. Returns at once."""
        self._cancelled = True
        for part in self.parts:
            part.rows.cancel()

    def heard_cancel(self, ids: frozenset[int] | None) -> None:
        """Begin with no other function where all calls of the session were cancelled: `ids` is None then."""
        self._cancelled = self._cancelled or ids is None

    def check(self, name: str) -> None:
        """Raise CallCancelledError where a function would begin to be measured though all were cancelled."""
        if self._cancelled:
            raise CallCancelledError(f"'{name}' was not measured, since all was cancelled: measure again.")


on_measuring: Callable[[Measuring], None] | None = None  # hears that a measuring begins, on the thread that measures
_current: ContextVar[Measuring | None] = ContextVar("measuring", default=None)


@contextmanager
def together(names: Sequence[str]) -> Iterator[Measuring]:
    """Show what is measured inside as one; what is already inside another belongs to that.

    Args:
        names: of the functions, in order.
    """
    if (outer := _current.get()) is not None:
        yield outer
        return
    measuring = Measuring(names)
    token = _current.set(measuring)
    try:
        yield measuring
    finally:
        measuring.is_over = True
        _current.reset(token)


@contextmanager
def apart() -> Iterator[None]:
    """Announce nothing of what is measured inside: a search measures many functions, each on rows of its own."""
    token = _current.set(Measuring((), announced=False))
    try:
        yield
    finally:
        _current.reset(token)


def begin(measuring: Measuring, measurement: Measurement) -> None:
    """Add a function that begins to be measured; the first one is announced."""
    if not measuring.announced:
        return
    measuring.parts.append(measurement)

    def scored() -> None:
        measuring.on_scored()  # whoever is set by then

    measurement.scored = scored
    if len(measuring.parts) == 1 and on_measuring is not None:
        on_measuring(measuring)
