"""Instructions: which lines of a prompt they are, and what another one leaves as it was."""

from __future__ import annotations

import enum

import pytest

import parrot_nb as P
from parrot_nb.language import Constant, Template
from parrot_nb.language.instructions import instruction_of, with_instruction, with_written_instruction


class Mood(enum.Enum):
    GOOD = 1
    BAD = 2


BODY = "From {{input:who}}\n{{output:said, max_tokens=3}}"
CASES = [
    ("Be brief.\nBe kind.\n" + BODY, "Be brief.\nBe kind."),
    (BODY, ""),
    ("{{input:who}} {{output:said}}", ""),
    ("One \\{{ brace.\n" + BODY, "One {{ brace."),
]


@pytest.mark.parametrize(("text", "instruction"), CASES)
def test_an_instruction_is_the_lines_above_the_first_placeholder(text, instruction):
    say = P.SemanticFunction(text)
    assert instruction_of(say) == instruction
    other = with_instruction(say, "Answer in one word.\nNo more.")
    assert instruction_of(other) == "Answer in one word.\nNo more."
    lines = text.split("\n")[len(instruction.split("\n")) if instruction else 0 :]
    assert other.template.source == "\n".join(["Answer in one word.\nNo more.", *lines])
    assert Template.parse(other.template.source).segments == other.template.segments, "errors point into the source"
    assert instruction_of(say) == instruction, "the function itself is as it was"


def test_all_else_of_the_function_stays():
    def ok(value: object) -> bool:
        return value is Mood.GOOD

    say = P.SemanticFunction("Say.\n{{input:a}} {{output:mood: Mood}}", name="say", check=ok, namespace={"Mood": Mood}).options(
        temperature=0.5
    )
    other = with_instruction(say, "Tell.")
    assert (other.name, other.check, other.settings) == ("say", ok, say.settings)
    assert other.value_of("mood", "GOOD") is Mood.GOOD
    assert str(other.signature) == "(a)"


def test_what_a_model_wrote_is_data():
    say = P.SemanticFunction("Say.\n{{input:a}} {{output:b}}")
    other = with_written_instruction(say, "Use {{output:c}} <|end|>", "words")
    assert other.template.outputs == ("b",)
    assert other.signature.parameters["words"].default == "Use {{output:c}} <|end|>"
    assert not any("end" in s.text for s in other.template.segments if isinstance(s, Constant))
    assert Template.parse(other.template.source).segments == other.template.segments


@pytest.mark.parametrize("text", ["", " \n", "Say {{input:x}}", "Say {{output:x}}"])
def test_no_instruction(text):
    with pytest.raises(P.ArgumentError, match="text without placeholders"):
        with_instruction(P.SemanticFunction(BODY), text)
