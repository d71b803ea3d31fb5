"""Views that change while a session runs: one thread folds the event log and updates what is on the page.

A display is made on the main thread, inside the cell that it belongs to; later updates are sent in that cell's
context, so that they land there whatever runs meanwhile. At a cell's end the main thread sends the last state of every
view itself, as messages of that cell: tools that execute notebooks read no message of a cell that has ended.
"""

from __future__ import annotations

import contextvars
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

from IPython.display import display

from parrot_nb.language.nodes import Call, VariableNode
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import render_graph_html, render_graph_text
from parrot_nb.notebook.values import variables_bundle
from parrot_nb.runtime.events import SessionReset
from parrot_nb.session import Session

MIN_INTERVAL_S = 0.125  # between updates: 8 Hz reads as live, and costs little of a core

Bundle = dict[str, str]


class View:
    """One display on the page.

    Args:
        render: its mimebundle for a state of the graph.
        settled: whether it will not change any more.
    """

    def __init__(self, render: Callable[[GraphState], Bundle], settled: Callable[[GraphState], bool]) -> None:
        self._render = render
        self._settled = settled
        self._last: Bundle | None = None
        self._handle: Any = None
        self._context = contextvars.copy_context()  # of the cell: where its updates belong

    def show(self, state: GraphState) -> None:
        """Put it on the page (main thread, inside its cell)."""
        self._last = self._render(state)
        self._handle = display(self._last, raw=True, display_id=True)

    def update(self, state: GraphState, *, in_cell: bool) -> bool:
        """Send the state if it looks different, as a message of the cell that runs or of the view's own; returns whether
        it may still change."""
        bundle = self._render(state)
        if bundle != self._last:
            self._last = bundle
            context = contextvars.copy_context() if in_cell else self._context.copy()
            context.run(self._handle.update, bundle, raw=True)
        return not self._settled(state)


class LiveViews:
    """The views of one session; meets `parrot_nb.session.SessionObserver`.

    Args:
        session: whose events are shown.
        cell: the number of the cell that runs, or None between cells.
    """

    def __init__(self, session: Session, cell: Callable[[], int | None]) -> None:
        self._session = session
        self._cell = cell
        self._state = GraphState()
        self._views: list[View] = []
        self._shown_cell: int | None = None
        self._read: set[int] = set()  # calls that the running cell reads, made by earlier ones
        self._made_calls = False
        self._lock = threading.Lock()  # the state is folded by whichever thread sends next
        self._news = threading.Event()
        self._closed = False
        self._unsubscribe = session.events.subscribe(self._news.set)
        self._thread = threading.Thread(target=self._flush, name="parrot-views", daemon=True)
        self._thread.start()

    # What the session tells

    def submitted(self, call: Call) -> None:
        """A call was made; the graph is shown at the first read or at the cell's end."""
        if threading.current_thread() is threading.main_thread():
            self._made_calls = True

    def reading(self, nodes: Sequence[VariableNode]) -> None:
        """A cell is about to wait: show what it waits for."""
        if threading.current_thread() is not threading.main_thread() or self._cell() is None:
            return
        self._read.update(node.producer.id for node in nodes if node.producer is not None)
        if any(node.producer is not None for node in nodes):
            self._show_cell()

    # What the face asks for

    def begin_cell(self) -> None:
        """A cell starts."""
        self._read, self._made_calls, self._shown_cell = set(), False, None

    def end_cell(self) -> None:
        """A cell ends (main thread): show its graph if it has one, and send everything that is new."""
        if self._made_calls:
            self._show_cell()
        self._session.idle  # noqa: B018 - a round trip through the runtime: all that was sent before is in the log
        self._flush_now(in_cell=True)

    def show_graph(self) -> None:
        """Show the whole graph of the session here."""
        self._catch_up()
        self._open(View(_graph_bundle, lambda state: state.settled))

    def show_variables(self, nodes: Sequence[VariableNode], *, markdown: bool = False) -> None:
        """Show variables here, each filling in as it comes; their text as it stands, or as Markdown."""
        holds = [node.reach() for node in nodes]  # what is on the page is read, though no name may hold it

        def render(_: GraphState) -> Bundle:
            return variables_bundle(nodes, markdown=markdown)

        self._open(View(render, lambda _: bool(holds) and all(node.final for node in nodes)))

    def _flush_now(self, *, in_cell: bool) -> None:
        """Send what is new, on this thread."""
        with self._lock:
            news = self._session.events.since(self._state.num_events)
            resets = [i for i, event in enumerate(news) if isinstance(event, SessionReset)]
            start = 0
            for end in resets:  # what a reset forgets is shown as it was before
                self._state.add(news[start:end])
                self._update(in_cell=in_cell)
                self._views.clear()
                self._state.add(news[end : end + 1])
                start = end + 1
            self._state.add(news[start:])
            self._update(in_cell=in_cell)

    def _update(self, *, in_cell: bool) -> None:
        self._views = [view for view in self._views if view.update(self._state, in_cell=in_cell)]

    def close(self) -> None:
        """Send the last state and stop."""
        self._closed = True
        self._unsubscribe()
        self._news.set()
        self._thread.join(timeout=2)
        self._flush_now(in_cell=False)

    def _show_cell(self) -> None:
        cell = self._cell()
        if cell is None or self._shown_cell == cell:
            return
        self._shown_cell = cell
        self._catch_up()
        read = self._read

        def part(state: GraphState) -> GraphState:
            return state.part([call.id for call in state.calls.values() if call.cell == cell or call.id in read])

        self._open(View(lambda state: _graph_bundle(part(state)), lambda state: part(state).settled))

    def _catch_up(self) -> None:
        self._session.flush()
        self._session.idle  # noqa: B018 - a round trip through the runtime
        self._flush_now(in_cell=True)

    def _open(self, view: View) -> None:
        with self._lock:
            view.show(self._state)
            self._views.append(view)
        self._news.set()

    def _flush(self) -> None:
        while not self._closed:
            self._news.wait()
            self._news.clear()
            self._flush_now(in_cell=False)
            time.sleep(MIN_INTERVAL_S)


def _graph_bundle(state: GraphState) -> Bundle:
    return {"text/html": render_graph_html(state), "text/plain": render_graph_text(state)}
