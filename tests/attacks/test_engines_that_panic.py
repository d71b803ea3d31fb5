"""Whatever a listener, a tokenizer or an engine does: its call fails alone, and the session goes on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from attacking import assert_usable, hash_session, native, raiser
from hash_engine import ByteCodec, HashEngine
from shorthand import WAIT_S, f, text_of, until
from wrongdoers import RAISED

import parrot_nb as P
from parrot_nb.engine.protocol import Piece


@pytest.mark.parametrize("name", RAISED)
def test_a_listener_that_raises_is_logged_and_harms_nobody(either, name, caplog):
    raises = raiser(RAISED[name])
    function = native(lambda: "text")()
    listened = [either.events.subscribe(raises), function.node.subscribe(raises)]
    try:
        assert function.get(timeout=WAIT_S) == "text"
        assert_usable(either)
    finally:
        for unsubscribe in listened:
            unsubscribe()
    assert "A listener of parrot_nb raised" in caplog.text


def test_an_interrupt_of_the_main_thread_passes_a_listener(session):
    source = P.variable("source")
    source.node.subscribe(raiser(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        source.set("text")
    assert source.get(timeout=WAIT_S) == "text"


# Tokenizers and engines


class ArmedCodec(ByteCodec):
    """Its methods raise while it is armed."""

    armed: tuple[str, Callable[[], BaseException]] | None = None

    def __getattribute__(self, name: str) -> Any:
        armed = object.__getattribute__(self, "armed")
        if armed is not None and armed[0] == name:
            return raiser(armed[1])
        return object.__getattribute__(self, name)


PANICS = {
    name: RAISED[name]
    for name in ("an exception", "StopIteration", "CancelledError", "KeyboardInterrupt", "SystemExit", "a panic without message")
}


def beside_a_hanging_call(engines: list[HashEngine]) -> P.SemanticVariable:
    """A call that has begun and goes on when the engine is released."""
    hanging = f("HANG {{output:y}}")()
    P.current_session().flush()
    until(lambda: engines and any(b"HANG" in prompt for _, prompt in engines[0].order), "a call that hangs")
    return hanging


@pytest.mark.parametrize("panic", PANICS)
@pytest.mark.parametrize("method", ["encode", "split_controls", "stable_chars", "token_bytes"])
def test_a_tokenizer_that_panics_fails_its_call_alone(method, panic):
    engines: list[HashEngine] = []

    def load(model: str, on_step: object) -> HashEngine:
        engines.append(HashEngine(model))
        engines[0].codec = ArmedCodec()
        return engines[0]

    with hash_session(loader=load) as session:
        assert_usable(session)
        beside = beside_a_hanging_call(engines)
        engines[0].codec.armed = method, PANICS[panic]
        function = f("Say {{input:x}} to {{output:y}}")
        given = native(lambda: "words")()
        with pytest.raises(P.ParrotError):
            function(given).get(timeout=WAIT_S)
        if method != "stable_chars":  # of a text that goes on
            with pytest.raises(P.ParrotError):
                function.render("words")
        engines[0].codec.armed = None
        session._connection.started()._loop.post(engines[0].release.set)
        assert beside.get(timeout=WAIT_S) == text_of("HANG ")
        assert function("words").get(timeout=WAIT_S) == text_of("Say words to ")
        assert engines[0].contexts == {}


class OddEngine(HashEngine):
    """Goes wrong at the prompts that say "ODD"."""

    def __init__(self, deed: str, error: Callable[[], BaseException] | None) -> None:
        super().__init__("hash")
        self.deed, self.error = deed, error

    def fill(self, context: int, token_ids: Any) -> None:
        super().fill(context, token_ids)
        if self.deed == "fill" and b"ODD" in bytes(self.contexts[context]):
            raise self.error()

    async def generate(self, context: int, sampling: Any, **settings: Any) -> Any:
        odd = b"ODD" in bytes(self.contexts[context])
        if odd and self.deed == "no pieces":
            return
        if odd and self.deed == "generate":
            raise self.error()
        async for piece in super().generate(context, sampling, **settings):
            if not odd:
                yield piece
            elif self.deed == "after a piece":
                yield Piece("a", 1, settled_ids=(97,))
                raise self.error()
            elif self.deed == "no last piece" and piece.end is None:
                yield piece


ODD = [("no pieces", "an exception"), ("no last piece", "an exception")]
ODD += [(deed, panic) for deed in ("fill", "generate", "after a piece") for panic in (*PANICS, "an error of ours")]


@pytest.mark.parametrize(("deed", "panic"), ODD)
def test_an_engine_that_goes_wrong_fails_its_call_alone(deed, panic):
    engines: list[HashEngine] = []

    def load(model: str, on_step: object) -> HashEngine:
        engines.append(OddEngine(deed, RAISED[panic]))
        return engines[-1]

    with hash_session(loader=load) as session:
        assert_usable(session)
        beside = beside_a_hanging_call(engines)
        odd = f("ODD {{output:y}} and {{output:z}}")()
        for one in odd:
            with pytest.raises(P.EngineError):
                one.get(timeout=WAIT_S)
        session._connection.started()._loop.post(engines[0].release.set)
        if panic != "an error of ours":  # by which the engine said that it was lost
            assert beside.get(timeout=WAIT_S) == text_of("HANG ")
        assert_usable(session)
        assert engines[-1].contexts == {}
