"""Plans: figures of calls that have not run, equal to those of the run where they can be; and nothing runs."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hash_engine import HashEngine
from hash_session import HashSession
from shorthand import WAIT_S, f, text_of

import parrot_nb as P
from parrot_nb.engine.protocol import Speed


class SharingEngine(HashEngine):
    """One that shares KV, in pages of one token, and steps of a known length."""

    capabilities = replace(HashEngine.capabilities, shares_kv=True)
    speed = Speed(base_s=0.01, row_s=0.001, prefill_s=0.0001)

    def cached_tokens(self, token_ids):
        return 3


class PlanSession(HashSession):
    def _make(self, model, on_step):
        self.engines[model] = SharingEngine(model)
        return self.engines[model]


@pytest.fixture
def session():
    with PlanSession(max_tokens=12) as s:
        yield s


def figures(call) -> tuple:
    return call.name, call.source, call.prompt_tokens, call.exact, call.shared_tokens, call.output_tokens


def test_a_map_shares_its_beginning(session):
    plan = P.plan(f("Step {{input:x}}: {{output:y}}").map(["aa", "ab", "b"]))
    assert [figures(call) for call in plan.calls] == [
        ("f", "model", 9, True, 0, 12),
        ("f", "model", 9, True, 6, 12),
        ("f", "model", 8, True, 5, 12),
    ]
    assert [call.cached_tokens for call in plan.calls] == [3, 3, 3]
    assert plan.filled_tokens == (9 - 3) + (9 - 6) + (8 - 5)
    assert plan.seconds == pytest.approx(12 * 0.013 + plan.filled_tokens * 0.0001)
    (model,) = plan.models
    assert (model.pages, model.num_pages, model.max_context_tokens) == (48, 1000, 1000)
    assert session.engine.order == []
    assert session.engine.contexts == {}


def test_what_reads_a_text_that_is_still_to_be_written_is_an_estimate_and_comes_after_it(session):
    step = f("Step {{input:x}}: {{output:y}}")
    plan = P.plan(step(step("a")))
    first, second = plan.calls
    assert (first.exact, second.exact) == (True, False)
    assert second.prompt_tokens == len("Step : ") + 12
    assert plan.seconds == pytest.approx(24 * 0.011 + 0.0001 * plan.filled_tokens)


def test_what_is_known_is_taken_and_read_by_what_comes_after_it(session):
    step = f("Step {{input:x}}: {{output:y}}")
    value = step("a").get(timeout=WAIT_S)
    generated = len(session.engine.order)
    known, new = P.plan(step(step("a"))).calls
    assert (known.source, known.filled_tokens) == ("memo", 0)
    assert figures(new) == ("f", "model", len(f"Step {value}: "), True, 0, len(text_of("Step a: ")))
    assert len(session.engine.order) == generated


def test_tokens_that_no_text_has_count_as_written():
    """A token that ends a text, or stands for none, takes a step like any other."""
    step = P.SemanticFunction("Say {{input:x}}: {{output:y, max_tokens=40, ignore_eos=True}}")
    brief = P.SemanticFunction(
        "How urgent is this message? Answer with one word: high, normal or low.\n{{input:message}}\nUrgency: {{output:word}}"
    )
    with P.Session(off=("memo",)):
        for function in (step, brief):
            made = function("Please print the blue report right now.")
            made.get(timeout=WAIT_S)
            (planned,) = function.estimate("Sell the car some day.").calls
            assert planned.output_tokens == made.usage.decoded_tokens
        assert made.usage.decoded_tokens > 1
        assert planned.output_tokens < planned.most_output_tokens


def test_a_function_is_taken_to_write_as_much_as_lately(session):
    step = f("Step {{input:x}}: {{output:y}}", max_tokens=500)
    written = len(step("a").get(timeout=WAIT_S))
    plan = step.estimate("b")
    assert (plan.calls[0].output_tokens, plan.calls[0].most_output_tokens) == (written, 500)
    assert plan.most_seconds > 2 * plan.seconds


def test_prompts_that_do_not_fit_are_said_with_what_depends_on_them(session):
    step = f("Step {{input:x}}: {{output:y}}")
    plan = P.plan(step(step("x" * 2000)), step("b"))
    assert len(plan.problems) == 2
    assert "'f' does not fit: its prompt has 2007 tokens, and a context holds 1000" in plan.problems[0]
    assert "reads 'y', which will have no value" in plan.problems[1]
    assert [call.problem == "" for call in plan.calls] == [False, False, True]


def test_joins_races_and_native_functions_are_no_obstacle(session):
    @P.native_function
    def shout(text):
        return text.upper()

    step = f("Step {{input:x}}: {{output:y}}")
    both = P.plan(step(shout("a") + "!"), P.first(step("b"), step("c")), step(P.join(["x", "y"], "-")))
    assert [call.kind for call in both.calls] == [
        "native",
        "join",
        "semantic",
        "semantic",
        "semantic",
        "first",
        "join",
        "semantic",
    ]
    assert both.calls[-1].exact
    assert "4 calls of prompts and 1 of native functions" in repr(both)


def test_an_estimate_maps_where_a_list_is_given_and_nothing_enters_the_graph(session):
    step = f("Step {{input:x}}{{input:z}}: {{output:y}}")
    assert len(step.estimate(["a", "b"], "c").calls) == 2
    assert len(step.estimate("a", z="c").calls) == 1
    with pytest.raises(P.ArgumentError):
        step.estimate("a")
    assert session.calls() == []


def test_what_was_planned_runs_as_planned(session):
    results = f("Step {{input:x}}: {{output:y}}").map(["a", "b"])
    planned = P.plan(results).calls
    values = results.get(timeout=WAIT_S)
    assert [v.usage.prefilled_tokens for v in results] == [
        call.prompt_tokens - 1 for call in planned
    ]  # the seam's byte is written again
    assert values == [text_of("Step a: "), text_of("Step b: ")]
    assert P.plan(results).calls == ()


def test_plain_things_cannot_be_planned(session):
    with pytest.raises(P.UsageError, match="takes variables, not str"):
        P.plan("text")
    with pytest.raises(P.UsageError, match="takes variables: give it"):
        P.plan()


DOCUMENT = "The agreement of the two companies is about parrots. " * 8
QUESTIONS = [f"What does paragraph {i} say?" for i in range(16)]


def test_advice_names_the_part_that_parts_the_prompts_and_what_another_order_saves(session):
    asks = f("Answer {{input:question}} from this text.\n{{input:document}}\nAnswer: {{output:answer}}", max_tokens=4)
    (advice,) = asks.estimate(QUESTIONS, DOCUMENT).advice
    better = f("Answer from this text.\n{{input:document}}\n{{input:question}}\nAnswer: {{output:answer}}", max_tokens=4)
    plan = better.estimate(question=QUESTIONS, document=DOCUMENT)
    assert advice.startswith("f: the prompts part at 'question', which stands before 'document', and that changes less")
    said = int(advice.partition("calls fill ")[2].partition(" ")[0].replace(",", ""))
    assert plan.filled_tokens == pytest.approx(said, rel=0.2)
    assert plan.advice == ()


@pytest.mark.parametrize("template", ["Say {{input:x}} {{output:y}}", "{{input:x}} Sum this up in one sentence. {{output:y}}"])
def test_no_advice_where_little_is_to_be_gained(session, template):
    assert f(template).estimate([DOCUMENT + question for question in QUESTIONS]).advice == ()


def test_a_thousand_calls_are_planned_at_once_and_shown_by_function(session):
    step = f("Step {{input:x}}: {{output:y}}")
    plan = step.estimate([str(i) for i in range(1000)])
    assert len(plan.calls) == 1000
    text = repr(plan)
    assert text.startswith("Plan: 1000 calls of prompts; nothing was run")
    assert len(text.splitlines()) == 5
    html = step.options().estimate("<b>")._repr_html_()
    assert "<table>" in html
    named = P.SemanticFunction("{{input:x}} {{output:y}}", name="<script>")
    assert "<script>" not in named.estimate("a")._repr_html_()


def test_others_have_their_turns_between_the_calls_of_a_plan(session, monkeypatch):
    seen = []

    def cached_tokens(_engine, _token_ids):
        seen.append("call")
        asyncio.get_running_loop().call_soon(seen.append, "turn")
        return 0

    monkeypatch.setattr(SharingEngine, "cached_tokens", cached_tokens)
    f("Step {{input:x}}: {{output:y}}").estimate(["a", "b", "c"])
    assert seen[:5] == ["call", "turn", "call", "turn", "call"]


def test_a_remembered_text_that_a_check_may_refuse_is_no_certain_figure(session):
    asked = []

    def second(text):
        asked.append(text)
        return len(asked) == 2

    step = f("Step {{input:x}}: {{output:y}}", retries=1)
    for judged, exact in ((step, True), (step.options(check=second), False)):
        judged("a").get(timeout=WAIT_S)
        assert figures(judged.estimate("a").calls[0])[1:4] == ("memo", len("Step a: "), exact)


def test_equal_calls_are_planned_once(session):
    step = f("Step {{input:x}}: {{output:y}}")
    assert step.options(fresh=True).estimate("a").calls[0].source == "model"
    plan = P.plan(step.map(["a", "a", "b"]), step.options(temperature=1.0).map(["a", "a"]))
    assert [call.source for call in plan.calls] == ["model", "memo", "model", "model", "model"]
    assert session.engine.num_opened == 0


def test_texts_that_are_still_to_be_written_raise_no_false_alarm(session):
    write = f("Write {{input:x}}: {{output:y}}", max_tokens=300)
    review = f("Review {{input:task}}\nCode: {{input:code}}\nReview: {{output:y}}")
    assert P.plan([review(task, write(task)) for task in "abcd"]).advice == ()


def test_an_estimate_of_a_table_has_a_call_for_each_row_whose_cells_are_values(session):
    step = f("Step {{input:x}} of {{input:z}}: {{output:y}}")
    rows = [{"x": "a", "place": "here"}, {"x": float("nan"), "place": "there"}, {"x": "c", "place": "nowhere"}]
    assert len(step.estimate(rows, z="place").calls) == 2
    assert len(step.estimate(rows, z="place", on_error="raise").calls) == 2
    with pytest.raises(P.ArgumentError, match="no column 'z'"):
        step.estimate(rows)
    assert session.calls() == []
