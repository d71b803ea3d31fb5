"""An engine whose device never finishes a step: its calls move or fail, and nothing waits for it."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import textwrap
import threading

import pytest
from checkpoints import reference

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.errors import EngineLostError, ModelLoadError

WAIT_S = 20
TIMEOUT_S = 3.0  # no step of a model this small takes so long, whatever else the machine does


class Stuck:
    """Steps that a device does not finish until it is told to, or so many seconds have passed."""

    def __init__(self, engine, from_step: int, seconds: float) -> None:
        self.released, self._seconds = threading.Event(), seconds
        self._step, self._left = engine._model.step, from_step
        engine._model.step = self

    def from_now_on(self) -> None:
        """The next step is the first that is not finished."""
        self._left = 0

    def __call__(self, batch):
        self._left -= 1
        if self._left < 0:
            self.released.wait(self._seconds)
        return self._step(batch)


class Machines(P.Session):
    """A session whose first engine gets stuck in its `stuck_from`-th step."""

    def __init__(self, folder, stuck_from: int, seconds: float = WAIT_S) -> None:
        self.made, self.stuck = [], None

        def make(model, on_step):
            engine = load_engine(folder, step_timeout=TIMEOUT_S, kv_memory="1MB", on_step=on_step)
            self.made.append(engine)
            if self.stuck is None:
                self.stuck = Stuck(engine, stuck_from, seconds)
            return engine

        super().__init__(model=str(folder), loader=make)

    def __exit__(self, *exception) -> None:
        super().__exit__(*exception)
        self.stuck.released.set()  # only now: leaving must not need it


ask = P.SemanticFunction("{{input:x}}{{output:y}}", name="ask").options(max_tokens=12, ignore_eos=True)


def test_calls_that_wrote_nothing_move(checkpoints):
    folder = checkpoints("llama")
    with P.Session(model=str(folder), max_tokens=12) as session:
        expected = ask.map(["one", "two", "three"]).get(timeout=WAIT_S)
    with Machines(folder, stuck_from=0) as session:
        assert ask.map(["one", "two", "three"]).get(timeout=WAIT_S) == expected
        assert len(session.made) == 2
        assert session.loads()[str(folder)].owned_pages == 0


def test_a_call_whose_text_is_out_fails_and_says_what_to_do(checkpoints):
    folder = checkpoints("llama")
    with Machines(folder, stuck_from=5) as session:
        call = ask("one")
        with pytest.raises(EngineLostError, match=r"not ended in 3 s.*step_timeout"):
            call.get(timeout=WAIT_S)
        before = len(session.made)
        assert len(ask("two").get(timeout=WAIT_S)) > 0
        assert (before, len(session.made)) == (1, 2)


def test_a_call_that_waited_for_an_input_meanwhile_fails_too(checkpoints):
    """Between its two outputs a call has a context and no generation that could be told."""
    two = P.SemanticFunction("{{input:a}}{{output:b}}{{input:x}}{{output:c}}", name="two").options(max_tokens=4, ignore_eos=True)
    with Machines(checkpoints("llama"), stuck_from=1000) as session:
        late = P.variable(name="late")
        first, second = two("one", late)
        assert len(first.get(timeout=WAIT_S)) > 0
        session.stuck.from_now_on()
        with contextlib.suppress(EngineLostError):
            ask("other").get(timeout=WAIT_S)
        late.set("at last")
        with pytest.raises(EngineLostError, match="not ended in 3 s"):
            second.get(timeout=WAIT_S)


def test_a_slow_step_is_no_stall(checkpoints):
    folder = checkpoints("llama")
    with Machines(folder, stuck_from=10, seconds=TIMEOUT_S / 6) as session:
        assert len(ask("one").get(timeout=WAIT_S)) > 0
        assert len(session.made) == 1


def test_a_process_ends_though_a_step_never_does(checkpoints):
    script = f"""
        import threading
        import parrot_nb as P
        from parrot_nb.engine.embedded import load_engine

        def make(model, on_step):
            engine = load_engine(model, step_timeout=0.5, kv_memory="1MB", on_step=on_step)
            engine._model.step = lambda batch: threading.Event().wait()
            return engine

        with P.Session(model={str(checkpoints("llama"))!r}, loader=make, max_tokens=3):
            try:
                P.SemanticFunction("{{{{input:x}}}}{{{{output:y}}}}", name="ask")("a").get()
            except P.ParrotError as error:
                print(type(error).__name__)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)], capture_output=True, text=True, timeout=WAIT_S * 2, check=False
    )
    assert (done.returncode, done.stdout) == (0, "EngineLostError\n"), done.stderr


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


def test_a_call_that_moved_writes_what_generate_does(checkpoints):
    folder = checkpoints("llama")
    engine = load_engine(folder)
    prompt = engine.codec.encode("one", first=True)
    expected = [token for token in reference(folder, [*engine.codec.opening_ids, *prompt], 12) if token < 256]
    with Machines(folder, stuck_from=0):
        assert ask("one").get(timeout=WAIT_S) == engine.codec.decode(expected)
