"""Places of native functions: how many run at once, and what becomes of those for which there is no thread."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import parrot_nb as P
from parrot_nb.session import places


def test_thousands_of_functions_for_which_there_is_no_thread_are_all_told(monkeypatch):
    """One after the other: told within one another they would exceed the depth of Python's calls, and the rest would wait for ever."""
    started, told = [], []

    def start(thread):
        if len(started) >= places.MAX_PLACES:
            raise RuntimeError("can't start new thread")
        started.append(thread)

    def refused(run, error):
        told.append(run)
        found.leave(run)

    monkeypatch.setattr(threading.Thread, "start", start)
    found = places.Places(lambda run: None, refused)
    monkeypatch.setattr(found, "_watch", lambda: None)
    call = SimpleNamespace(name="busy")
    runs = [
        places.Run(call, "busy", lambda: None, lambda value, error: None, P.LATENCY) for _ in range(places.MAX_PLACES + 3_000)
    ]
    for run in runs:
        found.start(run)
    assert (len(started), told) == (places.MAX_PLACES, [])
    found.leave(runs[0])
    assert told == runs[places.MAX_PLACES :]
    assert all(run.place == "none" for run in told)
