"""Scored outputs from the prompt to the value, in a runtime apart and in a thread."""

from __future__ import annotations

import asyncio
import enum
import math
from typing import Literal

import pytest

import parrot_nb as P
from parrot_nb.record.codec import from_json, to_json
from parrot_nb.runtime.events import VariableChanged


class Mood(enum.Enum):
    good = 1
    bad = 2


def test_the_value_is_the_likeliest_and_each_has_its_probability(session):
    label = P.SemanticFunction('Finn is here. Who is here? {{output:who: "Emma" | "Finn", score=True}}')()
    again = P.SemanticFunction("They say {{input:who}}: {{output:rest, max_tokens=3}}")(label)
    assert label.scores is None
    value = label.get()
    assert set(label.scores) == {"Emma", "Finn"}
    assert math.fsum(label.scores.values()) == pytest.approx(1)
    assert value == max(label.scores, key=label.scores.get) == label.text
    assert label.finish == "stop"
    assert label.usage.decoded_tokens > 0
    again.get()
    assert again.scores is None


def test_a_long_input_is_cut_so_that_the_longest_choice_has_room(session):
    long = " ".join(["a very long choice of words"] * 8)
    asked = P.SemanticFunction(f'{{{{input:doc, fit="end"}}}} So: {{{{output:x: "{long}" | "no", score=True}}}}').options(
        chat=False
    )
    found = asked("the cat sat on the mat. " * 3000)
    assert found.get() in (long, "no")
    assert found.usage.cut_tokens > 0


@pytest.mark.parametrize(
    ("kind", "values"),
    [(bool, {True, False}), (Literal[1, "one"], {1, "one"}), (Mood, set(Mood))],
    ids=["bool", "literal", "enum"],
)
def test_scores_are_of_python_values(session, kind, values):
    found = P.SemanticFunction("Well: {{output:x: Kind, score=True}}", namespace={"Kind": kind})()
    assert found.get() in values
    assert set(found.scores) == values


def test_what_streams_it_gets_the_text(session):
    async def main():
        label = P.SemanticFunction('Say: {{output:x: "yes" | "no", score="mean"}}')()
        return [piece async for piece in label.stream()], await label

    pieces, value = asyncio.run(main())
    assert "".join(pieces) == value


def test_an_output_in_the_middle_is_read_by_what_follows(session):
    asked = P.SemanticFunction('A {{output:x: "cat" | "dog", score=True}} and its {{output:rest, max_tokens=4}}').options(
        chat=False
    )
    first, second = asked(), asked()
    session.reset()
    assert (first.x.state, second.x.state) == ("cancelled", "cancelled")
    free = P.SemanticFunction("A {{input:x}} and its {{output:rest, max_tokens=4}}").options(chat=False)
    found = asked()
    assert found.rest.get() == free(found.x).get()


def test_equal_scorings_are_computed_once(session):
    asked = P.SemanticFunction('Once more: {{output:x: "cat" | "dog", score=True}}')
    first = asked()
    first.get()
    second = asked()
    second.get()
    assert second.usage.from_memo
    assert second.scores == first.scores


def test_a_check_is_asked_once_since_the_choice_would_be_the_same(session):
    asked = []
    label = P.SemanticFunction('Say: {{output:x: "yes" | "no", score=True}}').options(check=asked.append, retries=3)()
    with pytest.raises(P.CheckError):
        label.get()
    assert len(asked) == label.usage.attempts == 1


def test_the_event_of_its_end_has_the_scores_and_keeps_them_in_a_record(session):
    label = P.choose("Is it so? ", ["yes", "no"])
    label.get()
    session.reset()
    (event,) = [
        e for e in session.events.since(0) if isinstance(e, VariableChanged) and e.scores and e.variable_id == label.node.id
    ]
    assert dict(event.scores) == label.scores
    assert from_json(to_json(event)) == event


def test_choose_is_a_function_of_a_prompt_and_options(session):
    subject = P.SemanticFunction("A name: {{output:name, max_tokens=2}}")()
    asked = P.choose("Is " + subject + " here? ", [True, False], score="mean", temperature=0)
    assert asked.get() in (True, False)
    assert set(asked.scores) == {True, False}
    assert P.choose("{{input:x}} is no placeholder: ", Mood).get() in Mood
    assert P.choose("Well: ", Literal["a", "b"]).get() in ("a", "b")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("ab", "into brackets"),
        ([], "at least one option"),
        (["a", "a"], "there twice"),
        ([b"a"], "not bytes"),
        (int, "no choice between texts"),
        (str, "no choice between texts"),
    ],
)
def test_what_cannot_be_chosen_from_is_refused(options, message):
    with pytest.raises(P.ArgumentError, match=message):
        P.choose("Say: ", options)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("Say: {{output:x: int, score=True}}", "its type has no choices"),
        ("Say: {{output:x, score='mean'}}", "its type has no choices"),
        ("Say: {{output:x: 1 | True, score=True}}", "stand for equal values"),
        ("Say: {{output:x: 'a' | 'b', score=True, begin='a'}}", "begin has nothing to say"),
        ("Say: {{output:x: 'a' | 'b', score=True, retries=2}}", "retries has nothing to say"),
        ("Say: {{output:x: 'a' | 'b', score='best'}}", 'score must be True, False, "total" or "mean"'),
    ],
)
def test_a_score_that_means_nothing_is_refused_where_it_stands(source, message):
    with pytest.raises(P.TemplateError, match=message) as caught:
        P.SemanticFunction(source)
    assert caught.value.column >= 6


def test_an_option_of_a_function_scores_the_outputs_that_are_choices(session):
    both = P.SemanticFunction('{{output:text, max_tokens=2}} so {{output:x: "a" | "b"}}').options(score=True)()
    assert both.x.get() == max(both.x.scores, key=both.x.scores.get)
    assert both.text.scores is None
    with pytest.raises(P.OptionError, match="no output whose choices"):
        P.SemanticFunction("Say: {{output:x}}").options(score=True)
    with pytest.raises(P.OptionError, match="each choice as a whole"):
        P.SemanticFunction('Say: {{output:x: "a" | "b"}}').options(score=True, begin="a")().get()
