"""Rows: the result of a map over a table."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from parrot_nb.errors import ArgumentError, CallCancelledError, GetTimeoutError, UsageError
from parrot_nb.language import Usage
from parrot_nb.language.calling import outputs_of
from parrot_nb.language.calls import Call
from parrot_nb.language.handles import Handle
from parrot_nb.language.host import Host
from parrot_nb.language.nodes import Perf, State
from parrot_nb.language.perf import checked_perf
from parrot_nb.language.reading import checked_timeout, clipped, read_awaiting
from parrot_nb.record import ProgressLine
from parrot_nb.tables import frames
from parrot_nb.tables.feed import Feed
from parrot_nb.tables.source import Source

if TYPE_CHECKING:
    from parrot_nb.session import Session

STATES: tuple[State, ...] = ("done", "running", "pending", "failed", "cancelled")


@dataclass(frozen=True, slots=True)
class Row:
    """One item of a map over a table, as it is now.

    Attributes:
        position: place in the table, counted from 0.
        inputs: cells that the call is given, by parameter.
        state: as that of a variable.
        value: what the function gave, of several outputs a namedtuple; None without value.
        error: reason why there is no value, once failed or cancelled.
        usage: tokens and seconds that computing it took, all outputs together.
    """

    position: int
    inputs: Mapping[str, Any]
    state: State
    value: Any
    error: BaseException | None
    usage: Usage

    def __repr__(self) -> str:
        shown = clipped(self.value) if self.state == "done" else "" if self.error is None else clipped(str(self.error))
        return f"<row {self.position} {self.state}{': ' if shown else ''}{shown}>"


class Rows(Handle):
    """Rows of a map over a table, in its order; made by `f.map(table)`.

    Calls enter a window at a time, ahead of the engine, so that a table of any length needs little memory, and go on
    in the background once they have begun.

    Attributes:
        function: that is mapped.
        on_error: "keep" or "raise".
    """

    _noun, _remedy = "A map over a table", "use get() or to_frame() and pass on the values"

    def __init__(self, host: Host, function: Any, source: Source, feed: Feed, on_error: str) -> None:
        self.function = function
        self.on_error = on_error
        self._host = host
        self._source = source
        self._feed = feed

    def get(self, perf: Perf | None = None, timeout: float | None = None) -> list[Any]:
        """Wait for all rows, and return their values in order.

        Args:
            perf: as for `SemanticVariable.get`; P.THROUGHPUT if None, since nobody waits for one row alone.
            timeout: seconds to wait at most; the map goes on when they have passed.

        Returns:
            A value per row, of several outputs a namedtuple. Under `on_error="keep"` None stands for a row without value.

        Raises:
            GetTimeoutError: the time ran out.
            ParrotError: under `on_error="raise"`, the first error of a row.
        """
        self._wait(perf, timeout)
        self._raise()
        return self._values()

    async def aget(self, perf: Perf | None = None) -> list[Any]:
        """As `get`, without blocking the event loop; `await rows` is `await rows.aget()`."""
        checked_perf(perf)
        try:
            self._feed.read(perf)
            while nodes := self._feed.waited_for():
                await read_awaiting(self._host, nodes, perf)
                self._feed.advance()
        except asyncio.CancelledError:
            self._feed.cancel()
            raise
        self._raise()
        return self._values()

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.aget().__await__()

    def to_frame(
        self,
        *,
        usage: bool = False,
        flatten: bool = False,
        inputs: bool = True,
        prefix: str = "",
        backend: str | None = None,
    ) -> Any:
        """Wait for all rows, and return the table with a column for each output, of its type, and one for errors.

        Args:
            usage: add columns of tokens and seconds.
            flatten: make a column of each field of models, dataclasses and dicts, called `output.field`.
            inputs: keep the table's own columns; its index stays without them too.
            prefix: put before the names of all new columns.
            backend: "pandas" or "polars", for tables that are no data frame; the library that is loaded if None.

        Returns:
            A data frame of the table's own library.

        Raises:
            ArgumentError: the table has a column of that name, or no library is loaded.
            ParrotError: under `on_error="raise"`, the first error of a row.
        """
        return self.frame_with((), usage=usage, flatten=flatten, inputs=inputs, prefix=prefix, backend=backend)

    def to_dicts(
        self, *, usage: bool = False, flatten: bool = False, inputs: bool = True, prefix: str = ""
    ) -> list[dict[str, Any]]:
        """Wait for all rows, and return a dict for each, with the keys that `to_frame` has as columns.

        Raises:
            ArgumentError: the table has a column of that name.
            ParrotError: under `on_error="raise"`, the first error of a row.
        """
        self._wait(None, None)
        self._raise()
        return frames.to_dicts(self._source, self._columns(usage=usage, flatten=flatten, prefix=prefix), inputs)

    @property
    def failed(self) -> list[Row]:
        """Rows that failed or were cancelled so far."""
        return [self[position] for position in self._feed.failed]

    def retry(self, **options: Any) -> Rows:
        """Run the rows that failed or were cancelled again, in their places.

        Args:
            options: settings of a semantic function for these calls, such as `max_tokens=500`.

        Returns:
            The rows themselves.

        Raises:
            ArgumentError: options for a native function.
            OptionError: an unknown option or an unusable value.
        """
        if options and not hasattr(self.function, "options"):
            raise ArgumentError(f"{self.function.name}() is a native function, which has no options: call retry() without any.")
        self._feed.again(self.function.options(**options) if options else self.function)
        return self

    def cancel(self) -> None:
        """Cancel the rows that have not ended. Returns at once; `retry` runs them."""
        self._feed.cancel()

    def done(self) -> bool:
        """Whether all rows have ended."""
        return self._feed.done

    @property
    def counts(self) -> dict[State, int]:
        """How many rows are in each state; of an iterable, those that have been drawn."""
        counts = self._feed.counts()
        return {state: counts[state] for state in STATES if counts[state]}

    def states(self) -> list[State]:
        """State of each row, in order; of an iterable, of those that have been drawn."""
        return self._feed.states()

    def call(self, position: int) -> Call:
        """Return the call of a row: that which runs, else one of the same cells that is not submitted.

        Raises:
            Exception: the row's cells cannot be used; they are of anybody's classes.
        """
        return self._feed.call(position)

    def wait(self, advanced: Callable[[], None]) -> None:
        """Wait for all rows, as `get` does, and call `advanced` whenever some more have ended.

        Raises:
            ParrotError: under `on_error="raise"`, the first error of a row.
        """
        self._wait(None, None, advanced=advanced)
        self._raise()

    def on_refused(self, listener: Callable[[], None]) -> None:
        """Have `listener` called, on whatever thread, when a row's cells cannot be used; of rows that run, the session's events tell."""
        if listener not in self._feed.when_refused:
            self._feed.when_refused.append(listener)

    @property
    def session(self) -> Session:
        """The session that runs them."""
        return cast("Session", self._host)

    @property
    def num_rows(self) -> int | None:
        """Count of rows; None while an iterable goes on."""
        return self._feed.num_rows

    def head(self, count: int) -> list[Row]:
        """The first rows, as they are now."""
        known = self._source.num_drawn if self.num_rows is None else self.num_rows
        return [self[position] for position in range(min(count, known))]

    def __len__(self) -> int:
        if (count := self.num_rows) is None:
            raise UsageError("How many rows an iterable has is known when it has ended: get() first.")
        return count

    def __bool__(self) -> bool:
        return self.num_rows != 0

    def __getitem__(self, position: int) -> Row:
        if not isinstance(position, int):
            raise UsageError("A row is chosen by its place, counted from 0: use to_frame() for labels and slices.")
        known = self._source.num_drawn if self.num_rows is None else self.num_rows
        at = position + known if position < 0 else position
        if not 0 <= at < known:
            raise IndexError(f"there is no row {position}: the table has {known}")
        state, values, error, usage = self._feed.look(at)
        return Row(at, self._feed.cells(at), state, self._named(values), error, usage)

    def __iter__(self) -> Iterator[Row]:
        """Wait for each row in turn; the others go on meanwhile."""
        position = 0
        while (ended := self._feed.has_ended(position)) is not None:
            if not ended:
                self._wait(None, None, position)
                continue
            if self.on_error == "raise":
                self._raise_error(position)
            yield self[position]
            position += 1

    def __repr__(self) -> str:
        counts = ", ".join(f"{count:,} {state}" for state, count in self.counts.items())
        known = "rows" if self.num_rows is None else f"{self.num_rows:,} row{'s' * (self.num_rows != 1)}"
        return f"<{known} of {self.function.name}{': ' if counts else ''}{counts}>"

    def _wait(
        self,
        perf: Perf | None,
        timeout: float | None,
        position: int | None = None,
        advanced: Callable[[], None] = lambda: None,
    ) -> None:
        """Wait for all rows, or until something has become of the one at a position; call `advanced` whenever some have ended."""
        checked_perf(perf)
        checked_timeout(timeout)
        deadline = None if timeout is None else time.monotonic() + timeout
        if self._feed.done:
            return
        try:
            self._feed.read(perf)
            with ProgressLine(cast("Session", self._host).events, words=self._progress):
                while (nodes := self._feed.waited_for(position)) or (position is None and not self._feed.done):
                    if nodes:  # else another thread lets more enter: who advances waits for it
                        self._host.wait(nodes, None if deadline is None else max(0.0, deadline - time.monotonic()))
                    self._feed.advance()
                    advanced()
                    if position is not None:
                        return
        except GetTimeoutError:
            raise GetTimeoutError(
                f"{self.counts.get('done', 0):,} rows of {self.function.name}.map() are done after {timeout:g} s: the others go "
                "on; get() them again later."
            ) from None
        except (KeyboardInterrupt, asyncio.CancelledError):
            self._feed.cancel()
            raise

    def _progress(self, waited_s: float, columns: int) -> str:
        """How far the map is, for a terminal."""
        from tqdm import tqdm

        counts = self.counts
        ended = sum(counts.get(state, 0) for state in ("done", "failed", "cancelled"))
        failed = f"{counts['failed']:,} failed" if "failed" in counts else None
        meter: str = tqdm.format_meter(ended, self.num_rows, waited_s, columns, self.function.name, unit="row", postfix=failed)
        return meter

    def _named(self, values: tuple[Any, ...] | None) -> Any:
        """The value of a row as a user knows it."""
        return None if values is None else outputs_of(self.function.name, self.function.output_names, values)

    def _values(self) -> list[Any]:
        return [self._named(self._feed.value(position)) for position in range(len(self))]

    def _raise(self) -> None:
        """Raise the first error of a row, if errors are not kept."""
        if self.on_error == "raise" and (failed := self._feed.failed):
            own = (at for at in failed if not isinstance(self._feed.error(at), CallCancelledError))
            self._raise_error(next(own, failed[0]))  # what came after the first failure was cancelled

    def _raise_error(self, position: int) -> None:
        if (error := self._feed.error(position)) is not None:
            error.with_traceback(None).__notes__ = [f"Row {position} of {self.function.name}.map()."]
            raise error

    def frame_with(
        self, more: Sequence[frames.Column], *, usage: bool, flatten: bool, inputs: bool, prefix: str, backend: str | None
    ) -> Any:
        """The table as `to_frame` gives it, and further columns behind the others."""
        self._wait(None, None)
        self._raise()
        columns = [*self._columns(usage=usage, flatten=flatten, prefix=prefix), *more]
        return frames.to_frame(self._source, columns, inputs, backend)

    def outputs(self, position: int) -> tuple[Any, ...] | None:
        """Values of a row's outputs; None where it has none."""
        return self._feed.value(position)

    def state(self, position: int) -> State:
        """State of a row."""
        return self._feed.look(position)[0]

    def inputs(self, position: int) -> Mapping[str, Any]:
        """The cells that a row's call is given, by parameter."""
        return self._feed.cells(position)

    def error(self, position: int) -> BaseException | None:
        """Reason why a row has no value, once failed or cancelled."""
        return self._feed.error(position)

    def usage(self, position: int) -> Usage:
        """Tokens and seconds that a row took, all outputs together."""
        return self._feed.usage(position)

    def output_columns(self, prefix: str = "") -> list[frames.Column]:
        """A column for each output, as far as the rows have ended."""
        values = [self._feed.value(position) for position in range(len(self))]
        template = getattr(self.function, "template", None)
        return [
            frames.output_column(
                prefix + name,
                [None if row is None else row[i] for row in values],
                None if template is None else template.types.get(name),
                semantic=template is not None,
            )
            for i, name in enumerate(self.function.output_names)
        ]

    def _columns(self, *, usage: bool, flatten: bool, prefix: str) -> list[frames.Column]:
        columns = self.output_columns(prefix)
        if flatten:
            types = getattr(getattr(self.function, "template", None), "types", {})
            names = self.function.output_names
            columns = [c for name, own in zip(names, columns, strict=True) for c in frames.flattened(own, types.get(name))]
        rows = range(len(self))
        columns.append(frames.Column(prefix + "error", [frames.told(self._feed.error(position)) for position in rows], "text"))
        if usage:
            columns += frames.usage_columns([self.usage(position) for position in rows], prefix)
        return columns
