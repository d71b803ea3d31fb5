"""Steps that are short for those who have a pace, in which nobody starves, and whose texts are what they would be."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from itertools import pairwise
from statistics import median

import pytest
from checkpoints import PRIORITY, all_pages_free, reference, run, write
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.budget import LEFT_OUT_STEPS, Budget
from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.context import Context, Generation
from parrot_nb.engine.embedded.pace import BURST, Pacer
from parrot_nb.engine.embedded.plan import plan_step
from parrot_nb.engine.embedded.times import PromptTimes, StepTimes
from parrot_nb.engine.protocol import Kind, Pace, Priority, Sampling, Speed

PAGE = 4
MOST_URGENT = Priority(Kind.TARGET)


def a_context(
    number: int, num_tokens: int, cache: PageCache, *, priority=MOST_URGENT, pace: Pace | None = None, decodes: bool = False
) -> Context:
    context = Context(number, priority, cache, tokens=[number * 1000 + i for i in range(num_tokens)], pace=pace)
    context.generation = object.__new__(Generation)
    context.generation.num_sampled = 0
    if decodes:
        run_step(context, num_tokens - 1)
    return context


def test_a_first_step_that_compiles_does_not_distort_what_is_expected():
    times = StepTimes()
    times.took(1, 4.0)
    for _ in range(3):
        times.took(1, 1.5e-3)
    assert times.step_s(1) == pytest.approx(1.5e-3)
    for _ in range(9):
        times.took(1, 1.5e-3)
    times.took(1, 1e-5)  # one that was heard of late, and the next one with it
    assert times.step_s(1) == pytest.approx(1.5e-3, rel=0.3)
    times.took(1, 1.5e-3)
    times.took(1, 4.0)  # such as one that a garbage collection was in
    assert times.step_s(1) < 6e-3
    for _ in range(200):
        times.took(1, 0.1)  # from now on it does take that long: another program has the device
    assert times.step_s(1) == pytest.approx(0.1, rel=0.05)


def run_step(context: Context, end: int) -> None:
    """Compute a context's tokens up to `end`."""
    context.lease.extend(end)
    context.lease.begin(end)
    context.computed(end)


def step(contexts, cache, budget) -> dict[int, int]:
    rows = plan_step(contexts, cache, budget)
    for context, count in rows:
        end = context.lease.num_cached + count
        context.lease.begin(end)
        context.computed(end)
        if end == len(context.tokens):
            context.tokens.append(0)  # it decodes
    return {context.id: count for context, count in rows}


def test_a_long_prompt_gets_what_is_left_of_a_short_step():
    cache = PageCache(100, PAGE)
    chat = a_context(1, 8, cache, pace=Pace(0.1), decodes=True)
    prompt = a_context(2, 60, cache)
    assert step([chat, prompt], cache, Budget(9, 8)) == {1: 1, 2: 8}
    assert step([chat, prompt], cache, Budget(0, 0)) == {1: 1}, "who has a pace is in however little room there is"


def test_a_pace_that_is_not_firm_holds_against_those_without_one():
    cache = PageCache(100, PAGE)
    chat = a_context(1, 8, cache, pace=Pace(0.1, firm=False), decodes=True)
    other, bulk = a_context(2, 40, cache, pace=Pace(0.1, firm=False)), a_context(3, 40, cache)
    assert step([chat, bulk, other], cache, Budget(1000, 8)) == {1: 1, 2: 40, 3: 8}


def test_who_writes_costs_as_much_as_some_tokens_of_a_prompt():
    cache = PageCache(100, PAGE)
    chat = a_context(1, 8, cache, pace=Pace(0.1), decodes=True)
    writers = [a_context(i, 8, cache, decodes=True) for i in (2, 3, 4)]
    assert step([chat, *writers, a_context(5, 40, cache)], cache, Budget(16, 16, 6.0)) == {1: 1, 2: 1, 3: 1, 5: 4}


