"""The questions of a lesson, as they are stored: one TOML file for each lesson, apart from the cells that ask."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from parrot_nb.errors import UsageError

FOLDER = files("parrot_nb.lessons") / "content"
LETTERS = "abcdefgh"


@dataclass(frozen=True, slots=True)
class Exercise:
    """One exercise.

    Attributes:
        task: what is asked, in one sentence.
        hint: what a first answer that is not right is told.
        solution: code, or words where `is_code` is False.
        why: what there is to learn from it.
        answer: the value that is right, or None where a function decides.
        within: relative tolerance of numbers.
        checker: name of a function of `parrot_nb.lessons.checks`, or None where values are compared.
        is_code: whether the solution is Python.
    """

    task: str
    hint: str
    solution: str
    why: str
    answer: Any = None
    within: float = 0.0
    checker: str | None = None
    is_code: bool = True


@dataclass(frozen=True, slots=True)
class Question:
    """One question of a quiz.

    Attributes:
        ask: the question.
        choices: its answers, the first of which is `a`.
        right: letter of the right one.
        because: for each choice, why it is right or wrong.
    """

    ask: str
    choices: tuple[str, ...]
    right: str
    because: tuple[str, ...]

    @property
    def letters(self) -> str:
        """Letters of the choices, in order."""
        return LETTERS[: len(self.choices)]


def numbers() -> list[int]:
    """Return the numbers of the lessons that have questions, in order."""
    return sorted(int(entry.name.removesuffix(".toml")) for entry in FOLDER.iterdir() if entry.name.endswith(".toml"))


def read(number: int) -> tuple[tuple[Exercise, ...], tuple[Question, ...]]:
    """Return the exercises and the quiz of a lesson.

    Args:
        number: that its file begins with.

    Raises:
        UsageError: there is no such lesson.
    """
    known = numbers()
    if isinstance(number, bool) or number not in known:
        raise UsageError(f"There is no lesson {number!r}: choose from {', '.join(map(str, known))}.")
    said = tomllib.loads((FOLDER / f"{number:02}.toml").read_text(encoding="utf-8"))
    exercises = tuple(Exercise(**_stripped(entry)) for entry in said["exercise"])
    questions = tuple(
        Question(entry["ask"], tuple(entry["choices"]), entry["right"], tuple(entry["because"])) for entry in said["question"]
    )
    return exercises, questions


def _stripped(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value.strip("\n") if isinstance(value, str) else value for key, value in entry.items()}
