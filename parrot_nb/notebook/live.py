"""Views that change while a session runs: one thread folds the event log and updates what is on the page.

A display is made on the main thread, inside the cell that it belongs to; later updates are sent in that cell's
context, so that they land there whatever runs meanwhile. At a cell's end the main thread sends the last state of every
view itself, as messages of that cell: tools that execute notebooks read no message of a cell that has ended.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence

from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.values import variables_bundle
from parrot_nb.notebook.views import Bundle, View
from parrot_nb.notebook.widget import FrontEnd, GraphView
from parrot_nb.notebook.widget.view import Chosen, Question
from parrot_nb.record import catch_up
from parrot_nb.runtime.events import SessionReset
from parrot_nb.session import Session

MIN_INTERVAL_S = 0.05  # between updates: 20 Hz reads as fluent, and costs little of a core


class VariablesView(View):
    """Variables, each filling in as it comes.

    Args:
        nodes: the variables.
        markdown: whether their text is Markdown.
    """

    def __init__(self, nodes: Sequence[VariableNode], *, markdown: bool = False) -> None:
        super().__init__()
        self._nodes = nodes
        self._markdown = markdown
        self._kept: dict[int, Bundle] = {}  # how values that are there show themselves, which is the user's code: asked for once
        self._holds = [node.reach() for node in nodes]  # what is on the page is read, though no name may hold it

    def bundle(self, _state: GraphState) -> Bundle:
        """Their texts."""
        return variables_bundle(self._nodes, self._kept, markdown=self._markdown)

    def settled(self, _state: GraphState) -> bool:
        """Whether all are final."""
        return all(node.final for node in self._nodes)


class LiveViews:
    """The views of one session; meets `parrot_nb.language.host.SessionObserver`.

    Args:
        session: whose events are shown.
        cell: the number of the cell that runs, or None between cells.
        front: the page.
    """

    def __init__(self, session: Session, cell: Callable[[], int | None], front: FrontEnd) -> None:
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
        self._front = front
        self._questions: deque[Question] = deque()
        self._unsubscribe = session.events.subscribe(self.wake)
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
        catch_up(self._session)
        with self._lock:
            for view in self._views:
                view.ended = True
        self.flush_now(in_cell=True)

    def show_graph(self) -> None:
        """Show here all that the session has called so far."""
        self.catch_up()
        so_far = list(self._state.calls)
        self.open(self._graph_view(lambda _state: so_far))

    def show_variables(self, nodes: Sequence[VariableNode], *, markdown: bool = False) -> None:
        """Show variables here, each filling in as it comes; their text as it stands, or as Markdown."""
        self.open(VariablesView(nodes, markdown=markdown))

    def _graph_view(self, chosen: Chosen) -> GraphView:
        return GraphView(self._session, chosen, self._front, self.ask)

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
        if in_cell := self._cell() is not None and threading.current_thread() is threading.main_thread():
            with self._lock:  # nobody tells them of the cell's end any more
                for view in self._views:
                    view.ended = True
        self.flush_now(in_cell=in_cell)

    def _show_cell(self) -> None:
        cell = self._cell()
        if cell is None or self._shown_cell == cell:
            return
        self._shown_cell = cell
        self.catch_up()
        read = self._read

        self.open(
            self._graph_view(lambda state: [call.id for call in state.calls.values() if call.cell == cell or call.id in read])
        )

    def catch_up(self) -> None:
        """Submit what was called and send all that has happened, before something new is shown."""
        self._session.flush()
        catch_up(self._session)
        self.flush_now(in_cell=True)

    def open(self, view: View) -> None:
        """Show a view here, and keep it up to date."""
        with self._lock:
            view.watched = self._front.has_person
            view.show(self._state)
            self._views.append(view)
        self.wake()

    def _flush(self) -> None:
        while not self._closed:
            self._news.wait()
            self._news.clear()
            self.flush_now(in_cell=False)
            time.sleep(MIN_INTERVAL_S)
            if any(view.due for view in self._views):
                self.wake()