def test_prompts_and_writing_are_told_apart_in_what_steps_took():
    times, prompts = StepTimes(), PromptTimes()
    for rows in (1, 4, 16, 1, 8) * 20:
        times.took(rows, 5e-3 + 6e-4 * rows)
    assert (times.base_s, times.row_s) == (pytest.approx(5e-3), pytest.approx(6e-4))
    for tokens in (1000, 20, 300) * 20:
        prompts.took(tokens, 1e-4 * tokens)
    assert prompts.token_s == pytest.approx(1e-4)


@given(st.integers(1, 12), st.integers(0, 6), st.integers(0, 3))
def test_nobody_is_left_out_for_long(num_bulk, rows, num_paced):
    """However little room there is: each context is in one of so many steps."""
    cache = PageCache(1000, PAGE)
    paced = [a_context(1 + i, 8, cache, pace=Pace(0.1), decodes=True) for i in range(num_paced)]
    bulk = [a_context(100 + i, 30, cache, priority=Priority(Kind.THROUGHPUT, (i,))) for i in range(num_bulk)]
    last = dict.fromkeys([c.id for c in bulk], 0)
    for i_step in range(1, 200):
        ran = step([*paced, *bulk], cache, Budget(max(rows, 1) if not num_paced else rows, rows))
        assert all(context.id in ran for context in paced)
        for context_id in ran:
            if context_id in last:
                last[context_id] = i_step
        assert all(i_step - seen <= LEFT_OUT_STEPS + num_bulk for seen in last.values())


def test_speed_is_measured(checkpoints):
    engine = load_engine(checkpoints("qwen3"), kv_memory="2MB")
    assert engine.speed == Speed(), "what is usual, until something was computed"

    async def one(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, [i % 250 for i in range(100)])
        await write(engine, context, Sampling(max_tokens=30, ignore_eos=True))
        engine.free(context)

    run(engine, one)
    measured = engine.speed
    assert measured != Speed()
    assert min(measured.row_s, measured.prefill_s) > 0


def test_a_step_that_was_planned_ahead_starts_when_the_one_before_it_has_ended(checkpoints):
    """It waits in the worker meanwhile: counted from there, all steps but the first would take twice the time."""
    seconds, steps, own_s = 0.04, [], []
    engine = load_engine(checkpoints("llama"), kv_memory="1MB", off=("drafts",), on_step=steps.append)
    engine._looks_ahead = True  # as on a GPU
    compute = engine._model.step

    def step(batch):
        began_s = time.monotonic()
        time.sleep(seconds)
        chosen = compute(batch)
        own_s.append(time.monotonic() - began_s)
        return chosen

    engine._model.step = step

    async def one(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, [1, 2, 3])
        await write(engine, context, Sampling(max_tokens=20, ignore_eos=True))

    run(engine, one)
    assert len(steps) == 20
    assert all(after.start_s >= before.start_s + before.duration_s for before, after in pairwise(steps))
    assert median(step.duration_s for step in steps) == pytest.approx(median(own_s), rel=0.4)  # however busy the machine is
    assert min(own_s) * 0.6 < engine.speed.step_s(1) < max(own_s) * 1.4


@given(data=st.data())
@settings(deadline=None, max_examples=12)
def test_texts_are_those_of_generate_whatever_the_paces(checkpoints, data):
    folder = checkpoints("llama")
    engine = load_engine(folder, kv_memory="1MB", page_size=4, max_step_tokens=16)
    prompts = [[(10 + i * 7 + j * 3) % 250 for j in range(data.draw(st.integers(1, 50)))] for i in range(5)]
    paces = [data.draw(st.none() | st.builds(Pace, st.floats(1e-4, 0.05), st.booleans())) for _ in prompts]

    async def one(prompt, pace):
        context = engine.open(PRIORITY)
        engine.set_pace(context, pace)
        engine.fill(context, prompt)
        _, end = await write(engine, context, Sampling(max_tokens=12, ignore_eos=True))
        engine.free(context)
        return list(end.token_ids)

    async def everyone(engine):
        found = await asyncio.gather(*(one(prompt, pace) for prompt, pace in zip(prompts, paces, strict=True)))
        assert all_pages_free(engine)
        return found

    expected = [[token for token in reference(folder, prompt, 12) if token < 256] for prompt in prompts]
    assert run(engine, everyone) == expected, "control tokens apart"


