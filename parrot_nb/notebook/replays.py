"""A recorded run on the page: the graph and the timeline grow as they grew then; no model and no session is needed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from parrot_nb.notebook.live import LiveViews, View, _graph_bundle
from parrot_nb.notebook.timelines import timeline_view
from parrot_nb.record import Replay
from parrot_nb.runtime.events import EventLog
from parrot_nb.session import Session


class Stage:
    """What stands in for a session: a log that the replay fills, and nothing that could be cancelled or asked for more."""

    def __init__(self) -> None:
        self.events = EventLog()
        self.idle = True
        self.ended = False

    def over(self, num_events: int) -> bool:
        """Whether nothing comes after so many events."""
        return self.ended and num_events == len(self.events)

    def flush(self) -> None:
        """Nothing is ever waiting to be sent on."""

    def cancel(self, *_: Sequence[Any]) -> None:
        """What is past cannot be cancelled."""


def show_replay(replay: Replay) -> None:
    """Play it here, in the cell that runs; interrupting the cell ends it where it is."""
    stage = Stage()
    views = LiveViews(cast("Session", stage), lambda: None)
    try:
        views._open(View(_graph_bundle, lambda state: stage.over(state.num_events)))
        views._open(timeline_view(stage.events, over=stage.over))
        for event in replay:
            stage.events.append(event)
    finally:
        stage.ended = True
        views.close()
