"""Exercises and quizzes: what is stored is consistent, a hint comes before the solution, and a wrong answer is no right one."""

from __future__ import annotations

import html
import re
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.errors import UsageError
from parrot_nb.lessons import lesson
from parrot_nb.lessons.checks import CHECKERS, better, compared, mood, three_phase
from parrot_nb.lessons.content import numbers

NUMBERS = numbers()


@pytest.mark.parametrize("number", NUMBERS)
def test_what_is_stored_of_a_lesson_is_whole(number):
    exercises, questions = lesson(number).exercises, lesson(number).questions
    assert exercises
    for exercise in exercises:
        assert all((exercise.task, exercise.hint, exercise.solution, exercise.why))
        assert (exercise.answer is None) == (exercise.checker in CHECKERS), "a value, or a function that decides"
        assert exercise.solution not in exercise.hint
    assert len(questions) == 5
    for question in questions:
        assert len(question.choices) == len(question.because) == len(set(question.choices)) == 3
        assert len(set(question.because)) == 3, "each choice has a reason of its own"
        assert len(question.right) == 1
        assert question.right in question.letters


def test_right_answers_stand_at_every_place():
    counts = Counter(question.right for number in NUMBERS for question in lesson(number).questions)
    assert set(counts) == set("abc")
    assert max(counts.values()) < sum(counts.values()) / 2


def test_a_hint_comes_first_and_then_the_solution():
    course = lesson(3)
    hint, solution = course.exercises[0].hint, course.exercises[0].solution
    first, second = course.check(1, 3.0), course.check(1, 99)
    assert (first.is_right, second.is_right) == (False, False)
    assert hint in " ".join(repr(first).split())
    assert solution not in repr(first)
    assert "too small" in repr(first)
    assert solution in repr(second)
    assert "too large" in repr(second)
    assert course.check(1, 7.2).is_right
    assert lesson(3).check(1, "7.2").is_right is False


def test_no_answer_yet_is_no_wrong_one():
    course = lesson(3)
    assert course.check(1).is_right is None
    assert course.check(1, ...).is_right is None
    assert course.exercises[0].hint in " ".join(repr(course.check(1, 1)).split()), "it is still the first answer"


def test_exercises_of_a_lesson_count_their_answers_apart():
    course = lesson(6)
    course.check(1, {})
    assert course.exercises[1].hint in " ".join(repr(course.check(2, "KeyError")).split())


def test_a_variable_is_checked_by_its_value():
    assert lesson(3).check(1, P.variable(name="ratio", value="7.2")).is_right is False, "a text is no number"
    assert lesson(6).check(2, P.variable(name="error", value=" inputvalueerror\n")).is_right


@pytest.mark.parametrize("number", NUMBERS)
def test_every_choice_is_judged_with_its_own_reason(number):
    course = lesson(number)
    for i, question in enumerate(course.questions, 1):
        for letter, because in zip(question.letters, question.because, strict=True):
            shown = course.quiz(i, letter.upper() + " ")
            assert shown.is_right == (letter == question.right)
            assert because in " ".join(repr(shown).split())
        course.quiz(i, question.right)
    assert "5 of 5 right" in repr(course.quiz(5, course.questions[4].right))


@pytest.mark.parametrize("number", NUMBERS)
def test_a_quiz_as_text_tells_no_answers_and_as_html_folds_them(number):
    course = lesson(number)
    shown = course.quiz()
    text, page = " ".join(repr(shown).split()), shown._repr_html_()
    for question in course.questions:
        assert question.ask in text
        assert all(choice in text for choice in question.choices)
        assert not any(because in text for because in question.because)
    assert "<script" not in page
    assert page.count("<details") == page.count("<summary") == 15
    outside = re.sub(r"<div style=\"padding:2px 0 4px 14px.*?</details>", "", page, flags=re.DOTALL)
    plain = html.unescape(re.sub(r"<[^>]+>", "", outside))
    assert not re.search(r"\b(Not right|Right)\. ", plain)


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: lesson(99), r"There is no lesson 99: choose from 1, 2"),
        (lambda: lesson(True), "There is no lesson True"),
        (lambda: lesson(1).check(2, 1), "Lesson 1 has no exercise 2: choose from 1 to 1"),
        (lambda: lesson(1).check(0, 1), "no exercise 0"),
        (lambda: lesson(1).quiz(6), "Lesson 1 has no question 6: choose from 1 to 5"),
        (lambda: lesson(1).quiz(1, "d"), 'Question 1 has no choice \'d\': choose from "a", "b", "c"'),
        (lambda: lesson(1).quiz(1, ""), "no choice ''"),
        (lambda: lesson(1).quiz(1, "ab"), "no choice 'ab'"),
        (lambda: lesson(1).quiz(1, 2), "no choice 2"),
    ],
)
def test_what_there_is_not_is_refused_with_what_there_is(call, said):
    with pytest.raises(UsageError, match=said):
        call()


NUMBERS_DRAWN = st.floats(0.1, 1e6) | st.integers(1, 10**6)
RIGHT = (
    NUMBERS_DRAWN
    | st.lists(NUMBERS_DRAWN, min_size=1, max_size=4)
    | st.text("abc", min_size=1).filter(str.strip)
    | st.lists(st.sampled_from(["read", "write", "ask"]), min_size=1, unique=True)
    | st.dictionaries(st.sampled_from("abc"), st.integers(0, 9), min_size=1)
)


@given(right=RIGHT)
@settings(max_examples=60)
def test_only_the_right_value_passes(right):
    assert compared(right, right, 0.01) is None
    changed = {
        float: lambda: right * 1.1,
        int: lambda: right + right,
        str: lambda: right + "x",
        list: lambda: right[:-1],
        dict: lambda: {**right, "more": 1},
    }[type(right)]()
    assert compared(changed, right, 0.01)
    for other in (None, object(), True, b"abc", ["unknown"], {"unknown": 1}):
        assert compared(other, right, 0.01)


def test_names_are_compared_without_their_order():
    assert compared(("b", "a", "a"), ["a", "b"], 0) is None
    assert compared({"a"}, ["a", "b"], 0) == "Not these names: 1 missing."


def test_attention_that_leaves_a_part_out_is_told_by_how_much():
    def without_halves(query, shared, halves, own):
        import torch

        users = query.shape[0]
        keys, values = (torch.cat([a.expand(users, -1, -1), b], 1) for a, b in zip(shared, own, strict=True))
        return torch.nn.functional.scaled_dot_product_attention(query[:, None], keys, values)[:, 0]

    assert "largest difference" in three_phase(without_halves)
    assert "shape [users, dim]" in three_phase(lambda query, *_: query[:2])
    assert "is the function" in three_phase(3)
    assert "raised TypeError" in repr(lesson(3).check(2, lambda query: query))


def test_prompts_that_do_not_do_are_refused():
    with P.Session():
        untyped = P.SemanticFunction("{{input:message}}\nSentiment: {{output:mood}}", name="mood")
        assert "no type yet" in mood(untyped)
        assert "%%semantic" in mood("happy")
        feeling = P.SemanticFunction(
            '{{input:message}}\nMood: {{output:word: "positive" | "negative" | "neutral"}}', name="feeling"
        )
        assert "not better" in better(feeling)
        assert "is a function" in better(0.9)
