"""The process that is started before a session needs it: who takes it, and when it is not as it should be."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from side import WAIT_S, done, pid_of, runs, script, until, write

import parrot_nb as P
from parrot_nb.session import prepare, spare

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


@pytest.fixture(autouse=True)
def _none_waits():
    spare.dismiss()
    yield
    spare.dismiss()


def started() -> int:
    """The process that waits from now on, by its id. Not a fixture: pytest's own variable would tell the environments apart."""
    prepare()
    return spare._spare.pid


def test_the_next_session_takes_it():
    waiting = started()
    with P.Session(isolate=True, max_tokens=4) as session:
        assert write()("a").get(timeout=WAIT_S)
        assert pid_of(session) == waiting
        prepare()
        assert spare._spare is None, "a session of this process has a runtime"
    until(lambda: not runs(waiting), "its end")


def test_one_waits_however_often_it_is_asked_for_and_imports_torch():
    waiting = started()
    prepare()
    assert spare._spare.pid == waiting
    until(lambda: "libtorch" in Path(f"/proc/{waiting}/maps").read_text(), "the import of torch")
    spare.dismiss()
    until(lambda: not runs(waiting), "its end")


def test_it_is_left_where_the_environment_has_changed(monkeypatch):
    waiting = started()
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("PARROT_TEST", "changed")
    with P.Session(isolate=True, max_tokens=4) as session:
        session._connection.started()
        assert pid_of(session) != waiting
        environment = Path(f"/proc/{pid_of(session)}/environ")
        until(lambda: b"PARROT_TEST=changed" in environment.read_bytes(), "the start with the new environment")
    until(lambda: not runs(waiting), "its end")


def test_it_is_left_where_the_working_directory_has_changed(monkeypatch, tmp_path):
    started()
    monkeypatch.chdir(tmp_path)
    with P.Session(isolate=True, max_tokens=4) as session:
        session._connection.started()
        assert Path(f"/proc/{pid_of(session)}/cwd").readlink() == tmp_path


def test_one_that_has_ended_is_not_taken():
    waiting = started()
    os.kill(waiting, signal.SIGKILL)
    with P.Session(isolate=True, max_tokens=4) as session:
        until(lambda: not runs(waiting), "its end")
        session._connection.started()
        assert pid_of(session) != waiting


def test_it_ends_with_the_process_that_started_it():
    with script("from parrot_nb.session import prepare, spare\nprepare()\nprint(spare._spare.pid, flush=True)") as parent:
        waiting = int(parent.stdout.read())
    until(lambda: not runs(waiting), "its end")


def test_a_fork_has_no_part_in_it():
    code = """
from parrot_nb.session import prepare, spare
prepare()
waiting = spare._spare.pid
if (child := os.fork()) == 0:
    os._exit(0 if spare._spare is None else 1)
assert os.waitpid(child, 0)[1] == 0
assert write()("a").get(timeout=WAIT_S)
assert pid_of(session) == waiting
print("unharmed")
"""
    assert done(script(code)) == "unharmed\n"
