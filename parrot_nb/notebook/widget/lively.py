"""A display that stands still in every file, and comes to life where a person looks at it.

The output holds HTML (`text/html`) and its words (`text/plain`), as it does everywhere. Beside it the page gets a model
through anywidget, whose module finds the still output by a mark and puts the interactive view in its place. A
`widget-view` entry in the output itself would be shorter, but JupyterLab prefers that entry to the HTML also where
its model is gone, and says "Loading widget..." for ever: a notebook reopened without its kernel would have lost its view.

The mark is taken out of the HTML at the cell's end at the latest, so that what is saved is the same in every run.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.views import View
from parrot_nb.notebook.widget.front import FrontEnd, close_widget

Question = tuple["LivelyView", dict[str, Any]]


class LivelyView(View):
    """One interactive view in one output. All methods but `heard` and `gone` are called under the lock of whoever holds the state.

    Args:
        front: the page.
        ask: takes a question of the page over to the thread that sends.
    """

    def __init__(self, front: FrontEnd, ask: Callable[[Question], None]) -> None:
        super().__init__()
        self._front = front
        self._ask = ask
        self._widget: Any = None
        self._mark = uuid.uuid4().hex
        self._can_live = False  # a person looks at it
        self._alive = False  # the page shows the interactive view
        self._marked = False  # the still output carries the mark by which the page finds it

    def make(self) -> Any:
        """Make the widget."""
        raise NotImplementedError

    def asked(self, message: dict[str, Any]) -> None:
        """Do what the page asks of this kind of view; "ready" comes with the number of the last message that the page has."""
        raise NotImplementedError

    def redraw(self) -> None:
        """Send the still output."""
        raise NotImplementedError

    @property
    def is_settled(self) -> bool:
        """Whether it will not change any more."""
        raise NotImplementedError

    def come_to_life(self) -> None:
        """Give the page what it needs to put the interactive view over the still output."""
        self._widget = self.make()
        self._front.route(self._widget.comm)
        if self.execution is not None:
            self._front.shows(self.execution.cell, self)
        self._marked = True

    def let_go(self) -> None:
        """Take the interactive view off the page; what stands in the output is seen again."""
        if self._widget is not None:
            widget, self._widget = self._widget, None
            self.in_own_cell(lambda: close_widget(widget))
        self._alive = self._marked = False

    def update_still(self, state: GraphState, *, in_cell: bool) -> bool:
        """Send the still output where that is what people see, or at an end; returns whether it may still change."""
        if in_cell:
            self._marked = False
        if self._alive and not in_cell and not (self.ended and self.settled(state)):
            self._due = False
            return True  # nobody sees it
        return super().update(state, in_cell=in_cell)

    def send(self, message: dict[str, Any]) -> None:
        """Tell the page, as a message of the cell that the view belongs to."""
        if self._widget is not None:
            self.in_own_cell(lambda: self._widget.send(message))

    # What the page says

    def heard(self, message: dict[str, Any]) -> None:
        """Take a message of the page, on the subshell's thread."""
        self._ask((self, message))

    def gone(self) -> None:
        """The output was cleared (any thread)."""
        self._ask((self, {"type": "closed"}))

    def answer(self, message: dict[str, Any]) -> None:
        """Do what the page asks for (the thread that sends)."""
        match message.get("type"):
            case "ready":
                self.asked(message)
                if not message.get("found") and not self._alive and not self._marked:
                    self._marked = True
                    self.redraw()
            case "mounted":
                self._alive = True
                if self._marked:
                    self._marked = False
                    if self.is_settled:  # nothing else would take the mark out
                        self.redraw()
            case "closed":
                self.let_go()
            case _:
                self.asked(message)
