"""A graph on the page: a still picture, which comes to life where a person looks at it (see `lively`).

Where nothing ran since the cell began, all there is to say is one line, which opens to the picture.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

from parrot_nb.language.calls import Call
from parrot_nb.notebook.executions import Show
from parrot_nb.notebook.places import Place
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import render_graph_html, render_graph_text, render_line_html, render_line_text
from parrot_nb.notebook.views import Bundle
from parrot_nb.notebook.widget.details import details
from parrot_nb.notebook.widget.front import FrontEnd, make_widget
from parrot_nb.notebook.widget.lively import LivelyView, Question
from parrot_nb.notebook.widget.wire import Sent, structure
from parrot_nb.runtime.events import now_s
from parrot_nb.session import Session

PATIENCE_S = 0.3  # until calls that have not begun are drawn

Chosen = Callable[[GraphState], Iterable[int]]


class GraphView(LivelyView):
    """One graph in one output. All methods but `heard` are called under the lock of whoever holds the state.

    Args:
        session: whose graph it is.
        chosen: the calls to show; what they depend on is shown with them.
        front: the page.
        ask: takes a question of the page over to the thread that sends.
        show: "graph", "line", or "auto" for a line until something runs after `begun_s`.
        begun_s: when the cell began, on the log's clock.
        num_earlier: calls that were not in the state any more, and would have been chosen.
    """

    remedy = "This output is not updated: %parrot graph shows the calls as they are now."

    def __init__(
        self,
        session: Session,
        chosen: Chosen,
        front: FrontEnd,
        ask: Callable[[Question], None],
        show: Show = "graph",
        begun_s: float = 0.0,
        num_earlier: int = 0,
    ) -> None:
        super().__init__(front, ask)
        self._num_earlier = num_earlier
        self._shows = show
        self._begun_s = begun_s
        self._folded = False  # it is a line
        self._opens_s = time.monotonic() + PATIENCE_S
        self._session = session
        self._chosen = chosen
        self._sent = Sent()
        self._members: tuple[list[int], list[int]] = ([], [])
        self._structure = -1
        self._left_out = 0
        self._part = GraphState()

    def show(self, state: GraphState, place: Place) -> bool:
        """Put it on the page (a shell's thread, inside its cell); returns whether it will be updated there."""
        self._take(state)
        self._folded = self._folds()
        if place is Place.CELL and self._front.has_person:
            self._can_live = True
            if not self._folded:
                self.come_to_life()
        return super().show(state, place)

    def make(self) -> Any:
        """Make the widget of the interactive graph."""
        return make_widget("graph", self._mark, structure(self._part), self._sent.everything(self._part), self.heard)

    def _folds(self) -> bool:
        """Whether one line says it all."""
        if self._shows != "auto" or self._part.runs_since(self._begun_s):
            return self._shows == "line"
        return self._part.settled or self._may_be_known

    @property
    def _may_be_known(self) -> bool:
        """Whether calls that have not begun may yet turn out to be reused; what waits for longer can be cancelled in the graph."""
        return self.watched and time.monotonic() < self._opens_s

    @property
    def due(self) -> bool:
        """Whether an output was left out that must follow, though nothing may happen meanwhile."""
        return super().due or (self._folded and self._shows == "auto" and not self._part.settled)

    def update(self, state: GraphState, *, in_cell: bool) -> bool:
        """Send what is new: rows to the interactive graph, and the picture where that is what people see, or at an end."""
        restructured = self._take(state)
        if (folds := self._folds()) != self._folded:
            self._folded = folds
            if folds:
                self.let_go()
            elif self._can_live:
                self.in_own_cell(self.come_to_life)
        if self._widget is not None:
            if restructured:
                self.in_own_cell(lambda: setattr(self._widget, "graph", structure(self._part)))  # sent where it differs
            if (news := self._sent.news(self._part)) is not None:
                self.send({"type": "live", **news})
        return self.update_still(state, in_cell=in_cell)

    def settled(self, _state: GraphState) -> bool:
        """Whether all its calls have ended."""
        return self._part.settled

    @property
    def is_settled(self) -> bool:
        """Whether all its calls have ended."""
        return self._part.settled

    def extent(self) -> Any:
        """Return its calls and variables, whether the picture carries the mark, and whether it is a line."""
        return self._members, self._marked, self._folded

    def bundle(self, _state: GraphState) -> Bundle:
        """The still picture, and its words; or the line."""
        if self._folded:  # a file that a tool writes holds no times
            return {
                "text/html": render_line_html(self._part, self.watched),
                "text/plain": render_line_text(self._part, self.watched),
            }
        mark = self._mark if self._marked else None
        return {"text/html": render_graph_html(self._part, mark), "text/plain": render_graph_text(self._part)}

    def redraw(self) -> None:
        """Send the picture."""
        self.draw(self._part, in_cell=False)

    # What the page says

    def heard(self, message: dict[str, Any]) -> None:
        """A message of the page, on the subshell's thread: cancelling is for the runtime, all else for who sends."""
        match message.get("type"):
            case "cancel":
                self._cancel([call for call in self._calls() if call.id == message.get("call")])
            case "cancel_all":
                shown = set(self._members[0])
                self._cancel([call for call in self._calls() if call.id in shown])
            case _:
                super().heard(message)

    def asked(self, message: dict[str, Any]) -> None:
        """Send all that a page has missed, or what its panel says."""
        match message.get("type"):
            case "ready" if message.get("seq") != self._sent.seq:
                self.send({"type": "live", **self._sent.everything(self._part)})
            case "details":
                self.send({"type": "details", **self._details(message.get("call"))})
            case _:
                pass  # a page of another version

    def _details(self, call_id: Any) -> dict[str, Any]:
        calls = self._calls()
        call = next((call for call in calls if call.id == call_id), None)
        if call is None:
            return {"id": call_id, "forgotten": True}
        return details(call, calls, self._part.calls.get(call.id), now_s(), self._session)

    def _calls(self) -> list[Call]:
        return self._session.calls()

    def _cancel(self, calls: list[Call]) -> None:
        if nodes := [node for call in calls for node in call.outputs if not node.final]:
            self._session.cancel(nodes)

    def _take(self, state: GraphState) -> bool:
        """Take over what belongs to this graph; returns whether its structure may have changed."""
        restructured = state.structure != self._structure
        if restructured:
            self._structure = state.structure
            chosen = list(self._chosen(state))
            self._left_out = self._num_earlier + sum(call not in state.calls for call in chosen)
            self._members = state.closure(chosen)
        self._part = state.of(*self._members)
        self._part.num_earlier = self._left_out
        return restructured
