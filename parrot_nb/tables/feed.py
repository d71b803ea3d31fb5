"""Entering of rows: a window of calls ahead of the engine, so that a map of any length takes the memory of its window and of its
results, and its first row ends as early as that of a short one.

A row's call is made when it enters. When it has ended, its value, error and usage are kept, and its variables and its call let go.
Whichever thread comes first moves the window on: a reader between two waits, or a thread that is woken by rows that end.
"""

from __future__ import annotations

import contextvars
import threading
import weakref
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from parrot_nb.errors import ArgumentError, CallCancelledError, InputValueError, ParrotError, SessionError
from parrot_nb.language import SemanticVariable, Usage
from parrot_nb.language.calling import Mappable, submitted
from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host
from parrot_nb.language.nodes import NO_USAGE, THROUGHPUT, Perf, State, VariableNode
from parrot_nb.language.notify import message_of, notified
from parrot_nb.language.reading import Countdown, cancel_producers
from parrot_nb.tables.binding import Binding
from parrot_nb.tables.source import Source

FIRST_ROWS = 16  # of a window, so that the first rows wait for few others
MORE_ROWS = 4  # by which it grows for each row that ends
MOST_ROWS = 256  # of a window: as many as keep an engine busy


class _Arrivals:
    """Rows that have ended, noted on whatever thread: it may only hand a message over."""

    def __init__(self) -> None:
        self.positions: deque[int] = deque()
        self.news = threading.Event()

    def arrived(self, position: int) -> None:
        self.positions.append(position)
        self.news.set()


