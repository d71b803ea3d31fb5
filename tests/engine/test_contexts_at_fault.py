"""A step that fails is taken apart: contexts at fault fail alone, and their neighbours write what they would have written."""

from __future__ import annotations

import asyncio
import math
import random
from dataclasses import dataclass, field

import pytest
from checkpoints import all_pages_free, audit
from hypothesis import given, settings
from hypothesis import strategies as st
from test_memory_model import NUM_LETTERS, Letters, Memory, letters, make_engine, reference

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.counts import TokenCounts
from parrot_nb.engine.embedded.suspects import Suspects
from parrot_nb.engine.protocol import Kind, Priority, Sampling
from parrot_nb.errors import EngineError

BOOM = RuntimeError("boom")
TIMEOUT_S = 30  # nobody waits for ever


class Panic(BaseException):
    """As Rust's panics come to Python: no `Exception`."""


class UnreadableError(Exception):
    def __str__(self):
        raise ValueError


WHEN = {
    "at once": lambda part: True,
    "in its first chunk": lambda part: part.start == 0,
    "in a later chunk": lambda part: part.start > 0 and not part.position,
    "while it writes": lambda part: part.position >= 2,
}


class Faulty(Memory):
    """A model that raises in a step with certain contexts, by the seeds of their generations, after it has written garbage.

    Attributes:
        steps: seeds of the contexts of each step, and whether it was let pass.
    """

    def __init__(self, rng, page_size, *, bad, when, times=math.inf, error=BOOM) -> None:
        super().__init__(rng, page_size, failing=0)
        self.bad, self.when, self.times, self.error = bad, when, times, error
        self.steps: list[tuple[list[int], bool]] = []

    def step(self, batch):
        culprits = any(part.seed in self.bad and self.when(part) for part in batch.contexts)
        fails = culprits and self.times > 0
        self.steps.append(([part.seed for part in batch.contexts], not fails))
        if not fails:
            return super().step(batch)
        self.times -= 1
        self.failing = 2
        try:
            return super().step(batch)
        except RuntimeError:
            raise self.error from None
        finally:
            self.failing = 0


async def texts(engine, prompts, sampling, own=None) -> list[str | EngineError]:
    """What each of these prompts is followed by, all at once, or why not. Their seeds are 1, 2, ...; `own` is by seed."""

    async def one(seed, prompt):
        context = engine.open(Priority(Kind.THROUGHPUT, (seed,)))
        try:
            engine.fill(context, prompt)
            text = ""
            async for piece in engine.generate(context, Sampling(**{**sampling, **(own or {}).get(seed, {}), "seed": seed})):
                text += piece.text
        except EngineError as error:
            return error
        finally:
            engine.free(context)
        return text

    async with asyncio.timeout(TIMEOUT_S):
        return await asyncio.gather(*(one(seed, prompt) for seed, prompt in enumerate(prompts, 1)))


@dataclass
class Run:
    memory: Faulty
    said: list[str | EngineError] = field(default_factory=list)


def run(prompts, memory, *, page_size=4, num_pages=400, max_step_tokens=64, codec=None, off=(), own=None, **sampling) -> Run:
    """Prompts through an engine whose model is `memory`; its pages are counted at each step, and all free at the end."""
    found = Run(memory)

    async def main():
        engine = make_engine(memory.rng, memory, num_pages, max_step_tokens=max_step_tokens, off=off)
        if codec is not None:
            engine.codec = engine._writer._codec = engine._starter._codec = codec
        found.said = await texts(engine, prompts, sampling, own)
        while engine.load().running_contexts:  # noqa: ASYNC110 - freed contexts leave with the last step, of which nobody is told
            await asyncio.sleep(0.001)
        audit(engine)
        assert all_pages_free(engine)
        assert await texts(engine, prompts[-1:], sampling) == [expected(prompts[-1], sampling)] or memory.bad or codec
        await engine.close()

    asyncio.run(main())
    return found


def expected(prompt, sampling) -> str:
    return letters(reference(list(prompt), Sampling(**sampling))[0])


def some_prompts(rng, count, *, shares, length=30) -> list[list[int]]:
    start = [rng.randrange(NUM_LETTERS) for _ in range(length)]
    own = [[rng.randrange(NUM_LETTERS) for _ in range(length)] for _ in range(count)]
    return [(start if shares else []) + part[: 9 if shares else length] for part in own]


