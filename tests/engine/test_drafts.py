"""Guesses: several tokens in one step, and never another text."""

from __future__ import annotations

import asyncio
import random

import pytest
from checkpoints import CONFIGS, PRIORITY, all_pages_free, audit, reference, run
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.draft import FIRST_PAUSE, LONGEST_GUESS, PROBE, Drafter
from parrot_nb.engine.embedded.times import StepTimes
from parrot_nb.engine.protocol import Sampling

NUM_TOKENS = 40
PROMPT = [7, 50, 99, 200, 3, 18, 77]


def open_engine(folder, steps: list | None = None, **settings):
    engine = load_engine(folder, kv_memory="1MB", page_size=4, on_step=None if steps is None else steps.append, **settings)
    engine._times = FreeRows()  # how much is guessed must not depend on how fast this machine is
    return engine


class FreeRows(StepTimes):
    """A machine on which rows cost next to nothing."""

    def took(self, num_rows: int, seconds: float) -> None:
        self.base_s, self.row_s = 1.0, 1e-3


async def write(engine, prompt, sampling, likely=()):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    text = ""
    async for piece in engine.generate(context, sampling, likely=likely):
        text += piece.text
        audit(engine)
        if piece.end is not None:
            break
    engine.free(context)
    return text, piece.end


def spoilt(tokens: list[int], every: int) -> list[int]:
    """The same with mistakes in it."""
    return [(token + 1) % 256 if i % every == every - 1 else token for i, token in enumerate(tokens)]


@pytest.mark.parametrize("name", CONFIGS)
def test_greedy_text_equals_generate_in_fewer_steps(checkpoints, name):
    folder = checkpoints(name)
    expected = reference(folder, PROMPT, NUM_TOKENS)
    steps: list = []
    engine = open_engine(folder, steps)
    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)

    async def main(engine):
        found = await write(engine, PROMPT, sampling, likely=spoilt(expected, 13))
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return found

    _, end = run(engine, main)
    assert list(end.token_ids) == [token for token in expected if token < 256]
    assert end.decoded_tokens == NUM_TOKENS
    assert end.guessed_tokens > NUM_TOKENS // 5
    assert len(steps) <= NUM_TOKENS - end.guessed_tokens + 1
    assert sum(step.guessed_tokens for step in steps) >= end.guessed_tokens
    assert end.prefilled_tokens + end.reused_tokens == len(PROMPT)


@pytest.mark.parametrize("off", [(), ("sharing",), ("fused",)])
def test_a_seeded_sample_is_the_same(checkpoints, off):
    folder = checkpoints("qwen3")
    sampling = Sampling(max_tokens=NUM_TOKENS, temperature=0.9, top_p=0.9, seed=11, ignore_eos=True)
    alone, end_alone = run(open_engine(folder, off=("drafts",)), lambda engine: write(engine, PROMPT, sampling))
    assert end_alone.guessed_tokens == 0
    text, end = run(open_engine(folder, off=off), lambda engine: write(engine, PROMPT, sampling, likely=end_alone.token_ids))
    assert (text, end.token_ids) == (alone, end_alone.token_ids)
    assert end.guessed_tokens > NUM_TOKENS // 5


@pytest.mark.parametrize("cut", [9, 10, 11, 12])
def test_a_stop_string_or_the_last_token_in_the_middle_of_a_guess(checkpoints, cut):
    folder = checkpoints("llama")
    expected = [token for token in reference(folder, PROMPT, NUM_TOKENS) if token < 256]
    longer = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)
    whole, _ = run(open_engine(folder, off=("drafts",)), lambda engine: write(engine, PROMPT, longer))
    for sampling in (
        Sampling(max_tokens=cut, ignore_eos=True),
        Sampling(NUM_TOKENS, stop=(whole[cut : cut + 2],), ignore_eos=True),
    ):
        alone, end_alone = run(open_engine(folder, off=("drafts",)), lambda engine, s=sampling: write(engine, PROMPT, s))
        text, end = run(open_engine(folder), lambda engine, s=sampling: write(engine, PROMPT, s, likely=expected))
        assert (text, end.token_ids, end.finish, end.decoded_tokens) == (
            alone, end_alone.token_ids, end_alone.finish, end_alone.decoded_tokens,
        )  # fmt: skip
        assert end.guessed_tokens > 0