def test_steps_that_were_too_long_are_planned_shorter_and_longer_again_slowly():
    pacer, speed, cache = Pacer(1000), Speed(0.9e-3, 1e-4, 0.99e-4), PageCache(10, PAGE)
    chat = [a_context(1, 8, cache, pace=Pace(0.005), decodes=True)]
    before = pacer.budget(chat, speed)
    assert before.rows == before.others == 30, "four fifths of the time, less what a step takes without a prompt"
    pacer.stepped(0.006)
    shorter = pacer.budget(chat, speed)
    pacer.stepped(0.004)
    assert shorter.rows < pacer.budget(chat, speed).rows + 1 < before.rows + 1
    for _ in range(10_000):
        pacer.stepped(0.004)
    assert pacer.budget(chat, speed).rows == 40, "never more than what was asked for"
    chat[0].pace = Pace(0.005, firm=False)
    pacer.stepped(1.0)
    assert pacer.budget(chat, speed).rows == 1000, "what is not firm learns nothing from long steps"
    assert pacer.budget([], speed) == Budget(1000, 1000)


SPEED = Speed(0.9e-3, 1e-4, 0.99e-4)


def allowing(tokens: int, *, num_paced: int = 1, cost: float = 1.0, firm: bool = False) -> tuple[Pace, Speed]:
    """A pace beside which others may have so many tokens of each step, where who writes costs so many."""
    speed = Speed(0.9e-3, SPEED.prefill_s * cost, SPEED.prefill_s)
    return Pace(speed.step_s(num_paced) + (tokens + 0.5) * speed.prefill_s, firm=firm), speed


def shares(contexts, cache, speed, num_steps: int, pacer: Pacer | None = None) -> tuple[Counter[int], list[int]]:
    """In how many steps each context was, and what the prompts without a pace got, step by step."""
    pacer, steps, filled = pacer or Pacer(1000), Counter(), []
    for _ in range(num_steps):
        fills = {context.id for context in contexts if context.pace is None and not context.decodes}
        ran = step(contexts, cache, pacer.budget(contexts, speed))
        steps.update(ran)
        filled.append(sum(count for context_id, count in ran.items() if context_id in fills))
    return steps, filled


def writing(number: int, cache: PageCache, pace: Pace | None = None) -> Context:
    return a_context(number, 8, cache, pace=pace, decodes=True)


@pytest.mark.parametrize("allowance", [23, 6])
def test_those_who_write_are_in_every_step_that_has_room_for_them(allowance):
    """Who writes one token a step cannot make up for steps that it missed; a prompt waits for a large piece."""
    pace, speed = allowing(allowance)
    cache = PageCache(5000, PAGE)
    writers = [writing(i, cache) for i in (2, 3, 4, 5)]
    steps, _ = shares([writing(1, cache, pace), *writers], cache, speed, 200)
    assert steps == dict.fromkeys((1, 2, 3, 4, 5), 200)
    steps, filled = shares(
        [writing(1, cache, pace), *(writing(i, cache) for i in (2, 3, 4, 5)), a_context(6, 9000, cache)], cache, speed, 400
    )
    assert [steps[i] for i in (1, 2, 3, 4, 5)] == [400] * 5, "beside a long prompt as well"
    assert sum(filled) == pytest.approx(400 * (allowance - 4), abs=BURST), "which gets all that they leave"
    assert {count for count in filled if count} <= {PAGE, *range(BURST - 2 * PAGE, BURST + allowance)}, (
        "many at a time, or overdue"
    )


