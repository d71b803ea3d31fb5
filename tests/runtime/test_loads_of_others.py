"""A load that fails when nobody waits for it any more takes no call of another model with it."""

from __future__ import annotations

import gc
import threading

from hash_engine import HashEngine
from shorthand import WAIT_S, f, until

import parrot_nb as P


def test_a_load_that_fails_after_its_only_call_was_cancelled_is_nobody_else_s():
    begun, goes_on, ended = threading.Event(), threading.Event(), threading.Event()

    def load(model, on_step):
        if model != "broken":
            return HashEngine(model)
        begun.set()
        assert goes_on.wait(WAIT_S)
        try:
            raise P.ModelLoadError("There is no such model.")
        finally:
            ended.set()

    with P.Session(model="hash", loader=load, isolate=False, max_tokens=4) as session:
        others = f("HANG {{output:y}}")()
        session.read([others.node], P.LATENCY)
        broken = f("{{output:y}}").options(model="broken")()
        session.read([broken.node], P.LATENCY)
        assert begun.wait(WAIT_S)
        session.cancel([broken.node])
        until(broken.done, "the call to be cancelled")
        goes_on.set()
        assert ended.wait(WAIT_S)
        gc.collect()
        after = f("after {{output:y}}")()
        assert after.get(timeout=WAIT_S)
        assert others.state == "running", "the failure of a load has ended a call of another model"
        session.cancel()