def test_the_context_ends_in_the_middle_of_a_guess(checkpoints):
    folder = checkpoints("llama")
    expected = reference(folder, PROMPT, NUM_TOKENS)
    engine = open_engine(folder, max_context=30)
    _, end = run(engine, lambda engine: write(engine, PROMPT, Sampling(NUM_TOKENS, ignore_eos=True), likely=expected))
    assert end.finish == "length"
    assert list(end.token_ids) == [token for token in expected[: 30 - len(PROMPT)] if token < 256]


def test_many_contexts_and_little_memory(checkpoints):
    """Guesses take no page from anybody, and change nothing where contexts are preempted."""
    folder = checkpoints("qwen3")
    rng = random.Random(5)
    prompts = [[rng.randrange(256) for _ in range(rng.randrange(1, 30))] for _ in range(8)]
    sampling = Sampling(max_tokens=30, ignore_eos=True)
    expected = [reference(folder, prompt, 30) for prompt in prompts]
    engine = load_engine(folder, kv_memory=100 * 768, page_size=4, max_step_tokens=12)

    async def main(engine):
        ends = await asyncio.gather(
            *(write(engine, prompt, sampling, likely=spoilt(tokens, 7)) for prompt, tokens in zip(prompts, expected, strict=True))
        )
        await asyncio.sleep(0)
        assert all_pages_free(engine)
        return ends

    ends = run(engine, main)
    for (_, end), tokens in zip(ends, expected, strict=True):
        assert list(end.token_ids) == [token for token in tokens if token < 256]


# The guesses themselves


CHEAP = 0.01


def drafter(tokens: list[int], likely=()) -> tuple[Drafter, Context]:
    context = Context(1, PRIORITY, PageCache(1, 4), tokens=list(tokens))
    return Drafter(context, likely), context


def test_a_guess_goes_on_as_what_stood_there_before():
    machine, _ = drafter([1, 2, 3, 4, 5, 6, 9, 2, 3])
    assert machine.guess(3, CHEAP) == (4, 5, 6)
    assert drafter([1, 2, 1, 2])[0].guess(4, CHEAP) == (1, 2, 1, 2), "what repeats itself goes on doing so"


def test_the_longest_agreement_wins():
    machine, context = drafter([1, 2, 3, 70, 8, 2, 3, 80, 1, 2, 3])
    assert machine.guess(1, CHEAP) == (70,)
    context.tokens += [70, 8, 2, 3]
    assert machine.guess(1, CHEAP) == (80,)


def test_what_an_earlier_version_gave_is_likely():
    machine, _ = drafter([5, 6, 20, 21], likely=[20, 21, 22, 23])
    assert machine.guess(16, CHEAP) == (22, 23)


def test_what_stands_in_several_places_is_copied_in_order():
    """As where a list is repeated whose items begin alike."""
    machine, context = drafter([1, 2, 30, 31, 1, 2, 40, 41, 1, 2, 50, 51, 9, 1, 2])
    assert machine.guess(2, CHEAP) == (30, 31)
    machine.judged(2, 2)
    context.tokens += [30, 31, 7, 1, 2]  # something that was not there came between
    assert machine.guess(2, CHEAP) == (40, 41)
    machine.judged(2, 2)
    context.tokens += [40, 41, 1, 2]
    assert machine.guess(2, CHEAP) == (50, 51)


