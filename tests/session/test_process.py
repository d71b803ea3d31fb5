"""The process that a runtime is in: whom it obeys, with whom it ends, what it prints, and what becomes of calls when it dies.

What a test does to a process it does from a script, which is a process of its own with a child.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import pytest
from side import WAIT_S, descriptors, pid_of, runs, script, until, write

import parrot_nb as P

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

ENDLESS = {"ignore_eos": True, "max_tokens": 400, "fresh": True}


@pytest.fixture(scope="module")
def opened():
    with P.Session(isolate=True, max_tokens=4) as session:
        yield session


@pytest.fixture
def session(opened):
    """The module's session; its process may be another after each test."""
    yield opened
    opened.reset()


def test_it_ignores_interrupts_from_its_first_moment_on(session):
    value = write()("a").get(timeout=WAIT_S)
    os.kill(pid_of(session), signal.SIGINT)
    again = write(fresh=True)("a")
    assert again.get(timeout=WAIT_S) == value
    with P.Session(isolate=True, max_tokens=4) as other:
        early = write()("a")
        other.flush()
        pid = pid_of(other)
        for _ in range(20):
            os.kill(pid, signal.SIGINT)
            time.sleep(0.005)
        assert early.get(timeout=WAIT_S) == value
        assert pid_of(other) == pid


ENDS = {
    "by falling off the end": "",
    "with an exception": "raise RuntimeError",
    "with os._exit": "os._exit(0)",
    "killed": "os.kill(os.getpid(), signal.SIGKILL)",
    "with a call that runs": "write(**dict(ignore_eos=True, max_tokens=400))('a'); session.flush(); os._exit(0)",
}


@pytest.mark.parametrize("how", ENDS.values(), ids=ENDS)
def test_it_ends_with_its_notebook(how):
    program = script(f"session.models(); write()('a'); session.flush(); print(pid_of(session), flush=True)\n{how}")
    pid = int(program.stdout.readline())
    program.communicate(timeout=WAIT_S)
    until(lambda: not runs(pid), "the end of its process")


def test_it_inherits_no_descriptor_and_takes_environment_and_folder_as_they_are(tmp_path, monkeypatch):
    read, written = os.pipe()
    os.set_inheritable(read, True)
    os.set_inheritable(written, True)
    pipe = Path(f"/proc/self/fd/{read}").readlink()
    monkeypatch.setenv("PARROT_TEST", "set after the package was imported")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "queue.py").write_text("raise ImportError('a file of the user stands for a module of Python')")
    with P.Session(isolate=True, max_tokens=4) as session:
        assert write()("a").get(timeout=WAIT_S)
        proc = Path(f"/proc/{pid_of(session)}")
        opened = [path.readlink() for path in (proc / "fd").iterdir()]
        assert pipe not in opened
        assert b"PARROT_TEST=set after the package was imported" in (proc / "environ").read_bytes().split(b"\0")
        assert (proc / "cwd").resolve() == tmp_path
    os.close(read)
    os.close(written)


LOUD = """
import ctypes, os, sys, threading, time

def shout():
    libc = ctypes.CDLL(None)
    while True:
        print("from Python", flush=True)
        os.write(1, b"from a descriptor\\n")
        libc.puts(b"from C")
        libc.fflush(None)
        sys.__stdout__.write("from the first stream\\n")
        sys.__stdout__.flush()
        os.write(2, b"\\r50 %\\r99 %\\n\\xff\\xfe\\n")
        time.sleep(0.001)

if "parrot_nb.runtime" in " ".join(sys.orig_argv):
    os.write(1, b"before anything else\\n" * 100)
    threading.Thread(target=shout, daemon=True).start()
"""


def test_what_is_printed_inside_breaks_no_message_and_is_told_at_its_end(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(LOUD)  # printed as any library may, from the first line that it runs
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    with P.Session(isolate=True, max_tokens=4) as session:
        assert len(write(fresh=True).map(range(100)).get(timeout=WAIT_S)) == 100
        running = write(**ENDLESS)("a")
        session.flush()
        os.kill(pid_of(session), signal.SIGSEGV)
        with pytest.raises(P.EngineLostError, match="SIGSEGV") as told:
            running.get(timeout=WAIT_S)
    message = str(told.value)
    assert "Its last lines: " in message
    assert "from C" in message
    assert "99 %" in message
    assert "50 %" not in message
    assert len(message) < 10_000


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV, signal.SIGABRT], ids=lambda number: number.name)
def test_its_death_fails_what_ran_and_nothing_else(session, number):
    known = write()("a")
    value, behind_it = known.get(timeout=WAIT_S), write()(known).get(timeout=WAIT_S)
    thing = object()
    made = P.native_function(lambda: thing)()
    assert made.get(timeout=WAIT_S) is thing
    running = write(**ENDLESS)("a")
    behind = write()(running)
    session.flush()
    until(lambda: running.state == "running", "the call")
    pid = pid_of(session)
    os.kill(pid, number)
    with pytest.raises(P.EngineLostError, match=f"ended by {number.name}: make the call again") as told:
        running.get(timeout=WAIT_S)
    assert "\n" not in str(told.value)
    with pytest.raises(P.ParrotError):
        behind.get(timeout=WAIT_S)
    assert (known.get(), known.state, made.get()) == (value, "done", thing)
    assert {call.state for call in session.calls()} == {"done", "failed"}, "the graph stays"
    same = P.native_function(lambda x, y: (x, y))(made, known)
    again = write()(known)
    assert same.get(timeout=WAIT_S) == (thing, value)
    assert again.get(timeout=WAIT_S) == behind_it, "as before: token ids cross, not text"
    lost = write()(running)
    with pytest.raises(P.UpstreamError):
        lost.get(timeout=WAIT_S)
    assert lost.error.__cause__ is running.error
    assert pid_of(session) != pid


