"""Which table a cell shows: that of rows, of a result, and of what is being measured in it."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from typing import Any

from parrot_nb.notebook.executions import Execution, Executions
from parrot_nb.notebook.grid import GridView
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.places import Place, show_fixed
from parrot_nb.notebook.tables import still_bundle
from parrot_nb.notebook.widget import FrontEnd
from parrot_nb.session import Session
from parrot_nb.tables import Comparison, Evaluation, Rows, Tuning, measuring
from parrot_nb.tables.measuring import Measuring

SHOWN = (Rows, Evaluation, Comparison)


class TableViews:
    """The tables of one shell.

    Args:
        views: gives the live views of a session.
        executions: the cells that run.
        front: the page.
    """

    def __init__(self, views: Callable[[Session], LiveViews], executions: Executions, front: FrontEnd) -> None:
        self._views = views
        self._executions = executions
        self._front = front
        self._in_cells: weakref.WeakKeyDictionary[Execution, list[GridView]] = weakref.WeakKeyDictionary()

    def install(self, formatter: Any) -> None:
        """Show what a cell's result is, and what is measured in a cell."""
        for kind in SHOWN:
            formatter.for_type(kind, self.show)
        formatter.for_type(Tuning, lambda tuning: show_fixed(still_bundle(tuning), None))
        measuring.on_measuring = self.watch

    def remove(self, formatter: Any) -> None:
        """Take that back."""
        for kind in (*SHOWN, Tuning):
            formatter.pop(kind, None)
        measuring.on_measuring = None

    def show(self, source: Rows | Evaluation | Comparison) -> None:
        """Show rows or a result here; one that was measured in this cell takes the place of its measuring."""
        rows = _rows_of(source)
        if not rows.session.is_open:
            show_fixed(still_bundle(source), None if rows.done() else GridView.remedy)
            return
        views = self._views(rows.session)
        views.catch_up()
        execution = self._executions.here()
        if isinstance(source, (Evaluation, Comparison)) and execution is not None:
            for view in self._in_cells.get(execution, ()):
                measured = view.grid.source
                if isinstance(measured, Measuring) and measured.parts and measured.parts[0].rows is rows:
                    views.exchange(view, source)
                    return
        self._open(source, rows.session)

    def watch(self, measured: Measuring) -> None:
        """Show what is being measured, where a person looks on."""
        execution = self._executions.here()
        session: object = measured.parts[0].rows.session  # or who plans calls
        if execution is None or execution.show in ("off", "line"):
            return
        if not self._front.has_person or self._front.place is not Place.CELL:
            return
        if not isinstance(session, Session) or not session.is_open:
            return
        view = self._open(measured, session)
        measured.on_scored = self._views(session).wake  # a judge may be slow when all rows have ended: no event tells of it
        self._in_cells.setdefault(execution, []).append(view)

    def _open(self, source: Rows | Evaluation | Comparison | Measuring, session: Session) -> GridView:
        views = self._views(session)
        view = GridView(source, session, self._front, views.ask, still_bundle)
        for side in view.grid.sides:
            if side.rows is not None:
                side.rows.on_refused(views.wake)
        views.open(view)
        return view


def _rows_of(source: Rows | Evaluation | Comparison) -> Rows:
    match source:
        case Rows():
            return source
        case Evaluation():
            return source.rows
        case _:
            return next(iter(source.evaluations.values())).rows
