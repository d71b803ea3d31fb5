"""Equal generations are made once: what comes out is the same, who is told is told, and nobody waits for what was given up."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import pytest
from hash_engine import HashEngine
from hypothesis import given, settings
from hypothesis import strategies as st
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P
from parrot_nb.engine.protocol import Kind, Sampling
from parrot_nb.runtime import events
from parrot_nb.runtime.memo import KEEPING_TOKENS, Memo


def test_a_cell_that_runs_again_computes_nothing(session):
    step = f("Step {{input:x}}: {{output:y}}")
    first = step(step("a"))
    value = first.get(timeout=WAIT_S)
    generated = len(session.engine.order)
    again = step(step("a"))
    assert (again.get(timeout=WAIT_S), again.finish) == (value, first.finish)
    assert len(session.engine.order) == generated == 2
    assert (again.usage.decoded_tokens, again.usage.prefilled_tokens, again.usage.from_memo) == (0, 0, True)
    assert again.usage.reused_tokens == first.usage.prefilled_tokens
    assert not first.usage.from_memo


def test_it_is_never_silent(session):
    step = f("Step {{input:x}}: {{output:y}}")
    step("a").get(timeout=WAIT_S)
    again = step("a")
    value = again.get(timeout=WAIT_S)
    told = [e for e in session.events.since(0) if isinstance(e, events.CallChanged) and e.call_id == again.node.producer.id]
    assert "reused" in [e.phase for e in told]
    assert "decode" not in [e.phase for e in told]
    news = [e for e in session.events.since(0) if getattr(e, "variable_id", None) == again.node.id]
    assert "".join(e.text for e in news if isinstance(e, events.TextAppended)) == value
    assert sum(e.num_tokens for e in news if isinstance(e, events.TextAppended)) == 0
    assert [e.from_memo for e in news if isinstance(e, events.VariableChanged) and e.state == "done"] == [True]
    assert "taken from an equal call" in str(P.explain(again))


def test_an_edit_computes_what_follows_from_it_alone(session):
    outline = f("Outline {{input:topic}}: {{output:outline}}")
    write = f("Write {{input:outline}}: {{output:text}}")
    edited = f("Write well {{input:outline}}: {{output:text}}")
    write(outline("parrots")).get(timeout=WAIT_S)
    made = outline("parrots")
    assert edited(made).get(timeout=WAIT_S) == text_of(f"Write well {text_of('Outline parrots: ')}: ")
    assert made.usage.from_memo
    assert len(session.engine.order) == 3


def test_a_different_name_or_signature_makes_no_difference_but_another_sampling_does(session):
    f("Say {{input:x}}: {{output:y}}")("a").get(timeout=WAIT_S)
    renamed = P.SemanticFunction("Say {{input:other}}: {{output:z}}", name="g")("a")
    renamed.get(timeout=WAIT_S)
    shorter = f("Say {{input:x}}: {{output:y}}", max_tokens=3)("a")
    assert shorter.get(timeout=WAIT_S) == text_of("Say a: ", 3)
    assert renamed.usage.from_memo
    assert not shorter.usage.from_memo


@pytest.mark.parametrize(("options", "known"), [({"temperature": 0.5}, False), ({"temperature": 0.5, "seed": 3}, True)])
def test_a_sample_is_taken_over_only_where_it_is_seeded(session, options, known):
    step = f("Step {{input:x}}: {{output:y}}", **options)
    step("a").get(timeout=WAIT_S)
    again = step("a")
    again.get(timeout=WAIT_S)
    assert again.usage.from_memo is known
    other = step.options(seed=4)("a")
    other.get(timeout=WAIT_S)
    assert not other.usage.from_memo


def test_fresh_generates_anew(session):
    step = f("Step {{input:x}}: {{output:y}}")
    step("a").get(timeout=WAIT_S)
    anew = step.options(fresh=True)("a")
    assert anew.get(timeout=WAIT_S) == text_of("Step a: ")
    assert not anew.usage.from_memo
    assert len(session.engine.order) == 2


def test_a_session_can_do_without(make_session):
    with make_session(off=("memo",)) as session:
        step = f("Step {{input:x}}: {{output:y}}")
        step("a").get(timeout=WAIT_S)
        again = step("a")
        again.get(timeout=WAIT_S)
        assert not again.usage.from_memo
        assert len(session.engine.order) == 2


def test_a_reset_forgets(session):
    step = f("Step {{input:x}}: {{output:y}}")
    step("a").get(timeout=WAIT_S)
    session.reset()
    again = step("a")
    again.get(timeout=WAIT_S)
    assert not again.usage.from_memo


def test_outputs_before_an_edit_are_taken_over(session):
    f("Joke: {{output:joke}}\nExplain: {{output:why}}")().why.get(timeout=WAIT_S)
    edited = f("Joke: {{output:joke}}\nExplain well: {{output:why}}")()
    joke = text_of("Joke: ")
    assert edited.why.get(timeout=WAIT_S) == text_of(f"Joke: {joke}\nExplain well: ")
    assert (edited.joke.usage.from_memo, edited.why.usage.from_memo) == (True, False)


def test_equal_calls_at_once_are_one_computation(session):
    results = f("Step {{input:x}}: {{output:y}}").map(["a"] * 50 + ["b"])
    assert results.get(timeout=WAIT_S) == [text_of("Step a: ")] * 50 + [text_of("Step b: ")]
    assert len(session.engine.order) == 2
    assert sorted(v.usage.from_memo for v in results) == [False] * 2 + [True] * 49
    assert session.engine.num_opened == 2


def test_who_gives_up_does_not_take_the_others_along(session):
    step = f("HANG {{input:x}}: {{output:y}}")
    first, second, third = step("a"), step("a"), step("a")
    session.flush()
    until(lambda: session.engines and session.engine.order, "the start")
    until(lambda: third.state == "running", "the others")
    first.cancel()
    until(lambda: len(session.engine.order) == 2, "the second's turn")
    assert len(session.engine.contexts) == 1
    session.release()
    assert second.get(timeout=WAIT_S) == third.get(timeout=WAIT_S) == text_of("HANG a: ")
    assert first.state == "cancelled"
    assert (second.usage.from_memo, third.usage.from_memo) == (False, True)


def test_who_is_urgent_makes_what_it_follows_urgent(session):
    step = f("HANG {{input:x}}: {{output:y}}")
    background = step("a")
    session.flush()
    until(lambda: session.engines and session.engine.order, "the start")
    session.read([step("a").node], P.THROUGHPUT)
    urgent = step("a")
    session.read([urgent.node], P.LATENCY)
    until(lambda: min(session.engine._priorities.values()).kind == Kind.LATENCY, "the rise")
    session.release()
    assert urgent.get(timeout=WAIT_S) == background.get(timeout=WAIT_S)


def test_a_failure_is_not_remembered(session):
    step = f("FAIL {{input:x}}: {{output:y}}")
    both = step("a"), step("a")
    for variable in both:
        with pytest.raises(P.EngineError, match="told to fail"):
            variable.get(timeout=WAIT_S)
    with pytest.raises(P.EngineError, match="told to fail"):
        step("a").get(timeout=WAIT_S)
    assert len(session.engine.order) == 3


@dataclass(frozen=True)
class Ask:
    """A call of a random crowd."""

    text: str
    cancelled: bool


@settings(max_examples=50, deadline=None)
@given(st.lists(st.builds(Ask, st.sampled_from(["a", "b", "HANG"]), st.booleans()), min_size=1, max_size=12))
def test_any_crowd_of_equal_calls_gets_what_each_would_get_alone(make_session, asks):
    with make_session(max_tokens=5) as session:
        step = f("Step {{input:x}}: {{output:y}} and {{output:z}}")
        results = [step(ask.text) for ask in asks]
        session.flush()
        for ask, result in zip(asks, results, strict=True):
            if ask.cancelled:
                result.y.cancel()
        if not all(ask.cancelled for ask in asks):  # else no model may ever be needed
            until(lambda: "hash" in session.engines, "loading")
            session.release()
        for ask, result in zip(asks, results, strict=True):
            if not ask.cancelled:
                y = text_of(f"Step {ask.text}: ", 5)
                assert (result.y.get(timeout=WAIT_S), result.z.get(timeout=WAIT_S)) == (
                    y, text_of(f"Step {ask.text}: {y} and ", 5),
                )  # fmt: skip
        until(lambda: session.idle and not any(engine.contexts for engine in session.engines.values()), "the end")


def test_it_is_bounded_and_forgets_what_was_not_used_for_longest():
    engine = HashEngine("m")

    async def from_memo(text: str) -> bool:
        context = memo.open(engine, (0, 0), family="hash")
        context.fill(list(text.encode()))
        async for _ in context.generate(Sampling(4)):
            pass
        context.free()
        return context.from_memo

    async def crowd() -> list[bool]:
        for text in ["a", "b", "c", "a", "d"]:  # the room is for three
            await from_memo(text)
        return [await from_memo(text) for text in "adcb"]

    memo = Memo(max_tokens=3 * (KEEPING_TOKENS + 4))
    assert len(text_of("a", 4)) == len(text_of("b", 4)) == len(text_of("c", 4)) == len(text_of("d", 4)) == 4
    assert asyncio.run(crowd()) == [True, True, True, False]
    assert len(memo) == 3