def waits(thread: threading.Thread) -> bool:
    """Whether a thread waits for an answer."""
    frame = sys._current_frames().get(thread.ident)
    while frame is not None and frame.f_code.co_name != "wait_for":
        frame = frame.f_back
    return frame is not None


def test_its_death_answers_questions_and_ends_native_calls(session):
    started, released = threading.Event(), threading.Event()

    @P.native_function
    def slow():
        started.set()
        released.wait(WAIT_S)

    waiting = slow()
    session.flush()
    assert started.wait(WAIT_S)
    os.kill(pid_of(session), signal.SIGSTOP)
    answers = []
    asking = threading.Thread(target=lambda: answers.append((session.models(), session.idle)))
    asking.start()
    until(lambda: waits(asking), "the question")
    os.kill(pid_of(session), signal.SIGKILL)
    asking.join(WAIT_S)
    assert answers == [([], True)], "nothing is loaded, nothing runs"
    with pytest.raises(P.EngineLostError):
        waiting.get(timeout=WAIT_S)
    released.set()
    assert write()("a").get(timeout=WAIT_S)


def test_a_reset_after_its_death_forgets_too(session):
    running = write(**ENDLESS)("a")
    session.flush()
    os.kill(pid_of(session), signal.SIGKILL)
    with pytest.raises(P.EngineLostError):
        running.get(timeout=WAIT_S)
    until(lambda: session.place.endswith("not started yet"), "its end")
    assert session.calls()
    session.reset()
    assert session.calls() == []


def test_calls_that_follow_at_once_are_not_lost(session):
    for i in range(5):
        running = write(**ENDLESS)(i)
        session.flush()
        session.models()
        os.kill(pid_of(session), signal.SIGKILL)
        after = [write()(f"{i} {j}") for j in range(20)]
        for variable in (running, *after):
            try:
                variable.get(timeout=WAIT_S)
            except P.EngineLostError:
                assert "SIGKILL" in str(variable.error)
        assert running.state == "failed"


def test_twenty_kills_at_random_moments_leave_nothing(session):
    write()("a").get(timeout=WAIT_S)
    chance = random.Random(5)
    before = threading.active_count()
    for i in range(20):
        variables = [*write(fresh=True).map(range(4)), write()(write(**ENDLESS)(i))]
        session.flush()
        pid = pid_of(session)
        time.sleep(chance.choice([0, 0.01, 0.1, 0.5]) * chance.random())
        os.kill(pid, signal.SIGKILL)
        for variable in variables:
            with contextlib.suppress(P.EngineLostError, P.UpstreamError):
                variable.get(timeout=WAIT_S)
        assert not runs(pid)
    assert threading.active_count() <= before
    assert write()("after").get(timeout=WAIT_S)


def test_twenty_kills_of_the_notebook_at_random_moments_leave_nothing():
    chance = random.Random(6)
    code = (
        "write(fresh=True).map(range(9)); session.flush(); print(pid_of(session), flush=True); session.models(); time.sleep(60)"
    )
    programs = []
    for _ in range(4):
        programs += [script(code) for _ in range(5)]
        for program in programs[-5:]:
            pid = int(program.stdout.readline())
            time.sleep(chance.random() * 0.5)
            program.kill()
            program.communicate(timeout=WAIT_S)
            until(lambda pid=pid: not runs(pid), "the end of its process")


def test_descriptors_do_not_grow_with_processes(session):
    write()("a").get(timeout=WAIT_S)
    before = descriptors()
    for _ in range(3):
        os.kill(pid_of(session), signal.SIGKILL)
        until(lambda: session.place.endswith("not started yet"), "its end")
        write()("a").get(timeout=WAIT_S)
    assert len(descriptors()) == len(before)
