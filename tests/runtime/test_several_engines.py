"""Several engines of one model: the same texts, spread calls, and what happens when one is lost."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from dataclasses import replace

import pytest
from hash_engine import HashEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P
from parrot_nb.errors import EngineLostError
from parrot_nb.runtime import engines
from parrot_nb.runtime.policies import POLICIES


class LostEngine(HashEngine):
    """Is lost as soon as a prompt says "DIE": before the first token, or "LATE", after some."""

    def open(self, priority):
        if self.closed:
            raise EngineLostError("The engine was lost: call again.")
        return super().open(priority)

    async def generate(self, context, sampling, *, likely=(), taken_back=()):
        prompt = bytes(self.contexts[context])
        if b"DIE" in prompt and not self.lives:
            self.closed = True
            raise EngineLostError("The engine was lost: call again.")
        num_pieces = 0
        async for piece in super().generate(context, sampling, taken_back=taken_back):
            yield piece
            num_pieces += 1
            if b"LATE" in prompt and num_pieces == 3 and not self.lives:
                self.closed = True
                raise EngineLostError("The engine was lost: call again.")

    lives = False


class StuckEngine(LostEngine):
    """Stalls where a `LostEngine` is lost, and keeps its memory until `freed`."""

    freed = False

    async def generate(self, context, sampling, *, likely=(), taken_back=()):
        try:
            async for piece in super().generate(context, sampling, likely=likely, taken_back=taken_back):
                yield piece
        except EngineLostError as error:
            raise EngineLostError(str(error), stalled=True) from None

    def load(self):
        return replace(super().load(), stuck=self.closed and not self.freed)


class Fleet(P.Session):
    """A session on several hash engines, which it keeps for the tests to look at."""

    def __init__(self, kind=HashEngine, lives_from: int = 0, **settings) -> None:
        self.made: list[HashEngine] = []
        self._kind, self._lives_from = kind, lives_from
        super().__init__(model="hash", loader=self._make, **settings)

    def _make(self, model, on_step):
        engine = self._kind(model)
        engine.name = f"hash-{len(self.made)}"
        engine.lives = len(self.made) >= self._lives_from
        self.made.append(engine)
        return engine


@given(data=st.data())
@settings(deadline=None, max_examples=30)
def test_texts_do_not_depend_on_where_calls_run(data):
    policy = data.draw(st.sampled_from(list(POLICIES)))
    with Fleet(engines=data.draw(st.integers(1, 4)), policy=policy, max_tokens=8) as session:
        texts, calls = ["a", "b", "c"], [P.variable(value=text) for text in "abc"]
        for _ in range(data.draw(st.integers(1, 12))):
            i, j = (data.draw(st.integers(0, len(calls) - 1)) for _ in range(2))
            calls.append(f("1 {{input:x}} 2 {{input:z}}: {{output:y}}")(calls[i], calls[j]))
            texts.append(text_of(f"1 {texts[i]} 2 {texts[j]}: ", 8))
        P.gather(*calls)
        assert [call.get(timeout=WAIT_S) for call in calls] == texts
        assert all(not engine.contexts for engine in session.made)


def test_a_wide_map_uses_all_of_them_and_says_so():
    with Fleet(engines=3, max_tokens=5, policy="fifo") as session:
        step = f("Part {{input:x}}: {{output:y}}")
        texts = step.map([f"p{i}" for i in range(30)]).get(timeout=WAIT_S)
        assert texts == [text_of(f"Part p{i}: ", 5) for i in range(30)]
        assert [engine.num_opened for engine in session.made] == [10, 10, 10]
        assert sorted(session.loads()) == ["hash", "hash #2", "hash #3"]
        one = step("q")
        one.get(timeout=WAIT_S)
        assert "since the fewest calls were running there" in P.explain(one)


def test_what_one_has_written_the_others_need_not():
    with Fleet(engines=3, max_tokens=5, policy="fifo") as session:
        step = f("Part {{input:x}}: {{output:y}}")
        for _ in range(4):
            assert step("same").get(timeout=WAIT_S) == text_of("Part same: ", 5)
        assert sum(engine.num_opened for engine in session.made) == 1


def test_a_call_that_has_written_nothing_moves():
    with Fleet(LostEngine, lives_from=1, engines=2, max_tokens=5) as session:
        assert f("DIE {{output:y}}")().get(timeout=WAIT_S) == text_of("DIE ", 5)
        assert len(session.made) >= 2
        assert f("and on {{output:y}}")().get(timeout=WAIT_S) == text_of("and on ", 5)


def test_a_call_that_moves_tells_once_what_was_cut():
    with Fleet(LostEngine, lives_from=1, engines=2, max_tokens=5) as session:
        cut = f('DIE {{input:doc, fit="end"}}{{output:y}}')("word " * 1000)
        cut.get(timeout=WAIT_S)
        (prompt,) = (prompt for engine in session.made for _, prompt in engine.order)
        assert cut.usage.cut_tokens == 5000 - len(prompt.removeprefix(b"DIE "))
        assert cut.node.note.count("'doc' was cut") == 1


def test_a_single_engine_is_made_anew():
    with Fleet(LostEngine, lives_from=1, max_tokens=5) as session:
        assert f("DIE {{output:y}}")().get(timeout=WAIT_S) == text_of("DIE ", 5)
        assert [engine.closed for engine in session.made] == [True, False]


def test_a_call_whose_text_is_out_fails_and_the_next_one_runs():
    with Fleet(LostEngine, lives_from=1, max_tokens=9) as session:
        lost = f("LATE {{output:y}}")()
        with pytest.raises(EngineLostError, match="lost"):
            lost.get(timeout=WAIT_S)
        assert f("next {{output:y}}")().get(timeout=WAIT_S) == text_of("next ", 9)
        until(lambda: session.idle, "the end")


def test_a_python_function_that_reads_what_was_lost_fails_with_it():
    with Fleet(LostEngine, lives_from=1, max_tokens=9) as session:

        @P.native_function
        def reads(n: int) -> str:
            return f("LATE {{output:y}}")().get(timeout=WAIT_S)

        with pytest.raises(EngineLostError, match="lost"):
            reads(1).get(timeout=WAIT_S)
        until(lambda: session.idle, "the end")


def test_a_call_that_engines_die_of_fails_in_the_end():
    with Fleet(LostEngine, lives_from=99, max_tokens=5) as session:
        with pytest.raises(EngineLostError):
            f("DIE {{output:y}}")().get(timeout=WAIT_S)
        assert len(session.made) == 3, "the first, and two that it was moved to"


@pytest.mark.parametrize("count", [2, 12])  # all are looked at, or a few
def test_an_engine_that_is_stuck_gets_no_calls_until_its_step_has_ended(count, monkeypatch):
    monkeypatch.setattr(engines, "LOOK_S", 0.01)
    with Fleet(StuckEngine, lives_from=1, engines=count, max_tokens=5, policy="fifo") as session:
        step = f("Part {{input:x}}: {{output:y}}").options(fresh=True)
        texts = [f"p{i}" for i in range(3 * count)]
        expected = [text_of(f"Part {text}: ", 5) for text in texts]
        assert f("DIE {{output:y}}")().get(timeout=WAIT_S) == text_of("DIE ", 5)
        for _ in range(2):
            assert step.map(texts).get(timeout=WAIT_S) == expected
            assert len(session.made) == count
        session.made[0].freed = True
        until(lambda: not session._connection.link._runtime._engines._given_up, "that it is known")
        assert step.map(texts).get(timeout=WAIT_S) == expected
        assert len(session.made) == count + 1


def test_where_all_are_stuck_calls_are_told_so_and_go_on_when_one_is_not():
    with Fleet(StuckEngine, lives_from=2, engines=2, max_tokens=5) as session:
        with pytest.raises(EngineLostError, match="was lost"):
            f("DIE {{output:y}}")().get(timeout=WAIT_S)
        with pytest.raises(EngineLostError, match="A step of 'hash' still runs"):
            f("next {{output:y}}")().get(timeout=WAIT_S)
        session.made[1].freed = True
        until(lambda: len(session._connection.link._runtime._engines._given_up) == 1, "that it is known")
        assert f("next {{output:y}}")().get(timeout=WAIT_S) == text_of("next ", 5)
        assert len(session.made) == 3


def test_an_interrupt_while_engines_close_leaves_none_open():
    class Slow(HashEngine):
        async def close(self):
            threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT)).start()
            await asyncio.sleep(0.6)
            await super().close()

    session = Fleet(Slow, max_tokens=5)
    with pytest.raises(KeyboardInterrupt), session:
        assert f("on {{output:y}}")().get(timeout=WAIT_S) == text_of("on ", 5)
    assert [engine.closed for engine in session.made] == [True]
    assert session._connection.link is None


def test_an_engine_that_cannot_be_closed_keeps_no_other_open():
    class Bad(HashEngine):
        async def close(self):
            await super().close()
            if not self.lives:
                raise RuntimeError("boom")

    session = Fleet(Bad, lives_from=1, engines=2, max_tokens=5, policy="fifo")
    with session:
        f("a {{input:x}} {{output:y}}").map(["1", "2"]).get(timeout=WAIT_S)
        with pytest.raises(RuntimeError, match="boom"):
            session.close()
    assert [engine.closed for engine in session.made] == [True, True]
    assert session._connection.link is None


@pytest.mark.parametrize("count", [0, -1, 1.5, True, "2"])
def test_how_many_must_be_a_number(count):
    with pytest.raises(P.SessionError, match="engines must be a whole number, at least 1"):
        P.Session(engines=count)


def test_another_number_with_another_model():
    with Fleet(engines=1, max_tokens=5) as session:
        f("a {{output:y}}")().get(timeout=WAIT_S)
        session.load_model("hash", engines=2)
        f("b {{input:x}} {{output:y}}").map([str(i) for i in range(20)]).get(timeout=WAIT_S)
        assert len(session.loads()) == 2
        with pytest.raises(P.SessionError, match="at least 1"):
            session.load_model("hash", engines=0)
