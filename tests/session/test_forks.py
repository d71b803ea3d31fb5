"""A fork of a process with a session: the copy says at once that the session is not its own, and takes nothing from the parent."""

from __future__ import annotations

import sys

import pytest
from side import done, script

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CODE = """
endless = dict(ignore_eos=True, max_tokens=400, fresh=True)
known = write()("a")
value = known.get(timeout=WAIT_S)
running = write(**endless)("b")
session.flush()
until(lambda: running.state == "running", "the call")
pid = pid_of(session)
pipes = {name for fd in os.listdir(f"/proc/{pid}/fd") if (name := os.readlink(f"/proc/{pid}/fd/{fd}")).startswith("pipe:")}
ours = {fd: name for fd, name in descriptors().items() if name in pipes}
assert len(ours) == 3, ours

def refused(read):
    began = time.monotonic()
    try:
        read()
    except P.SessionError as error:
        assert str(error).startswith("The session belongs to the process that this one was forked from: make a new one"), error
        return
    raise AssertionError("it was not refused")

def in_child():
    faulthandler.dump_traceback_later(WAIT_S, exit=True)
    refused(lambda: running.get(timeout=WAIT_S))
    refused(lambda: write()("c"))
    assert session.models() == []
    assert running.state == "failed"
    assert known.get() == value
    assert not pipes & set(descriptors().values()), "it holds the parent's process up"
    with P.Session(isolate=True, max_tokens=4) as own:
        assert write()(known).get(timeout=WAIT_S)
        assert pid_of(own) != pid
    session.close()

def unharmed():
    assert {fd: name for fd, name in descriptors().items() if name in pipes} == ours
    assert (pid_of(session), runs(pid)) == (pid, True)
    assert running.get(timeout=WAIT_S)
    assert write()(known).get(timeout=WAIT_S)
    print("unharmed")
"""
FORKS = {
    "os.fork, exit": """
child = os.fork()
if child == 0:
    in_child()
    sys.exit(0)
assert os.waitpid(child, 0)[1] == 0
unharmed()
""",
    "os.fork, _exit": """
child = os.fork()
if child == 0:
    in_child()
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
unharmed()
""",
    "multiprocessing": """
child = multiprocessing.get_context("fork").Process(target=in_child)
child.start()
child.join(WAIT_S)
assert child.exitcode == 0
unharmed()
""",
}


@pytest.mark.parametrize("fork", FORKS.values(), ids=FORKS)
def test_a_fork_has_no_part_in_its_parent_s_session(fork):
    assert done(script(CODE + fork)) == "unharmed\n"


def test_forks_in_the_midst_of_much_that_is_heard_end():
    code = """
stopped = threading.Event()

def work():
    while not stopped.is_set():
        write(fresh=True).map(range(30)).get(timeout=WAIT_S)

workers = [threading.Thread(target=work) for _ in range(2)]
for worker in workers:
    worker.start()
for _ in range(30):
    mine = write(fresh=True).map(range(10))
    session.flush()
    child = os.fork()
    if child == 0:
        faulthandler.dump_traceback_later(WAIT_S, exit=True)
        for variable in mine:
            try:
                variable.get(timeout=WAIT_S)
            except P.SessionError:
                pass
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
    mine.get(timeout=WAIT_S)
stopped.set()
for worker in workers:
    worker.join()
print("ended")
"""
    assert done(script(code)) == "ended\n"


def test_a_fork_that_lives_on_holds_nothing_up():
    code = """
write()("a").get(timeout=WAIT_S)
pid = pid_of(session)
read, written = os.pipe()
child = os.fork()
if child == 0:
    os.close(written)
    os.read(read, 1)
    os._exit(0)
os.close(read)
began = time.monotonic()
session.close()
assert not runs(pid)
assert runs(child)
os.close(written)
assert os.waitpid(child, 0)[1] == 0
print("closed")
"""
    assert done(script(code)) == "closed\n"
