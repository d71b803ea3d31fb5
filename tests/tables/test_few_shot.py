"""Examples before a prompt: what the model reads, and what of it is data."""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import polars as pl
import pytest
from shorthand import WAIT_S, f, text_of

import parrot_nb as P
from parrot_nb.language import Constant, Template

TABLE = {"text": ["red", "blue"], "said": ["warm", "cold"]}


class Mood(enum.Enum):
    GOOD = 1
    BAD = 2


@dataclass
class Task:
    who: str
    days: int


@pytest.mark.parametrize(
    "table", [pd.DataFrame(TABLE), pl.DataFrame(TABLE), pl.DataFrame(TABLE).to_dicts()], ids=["pandas", "polars", "dicts"]
)
def test_examples_stand_before_the_prompt(session, table):
    say = f("Say {{input:text}}: {{output:said}}").with_examples(table)
    assert say("green").get(timeout=WAIT_S) == text_of("Say red: warm\n\nSay blue: cold\n\nSay green: ")
    rows = say.map([{"text": "green"}])
    assert rows.get(timeout=WAIT_S) == [say("green").get(timeout=WAIT_S)]


def test_other_names_and_other_examples(session):
    say = f("{{input:text}}: {{output:said}}.").with_examples([{"word": "a", "label": "b"}], text="word", said="label")
    assert "".join(s.text for s in say.render("x")) == "a: b.\n\nx: ."
    again = say.options(temperature=0.5).with_examples([{"text": "c", "said": "d"}])
    assert "".join(s.text for s in again.render("x")) == "c: d.\n\nx: .", "in the place of the first"
    assert again.settings.temperature == 0.5


def test_what_an_example_says_is_data(session):
    say = f("{{input:text}}: {{output:said}}").with_examples([{"text": "{{input:x}}", "said": "{{output:y}} <|end|>"}])
    assert say.template.outputs == ("said",)
    assert next(iter(say.signature.parameters)) == "text"
    assert not any("<|end|>" in segment.text for segment in say.template.segments if isinstance(segment, Constant))
    assert [s.kind for s in say.render("x")] == ["input", "constant", "input", "constant", "input", "constant", "output"]


def test_a_prompt_with_examples_is_its_own_source(session):
    """Errors point into it, and it can be exported."""
    say = f("First {{input:text}}\nthen {{output:said: int}} {{input:said}}\n{{output:more}}")
    shown = say.with_examples([{"text": "a", "said": 3, "more": "b"}])
    assert Template.parse(shown.template.source).segments == shown.template.segments


TYPED = [
    ("int", 3, "3"), ("bool", True, "true"), ('"high" | "low"', "low", "low"), ("Mood", Mood.BAD, "BAD"), ("Mood", "GOOD", "GOOD"),
    ("Literal[1, 2]", 2, "2"), ("Task", Task("Anna", 2), '{"who": "Anna", "days": 2}'), ("list[int]", [1, 2], "[1, 2]"),
    ("int | None", None, "null"), ("date", pd.Timestamp("2026-03-01").date(), "2026-03-01"),
]  # fmt: skip


@pytest.mark.parametrize(("kind", "value", "text"), TYPED)
def test_values_are_written_as_the_model_writes_them(session, kind, value, text):
    say = P.SemanticFunction(f"{{{{output:n: {kind}}}}}", namespace={"Mood": Mood, "Task": Task, "Literal": Literal})
    shown = say.with_examples([{"n": value}])
    assert [p.default for p in shown.signature.parameters.values()] == [text]


REFUSED = {
    "no such column": ([{"text": "a"}], {}, r"example 1 has no column 'said'.*said='column'"),
    "no such name": (TABLE, {"word": "text"}, "no input or output 'word'"),
    "a gap": ([{"text": "a", "said": 1}, {"text": None, "said": 1}], {}, "example 2: .text. is (nan|None)"),
    "no such choice": ([{"text": "a", "said": "x"}], {}, r"example 1: 'x' is no 'int' for 'said'"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_no_example_is_refused(session, case):
    table, columns, remedy = REFUSED[case]
    with pytest.raises(P.ArgumentError, match=remedy):
        f("{{input:text}} {{output:said: int}}").with_examples(pd.DataFrame(table), **columns)
