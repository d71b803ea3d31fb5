"""Faults in random order: after each run every read is answered, every page is free, and the session is usable.

`PARROT_FAULT_RUNS` says how many runs there are in the short tests; `-m minutes` has a thousand.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest
from hash_engine import HashEngine
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule, run_state_machine_as_test
from shorthand import WAIT_S, f, text_of, until
from wrongdoers import RAISED, VALUES, Panic

import parrot_nb as P

NUM_RUNS = int(os.environ.get("PARROT_FAULT_RUNS", "40"))
READ_S = 0.02

NUMBERS = st.integers(0, 1_000_000)
KINDS = st.sampled_from(["plain", "async"])
DEEDS = st.sampled_from(["raise", "return", "text", "wait", "read", "read a little", "hand on"])


class LosingEngine(HashEngine):
    """Is lost at a prompt that says "LOST", as often as one comes."""

    async def generate(self, context: int, sampling: Any, **settings: Any) -> Any:
        async for piece in super().generate(context, sampling, **settings):
            if b"LOST" in bytes(self.contexts.get(context, ())):
                raise P.EngineLostError("The engine was told to be lost.")
            yield piece
        if self.closed:
            raise P.EngineLostError("The engine was lost meanwhile.")


class Faults(RuleBasedStateMachine):
    """One session, or one after the other, and all variables that were made of it."""

    isolate = False
    answer_s = WAIT_S  # for which a read may last

    @initialize()
    def begin(self) -> None:
        self.threads_before = set(threading.enumerate())
        self.engines: list[LosingEngine] = []
        self.over = False
        self.gates: list[threading.Event] = []
        self.setters: list[threading.Thread] = []
        self.empty: list[P.SemanticVariable] = []
        self.variables: list[P.SemanticVariable] = []
        self.open()

    def open(self) -> None:
        """A session, which is entered."""
        self.session = P.Session(loader=self.load, model="hash", max_tokens=6).__enter__()

    def load(self, model: str, on_step: object) -> LosingEngine:
        engine = LosingEngine(model)
        self.engines.append(engine)
        if self.over:
            engine.release.set()
        return engine

    def some(self, number: int) -> P.SemanticVariable:
        """One of the variables; the first is made."""
        if not self.variables:
            self.variables.append(P.variable("first", value="first"))
        return self.variables[number % len(self.variables)]

    def make(self, variable: P.SemanticVariable) -> None:
        self.variables.append(variable)

    def submittable(self, variable: P.SemanticVariable) -> Any:
        """The variable, or a text in its place where a session that was reset or closed made it."""
        producer = variable.producer
        return variable if producer is None or variable.done() or self.session._handles.knows(producer) else "in its place"

    # Calls

    @rule(text=st.sampled_from(["Say", "FAIL", "LOST", "HANG"]), number=NUMBERS)
    def call_model(self, text: str, number: int) -> None:
        self.make(f(f"{text} {number % 7} {{{{input:x}}}} {{{{output:y}}}}")(self.submittable(self.some(number))))

    @rule(deed=DEEDS, kind=KINDS, error=st.sampled_from(sorted(RAISED)), value=st.sampled_from(sorted(VALUES)), number=NUMBERS)
    def call_function(self, deed: str, kind: str, error: str, value: str, number: int) -> None:
        """Functions have one name: each of them defines it anew."""
        gate = threading.Event()
        self.gates.append(gate)
        plain, coroutine = self.bodies(deed, RAISED[error], VALUES[value], gate, number)
        body = coroutine if kind == "async" else plain
        self.make(P.NativeFunction(body, name="function")(self.submittable(self.some(number // 2))))

    def bodies(
        self, deed: str, error: Callable[[], BaseException], value: Callable[[], Any], gate: threading.Event, number: int
    ) -> tuple[Any, Any]:
        """A deed as a plain function and as an async one. What they read may have been made after them."""

        def plain(_: object) -> Any:
            match deed:
                case "raise":
                    raise error()
                case "return":
                    return value()
                case "wait":
                    gate.wait()
                case "read":
                    return self.some(number).get()
                case "read a little":
                    return self.some(number).get(timeout=READ_S)
                case "hand on":
                    return self.some(number)
            return "text"

        async def coroutine(x: object) -> Any:
            match deed:
                case "wait":
                    await asyncio.to_thread(gate.wait)
                case "read":
                    return await self.some(number)
                case "read a little":
                    return await asyncio.wait_for(self.some(number).aget(), READ_S)
            return plain(x)

        return plain, coroutine

    @rule(
        error=st.sampled_from(sorted(RAISED)),
        answers=st.sampled_from(["raise", "no", "yes", "never"]),
        kind=KINDS,
        number=NUMBERS,
    )
    def choose(self, error: str, answers: str, kind: str, number: int) -> None:
        gate = threading.Event()
        self.gates.append(gate)

        def plain(_: object) -> Any:
            if answers == "raise":
                raise RAISED[error]
            return answers == "yes"

        def never(_: object) -> Any:
            gate.wait()

        async def coroutine(x: object) -> Any:
            return plain(x)

        where = never if answers == "never" else coroutine if kind == "async" else plain
        sources = [self.submittable(self.some(number + i)) for i in range(2)]
        sources = [source for source in sources if isinstance(source, P.SemanticVariable)]
        with contextlib.suppress(P.SessionError):  # it belongs to the session of the first, which may be closed
            self.make(P.first(*sources, where=where) if sources else self.some(number))

    @rule(number=NUMBERS)
    def join(self, number: int) -> None:
        source = self.submittable(self.some(number))
        if isinstance(source, P.SemanticVariable):
            with contextlib.suppress(P.SessionError):  # when it is used: as P.first
                joined = "(" + source + ")"
                joined.submit()
                self.make(joined)

    # Variables that users set

    @rule()
    def make_empty(self) -> None:
        self.empty.append(P.variable("empty"))
        self.make(self.empty[-1])

    @rule()
    def set_from_a_thread(self) -> None:
        if self.empty:
            self.setters.append(threading.Thread(target=self.empty.pop().set, args=("set",)))
            self.setters[-1].start()

    # Reads

    @rule(number=NUMBERS)
    def read(self, number: int) -> None:
        self.outcome(self.some(number), READ_S)

    @rule(number=NUMBERS)
    def interrupt_a_reader(self, number: int) -> None:
        struck = False

        def strike(_number: int, _frame: object) -> None:
            nonlocal struck
            struck = True
            raise KeyboardInterrupt  # Python ignores it where a weak reference's callback runs

        before = signal.signal(signal.SIGINT, strike)
        try:
            threading.Timer(READ_S / 2, os.kill, (os.getpid(), signal.SIGINT)).start()
            self.outcome(self.some(number), READ_S)
            until(lambda: struck, "the interrupt")
        except KeyboardInterrupt:
            assert struck
        finally:
            signal.signal(signal.SIGINT, before)

    @staticmethod
    def outcome(variable: P.SemanticVariable, timeout_s: float) -> str:
        """How a read ends."""
        try:
            variable.get(timeout=timeout_s)
        except P.GetTimeoutError:  # or that of a function which has waited in vain
            return "error" if variable.done() else "timeout"
        except P.ParrotError:
            return "error"
        return "value"

    # Ends

    @rule(number=NUMBERS)
    def cancel(self, number: int) -> None:
        self.some(number).cancel()

    @rule()
    def cancel_all(self) -> None:
        self.session.cancel()

    @rule()
    def reset(self) -> None:
        self.session.reset()

    @rule(number=NUMBERS)
    def drop(self, number: int) -> None:
        variable = self.some(number)
        if variable not in self.empty and len(self.variables) > 1:
            self.variables.remove(variable)

    @rule()
    def listen_badly(self) -> None:
        def listener() -> None:
            raise Panic("in a listener")

        self.session.events.subscribe(listener)
        self.some(0).node.subscribe(listener)

    @rule()
    def close(self) -> None:
        made = [variable for variable in self.variables if variable.producer is not None and variable.producer.submitted]
        self.session.__exit__(None, None, None)
        assert all(variable.done() for variable in made)
        self.open()

    def teardown(self) -> None:
        """Every read is answered, once there is nothing that nobody sets or lets go on."""
        if not hasattr(self, "session"):
            return
        try:
            for gate in self.gates:
                gate.set()
            for variable in self.empty:
                variable.set("late")
            for setter in self.setters:
                setter.join(WAIT_S)
            self.let_engines_go_on()
            outcomes = {variable: self.outcome(variable, self.answer_s) for variable in self.variables if self.belongs(variable)}
            assert "timeout" not in outcomes.values(), [v for v, how in outcomes.items() if how == "timeout"]
            self.session.flush()
            until(lambda: self.session.idle, "the end of what was dropped")  # it may lose an engine yet
            self.check_usable()
            self.session.reset()
            self.check_usable()
        finally:
            self.session.__exit__(None, None, None)
        for thread in self.threads():
            thread.join(WAIT_S)
        assert self.threads() == []

    def belongs(self, variable: P.SemanticVariable) -> bool:
        """Whether it can be read: a join that nothing used before its session ended cannot."""
        return variable.done() or variable.producer is None or variable.producer.submitted

    def threads(self) -> list[threading.Thread]:
        """Those of ours that run; Python lists others for ever, whose start was interrupted."""
        return [
            t for t in threading.enumerate() if t.name.startswith("parrot-") and t.is_alive() and t not in self.threads_before
        ]

    def let_engines_go_on(self) -> None:
        self.over = True
        for engine in self.engines:
            self.session._connection.started()._loop.post(engine.release.set)

    def check_usable(self) -> None:
        until(lambda: not any(engine.contexts for engine in self.engines), "freeing all contexts")
        assert f("Say {{output:y}}", fresh=True)().get(timeout=WAIT_S) == text_of("Say ", 6)
        assert P.NativeFunction(lambda: "plain")().get(timeout=WAIT_S) == "plain"


class FaultsOnPages(Faults):
    """The same on an engine that computes, whose pages are counted."""

    answer_s = 4 * WAIT_S  # a model is loaded anew, on a machine that may be busy

    def open(self) -> None:
        self.session = P.Session(isolate=self.isolate, device="cpu", kv_memory="8MB", max_tokens=6).__enter__()

    def check_usable(self) -> None:
        until(
            lambda: self.outcome(f("Say {{output:y}}", fresh=True)(), self.answer_s) == "value", "a text"
        )  # a kill may strike once more
        until(lambda: all(load.owned_pages == 0 for load in self.session.loads().values()), "freeing all pages")
        assert P.NativeFunction(lambda: "plain")().get(timeout=WAIT_S) == "plain"


class FaultsApart(FaultsOnPages):
    """The same beside a runtime in a process, which is killed now and then."""

    isolate = True

    @rule()
    def kill(self) -> None:
        link = self.session._connection.link
        if link is not None and link.pid is not None:
            os.kill(link.pid, signal.SIGKILL)


CHECKS = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]


def run(faults: type[Faults], num_runs: int, num_steps: int, caplog: pytest.LogCaptureFixture) -> None:
    """Try so many random orders of so many faults."""
    caplog.set_level(logging.CRITICAL, "parrot_nb")  # listeners raise again and again
    run_state_machine_as_test(
        faults,
        settings=settings(max_examples=num_runs, stateful_step_count=num_steps, deadline=None, suppress_health_check=CHECKS),
    )


def test_faults_in_random_order_leave_a_session_usable(caplog):
    run(Faults, NUM_RUNS, 20, caplog)


@pytest.mark.slow
def test_faults_in_random_order_beside_a_process_that_is_killed(caplog):
    run(FaultsApart, max(3, NUM_RUNS // 20), 12, caplog)


@pytest.mark.minutes
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(("faults", "num_runs"), [(Faults, 800), (FaultsOnPages, 170), (FaultsApart, 30)])
def test_a_thousand_orders_of_faults(faults, num_runs, caplog):
    run(faults, num_runs, 20, caplog)