class Feed:
    """The calls of a map over a table. Its methods may be called from any thread.

    Args:
        host: session that runs them.
        function: semantic or native.
        source: of the rows.
        binding: of parameters to columns.
        stops: whether the first row that fails ends the map.

    Attributes:
        function: of calls that enter from now on.
        when_refused: called, on whatever thread, when a row's cells cannot be used: no event of a call tells of it.
    """

    def __init__(self, host: Host, function: Mappable, source: Source, binding: Binding, *, stops: bool) -> None:
        self.function = function
        self.when_refused: list[Callable[[], None]] = []
        self._host = host
        self._source = source
        self._binding = binding
        self._stops = stops
        self._perf: Perf | None = None
        self._entering = threading.RLock()  # held while calls are made and read: whoever looks at rows does not wait for that
        self._lock = threading.RLock()  # of what has become of rows; nothing is called under it
        self._arrivals = _Arrivals()
        self._open: dict[int, tuple[SemanticVariable, ...]] = {}
        self._again: deque[int] = deque()
        self._next = 0  # the first row that has never entered
        self._halted = False
        self._stopping = False  # a row has failed that ends the map
        self._states: dict[int, State] = {}  # of rows that have ended
        self._values: dict[int, tuple[Any, ...]] = {}
        self._errors: dict[int, BaseException] = {}
        self._usages: dict[int, Usage] = {}
        self._thread: threading.Thread | None = None
        self._context = contextvars.copy_context()  # rows that enter later count to the budgets of those that entered first
        self._takes_all = getattr(host, "takes_all", False)  # it plans, and no row ends
        host.when_cancelled(self._cancelled)
        weakref.finalize(self, self._arrivals.news.set).atexit = False

    # State of the rows

    @property
    def num_rows(self) -> int | None:
        """Count of rows; None while an iterable goes on."""
        return self._next if self._halted and self._source.num_rows is None else self._source.num_rows

    @property
    def done(self) -> bool:
        """Whether all rows have ended."""
        with self._lock:
            self._harvest()
            return self.num_rows is not None and len(self._states) >= self.num_rows

    def counts(self) -> Counter[State]:
        """How many rows are in each state; of an iterable, those that have been drawn."""
        with self._lock:
            self._harvest()
            counts = Counter(self._states.values())
            counts.update(_state(variables) for variables in self._open.values())
            total = self._source.num_drawn if self.num_rows is None else self.num_rows
            counts["pending"] += max(0, total - counts.total())
            return counts

    def states(self) -> list[State]:
        """State of each row, in order; of an iterable, of those that have been drawn."""
        with self._lock:
            self._harvest()
            total = self._source.num_drawn if self.num_rows is None else self.num_rows
            return [_state(self._open[at]) if at in self._open else self._states.get(at, "pending") for at in range(total)]

    def call(self, position: int) -> Call:
        """The call of a row: that which runs, else one of the same cells that is not submitted. Raises what `Rows.call` says."""
        with self._lock:
            self._harvest()
            variables = self._open.get(position, ())
        if variables and (producer := variables[0].node.producer) is not None:
            return producer
        args, named = self._binding.arguments(self._source.cells(position))
        return self.function.make_call(args, named)

    def look(self, position: int) -> tuple[State, tuple[Any, ...] | None, BaseException | None, Usage]:
        """State, values, error and usage of a row, all of the same moment."""
        with self._lock:
            self._harvest()
            state = _state(self._open[position]) if position in self._open else self._states.get(position, "pending")
            return state, self.value(position), self.error(position), self.usage(position)

    def has_ended(self, position: int) -> bool | None:
        """Whether a row has ended; None where there is no such row."""
        with self._lock:
            self._harvest()
            if position in self._states:
                return True
            return None if self.num_rows is not None and position >= self.num_rows else False

    def value(self, position: int) -> tuple[Any, ...] | None:
        """Values of a row's outputs; None where it has none, or not yet."""
        return self._values.get(position)

    def error(self, position: int) -> BaseException | None:
        """Reason why a row has no values."""
        return self._errors.get(position)

    def usage(self, position: int) -> Usage:
        """Usage of a row, all outputs together."""
        return self._usages.get(position, NO_USAGE)

    @property
    def failed(self) -> list[int]:
        """Rows that failed or were cancelled, in order."""
        with self._lock:
            self._harvest()
            return sorted(self._errors)

    def cells(self, position: int) -> Mapping[str, Any]:
        """The cells that a row's call is given, by parameter; none where the row is no dict."""
        try:
            cells = self._source.cells(position)
        except ArgumentError:
            return {}
        return {name: cells[column] for name, column in self._binding.columns.items() if column in cells}

    # What a reader asks for

    def read(self, perf: Perf | None) -> None:
        """Request all rows, those that enter later too.

        Raises:
            SessionError: the session is closed, or this is a thread that must not wait.
        """
        with self._entering:
            known = self._perf is not None and perf in (None, self._perf)
            self._perf = perf or self._perf or THROUGHPUT
            nodes = self._nodes()
            self._host.read(nodes[:1] if known else nodes, self._perf)  # one tells what may not wait, and all have been read
            self.advance()

    def advance(self) -> None:
        """Keep what has become of rows that have ended, and let as many more enter as the window has room for.

        Raises:
            SessionError: the session is closed.
        """
        with self._entering:
            self._harvest()
            if self._stopping and not self._halted:
                self.cancel()
            room = min(MOST_ROWS, FIRST_ROWS + MORE_ROWS * len(self._states)) - len(self._open)
            if self._takes_all and self._source.num_rows is not None:
                room = self._source.num_rows
            if room * 4 >= len(self._open):  # some at a time: they are analysed together
                self._enter(room)

    def waited_for(self, position: int | None = None) -> list[VariableNode]:
        """Variables to wait for next: of that row if it has entered, else of the oldest rows of the window; none if it is empty."""
        with self._lock:
            self._harvest()
            rows = list(self._open.values())[: max(1, len(self._open) // 4)]
            if position in self._open:
                rows = [self._open[position]]
            return [variable.node for variables in rows for variable in variables]

    def cancel(self) -> None:
        """Cancel the rows that have not ended, and those that have not entered. Returns at once."""
        with self._entering:
            with self._lock:
                open_rows = list(self._open.items())
            for position, variables in open_rows:  # again: an interrupt may have come before the first time
                self._watch(position, variables)
            self._harvest()
            self._halt()  # before the session tells of it
            if nodes := self._nodes():
                cancel_producers(self._host, nodes)

    def _cancelled(self, ids: frozenset[int] | None) -> None:
        """The session cancelled these variables, or all: where all open rows are among them, those that would enter next go too."""
        if not self._halted:
            nodes = self._nodes()
            if ids is None or (nodes and ids.issuperset(node.id for node in nodes)):
                self.cancel()

    def again(self, function: Mappable) -> None:
        """Run the rows without values again, with that function; an iterable that was left at a cancel is drawn from again."""
        with self._entering:
            with self._lock:
                self._harvest()
                self._halted = self._stopping = False
                self.function = function
                positions = sorted(self._errors)
                for position in positions:
                    del self._states[position], self._errors[position]
                    self._usages.pop(position, None)
                self._again.extend(positions)
            self.advance()

    # The window, while `_entering` is held

    def _nodes(self) -> list[VariableNode]:
        with self._lock:
            return [variable.node for variables in self._open.values() for variable in variables]

    def _more(self) -> bool:
        return bool(self._again) or (not self._halted and self.num_rows != self._next)

    def _enter(self, room: int) -> None:
        """Let rows enter. Those that enter as others end are read at once, since reading has begun."""
        entered: list[VariableNode] = []
        while room > 0 and not self._stopping and (position := self._drawn()) is not None:
            nodes = self._made(position)
            entered += nodes
            room -= 1
            if not nodes:
                self._arrivals.news.set()  # no call of it will end
        if entered and (self._perf is not None or self._usages):
            self._host.read(entered, self._perf or THROUGHPUT)
        if self._thread is None and self._more() and not self._takes_all:
            run = partial(self._context.copy().run, _keep_feeding, weakref.ref(self), self._arrivals)
            self._thread = threading.Thread(target=run, name="parrot-rows", daemon=True)
            self._thread.start()

    def _drawn(self) -> int | None:
        """The next row to enter."""
        if self._again:
            return self._again.popleft()
        if self._halted or not self._source.has(self._next):
            return None
        self._next += 1
        return self._next - 1

    def _made(self, position: int) -> list[VariableNode]:
        """Variables of a row's call, submitted; none if its cells cannot be used, which is its error."""
        try:
            args, named = self._binding.arguments(self._source.cells(position))
            made = self._context.copy().run(submitted, self._host, self.function.make_call(args, named))
        except Exception as error:  # cells are of anybody's classes
            if isinstance(error, SessionError) and not getattr(self._host, "is_open", True):
                self._again.appendleft(position)
                raise
            if not isinstance(error, ParrotError):
                error = _unusable(error)
            with self._lock:
                self._fail(position, error)
            for listener in self.when_refused:
                notified(listener)
            return []
        variables = (made,) if isinstance(made, SemanticVariable) else tuple(made)
        with self._lock:
            self._open[position] = variables
        return self._watch(position, variables)

    def _watch(self, position: int, variables: Sequence[SemanticVariable]) -> list[VariableNode]:
        nodes = [variable.node for variable in variables]
        Countdown(nodes, partial(self._arrivals.arrived, position))
        return nodes

    def _halt(self) -> None:
        """Let no row enter any more: those that have not are cancelled, as far as they are known."""
        with self._lock:
            self._halted = True
            self._again.clear()
            if self._source.num_rows is not None:
                self._next = self._source.num_rows
            error = CallCancelledError("The row was cancelled before it began: retry() runs it.")
            for position in range(self._next):
                if position not in self._states and position not in self._open:
                    self._errors[position] = error
                    self._states[position] = "cancelled"

    # Under `_lock`

    def _harvest(self) -> None:
        """Keep what has become of rows that have ended."""
        with self._lock:
            arrived = self._arrivals.positions
            while arrived:
                position = arrived.popleft()
                variables = self._open.pop(position, None)
                if variables is None:
                    continue
                self._usages[position] = _together([variable.usage for variable in variables])
                if (error := next((v.error for v in variables if v.error is not None), None)) is not None:
                    self._fail(position, error)
                else:
                    self._states[position] = "done"
                    self._values[position] = tuple(variable.node.value for variable in variables)

    def _fail(self, position: int, error: BaseException) -> None:
        self._errors[position] = error
        self._states[position] = "cancelled" if isinstance(error, CallCancelledError) else "failed"
        self._stopping |= self._stops and self._states[position] == "failed"

    def move_on(self) -> bool:
        """Advance, on the thread that does nothing else. Returns whether there is more to do."""
        with self._entering:
            try:
                self.advance()
            except SessionError:  # it is closed: whoever reads is told
                self._thread = None
                return False
            if not self._more():
                self._thread = None
            return self._thread is not None


def _keep_feeding(feed: weakref.ref[Feed], arrivals: _Arrivals) -> None:
    """Move the window on whenever a row ends, while somebody holds the map."""
    more = True
    while more:
        arrivals.news.wait()
        arrivals.news.clear()
        if (held := feed()) is None:
            return
        more = held.move_on()
        del held


def _unusable(error: Exception) -> InputValueError:
    """The error of a row whose cells raise one of their own."""
    said = InputValueError(f"A cell cannot be used ({type(error).__name__}: {message_of(error)}): turn it into a string first.")
    said.__cause__ = error
    return said


def _state(variables: Sequence[SemanticVariable]) -> State:
    return "running" if any(variable.state != "pending" for variable in variables) else "pending"


def _together(usages: Sequence[Usage]) -> Usage:
    """Usage of all outputs of a call."""
    if len(usages) == 1:
        return usages[0]
    return Usage(
        prefilled_tokens=sum(usage.prefilled_tokens for usage in usages),
        reused_tokens=sum(usage.reused_tokens for usage in usages),
        decoded_tokens=sum(usage.decoded_tokens for usage in usages),
        queued_s=sum(usage.queued_s for usage in usages),
        prefill_s=sum(usage.prefill_s for usage in usages),
        decode_s=sum(usage.decode_s for usage in usages),
        from_memo=all(usage.from_memo for usage in usages),
        guessed_tokens=sum(usage.guessed_tokens for usage in usages),
        thinking_tokens=sum(usage.thinking_tokens for usage in usages),
        attempts=max(usage.attempts for usage in usages),
    )
