"""The thread that keeps views up to date also sends on calls that belong to no cell."""

from __future__ import annotations

import threading
import time

import parrot_nb as P
from parrot_nb.notebook.executions import Execution, Executions
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.widget import FrontEnd

WAIT_S = 30


def test_it_sends_nothing_while_a_cell_runs():
    """It would send the calls that the cell has made by then without those that the cell is about to make."""
    executions = Executions()
    beside = Execution(None, 1, "off", thread=-1)  # of a subshell: this thread runs no cell
    executions.begin(beside)
    with P.Session(isolate=False, max_tokens=4) as session:
        views = LiveViews(session, executions, FrontEnd(None))
        session.observer = views
        rounds = threading.Semaphore(0)
        send = views.flush_now
        views.flush_now = lambda *, in_cell: send(in_cell=in_cell) or rounds.release()  # type: ignore[method-assign]
        variable = P.SemanticFunction("Say: {{output:y}}")()
        for _ in range(3):
            views.wake()
            assert rounds.acquire(timeout=WAIT_S)
        assert not session.has_runtime
        executions.end(beside)
        deadline = time.monotonic() + WAIT_S
        while not variable.done():
            assert time.monotonic() < deadline, "nobody sent it on"
            views.wake()
            time.sleep(0.05)
        views.close()


def test_a_session_of_many_calls_keeps_few_of_them_in_its_views(monkeypatch):
    """The log lets go of events before the thread has read them; none may be taken in twice, and no call for ever."""
    from parrot_nb.notebook import live
    from parrot_nb.notebook.state import GraphState
    from parrot_nb.runtime.events import EventLog

    let_go = GraphState.let_go
    monkeypatch.setattr(live.GraphState, "let_go", lambda state: let_go(state, 40))
    with P.Session(isolate=False, max_tokens=2) as session:
        session.events = EventLog(200)
        views = LiveViews(session, Executions(), FrontEnd(None))
        session.observer = views
        shout = P.native_function(lambda text: text.upper())
        for i in range(20):
            assert shout.map([f"word {i} {k}" for k in range(20)]).get()[3] == f"WORD {i} 3"
        views.close()
        state = views._state
        assert len(state.calls) <= 50
        assert state.num_earlier + len(state.calls) <= 400
        assert state.num_events == len(session.events)
        phases = [phase for call in state.calls.values() for phase, _ in call.phases]
        assert phases.count("ended") <= len(state.calls), "events were taken in twice"
