"""Views that change while a session runs: one thread folds the event log and updates what is on the page.

A display is made on a shell's thread, inside the cell that it belongs to; later updates are sent in that cell's
context, so that they land there whatever runs meanwhile. At a cell's end that thread sends the last state of every
view itself, as messages of that cell: tools that execute notebooks read no message of a cell that has ended.

What a display shows where it cannot be updated (`parrot_nb.notebook.places`) is not kept here.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Sequence

from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.executions import Execution, Executions
from parrot_nb.notebook.grid import GridView
from parrot_nb.notebook.places import Place, show_fixed
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import render_graph_html, render_graph_text
from parrot_nb.notebook.variables import VariablesView
from parrot_nb.notebook.views import View
from parrot_nb.notebook.widget import FrontEnd, GraphView
from parrot_nb.notebook.widget.lively import Question
from parrot_nb.record import catch_up
from parrot_nb.runtime.events import SessionReset
from parrot_nb.session import Session
from parrot_nb.tables import Comparison, Evaluation

MIN_INTERVAL_S = 0.05  # between updates: 20 Hz reads as fluent, and costs little of a core


class LiveViews:
    """The views of one session; meets `parrot_nb.language.host.SessionObserver`.

    Args:
        session: whose events are shown.
        executions: the cells that run.
        front: the page.
    """

    def __init__(self, session: Session, executions: Executions, front: FrontEnd) -> None:
        self._session = session
        self._executions = executions
        self._state = GraphState()
        self._views: list[View] = []
        self._unsent = False  # calls were made outside of cells, and no callback of the page ends that would send them on
        self._lock = threading.Lock()  # the state is folded by whichever thread sends next
        self._news = threading.Event()
        self._closed = False
        self._front = front
        self._questions: deque[Question] = deque()
        self._unsubscribe = session.events.subscribe(self.wake)
        self._thread = threading.Thread(target=self._flush, name="parrot-views", daemon=True)
        self._thread.start()

    # What the session tells

    def submitted(self, call: Call) -> None:
        """A call was made; its cell shows the graph at the first read or at its end."""
        execution = self._executions.of_call()
        if execution is None:
            self._unsent = True
            self.wake()
            return
        execution.made.add(call.id)
        execution.made_here |= execution is self._executions.here()

    def reading(self, nodes: Sequence[VariableNode]) -> None:
        """A cell is about to wait: show what it waits for."""
        execution = self._executions.here()
        calls = {node.producer.id for node in nodes if node.producer is not None}
        if execution is not None and calls:
            execution.read |= calls
            self._show_calls(execution, ends=False)

    # What the face asks for

    def end_cell(self, execution: Execution) -> None:
        """A cell ends (its thread): show its graph if it has one, and send everything that is new."""
        if execution.made_here or execution.read:
            self._show_calls(execution, ends=True)
        catch_up(self._session)
        with self._lock:
            for view in self._views:
                view.ended |= view.execution in (execution, None)
        self.flush_now(in_cell=True)

    def end_callback(self) -> None:
        """A callback of the page ends that belongs to no cell: send on what it called."""
        if self._unsent:
            self._unsent = False
            self._session.flush()

    def show_graph(self, *, still: bool = False) -> None:
        """Show here all that the session has called so far; as it is now and stays, if `still`."""
        self.catch_up()
        so_far, num_earlier = list(self._state.calls), self._state.num_earlier
        if still or not so_far:
            state = self._state.part(so_far)
            state.num_earlier = num_earlier
            show_fixed({"text/html": render_graph_html(state), "text/plain": render_graph_text(state)}, None)
            return
        self.open(GraphView(self._session, lambda _state: so_far, self._front, self.ask, num_earlier=num_earlier))

    def show_variables(self, nodes: Sequence[VariableNode], *, markdown: bool = False) -> None:
        """Show variables here, each filling in as it comes; their text as it stands, or as Markdown."""
        self.open(VariablesView(nodes, markdown=markdown))

    def ask(self, question: Question) -> None:
        """The page asks (any thread)."""
        self._questions.append(question)
        self.wake()
        if self._closed:
            self.flush_now(in_cell=False)

    def wake(self) -> None:
        """There is something to send (any thread)."""
        self._news.set()

    def flush_now(self, *, in_cell: bool) -> None:
        """Send what is new, on this thread."""
        with self._lock:
            news, position = self._session.events.news(self._state.num_events)
            resets = [i for i, event in enumerate(news) if isinstance(event, SessionReset)]
            start = 0
            for end in resets:  # what a reset forgets is shown as it was before
                self._state.add(news[start:end])
                self._update(in_cell=in_cell)
                self._views.clear()
                self._state.add(news[end : end + 1])
                start = end + 1
            self._state.add(news[start:])
            self._state.num_events = position  # more than were added, where the log let go of some
            self._update(in_cell=in_cell)
            self._state.let_go()
            while self._questions:
                view, message = self._questions.popleft()
                view.answer(message)

    def _update(self, *, in_cell: bool) -> None:
        self._views = [view for view in self._views if view.update(self._state, in_cell=in_cell)]

    def close(self) -> None:
        """Send the last state and stop; what the page asks later is answered on the thread that hears it."""
        self._closed = True
        self._unsubscribe()
        self.wake()
        self._thread.join(timeout=2)
        in_cell = self._executions.here() is not None
        if in_cell:
            with self._lock:  # nobody tells them of the cell's end any more
                for view in self._views:
                    view.ended = True
        self.flush_now(in_cell=in_cell)

    def _show_calls(self, execution: Execution, *, ends: bool) -> None:
        """Show the calls of a cell, once; where that could not be updated, not before it ends."""
        if execution.shown or execution.show == "off" or (self._front.place is Place.FIXED and not ends):
            return
        execution.shown = True
        self.catch_up()

        def chosen(_state: GraphState) -> list[int]:
            return sorted(execution.made | execution.read)

        if self._front.in_terminal and execution.show == "auto":
            part = self._state.part(chosen(self._state))
            if not (part.settled and part.runs_since(execution.begun_s)):
                return  # nothing that is worth lines between prompts, which no later ones could bring up to date
        self.open(GraphView(self._session, chosen, self._front, self.ask, execution.show, execution.begun_s))

    def catch_up(self) -> None:
        """Submit what was called and send all that has happened, before something new is shown."""
        self._session.flush()
        catch_up(self._session)
        self.flush_now(in_cell=True)

    @property
    def can_update(self) -> bool:
        """Whether what is shown here now can be updated."""
        return self._front.place is not Place.FIXED

    def open(self, view: View) -> bool:
        """Show a view here, and keep it up to date; returns whether that can be done."""
        with self._lock:
            view.watched = self._front.has_person
            view.execution = self._executions.here()
            if kept := view.show(self._state, self._front.place):
                self._views.append(view)
        self.wake()
        return kept

    def exchange(self, view: GridView, source: Evaluation | Comparison) -> None:
        """Have a table show the result of what it showed being measured."""
        with self._lock:
            view.become(source)
            if view not in self._views:
                self._views.append(view)
        self.wake()

    def _flush(self) -> None:
        while not self._closed:
            self._news.wait()
            self._news.clear()
            self.flush_now(in_cell=False)
            time.sleep(MIN_INTERVAL_S)
            if not self._executions.any_runs:  # a cell sends its calls together, at its end or first read
                self.end_callback()  # of whoever tells of no end: a task of the loop, a timer
            if any(view.due for view in self._views):
                self.wake()
