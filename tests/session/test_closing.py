"""What a session leaves behind when it is closed, whenever that is: nothing."""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
import weakref
from pathlib import Path

import pytest
from side import WAIT_S, descriptors, done, pid_of, runs, script, until, write

import parrot_nb as P

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ENDLESS = {"ignore_eos": True, "max_tokens": 400, "fresh": True}


def left() -> tuple[list[str], list[str], int]:
    """Threads of ours, children and the number of descriptors."""
    threads = sorted(thread.name for thread in threading.enumerate() if thread.name.startswith("parrot-"))
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    return threads, [child for child in children if runs(int(child))], len(descriptors())


@pytest.fixture
def nothing_stays():
    """What is here before a test is what is here after it."""
    with P.Session(isolate=True) as session:  # whatever is made once
        session.models()
    before = left()
    yield
    until(lambda: left() == before, f"from {left()} back to {before}")


@pytest.mark.usefixtures("nothing_stays")
def test_a_session_that_did_everything_leaves_nothing():
    @P.native_function
    async def later(x):
        return x

    with P.Session(isolate=True, max_tokens=4) as session:
        made = later(P.native_function(lambda x: x)(write()("a")))
        assert P.first(made, where=lambda value: True).get(timeout=WAIT_S)
        session.reset()
        write(**ENDLESS)("a")
        session.flush()


@pytest.mark.usefixtures("nothing_stays")
def test_five_sessions_are_opened_closed_and_collected():
    seen = []
    for i in range(5):
        with P.Session(isolate=True, max_tokens=4) as session:
            assert P.native_function(lambda x: x)(write()("a" if i % 2 else "b")).get(timeout=WAIT_S)
            seen.append(weakref.ref(session))
        del session
    gc.collect()
    assert [reference for reference in seen if reference() is not None] == []


MOMENTS = {
    "before anything": lambda session, variable: None,
    "while its process starts": lambda session, variable: session.flush(),
    "while a model loads": lambda session, variable: (session.flush(), until(lambda: len(session.events), "the first event")),
    "while a step runs": lambda session, variable: (session.flush(), until(lambda: variable.state == "running", "the call")),
    "while its process stands still": lambda session, variable: (session.flush(), os.kill(pid_of(session), signal.SIGSTOP)),
    "after its process was killed": lambda session, variable: (session.flush(), os.kill(pid_of(session), signal.SIGKILL)),
}


@pytest.mark.usefixtures("nothing_stays")
@pytest.mark.parametrize("reach", MOMENTS.values(), ids=MOMENTS)
def test_a_session_is_closed(reach):
    session = P.Session(isolate=True, max_tokens=4)
    with session:
        variable = write(**ENDLESS)("a")
        reach(session, variable)
    assert variable.done()
    assert isinstance(variable.error, P.ParrotError)


@pytest.mark.usefixtures("nothing_stays")
def test_a_session_is_closed_by_several_threads_while_others_read():
    session = P.Session(isolate=True, max_tokens=4)
    session.__enter__()
    outcomes = []

    def read():
        try:
            write(**ENDLESS)("a").get(timeout=WAIT_S)
        except P.ParrotError as error:
            outcomes.append(error)

    def ask():
        try:
            while True:
                session.models()
                session.submit([])
        except P.ParrotError as error:
            outcomes.append(error)

    others = [threading.Thread(target=target) for target in (read, read, ask, ask)]
    for thread in others:
        thread.start()
    until(lambda: any(call.state == "running" for call in session.calls()), "a call")
    closers = [threading.Thread(target=session.close) for _ in range(3)]
    for thread in (*closers, *others):
        if thread in closers:
            thread.start()
    for thread in (*closers, *others):
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert len(outcomes) == 4
    session.__exit__(None, None, None)


EXITS = {
    "idle": "write()('a').get(timeout=WAIT_S)",
    "while its process starts": "write()('a'); session.flush()",
    "while a step runs": "v = write(ignore_eos=True, max_tokens=400)('a'); session.flush(); until(lambda: v.state == 'running', 'it')",
    "while a native function runs": "P.native_function(lambda: time.sleep(60))(); session.flush()",
    "while a thread reads": "threading.Thread(target=write(ignore_eos=True, max_tokens=400)('a').get, daemon=True).start()",
}


@pytest.mark.parametrize("code", EXITS.values(), ids=EXITS)
def test_a_program_ends_that_closes_nothing(code):
    program = script(f"session.models(); print(pid_of(session) if session.place.endswith(')') else 0, flush=True)\n{code}")
    pid = int(program.stdout.readline())
    _, err = program.communicate(timeout=WAIT_S)
    assert (program.returncode, err) == (0, "")
    assert not pid or not runs(pid)


def test_nothing_is_printed_where_nothing_is_closed_in_peace():
    assert done(script("write()('a'); session.flush(); session.close(); print(len(threading.enumerate()))")) == "1\n"