def test_where_the_first_place_is_wrong_the_last_is_tried():
    """As where examples come before what is asked."""
    machine, context = drafter([1, 2, 30, 3, 4, 50, 8, 1, 2, 40, 3, 4, 60, 9, 1, 2])
    assert machine.guess(1, CHEAP) == (30,)
    machine.judged(1, 0)
    context.tokens += [6] * FIRST_PAUSE
    for _ in range(FIRST_PAUSE):
        machine.guess(1, CHEAP)
    context.tokens += [3, 4]
    assert machine.guess(1, CHEAP) == (60,)


def test_nothing_is_guessed_from_nothing():
    assert drafter([])[0].guess(4, CHEAP) == ()
    assert drafter([1])[0].guess(4, CHEAP) == ()
    assert drafter([1, 2, 3, 4])[0].guess(4, CHEAP) == ()


def test_more_is_guessed_where_it_is_right_and_cheap():
    machine, _ = drafter([1, 2] * 40)
    first = len(machine.guess(100, 0.3))
    assert PROBE <= first < len(machine.guess(100, CHEAP)) <= LONGEST_GUESS
    for _ in range(10):
        machine.judged(4, 4)
    assert len(machine.guess(100, 0.3)) == LONGEST_GUESS
    assert len(machine.guess(3, 0.3)) == 3


def test_poor_guesses_pause_and_are_tried_again_ever_later():
    machine, _ = drafter([1, 2] * 400)
    pauses, guesses = [0], 0
    for _ in range(200):
        if found := machine.guess(100, 0.3):
            guesses += 1
            machine.judged(len(found), 0)
            pauses.append(0)
        else:
            pauses[-1] += 1
    long = [pause for pause in pauses[:-1] if pause]
    assert long[0] == FIRST_PAUSE
    assert long == sorted(long)
    assert long[-1] > 2 * FIRST_PAUSE
    assert guesses < 20


def test_what_costs_too_much_is_only_tried():
    machine, _ = drafter([1, 2] * 400)
    assert len(machine.guess(100, 0.9)) == PROBE
    machine.judged(PROBE, 0)
    tried = 0
    for _ in range(50):
        if found := machine.guess(100, 0.9):
            machine.judged(len(found), 0)
            tried += 1
    assert 0 < tried < 5


@settings(max_examples=200, deadline=None)
@given(st.lists(st.integers(0, 3), max_size=30), st.lists(st.integers(0, 3), max_size=30), st.integers(0, 20))
def test_any_guess_stands_somewhere_after_the_last_tokens(tokens, likely, most):
    machine, context = drafter(tokens, likely)
    for token in [*likely, 1]:
        guessed = list(machine.guess(most, CHEAP))
        assert len(guessed) <= most
        if guessed:
            last = context.tokens[-2:]
            assert any(
                source[i : i + 2] == last and (source + guessed)[i + 2 : i + 2 + len(guessed)] == guessed
                for source in (context.tokens, likely)
                for i in range(len(source))
            )
        context.tokens.append(token)


def test_step_times_find_base_and_row():
    times = StepTimes()
    assert times.step_s(1) == 0
    times.took(1, 0.01)
    assert 0 < times.row_s < 0.001, "a guess, until other sizes were seen"
    for i in range(200):
        times.took(1 + i % 8, 0.005 + 0.001 * (1 + i % 8))
    assert times.row_s == pytest.approx(0.001, rel=1e-3)
    assert times.step_s(3) == pytest.approx(0.008, rel=1e-3)
    for i in range(300):  # the machine is slower now
        times.took(1 + i % 8, 0.010 + 0.002 * (1 + i % 8))
    assert times.step_s(3) == pytest.approx(0.016, rel=0.01)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.floats(1e-5, 10)), min_size=1, max_size=50))
def test_step_times_are_never_free_nor_negative(steps):
    times = StepTimes()
    for rows, seconds in steps:
        times.took(rows, seconds)
        assert times.row_s > 0
        assert times.base_s >= 0
