"""A table on the page: a summary and its first rows as still HTML, which come to life where a person looks at them.

The page has a window of the rows and asks for others as it is scrolled. It is told at most `PUSHES_PER_S` times a second, and of the
rows in its window alone.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from parrot_nb.language.escaping import visible
from parrot_nb.notebook.grid.csv_text import csv_chunk
from parrot_nb.notebook.grid.grid import Grid, Query, Source
from parrot_nb.notebook.grid.row_details import row_details
from parrot_nb.notebook.places import Place
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.views import Bundle
from parrot_nb.notebook.widget.front import FrontEnd, make_widget
from parrot_nb.notebook.widget.lively import LivelyView, Question
from parrot_nb.session import Session
from parrot_nb.tables.intervals import Interval

PUSHES_PER_S = 10
FIRST_WINDOW = 40  # rows that are sent before the page says what is in sight
MAX_WINDOW = 200
SCORES_S = 0.5  # between intervals, which take a while to compute

Still = Callable[[Source, str | None], Bundle]


class GridView(LivelyView):
    """One table in one output.

    Args:
        source: what it shows.
        session: that runs it.
        front: the page.
        ask: takes a question of the page over to the thread that sends.
        still: the still output of a source, with the mark that it is to carry.
    """

    remedy = "This output is not updated: to_frame() waits for the rows."

    def __init__(self, source: Source, session: Session, front: FrontEnd, ask: Callable[[Question], None], still: Still) -> None:
        super().__init__(front, ask)
        self.grid = Grid(source)
        self._session = session
        self._still = still
        self._sight = (0, FIRST_WINDOW)
        self._sent: dict[int, list[Any]] = {}  # rows in sight, by place, as the page has them
        self._said: dict[str, Any] = {}
        self._head: dict[str, Any] = {}
        self._seq = 0
        self._pushed_s = 0.0
        self._scored_s = 0.0
        self._scores: list[tuple[str, int, float, Interval | None]] = []
        self._num_scored = 0
        self._file: Sequence[int] = ()
        self._measures = [list(map(visible, row)) for row in self.grid.measures()]

    def become(self, source: Source) -> None:
        """Show what has become of it: the result of a measuring that has ended."""
        grid = Grid(source, self.grid.version)
        grid.ask(self.grid.query)
        self.grid = grid
        self._sent = {}  # the page clears its rows at another version
        self._measures = [list(map(visible, row)) for row in grid.measures()]
        self._scored_s = 0.0

    def show(self, state: GraphState, place: Place) -> bool:
        """Put it on the page (a shell's thread, inside its cell); returns whether it will be updated there."""
        if place is Place.CELL and self._front.has_person:
            self._can_live = True
            self.come_to_life()
        return super().show(state, place)

    def make(self) -> Any:
        """Make the widget of the interactive table."""
        self._head = self.head()
        return make_widget("table", self._mark, self._head, self._everything(), self.heard)

    @property
    def is_settled(self) -> bool:
        """Whether nothing of it will change."""
        return self.grid.is_settled

    def settled(self, _state: GraphState) -> bool:
        """Whether nothing of it will change."""
        return self.grid.is_settled

    def extent(self) -> Any:
        """Return what is shown, and whether the still output carries the mark."""
        return id(self.grid), self._marked

    def bundle(self, _state: GraphState) -> Bundle:
        """The still output."""
        return self._still(self.grid.source, self._mark if self._marked else None)

    def redraw(self) -> None:
        """Send the still output."""
        self.draw(GraphState(), in_cell=False)

    @property
    def due(self) -> bool:
        """Whether something was left out that must follow, though nothing may happen meanwhile."""
        return super().due or (
            self._widget is not None and (self._owes or self.grid.due or self.grid.num_scored != self._num_scored)
        )

    _owes = False  # news came too soon after the last

    def update(self, state: GraphState, *, in_cell: bool) -> bool:
        """Send what is new of the rows in sight, and the still output where that is what people see, or at an end."""
        if self._widget is not None:
            ends = in_cell or self.grid.is_settled
            self._owes = not ends and time.monotonic() - self._pushed_s < 1 / PUSHES_PER_S
            if not self._owes:
                self._push()
        return self.update_still(state, in_cell=in_cell)

    # What the page is told

    def head(self) -> dict[str, Any]:
        """Names of the functions, and columns: [key, name, role, side, kind]."""
        columns = [[c.key, c.name, c.role, c.side, c.kind] for c in self.grid.columns()]
        return {"sides": [side.name for side in self.grid.sides], "columns": columns}

    def _status(self) -> dict[str, Any]:
        now = time.monotonic()
        if now - self._scored_s >= SCORES_S or self.grid.is_settled:
            self._num_scored = self.grid.num_scored
            self._scores, self._scored_s = self.grid.scores(), now
        return {
            "total": self.grid.num_rows,
            "matching": self.grid.num_matching,
            "version": self.grid.version,
            "counts": self.grid.counts(),
            "scores": [[name, rows, f"{mean:.3f}", "" if at is None else repr(at)] for name, rows, mean, at in self._scores],
            "measures": self._measures,
            "settled": self.grid.is_settled,
        }

    def _rows(self) -> dict[int, list[Any]]:
        start, count = self._sight
        return dict(enumerate(self.grid.window(start, count), start))

    def _everything(self) -> dict[str, Any]:
        self._said, self._sent = self._status(), self._rows()
        self._seq += 1
        self._pushed_s = time.monotonic()
        return {"seq": self._seq, **self._said, "rows": self._sent}

    def _push(self) -> None:
        """Send what differs from what the page has."""
        self._pushed_s = time.monotonic()
        self.grid.reorder()
        if (head := self.head()) != self._head:
            self._head = head
            self.in_own_cell(lambda: setattr(self._widget, "graph", head))
        status, rows = self._status(), self._rows()
        if status["version"] != self._said["version"]:
            self._sent = {}  # the page clears its rows
        news = {place: row for place, row in rows.items() if self._sent.get(place) != row}
        if not news and status == self._said:
            return
        self._said, self._sent = status, rows
        self._seq += 1
        self.send({"type": "live", "seq": self._seq, **status, "rows": news})

    # What the page says

    def heard(self, message: dict[str, Any]) -> None:
        """A message of the page, on the subshell's thread: cancelling is for the runtime, all else for who sends."""
        match message:
            case {"type": "cancel", "row": int(position), "side": int(side)} if (rows := self._of(side)) is not None:
                if 0 <= position < self.grid.num_rows and rows.state(position) == "running":
                    self._session.cancel([node for node in rows.call(position).outputs if not node.final])
            case {"type": "cancel_all"}:
                self.grid.cancel()
            case _:
                super().heard(message)

    def asked(self, message: dict[str, Any]) -> None:
        """Send rows, what the panel says, or a part of a file."""
        match message:
            case {"type": "ready"}:
                if message.get("seq") != self._seq:
                    self.send({"type": "live", **self._everything()})
            case {"type": "window", "start": int(start), "count": int(count)}:
                self._sight = (max(0, start), min(max(0, count), MAX_WINDOW))
                self.send({"type": "live", **self._everything()})
            case {"type": "query"}:
                self.grid.ask(query_of(message))
                self._sight = (0, self._sight[1])
                self.send({"type": "live", **self._everything()})
            case {"type": "details", "row": int(position), "side": int(side)} if (rows := self._of(side)) is not None:
                if 0 <= position < self.grid.num_rows:
                    told = row_details(rows, position, self._session)
                    place = position * len(self.grid.sides) + side
                    self.send({"type": "details", **told, "id": place, "state": rows.state(position)})
            case {"type": "csv", "start": int(start)}:
                if start == 0:
                    self._file = list(self.grid.order())
                text, then = csv_chunk(self.grid, self._file, max(0, start))
                self.send({"type": "csv", "start": start, "text": text, "next": then if then < len(self._file) else None})
            case _:
                pass  # a page of another version

    def _of(self, side: int) -> Any:
        sides = self.grid.sides
        return sides[side].rows if 0 <= side < len(sides) else None


def query_of(message: dict[str, Any]) -> Query:
    """Return what a page asks for; what is of no such kind is left out."""
    sort, text, states = message.get("sort"), message.get("text"), message.get("states")
    return Query(
        sort=sort if isinstance(sort, str) else None,
        descending=message.get("descending") is True,
        states=frozenset(one for one in states if isinstance(one, str)) if isinstance(states, list) else frozenset(),
        text=text if isinstance(text, str) else "",
        failed_first=message.get("failed_first") is True,
        differing=message.get("differing") is True,
    )
