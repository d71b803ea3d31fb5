"""Results that survive: Restart and Run All generates nothing, and a map that was killed goes on where it was."""

from __future__ import annotations

import os
import signal
import time

from side import WAIT_S, done, pid_of, script, until, write

import parrot_nb as P
from parrot_nb.runtime.store_file import StoreFile

RUN = """
session.store.open({path!r})
step = write("Say {{{{input:x}}}}: {{{{output:y}}}}", max_tokens=12)
typed = write("Number {{{{input:x}}}}: {{{{output:n: int}}}}", logprobs=1)
told = [step("a"), step.options(temperature=1.0, seed=3)("b"), typed("c")]
print([v.get(timeout=WAIT_S) for v in told], told[2].logprobs, sum(v.usage.decoded_tokens for v in told))
session.close()
"""


def test_restart_and_run_all_generates_nothing(tmp_path):
    code = RUN.format(path=str(tmp_path / "results.db"))
    first, second = done(script(code)).rpartition(" "), done(script(code)).rpartition(" ")
    assert int(first[2]) > 0
    assert int(second[2]) == 0
    assert first[0] == second[0]


def test_a_killed_map_goes_on_where_it_was(tmp_path):
    path, items = tmp_path / "results.db", [str(i) for i in range(24)]
    step = write("Tell {{input:x}}: {{output:y}}", max_tokens=24, ignore_eos=True)
    with P.Session(isolate=True, store=path, off=("two_phase",)) as session:
        results = step.map(items)
        session.flush()
        until(lambda: sum(v.done() for v in results) >= 4, "the first results")
        ended_s = time.monotonic()
        num_done = sum(v.done() for v in results)
        until(lambda: time.monotonic() > ended_s + 1.0, "a second")  # what the last second wrote may be lost
        os.kill(pid_of(session), signal.SIGKILL)
        until(lambda: all(v.done() for v in results), "the end")
    file = StoreFile(path)
    num_stored = len(file)
    file.close()
    assert num_stored >= num_done
    with P.Session(store=path, off=("two_phase",)):
        again = step.map(items)
        again.get(timeout=WAIT_S)
        assert sum(v.usage.from_memo for v in again) == num_stored
