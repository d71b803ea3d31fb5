"""Executions of a shell: cells, the cells that these run, and those of subshells beside them. State of a view belongs to one of
them, not to "the" cell."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from parrot_nb.runtime.events import now_s

Show = Literal["auto", "graph", "line", "off"]
SHOWS: Sequence[Show] = ("auto", "graph", "line", "off")
SUBSHELL = "subshell-"  # how ipykernel names the threads of subshells


@dataclass(eq=False)
class Execution:
    """One cell that runs.

    Attributes:
        info: by which IPython names it when it ends; None where that was not heard.
        number: of the cell.
        show: what it shows of its calls.
        cell: the page's own name of the cell, where it has one.
        thread: the thread that runs it.
        made: ids of the calls made in it, by other threads too.
        read: ids of the calls that it reads, made by earlier ones.
        made_here: whether its own thread made calls.
        shown: whether its graph is on the page.
        begun_s: when it began, on the log's clock.
    """

    info: Any
    number: int
    show: Show
    cell: str | None = None
    thread: int = field(default_factory=threading.get_ident)
    made: set[int] = field(default_factory=set)
    read: set[int] = field(default_factory=set)
    made_here: bool = False
    shown: bool = False
    begun_s: float = field(default_factory=now_s)

    def is_of(self, info: Any) -> bool:
        """Return True if `info` names this execution. IPython tells of the end of blank cells too, of which it told no beginning; of a cell
        that was cancelled it gives no name."""
        return info is None or self.info is None or self.info is info or bool(info.raw_cell.strip())


class Executions:
    """The cells that run now, the last begun last."""

    def __init__(self) -> None:
        self._running: list[Execution] = []
        self._lock = threading.Lock()

    def begin(self, execution: Execution) -> None:
        """Note that a cell begins (its thread)."""
        with self._lock:
            self._running = [*self._running, execution]  # never changed in place: it is read without the lock

    def end(self, execution: Execution) -> None:
        """Forget a cell that has ended."""
        with self._lock:
            self._running = [one for one in self._running if one is not execution]

    @property
    def any_runs(self) -> bool:
        """True if any thread runs a cell."""
        return bool(self._running)

    def here(self) -> Execution | None:
        """The innermost cell that this thread runs."""
        own = threading.get_ident()
        return next((one for one in reversed(self._running) if one.thread == own), None)

    def of_call(self) -> Execution | None:
        """The cell to which a call belongs that this thread makes. A thread of the user's belongs to the cell begun last; what a shell's
        thread does while it runs none is outside of cells: callbacks of widgets, tasks of its loop."""
        if (own := self.here()) is not None:
            return own
        thread = threading.current_thread()
        if thread is threading.main_thread() or thread.name.startswith(SUBSHELL):
            return None
        return self._running[-1] if self._running else None

    def number(self) -> int | None:
        """The number of that cell."""
        return None if (execution := self.of_call()) is None else execution.number
