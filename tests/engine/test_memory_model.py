"""The engine's bookkeeping, on a model of memory in place of a transformer: what a token's KV is depends on all that was read for it.

Two layers of slots. A layer writes what is new before it reads, as ours do; the second layer's entry is a digest of what the
first one's slots hold, and a token is chosen by a digest of the second one's. So a page that is read before it was computed,
or after it went to somebody else, gives another text than the reference, which knows no pages. Steps fail now and then, and
leave garbage where they would have written.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from hashlib import blake2b

import pytest
from checkpoints import PRIORITY, all_pages_free, audit

from parrot_nb.engine.embedded.engine import EmbeddedEngine
from parrot_nb.engine.embedded.step import Choice, StepBatch, StepContext
from parrot_nb.engine.embedded.worker import Worker
from parrot_nb.engine.protocol import Kind, ModelInfo, Pace, Piece, Priority, Sampling
from parrot_nb.errors import ContextLengthError, EngineError

NUM_LETTERS, EOS = 6, 6
MAX_TOKENS = 90
NUM_CALLS = 160


def digest(what: object) -> int:
    return int.from_bytes(blake2b(repr(what).encode(), digest_size=8).digest(), "big")


def chosen(second_layer: list[object]) -> int:
    number = digest(second_layer) % 20
    return EOS if number == 19 else number % NUM_LETTERS


def reference(tokens: list[int], sampling: Sampling) -> tuple[list[int], str]:
    """What follows, and how it ends."""
    first = [(token, position) for position, token in enumerate(tokens)]
    second = [digest(first[: i + 1]) for i in range(len(first))]
    ids: list[int] = []
    while True:
        token = chosen(second)
        if token == EOS and not sampling.ignore_eos:
            return ids, "stop"
        ids.append(token)
        text = letters(ids)
        if found := [text.find(stop) for stop in sampling.stop if stop in text]:
            return ids[: min(found)], "stop"
        if len(ids) == sampling.max_tokens:
            return ids, "length"
        first.append((token, len(first)))
        second.append(digest(first))


def letters(ids) -> str:
    return "".join(chr(ord("a") + i) for i in ids)


class Letters:
    """A codec of one letter per token."""

    anchor = ()
    decode_plain = staticmethod(letters)
    carried_over = staticmethod(list)

    def shown(self, _token_id):
        return None

    def special_id(self, _content):
        return None

    def is_open(self, _token_ids):
        return False

    def encode(self, text):
        return [ord(letter) - ord("a") for letter in text]


class Memory:
    """In place of a `StepModel`."""

    threads = (1, 1)

    def __init__(self, rng: random.Random, page_size: int, failing: float) -> None:
        self.rng, self.page_size, self.failing = rng, page_size, failing
        self.layers: tuple[dict[int, object], dict[int, object]] = ({}, {})
        self.before: list[int] = []
        self.num_failed = self.num_following = 0

    def release(self):
        pass

    def judged(self, error):
        return error

    def step(self, batch: StepBatch):
        for source, target, count in batch.copies:
            for layer in self.layers:
                copied = [layer.get(source * self.page_size + i) for i in range(count)]
                layer.update((target * self.page_size + i, value) for i, value in enumerate(copied))
        if not self.before and any(part.after is not None for part in batch.contexts):
            raise RuntimeError("boom: the step before has failed")  # as `StepModel` does
        rows = [row for part in batch.contexts for row in self._rows(part)]
        self.before = []
        written = [slot for _, _, slot, _ in rows]
        assert len(set(written)) == len(written), "two rows write one slot"
        self.num_following += any(not set(written).isdisjoint(self._slots(part, part.start)) for part in batch.contexts)
        if self.rng.random() < self.failing:
            self.num_failed += 1
            for slot in written:
                self.layers[0][slot] = self.layers[1][slot] = ("garbage", self.num_failed)
            raise RuntimeError("boom")
        first, second = self.layers
        first.update((slot, (token, position)) for _, position, slot, token in rows)
        second.update([(slot, digest(self._read(first, part, position + 1))) for part, position, slot, _ in rows])
        for part in batch.contexts:
            end = part.start + len(part.token_ids)
            for last in range(end - part.num_samples, end):
                self.before.append(chosen(self._read(second, part, last + 1)))
        return Chosen(self.before)

    def _slots(self, part: StepContext, count: int) -> list[int]:
        size = self.page_size
        return [part.pages[i // size] * size + i % size for i in range(count)]

    def _read(self, layer: dict[int, object], part: StepContext, count: int) -> list[object]:
        return [layer.get(slot) for slot in self._slots(part, count)]

    def _rows(self, part: StepContext):
        tokens = part.token_ids if part.after is None else (self.before[part.after],)
        slots = self._slots(part, part.start + len(tokens))[part.start :]
        return [(part, part.start + i, slot, token) for i, (slot, token) in enumerate(zip(slots, tokens, strict=True))]


class Chosen:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids

    def choices(self):
        return [Choice(token) for token in self.ids]


def make_engine(rng: random.Random, memory: Memory, num_pages: int, **settings) -> EmbeddedEngine:
    engine = EmbeddedEngine(
        name="memory",
        info=ModelInfo("memory", "Memory", 1, rng.choice(["cpu", "cuda"]), "float32", MAX_TOKENS),  # one looks ahead, one guesses
        model=memory,
        worker=Worker("memory"),
        codec=Letters(),
        eos_ids=frozenset([EOS]),
        num_pages=num_pages,
        page_size=memory.page_size,
        on_step=lambda _: audit(engine),
        **settings,
    )
    return engine


class Calls:
    """Random calls on an engine, each held against the reference."""

    def __init__(self, engine: EmbeddedEngine, rng: random.Random, *, paces: bool) -> None:
        self.engine, self.rng, self.paces = engine, rng, paces
        self.trunks = [[rng.randrange(NUM_LETTERS) for _ in range(50)] for _ in range(3)]
        self.num_right = self.num_failed = 0

    async def one(self, number: int) -> None:
        engine, rng = self.engine, self.rng
        context = engine.open(Priority(rng.choice(list(Kind)), (number,)))
        if self.paces and rng.random() < 0.3:
            engine.set_pace(context, Pace(rng.choice([1e-3, 1e-2]), firm=rng.random() < 0.5))
        tokens: list[int] = []
        try:
            for turn in range(rng.choice([1, 1, 2])):
                trunk = rng.choice(self.trunks)
                tokens += self._fill(context, trunk[: rng.randrange(1, 50)] + [rng.randrange(NUM_LETTERS) for _ in range(4)])
                if rng.random() < 0.3:
                    await asyncio.sleep(0.002)
                engine.set_priority(context, Priority(rng.choice([Kind.TARGET, Kind.LATENCY, Kind.THROUGHPUT]), (number,)))
                sampling = Sampling(
                    rng.randrange(1, 14), ignore_eos=rng.random() < 0.5, stop=rng.choice([(), ("ab",), ("cc", "fab")])
                )
                written = await self._written(context, tokens, sampling, is_first=turn == 0)
                if written is None:
                    return
                tokens += written
        except ContextLengthError:
            pass
        except EngineError as error:
            if "boom" not in str(error):
                raise
            self.num_failed += 1
        finally:
            engine.free(context)

    def _fill(self, context: int, ids: list[int]) -> list[int]:
        self.engine.fill(context, ids)
        return ids

    async def _written(self, context: int, tokens: list[int], sampling: Sampling, *, is_first: bool) -> list[int] | None:
        """What was written; None if it left before the end."""
        expected, finish = reference(tokens, sampling)
        likely = expected if self.rng.random() < 0.3 else ()
        leaves = self.rng.random() < 0.1
        pieces: list[Piece] = []
        stream = self.engine.generate(context, sampling, likely=likely)
        async with contextlib.aclosing(stream):
            async for piece in stream:
                pieces.append(piece)
                if leaves and self.rng.random() < 0.5:
                    return None
        end = pieces[-1].end
        assert end is not None
        assert sum(piece.num_tokens for piece in pieces) == end.decoded_tokens
        settled = [token for piece in pieces for token in piece.settled_ids]
        assert settled == list(end.token_ids[: len(settled)])
        if len(tokens) + sampling.max_tokens < self.engine.max_context_tokens:
            assert (list(end.token_ids), end.finish) == (expected, finish)
            assert "".join(piece.text for piece in pieces) == letters(expected)
            assert not is_first or end.prefilled_tokens + end.reused_tokens == len(tokens)
            self.num_right += 1
        return list(end.token_ids)


@pytest.mark.parametrize("seed", range(24))
def test_texts_are_right_whatever_is_shared_preempted_freed_or_fails(seed):
    rng = random.Random(seed)
    page_size = rng.choice([1, 2, 4, 8])
    memory = Memory(rng, page_size, failing=rng.choice([0, 0, 0.03, 0.1]))
    off = rng.choice([(), (), ("dedup",), ("drafts", "lookahead"), ("sharing",)])
    num_pages = rng.choice([96, 160, 480]) // page_size
    engine = make_engine(rng, memory, num_pages, max_step_tokens=rng.choice([6, 16, 64]), off=off)
    calls = Calls(engine, rng, paces=rng.random() < 0.4)

    async def user(numbers):
        for number in numbers:
            task = asyncio.create_task(calls.one(number))
            if rng.random() < 0.05:
                await asyncio.sleep(0.003)
                task.cancel()
            await asyncio.wait({task})
            if not task.cancelled():
                task.result()
            if rng.random() < 0.03:
                engine.clear_cache()
            if rng.random() < 0.05:
                engine.expect(number % 5, rng.choice(calls.trunks), number)

    async def main():
        numbers = iter(range(NUM_CALLS))
        async with asyncio.timeout(60):  # nobody waits for ever
            await asyncio.gather(*(user(numbers) for _ in range(rng.choice([3, 10, 24]))))
            while engine.load().running_contexts:  # noqa: ASYNC110 - freed contexts leave with the last step, of which nobody is told
                await asyncio.sleep(0.001)
        audit(engine)
        assert all_pages_free(engine)
        await engine.close()

    asyncio.run(main())
    assert calls.num_right > NUM_CALLS // 10
    assert memory.num_failed or not calls.num_failed
    assert not (memory.num_following and ("dedup" in off or "sharing" in off)), (
        "nobody follows where pages are not shared at once"
    )


@pytest.mark.parametrize("seed", range(6))
def test_nobody_waits_for_ever_where_memory_is_short(seed):
    """Many more calls than there are pages for, of which most are left out for long."""
    rng = random.Random(seed)
    engine = make_engine(rng, Memory(rng, 4, failing=0), 24, max_step_tokens=16)
    calls = Calls(engine, rng, paces=False)

    async def main():
        async with asyncio.timeout(60):
            await asyncio.gather(*(calls.one(number) for number in range(150)))
        await engine.close()

    asyncio.run(main())
    assert calls.num_right > 75


def test_a_context_follows_the_one_that_computes_its_beginning():
    """So that the tests above do test it."""
    rng = random.Random(1)
    memory = Memory(rng, 4, failing=0)
    engine = make_engine(rng, memory, 200, max_step_tokens=64)

    async def one(last):
        context = engine.open(PRIORITY)
        tokens = [1, 2, 3, 4, 5] * 5 + [last]
        engine.fill(context, tokens)
        pieces = [piece async for piece in engine.generate(context, Sampling(8, ignore_eos=True))]
        engine.free(context)
        assert list(pieces[-1].end.token_ids) == reference(tokens, Sampling(8, ignore_eos=True))[0]

    async def main():
        await asyncio.gather(*map(one, range(4)))
        await engine.close()

    asyncio.run(main())
    assert memory.num_following == 1
