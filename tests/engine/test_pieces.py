"""When a reader is told of what is written: all of it, in order, and no oftener than it is good for."""

from __future__ import annotations

import pytest
from checkpoints import PRIORITY, run

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.context import TELL_S
from parrot_nb.engine.protocol import Pace, Piece, Sampling
from parrot_nb.errors import EngineError

NUM_TOKENS = 60
PROMPT = list(range(30, 50))


@pytest.fixture
def engine(checkpoints):
    return load_engine(checkpoints("llama"), dtype="float32", device="cpu", off=("drafts",))


async def pieces_of(engine, pace: Pace | None = None, pieces: list[Piece] | None = None) -> list[Piece]:
    pieces = [] if pieces is None else pieces
    context = engine.open(PRIORITY)
    engine.set_pace(context, pace)
    engine.fill(context, PROMPT)
    try:
        async for piece in engine.generate(context, Sampling(NUM_TOKENS, ignore_eos=True)):
            pieces.append(piece)
    finally:
        engine.free(context)
    return pieces


def test_tokens_come_together_where_they_are_written_faster_than_anybody_reads(engine):
    async def main(engine):
        return await pieces_of(engine), await pieces_of(engine, Pace(1.0))

    pieces, each = run(engine, main)
    assert [piece.num_tokens for piece in each] == [1] * NUM_TOKENS, "who has a pace gets every token"
    assert pieces[0].num_tokens == 1, "the first comes at once"
    assert sum(piece.num_tokens for piece in pieces) == NUM_TOKENS
    assert "".join(piece.text for piece in pieces) == "".join(piece.text for piece in each) != ""
    assert pieces[-1].end is not None
    assert len(pieces) <= 3 + pieces[-1].end.decode_s / TELL_S


def test_what_was_written_before_a_failure_is_not_lost(engine, monkeypatch):
    real, steps = engine._model.step, []

    def step(batch):
        steps.append(batch)
        if len(steps) == 9:
            raise RuntimeError("boom")
        return real(batch)

    async def main(engine):
        whole = await pieces_of(engine)
        engine.clear_cache()
        monkeypatch.setattr(engine._model, "step", step)
        pieces: list[Piece] = []
        with pytest.raises(EngineError, match="boom"):
            await pieces_of(engine, pieces=pieces)
        assert sum(piece.num_tokens for piece in pieces) == 8
        assert "".join(piece.text for piece in whole).startswith("".join(piece.text for piece in pieces))

    run(engine, main)
