"""An engine whose device does not finish a step: its calls move or fail, nothing waits for it, and nothing is loaded beside it."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import textwrap
import threading
import time
from dataclasses import replace

import pytest
from checkpoints import PRIORITY, all_pages_free, reference, write

import parrot_nb as P
from parrot_nb.engine.embedded import engine as engine_module
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import EngineError, EngineLostError, ModelLoadError

WAIT_S = 30
TIMEOUT_S = 2.0  # no step of a model this small takes so long, whatever else the machine does
CLOSE_S, BREAK_S = 1.0, 0.5  # as in the engine, and shorter for the tests' sake; of processes it is the engine's own
OWN_CLOSE_S, OWN_BREAK_S = engine_module.CLOSE_S, engine_module.BREAK_S
BUSY_S = 3.0  # what a busy machine may take besides
SOON_S = CLOSE_S + BREAK_S + BUSY_S  # what is waited for at most when something is closed


@pytest.fixture(autouse=True)
def times(monkeypatch):
    monkeypatch.setattr(engine_module, "CLOSE_S", CLOSE_S)
    monkeypatch.setattr(engine_module, "BREAK_S", BREAK_S)


class Stuck:
    """Steps that a device does not finish until it is told to, or so many seconds have passed."""

    def __init__(self, engine, from_step: int, seconds: float | None = None) -> None:
        self.begun, self.released, self._seconds = threading.Event(), threading.Event(), seconds
        self._step, self._left = engine._model.step, from_step
        engine._model.step = self

    def from_now_on(self) -> None:
        """The next step is the first that is not finished."""
        self._left = 0

    def __call__(self, batch):
        self._left -= 1
        if self._left < 0:
            self.begun.set()
            self.released.wait(self._seconds)
        return self._step(batch)


class Machines(P.Session):
    """A session whose first engine gets stuck in its `stuck_from`-th step.

    Attributes:
        made: its engines.
        beside: how many of them held weights already when each was made.
    """

    def __init__(self, folder, stuck_from: int, seconds: float | None = None, timeout_s: float = TIMEOUT_S, **settings) -> None:
        self.made, self.beside, self.stuck = [], [], None

        def make(model, on_step):
            self.beside.append(sum(engine._model._decoder is not None for engine in self.made))
            engine = load_engine(folder, step_timeout=timeout_s, kv_memory="1MB", on_step=on_step)
            self.made.append(engine)
            if self.stuck is None:
                self.stuck = Stuck(engine, stuck_from, seconds)
            return engine

        super().__init__(model=str(folder), loader=make, **settings)

    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
        self.stuck.released.set()  # only now: leaving must not need it


ask = P.SemanticFunction("{{input:x}}{{output:y}}", name="ask").options(max_tokens=12, ignore_eos=True)


def test_calls_that_wrote_nothing_move_to_another_engine(checkpoints):
    folder = checkpoints("llama")
    texts = ["one", "two", "three", "four"]
    with P.Session(model=str(folder)):
        expected = ask.map(texts).get(timeout=WAIT_S)
    with Machines(folder, stuck_from=0, engines=2, policy="fifo") as session:  # which spreads them
        assert ask.map(texts).get(timeout=WAIT_S) == expected
        assert len(session.made) == 2
        assert sorted(call.engine for call in session.calls()) == [session.made[1].name] * 4
        assert ask.options(fresh=True).map(texts).get(timeout=WAIT_S) == expected, "who is stuck gets no calls"
        assert len(session.made) == 2
        assert all(load.owned_pages == 0 for load in session.loads().values())


def test_without_another_engine_they_fail_and_the_model_is_loaded_anew_when_the_step_has_ended(checkpoints):
    folder = checkpoints("llama")
    with P.Session(model=str(folder)):
        expected = ask("one").get(timeout=WAIT_S)
    with Machines(folder, stuck_from=0) as session:
        for call in ask.map(["one", "two"]):
            with pytest.raises(EngineLostError, match=r"has not ended in 2 s.*step_timeout=\.\.\.\) waits longer; call again"):
                call.get(timeout=WAIT_S)
        for within_s in (SOON_S, CLOSE_S):  # once it is known that it is stuck, at once
            begun_s = time.monotonic()
            with pytest.raises(EngineLostError, match=r"still runs.*keeps the memory.*restart the kernel, or choose another"):
                ask("one").get(timeout=WAIT_S)
            assert time.monotonic() - begun_s < within_s
        assert len(session.made) == 1
        session.stuck.released.set()
        until_free(session.made[0])
        assert ask("one").get(timeout=WAIT_S) == expected
        assert session.beside == [0, 0]


def test_a_step_that_is_merely_slow_is_broken_off_so_that_the_next_call_finds_its_memory_free(checkpoints):
    folder = checkpoints("llama")
    with Machines(folder, stuck_from=1000) as session:
        assert len(ask("one").get(timeout=WAIT_S)) > 0
        session.made[0]._model.step = slow
        with pytest.raises(EngineLostError, match="has not ended in 2 s"):
            ask("two").get(timeout=WAIT_S)
        assert len(ask("three").get(timeout=WAIT_S)) > 0
        assert session.beside == [0, 0]


def slow(batch):
    """A step on a processor: many short operations."""
    while True:
        time.sleep(0.01)


def test_a_call_whose_text_is_out_fails_and_says_what_to_do(checkpoints):
    folder = checkpoints("llama")
    with Machines(folder, stuck_from=5, engines=2) as session:
        call = ask("one")
        with pytest.raises(EngineLostError, match=r"not ended in 2 s.*step_timeout"):
            call.get(timeout=WAIT_S)
        assert len(ask("two").get(timeout=WAIT_S)) > 0
        assert len(session.made) == 2


def until_free(engine) -> None:
    """Wait until a stuck step that was released has ended."""
    end_s = time.monotonic() + WAIT_S
    while engine.load().stuck:
        assert time.monotonic() < end_s
        time.sleep(0.01)
    assert engine._model._decoder is None, "its weights go with its last step"


def test_a_call_that_waited_for_an_input_meanwhile_fails_too(checkpoints):
    """Between its two outputs a call has a context and no generation that could be told."""
    two = P.SemanticFunction("{{input:a}}{{output:b}}{{input:x}}{{output:c}}", name="two").options(max_tokens=4, ignore_eos=True)
    with Machines(checkpoints("llama"), stuck_from=1000) as session:
        late = P.variable(name="late")
        first, second = two("one", late)
        assert len(first.get(timeout=WAIT_S)) > 0
        session.stuck.from_now_on()
        with pytest.raises(EngineLostError):
            ask("other").get(timeout=WAIT_S)
        late.set("at last")
        with pytest.raises(EngineLostError, match="not ended in 2 s"):
            second.get(timeout=WAIT_S)


def test_a_slow_step_is_no_stall(checkpoints):
    folder = checkpoints("llama")
    with Machines(folder, stuck_from=10, seconds=TIMEOUT_S / 6) as session:
        assert len(ask("one").get(timeout=WAIT_S)) > 0
        assert len(session.made) == 1


def test_a_call_that_moved_writes_what_generate_does(checkpoints):
    folder = checkpoints("llama")
    engine = load_engine(folder)
    prompt = engine.codec.encode("one", first=True)
    expected = [token for token in reference(folder, [*engine.codec.opening_ids, *prompt], 12) if token < 256]
    with Machines(folder, stuck_from=0, engines=2):
        assert ask("one").get(timeout=WAIT_S) == engine.codec.decode(expected)


# Closing


async def started(engine, prompt) -> tuple[int, asyncio.Task]:
    """A context on which somebody generates."""
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    return context, asyncio.create_task(write(engine, context, Sampling(12, ignore_eos=True)))


@pytest.mark.parametrize("how", ["stuck", "slow", "soon over"])
def test_closing_tells_readers_at_once_and_waits_a_little_for_a_step(checkpoints, how):
    async def main():
        engine = load_engine(checkpoints("llama"), kv_memory="1MB")
        if how == "slow":
            engine._model.step = slow
        stuck = Stuck(engine, 0, {"stuck": None, "slow": 0, "soon over": CLOSE_S / 4}[how])
        context, writing = await started(engine, [1, 2, 3])
        await asyncio.to_thread(stuck.begun.wait, WAIT_S)
        begun_s = time.monotonic()
        closing = asyncio.create_task(engine.close())
        with pytest.raises(EngineError, match="was closed"):
            await writing
        assert time.monotonic() - begun_s < CLOSE_S / 5
        await closing
        assert time.monotonic() - begun_s < (CLOSE_S if how == "soon over" else SOON_S)
        assert engine.load().stuck is (how == "stuck")
        with pytest.raises(EngineError, match="was closed"):
            engine.fill(context, [4])
        engine.free(context)
        assert all_pages_free(engine)
        stuck.released.set()
        await engine.close()
        assert not engine.load().stuck
        assert engine._model._decoder is None

    asyncio.run(main())


def test_a_step_that_is_stuck_keeps_nothing_else_open(checkpoints):
    with Machines(checkpoints("llama"), stuck_from=1000, timeout_s=300, engines=2, policy="fifo") as session:
        ask.map(["one", "two"]).get(timeout=WAIT_S)
        assert len(session.made) == 2
        session.stuck.from_now_on()
        with pytest.raises(P.GetTimeoutError):
            ask.map(["three", "four"]).get(timeout=0.5)
        assert session.stuck.begun.is_set()
        begun_s = time.monotonic()
    assert time.monotonic() - begun_s < SOON_S
    assert [engine._closed for engine in session.made] == [True, True]
    assert session.made[1]._model._decoder is None
    assert session._connection.link is None


def test_another_model_is_not_loaded_beside_a_step_that_is_stuck_but_on_another_device(checkpoints):
    folder = str(checkpoints("llama"))
    with Machines(folder, stuck_from=0, timeout_s=300) as session:
        call = ask("one")
        with pytest.raises(P.GetTimeoutError):
            call.get(timeout=0.5)
        session.cancel()
        with pytest.raises(P.CallCancelledError):
            call.get(timeout=WAIT_S)
        begun_s = time.monotonic()
        message = "still runs though its engine was given up, and keeps the memory that is needed here: .*another --device"
        with pytest.raises(EngineLostError, match=message):
            session.load_model("another")
        assert time.monotonic() - begun_s < SOON_S
        with pytest.raises(EngineLostError, match=message):
            session.load_model(folder, device="cpu")
        with pytest.raises(EngineLostError, match=message):
            ask("two").get(timeout=WAIT_S)
        assert len(session.made) == 1
        session.made[0].model = replace(session.made[0].model, device="cuda:0")
        session.load_model(folder, device="cpu")
        assert len(ask("two").get(timeout=WAIT_S)) > 0
        with pytest.raises(EngineLostError, match=message):
            session.load_model(folder, device="cuda")
        session.stuck.released.set()
        until_free(session.made[0])
        session.load_model(folder, device="cuda")
        assert len(ask("three").get(timeout=WAIT_S)) > 0


SCRIPT = """
    import threading, time, torch
    import parrot_nb as P
    from parrot_nb.engine.embedded import load_engine

    def computing(batch):  # as a step of a large model: in torch, without the interpreter
        rows = torch.ones(2500, 2500)  # some seconds a call: it comes back while Python ends
        while True:
            torch.linalg.multi_dot([rows] * 20)

    def make(model, on_step):
        engine = load_engine(model, step_timeout={timeout_s}, kv_memory="1MB", on_step=on_step)
        engine._model.step = {step}
        return engine

    with P.Session(model={folder!r}, loader=make, max_tokens=3):
        try:
            P.SemanticFunction("{{{{input:x}}}}{{{{output:y}}}}", name="ask")("a").get(timeout={get_s})
        except P.ParrotError as error:
            print(type(error).__name__)
        begun_s = time.monotonic()
    print(time.monotonic() - begun_s < {soon_s})
