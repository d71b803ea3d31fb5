"""parrot-tiny through prompts as a user writes them: with the question in the prompt, and with it as an input."""

from __future__ import annotations

import pytest

import parrot_nb as P
from parrot_nb.tiny.meetings import draw_items, draw_people, transcript
from parrot_nb.tiny.programs import draw_function
from parrot_nb.tiny.words import Draw

COUNT = 30
LEAST_RIGHT = 27
WAIT_S = 120

ASK_TWICE = """Read the text and answer the questions.
{{input:text}}
Question: Who has to {{input:task}}?
Answer: {{output:who}}
Question: By when will {{input:who}} {{input:task}}?
Answer: {{output:when}}"""
ASK_ONE = "Read the text and answer the question.\n{{input:text}}\nQuestion: Who will {{input:task}}?\nAnswer: {{output:who}}"
CODE = "Write python code of a function {{input:name}} that {{input:does}}.\nCode: {{output:code}}"


@pytest.fixture(scope="module")
def session():
    with P.Session(device="cpu", dtype="float32", max_tokens=60) as opened:
        yield opened


def meetings() -> list[tuple[str, object]]:
    found = []
    for i in range(COUNT):
        draw = Draw(f"natural {i}", held_out=True)
        people = draw_people(draw, 3, 5)
        items = draw_items(draw, people, 2)
        found.append((transcript(draw, people, items, 5), draw.choice(items)))
    return found


@pytest.mark.slow
@pytest.mark.parametrize("chat", [True, False])
def test_questions_in_the_prompt(session, chat):
    ask = P.SemanticFunction(ASK_TWICE, name="ask").options(chat=chat)
    one = P.SemanticFunction(ASK_ONE, name="one").options(chat=chat)
    with session:
        answers = [(ask(text, item.what), one(text, item.what), item) for text, item in meetings()]
        right = [
            (both.who.get(timeout=WAIT_S), both.when.get(timeout=WAIT_S)) == (item.who, item.when) for both, _, item in answers
        ]
        alone = [who.get(timeout=WAIT_S) == item.who for _, who, item in answers]
    assert sum(right) >= LEAST_RIGHT
    assert sum(alone) >= LEAST_RIGHT


@pytest.mark.slow
def test_a_description_in_two_pieces(session):
    write = P.SemanticFunction(CODE, name="write")
    with session:
        functions = [draw_function(Draw(f"natural {i}", held_out=True)) for i in range(COUNT)]
        codes = [write(function.name, function.does) for function in functions]
        right = [code.get(timeout=WAIT_S) == function.code for code, function in zip(codes, functions, strict=True)]
    assert sum(right) >= LEAST_RIGHT