@given(
    number=st.integers(0, 10**6),
    count=st.integers(1, 9),
    num_bad=st.integers(1, 2),
    when=st.sampled_from(sorted(WHEN)),
    times=st.sampled_from([1, 2, math.inf, math.inf]),
    shares=st.booleans(),
    page_size=st.sampled_from([1, 4, 8]),
    max_step_tokens=st.sampled_from([16, 64, 400]),
)
@settings(deadline=None, max_examples=120)
def test_only_contexts_at_fault_fail(number, count, num_bad, when, times, shares, page_size, max_step_tokens):
    rng = random.Random(number)
    prompts = some_prompts(rng, count, shares=shares)
    bad = set(rng.sample(range(1, count + 1), min(num_bad, count)))
    memory = Faulty(rng, page_size, bad=bad, when=WHEN[when], times=times)
    sampling = {"max_tokens": 8, "ignore_eos": True}
    found = run(prompts, memory, page_size=page_size, num_pages=1600 // page_size, max_step_tokens=max_step_tokens, **sampling)
    for seed, (prompt, said) in enumerate(zip(prompts, found.said, strict=True), 1):
        if seed not in bad or (isinstance(said, str) and times < math.inf):
            assert said == expected(prompt, sampling)
        elif when in ("at once", "while it writes") or not isinstance(said, str):  # a prompt that is found may have no chunk
            assert str(said) == "The model failed in a step with RuntimeError: boom"


@pytest.mark.parametrize("when", ["at once", "while it writes"])
@pytest.mark.parametrize("shares", [True, False])
def test_a_fault_that_does_not_come_again_fails_nobody(when, shares):
    rng = random.Random(1)
    prompts = some_prompts(rng, 6, shares=shares)
    sampling = {"max_tokens": 5, "ignore_eos": True}
    memory = Faulty(rng, 4, bad={3}, when=WHEN[when], times=1)
    assert run(prompts, memory, max_step_tokens=400, **sampling).said == [expected(p, sampling) for p in prompts]
    assert memory.times == 0


@pytest.mark.parametrize("count", [2, 5, 16])
def test_the_number_of_tries_is_bounded(count):
    """One at fault: each try that fails halves the suspects, and the other half is tried once."""
    rng = random.Random(count)
    memory = Faulty(rng, 4, bad={2}, when=WHEN["while it writes"])
    run(some_prompts(rng, count, shares=False), memory, max_step_tokens=1000, off=("lookahead",), max_tokens=6, ignore_eos=True)
    first = next(i for i, (_, passed) in enumerate(memory.steps) if not passed)
    last = max(i for i, (_, passed) in enumerate(memory.steps) if not passed)
    assert len(memory.steps[first][0]) == count
    assert memory.steps[last] == ([2], False)
    assert last - first <= 2 * math.ceil(math.log2(count))
    assert sum(not passed for _, passed in memory.steps) <= 1 + math.ceil(math.log2(count))


def test_a_model_that_always_fails_fails_each_context_in_at_most_two_steps_each():
    rng = random.Random(3)
    memory = Faulty(rng, 4, bad=set(range(1, 10)), when=WHEN["at once"])
    said = run(some_prompts(rng, 9, shares=False), memory, max_step_tokens=1000, off=("lookahead",), max_tokens=6).said
    assert [str(error) for error in said] == ["The model failed in a step with RuntimeError: boom"] * 9
    assert len({id(error) for error in said}) == 9, "each has an error of its own"
    assert len(memory.steps[:-1]) <= 2 * 9 - 1


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (StopIteration("over"), "StopIteration: over"),
        (KeyboardInterrupt(), "KeyboardInterrupt"),
        (SystemExit(3), "SystemExit: 3"),
        (asyncio.CancelledError(), "CancelledError"),
        (Panic("index out of bounds"), "Panic: index out of bounds"),
        (UnreadableError(), "UnreadableError: .its message cannot be read."),
        (TimeoutError("slow"), "TimeoutError: slow"),
        (MemoryError(), "out of memory"),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, BaseException) else "",
)
def test_whatever_a_model_raises_fails_one_context(error, shown):
    rng = random.Random(4)
    prompts = some_prompts(rng, 3, shares=False)
    sampling = {"max_tokens": 5, "ignore_eos": True}
    memory = Faulty(rng, 4, bad={2}, when=WHEN["while it writes"], error=error)
    first, second, third = run(prompts, memory, max_step_tokens=1000, **sampling).said
    assert (first, third) == (expected(prompts[0], sampling), expected(prompts[2], sampling))
    with pytest.raises(EngineError, match=shown):
        raise second


