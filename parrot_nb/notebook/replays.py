"""A recorded run on the page: the graph and the timeline grow as they grew then; no model and no session is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from parrot_nb.language.calls import Call
from parrot_nb.notebook.executions import Executions
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.places import Place
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.timelines import timeline_view
from parrot_nb.notebook.widget import FrontEnd, GraphView
from parrot_nb.record import Replay
from parrot_nb.runtime.events import EventLog
from parrot_nb.session import Session


class Stage:
    """Stand-in for a session: a log that the replay fills, and nothing that could be cancelled or asked for more."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.idle = True
        self.ended = False

    def over(self, num_events: int) -> bool:
        """Whether nothing comes after so many events."""
        return self.ended and num_events == len(self.events)

    def flush(self) -> None:
        """Do nothing: nothing is ever waiting to be sent on."""

    def cancel(self, *_: Sequence[Any]) -> None:
        """Do nothing: the past cannot be cancelled."""

    def calls(self) -> list[Call]:
        """None: a record holds what happened to calls, not the calls."""
        return []


class ReplayView(GraphView):
    """The graph of a replay: it may grow again when all of it has ended.

    Args:
        stage: who plays.
        views: of that stage.
        front: the page.
    """

    def __init__(self, stage: Stage, views: LiveViews, front: FrontEnd) -> None:
        super().__init__(cast("Session", stage), lambda state: state.calls, front, views.ask)
        self._stage = stage

    def settled(self, state: GraphState) -> bool:
        """Whether nothing comes any more."""
        return self._stage.over(state.num_events)


def show_replay(replay: Replay, front: FrontEnd) -> None:
    """Play it here, in the cell that runs; interrupting the cell ends it where it is."""
    stage = Stage()
    views = LiveViews(cast("Session", stage), Executions(), front)
    moves = front.place is not Place.FIXED  # elsewhere what it comes to is all there is to show

    def open_views() -> None:
        views.flush_now(in_cell=True)
        views.open(ReplayView(stage, views, front))
        views.open(timeline_view(stage.events, over=stage.over))

    try:
        if moves:
            open_views()
        for event in replay:
            stage.events.append(event)
    finally:
        stage.ended = True
        if not moves:
            open_views()
        views.close()
