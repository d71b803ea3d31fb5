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