def test_those_who_write_take_turns_where_a_step_has_no_room_for_all():
    pace, speed = allowing(6, cost=10.0)
    cache = PageCache(5000, PAGE)
    steps, _ = shares([writing(1, cache, pace), *(writing(i, cache) for i in (2, 3, 4))], cache, speed, 300)
    assert [steps[i] for i in (2, 3, 4)] == pytest.approx([300 * 6 / 10 / 3] * 3, abs=2)


def test_prompts_beside_a_pace_that_is_not_firm_come_in_large_pieces_and_get_their_whole_share():
    """A few tokens of a prompt cost as much as many; so they are saved up, and nothing of them is lost."""
    pace, speed = allowing(40)
    cache = PageCache(5000, PAGE)
    _, filled = shares([writing(1, cache, pace), a_context(2, 5000, cache)], cache, speed, 70)
    assert {count for count in filled if count} <= set(range(BURST, BURST + 40))
    assert sum(filled) == pytest.approx(70 * 40, abs=BURST)


def test_a_firm_pace_beside_one_that_is_not_bounds_the_pieces_and_not_the_share():
    pace, speed = allowing(23, num_paced=2)
    cache = PageCache(5000, PAGE)
    firm = Pace((speed.step_s(2) + 108.5 * speed.prefill_s) / 0.8)
    _, filled = shares([writing(1, cache, pace), writing(2, cache, firm), a_context(3, 5000, cache)], cache, speed, 200)
    assert 100 <= max(filled) <= 108
    assert sum(filled) == pytest.approx(200 * 23, rel=0.05)


def test_a_short_prompt_waits_for_as_much_as_it_needs():
    pace, speed = allowing(6)
    cache = PageCache(5000, PAGE)
    _, filled = shares([writing(1, cache, pace), a_context(2, 28, cache)], cache, speed, 20)
    assert next(i for i, count in enumerate(filled) if count) == 4, "28 tokens at 6 a step"
    assert sum(filled) == 28


def test_what_nobody_takes_is_saved_up_to_a_burst():
    pace, speed = allowing(20)
    cache = PageCache(5000, PAGE)
    pacer, chat = Pacer(1000), writing(1, cache, pace)
    shares([chat], cache, speed, 1000, pacer)
    _, filled = shares([writing(1, cache, pace), a_context(2, 5000, cache)], cache, speed, 2, pacer)
    assert filled[0] == pytest.approx(BURST + 20, abs=PAGE)
    assert filled[1] == 0


@given(
    st.lists(st.integers(1, 400), max_size=6),
    st.integers(0, 6),
    st.integers(0, 300),
    st.floats(0.1, 12.0),
    st.none() | st.integers(0, 300),
)
@settings(deadline=None, max_examples=60)
def test_others_take_no_more_than_they_may(prompts, num_writers, allowance, cost, firm):
    """Of any steps in a row: what they may have of each, what can have been saved before, and a page for each that is overdue."""
    pace, speed = allowing(allowance, num_paced=1 if firm is None else 2, cost=cost)
    cache = PageCache(5000, PAGE)
    paced = [writing(1, cache, pace)]
    if firm is not None:
        paced.append(writing(2, cache, Pace((speed.step_s(2) + (firm + 0.5) * speed.prefill_s) / 0.8)))
    contexts = [
        *paced,
        *(writing(10 + i, cache) for i in range(num_writers)),
        *(a_context(20 + i, n, cache) for i, n in enumerate(prompts)),
    ]
    pacer, spent, num_overdue = Pacer(1000), 0.0, 0
    for _ in range(80):
        num_overdue += sum(context.num_left_out >= LEFT_OUT_STEPS for context in contexts)
        budget = pacer.budget(contexts, speed)
        step(contexts, cache, budget)
        spent += budget.spent
    assert spent <= 80 * allowance + num_overdue * (PAGE + cost)
