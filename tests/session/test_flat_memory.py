"""What ended and nobody holds is forgotten, on both sides of a session.

Twenty seconds by default; `make soak` runs ten minutes of it, and `python tests/session/soak.py` 200,000 calls.
"""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections import Counter
from pathlib import Path

import pytest
from soak import Work, ends_without_value, lengths, look, native_threads

import parrot_nb as P

HERE = Path(__file__).parent
SOAK_S = float(os.environ.get("PARROT_SOAK_S", "20"))
RUNTIMES = ("parrot_nb.graph.", "parrot_nb.runtime.", "parrot_nb.session.outgoing.")
KEPT = ("parrot_nb.runtime.events.EventLog", "parrot_nb.runtime.events.CallAdded")  # the log has a length of its own

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory and threads from /proc")


@pytest.fixture
def others():
    """Threads of tests before, whose functions never end."""
    return native_threads()


@pytest.fixture
def session(others):
    with P.Session(isolate=False, device="cpu", kv_memory="16MB") as session:
        yield session


def of_runtime(found: Counter[str]) -> Counter[str]:
    return Counter({name: size for name, size in found.items() if name.startswith(RUNTIMES) and name not in KEPT})


@pytest.mark.slow
@pytest.mark.timeout(int(SOAK_S) + 300)
@pytest.mark.parametrize("isolate", ["yes", "no"])
def test_many_calls_leave_nothing_behind(isolate):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, str(HERE / "soak.py"), "--isolate", isolate, "--seconds", str(SOAK_S / 2), "--calls", str(10**9)],
        env=env, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *_, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert last["calls"] >= 2 * first["calls"] - 200
    sides = ("notebook", "runtime") if isolate == "yes" else ("notebook",)
    for side in sides:
        assert last[side]["mb"] - first[side]["mb"] < 50, f"{side}: {first} became {last}"
        assert last[side]["threads"] <= first[side]["threads"], f"{side}: {first} became {last}"
        assert last[side]["descriptors"] <= first[side]["descriptors"], f"{side}: {first} became {last}"


def test_the_runtime_keeps_nothing_of_calls_that_ended(session, others):
    work = Work(session, seed=1)
    for _ in range(2):
        work.round()
    look(session, 0, others)
    found = []
    for _ in range(3):  # what keeps something of every call grows each time; a call that still ends somewhere, once
        before = of_runtime(lengths())
        for _ in range(8):
            work.round()
        look(session, 0, others)
        found.append(of_runtime(lengths()) - before)
        if sum(found[-1].values()) < 40:
            break
    assert sum(found[-1].values()) < 40, f"grown by {found}"


def test_a_variable_at_the_end_of_a_chain_does_not_hold_the_chain(session):
    @P.native_function
    def follow(text):
        return text + "."

    tip = follow("begin")
    for _ in range(6):
        for _ in range(600):
            tip = follow(tip)
        tip.get(timeout=60)
    length, call = 0, tip.producer
    while call is not None:
        length += 1
        call = next((node.producer for node in call.inputs.values()), None)
    assert length < 3_000, "of 3,601 calls the session keeps the last 2,000 or so"


def test_a_result_that_comes_while_its_call_is_cancelled_is_let_go(session, others):
    begun, ends, goes_on = threading.Event(), threading.Event(), threading.Event()

    @P.native_function
    def give(text):
        begun.set()
        ends.wait(60)
        return Result()

    given = give("now")
    session.flush()
    assert begun.wait(60)
    session._connection.link._loop.post(goes_on.wait)  # the runtime hears of the cancelling and of the result at once
    given.cancel()
    ends.set()
    while native_threads() - others:
        time.sleep(0.01)
    goes_on.set()
    ends_without_value(given)
    assert given.state == "cancelled"
    look(session, 0, others)
    assert not [thing for thing in gc.get_objects() if type(thing) is Result]


class Result:
    """What a user's function returns, and nobody takes."""
