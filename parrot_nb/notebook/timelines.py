"""Timelines on the page: a view of a session's event log, drawn anew while calls run."""

from __future__ import annotations

import time
from collections.abc import Callable

from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.timeline import render_timeline_html, render_timeline_text
from parrot_nb.notebook.views import Bundle, DrawnView
from parrot_nb.record import Timeline, TimelineFold
from parrot_nb.runtime.events import EventLog
from parrot_nb.session import Session

MIN_INTERVAL_S = 0.5  # between drawings of a timeline that grows: it is a large picture


def show_timeline(views: LiveViews, session: Session) -> None:
    """Show the timeline of a session here; it grows while calls run, and stays as it is when all have ended."""
    views.catch_up()
    views.open(timeline_view(session.events))


def timeline_view(log: EventLog, *, over: Callable[[int], bool] = lambda _: True) -> DrawnView:
    """A view of all that a log holds since the last reset; it stays as it is when all calls have ended and the log is
    `over`, which is asked with the number of events that were drawn."""
    fold = TimelineFold()
    last: Bundle = {}
    drawn_s = 0.0
    final = False  # decided before it is drawn: what comes in between is not lost

    def render(state: GraphState) -> Bundle:
        nonlocal last, drawn_s, final
        news, position = log.news(fold.num_events)
        until = min(position, max(state.num_events, fold.num_events))  # up to a reset, not past it
        fold.add(news[: max(0, len(news) - (position - until))], until)
        final = over(fold.num_events) and fold.settled
        if not last or final or time.monotonic() - drawn_s >= MIN_INTERVAL_S:
            last, drawn_s = timeline_bundle(fold.timeline()), time.monotonic()
        return last

    return DrawnView(render, lambda: final)


def timeline_bundle(timeline: Timeline, title: str = "") -> Bundle:
    """A timeline in every form a page may want."""
    return {"text/html": render_timeline_html(timeline, title), "text/plain": render_timeline_text(timeline)}
