"""A display on the page that is updated while its cell runs, and after."""

from __future__ import annotations

import contextvars
import time
from collections.abc import Callable
from typing import Any

from parrot_nb.notebook.executions import Execution
from parrot_nb.notebook.places import Bundle, Display, Place, show_fixed
from parrot_nb.notebook.state import GraphState

DRAW_INTERVAL_S = 0.125  # between outputs of one view: each is drawn anew on the page
CHARS_PER_S = 60_000  # of one view: a large output is drawn less often

__all__ = ["Bundle", "DrawnView", "View"]


class View:
    """One display on the page; a subclass says what it shows, and when it will not change any more.

    Attributes:
        remedy: what is said below it where it cannot be updated: how to see what becomes of it.
        execution: the cell that it belongs to; None between cells.
        ended: whether its cell has ended. Until then more may come, whatever has settled.
        watched: whether a person's client shows it. Tools drop what is sent to a cell that has ended, so what is new then
            waits for the end of another.
    """

    remedy = "This output is not updated."

    def __init__(self) -> None:
        self.execution: Execution | None = None
        self.ended = False
        self.watched = True
        self._last: Bundle | None = None
        self._stays: tuple[Any] | None = None  # what had settled when it was drawn last
        self._drawn_s = 0.0
        self._due = False
        self._display: Display | None = None
        self._context = contextvars.copy_context()  # of the cell: where its updates belong

    def bundle(self, state: GraphState) -> Bundle:
        """Return the bundle that shows a state."""
        raise NotImplementedError

    def settled(self, state: GraphState) -> bool:
        """Whether it will not change any more."""
        raise NotImplementedError

    def extent(self) -> Any:
        """Return the extent of the view: while that is the same, what has settled need not be drawn again."""
        return None

    @property
    def due(self) -> bool:
        """Whether an output was left out that must follow, though nothing may happen meanwhile."""
        return self._due

    def show(self, state: GraphState, place: Place) -> bool:
        """Put it on the page (a shell's thread, inside its cell); returns whether it will be updated there."""
        settled = self.settled(state)
        self._last = self.bundle(state)
        if place is Place.FIXED:
            show_fixed(self._last, None if settled else self.remedy)
            return False
        self._display = Display(self._last, place)
        return True

    def update(self, state: GraphState, *, in_cell: bool) -> bool:
        """Send the state if it looks different, as a message of the cell that runs or of the view's own; returns whether
        it may still change."""
        self._due = False
        if self.ended and not self.watched and not in_cell:
            return True
        settled = self.settled(state)
        stays = (self.extent(),) if settled else None
        self._due = not (in_cell or settled) and time.monotonic() - self._drawn_s < self._interval_s()
        if not self._due and (stays is None or stays != self._stays):
            self.draw(state, in_cell=in_cell)
            self._stays = stays
        return not (settled and self.ended)

    def draw(self, state: GraphState, *, in_cell: bool) -> None:
        """Send the state now, if it looks different."""
        self._drawn_s, self._stays = time.monotonic(), None
        bundle = self.bundle(state)
        if bundle != self._last:
            self._last = bundle
            shown = self._display
            assert shown is not None, "only what was shown is drawn"
            if in_cell:
                shown.update(bundle)
            else:
                self.in_own_cell(lambda: shown.update(bundle))

    def _interval_s(self) -> float:
        return max(DRAW_INTERVAL_S, sum(map(len, (self._last or {}).values())) / CHARS_PER_S)

    def in_own_cell(self, send: Callable[[], None]) -> None:
        """Send something so that it lands in the cell that the view belongs to, whatever runs meanwhile."""
        self._context.copy().run(send)


class DrawnView(View):
    """A view of what a function draws.

    Args:
        draw: its mimebundle for a state of the graph.
        is_settled: whether what was drawn last is what stays.
    """

    def __init__(self, draw: Callable[[GraphState], Bundle], is_settled: Callable[[], bool]) -> None:
        super().__init__()
        self._draw = draw
        self._is_settled = is_settled
        self._drawn: Bundle | None = None

    def settled(self, state: GraphState) -> bool:
        """Draws, and asks whether that stays."""
        self._drawn = self._draw(state)
        return self._is_settled()

    def extent(self) -> Any:
        """Return the last drawing."""
        return self._drawn

    def bundle(self, state: GraphState) -> Bundle:
        """Return the last drawing, or make the first."""
        return self._drawn if self._drawn is not None else self._draw(state)