@pytest.mark.parametrize("more", [-1, 1])
def test_a_model_that_chooses_another_number_of_tokens_has_failed(more, monkeypatch):
    rng = random.Random(5)
    prompts = some_prompts(rng, 3, shares=False)
    sampling = {"max_tokens": 5, "ignore_eos": True}
    memory = Faulty(rng, 4, bad=set(), when=WHEN["at once"])
    compute = memory.step

    def step(batch):
        chosen = compute(batch)
        if any(part.seed == 2 for part in batch.contexts):
            chosen.ids = chosen.ids[:-1] if more < 0 else [*chosen.ids, 0]
        return chosen

    monkeypatch.setattr(memory, "step", step)
    first, second, third = run(prompts, memory, max_step_tokens=1000, **sampling).said
    assert (first, third) == (expected(prompts[0], sampling), expected(prompts[2], sampling))
    with pytest.raises(EngineError, match=r"chose \d+ tokens in a step that asked for \d+"):
        raise second


def test_a_context_that_no_step_can_be_made_with_fails_alone(monkeypatch):
    def copy(self):
        raise ValueError("no copy")

    monkeypatch.setattr(TokenCounts, "copy", copy)
    rng = random.Random(7)
    prompts = some_prompts(rng, 5, shares=True)
    sampling = {"max_tokens": 5, "ignore_eos": True}
    memory = Faulty(rng, 4, bad=set(), when=WHEN["at once"])
    said = run(prompts, memory, max_step_tokens=1000, own={4: {"presence_penalty": 0.5}}, **sampling).said
    assert [text for i, text in enumerate(said) if i != 3] == [expected(p, sampling) for i, p in enumerate(prompts) if i != 3]
    assert str(said[3]) == "The model failed in a step with ValueError: no copy"


class Breaking(Letters):
    """A tokenizer that panics over a pair of letters."""

    @staticmethod
    def decode_plain(ids):
        text = letters(ids)
        if "ab" in text:
            raise Panic("no such pair")
        return text


def test_a_tokenizer_that_panics_over_a_text_fails_its_context_alone():
    rng = random.Random(6)
    prompts = some_prompts(rng, 12, shares=True)
    sampling = {"max_tokens": 8, "ignore_eos": True}
    texts = [expected(prompt, sampling) for prompt in prompts]
    assert 0 < sum("ab" in text for text in texts) < 12
    said = run(prompts, Faulty(rng, 4, bad=set(), when=WHEN["at once"]), codec=Breaking(), **sampling).said
    for text, found in zip(texts, said, strict=True):
        if "ab" in text:
            assert str(found) == "The tokenizer failed over the generated text with Panic: no such pair"
        else:
            assert found == text


def test_a_call_at_fault_fails_and_the_calls_beside_it_get_their_texts(checkpoints):
    folder = str(checkpoints("llama"))
    ask = P.SemanticFunction("Say {{input:x}}: {{output:y}}", name="ask").options(max_tokens=6, ignore_eos=True)
    words = ["one", "two", "three", "four", "five"]
    with P.Session(model=folder):
        right = ask.map(words).get(timeout=TIMEOUT_S)

    def load(model, on_step):
        engine = load_engine(folder, kv_memory="1MB", on_step=on_step)
        compute = engine._model.step

        def step(batch):
            if any(part.sampling is not None and part.sampling.seed == 13 for part in batch.contexts):
                raise OverflowError("too large")
            return compute(batch)

        engine._model.step = step
        return engine

    with P.Session(model=folder, loader=load):
        calls = [ask.options(seed=13)(word) if word == "three" else ask(word) for word in words]
        with pytest.raises(EngineError, match="OverflowError: too large"):
            calls[2].get(timeout=TIMEOUT_S)
        for call, text in zip(calls, right, strict=True):
            if call is not calls[2]:
                assert call.get(timeout=TIMEOUT_S) == text


@given(st.integers(1, 40), st.data())
@settings(deadline=None)
def test_suspects_are_each_cleared_or_left_alone(count, data):
    """Whatever part of a group has room in a step."""

    @dataclass(eq=False)
    class Suspect:
        freed: bool = False
        failure: None = None
        num_pending: int = 1

    contexts = [Suspect() for _ in range(count)]
    bad = set(data.draw(st.lists(st.sampled_from(contexts))))
    suspects, failed, num_tries = Suspects(), [], 0
    tried = contexts
    while tried:
        part = tried[: data.draw(st.integers(1, len(tried)))] if num_tries else tried
        if bad & set(part):
            if (alone := suspects.failed(part)) is not None:
                failed.append(alone)
        else:
            suspects.passed(part)
        tried = suspects.next()
        num_tries += tried is not None
    assert set(failed) == bad
    assert len(failed) == len(bad)
    assert num_tries <= max(0, 2 * count - 2)