"""
FOR_EVER = "lambda batch: threading.Event().wait()"


@pytest.mark.parametrize(
    ("step", "timeout_s", "get_s", "said"),
    [
        (FOR_EVER, 0.5, None, "EngineLostError"),
        (FOR_EVER, 300, 0.5, "GetTimeoutError"),
        ("computing", 300, 0.5, "GetTimeoutError"),
    ],
    ids=["given up", "waits", "computes"],
)
def test_a_process_ends_though_a_step_never_does(checkpoints, step, timeout_s, get_s, said):
    soon_s = OWN_CLOSE_S + OWN_BREAK_S + BUSY_S
    script = SCRIPT.format(folder=str(checkpoints("llama")), step=step, timeout_s=timeout_s, get_s=get_s, soon_s=soon_s)
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=2 * WAIT_S, check=False
    )
    assert (done.returncode, done.stdout) == (0, f"{said}\nTrue\n"), done.stderr
    assert not done.stderr.strip(), done.stderr


@pytest.mark.parametrize("seconds", [0, -1, float("nan"), None, "5m", "60", True, [1]])
def test_the_time_must_be_some(checkpoints, seconds):
    message = r"^step_timeout must be seconds, more than 0 \(.*\), not .*\.$"
    with pytest.raises(ModelLoadError, match=message):
        load_engine(checkpoints("llama"), step_timeout=seconds)
    with pytest.raises(P.SessionError, match=message):  # before any model is loaded
        P.Session(step_timeout=seconds)
    with P.Session() as session, pytest.raises(P.SessionError, match=message):
        session.load_model(checkpoints("llama"), step_timeout=seconds)


def test_a_step_may_take_for_ever(checkpoints):
    with P.Session(model=str(checkpoints("llama")), step_timeout=float("inf")):
        assert len(ask("one").get(timeout=WAIT_S)) > 0
