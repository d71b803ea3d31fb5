"""`check` and `quiz` of a lesson: a hint first, then the solution; and a reason for every choice."""

from __future__ import annotations

from collections import Counter
from typing import Any

from parrot_nb.errors import UsageError
from parrot_nb.language import SemanticVariable, VariableList
from parrot_nb.lessons import checks
from parrot_nb.lessons.content import Exercise, Question, read
from parrot_nb.lessons.shown import Part, Shown

HINTS = 1  # answers that are not right before the solution is shown


class Lesson:
    """Exercises and quiz of one lesson, and how far somebody has come with them.

    Args:
        number: of the lesson.

    Raises:
        UsageError: there is no such lesson.
    """

    def __init__(self, number: int) -> None:
        self.exercises, self.questions = read(number)
        self._number = number
        self._missed: Counter[int] = Counter()
        self._chosen: dict[int, str] = {}

    def __repr__(self) -> str:
        return (
            f"<lesson {self._number}: {_counted(len(self.exercises), 'exercise')}, {_counted(len(self.questions), 'question')}>"
        )

    def check(self, number: int, answer: Any = ...) -> Shown:
        """Check the answer to an exercise. A first answer that is not right gets a hint, a second one the solution.

        Args:
            number: of the exercise, from 1.
            answer: a value, a variable or a function, as the exercise asks; `...` for none yet.

        Returns:
            A note, whose `is_right` is True, False, or None where there is no answer.

        Raises:
            UsageError: there is no such exercise.
        """
        exercise = _picked(self.exercises, number, "exercise", self._number)
        if answer is ...:
            return Shown(
                f"Exercise {number}",
                (Part(exercise.task), Part(f"Put your answer in place of the dots: `check({number}, ...)`.")),
            )
        wrong = _judged(exercise, answer)
        if wrong is None:
            return Shown(f"✓ Exercise {number} is right.", (Part(exercise.why),), is_right=True)
        self._missed[number] += 1
        if self._missed[number] <= HINTS:
            told = [Part(f"Hint: {exercise.hint}")]
        else:
            told = [Part("A solution:"), Part(exercise.solution, exercise.is_code), Part(exercise.why)]
        return Shown(f"✗ Exercise {number} is not right yet.", (Part(wrong), *told), is_right=False)

    def quiz(self, number: int | None = None, choice: str | None = None) -> Shown:
        """Show the quiz, or one question of it, or judge a choice and say why.

        Args:
            number: of the question, from 1; None for all.
            choice: letter of the answer, such as "b".

        Returns:
            A note, whose `is_right` is None where nothing was chosen.

        Raises:
            UsageError: there is no such question, or the choice is none of its letters.
        """
        if number is None:
            parts = tuple(part for i, question in enumerate(self.questions, 1) for part in _asked(i, question))
            count = _counted(len(self.questions), "question")
            return Shown(f'{count}: open a choice to see whether it is right, or answer with `quiz(1, "a")`.', parts)
        question = _picked(self.questions, number, "question", self._number)
        if choice is None:
            return Shown(f"Question {number}", tuple(_asked(number, question)))
        letter = choice.strip().lower() if isinstance(choice, str) else ""
        if len(letter) != 1 or letter not in question.letters:
            letters = ", ".join(f'"{each}"' for each in question.letters)
            raise UsageError(f"Question {number} has no choice {choice!r}: choose from {letters}.")
        self._chosen[number] = letter
        is_right = letter == question.right
        title = f"✓ Question {number}: {letter} is right." if is_right else f"✗ Question {number}: {letter} is not right."
        right = sum(self.questions[i - 1].right == chosen for i, chosen in self._chosen.items())
        score = f"{right} of {len(self.questions)} right so far."
        return Shown(title, (Part(question.because[question.letters.index(letter)]), Part(score)), is_right)


def lesson(number: int) -> Lesson:
    """Return the exercises and the quiz of a lesson, of which a notebook takes `check` and `quiz`.

    Args:
        number: of the lesson, as in the name of its file.

    Raises:
        UsageError: there is no such lesson.
    """
    return Lesson(number)


def _asked(number: int, question: Question) -> list[Part]:
    choices = zip(question.letters, question.choices, question.because, strict=True)
    verdict = {letter: "Right" if letter == question.right else "Not right" for letter in question.letters}
    return [
        Part(f"{number}. {question.ask}"),
        *(Part(f"  {letter}. {text}", folded=f"{verdict[letter]}. {because}") for letter, text, because in choices),
    ]


def _judged(exercise: Exercise, answer: Any) -> str | None:
    """What is not right about an answer, or None."""
    if isinstance(answer, SemanticVariable | VariableList) and exercise.checker is None:
        answer = answer.get()
    if exercise.checker is None:
        return checks.compared(answer, exercise.answer, exercise.within)
    try:
        return checks.CHECKERS[exercise.checker](answer)
    except Exception as error:  # the answer's own code ran
        return f"Checking it raised {type(error).__name__}: {error}"


def _picked(entries: tuple[Any, ...], number: int, what: str, lesson_number: int) -> Any:
    if isinstance(number, bool) or not isinstance(number, int) or not 1 <= number <= len(entries):
        raise UsageError(f"Lesson {lesson_number} has no {what} {number!r}: choose from 1 to {len(entries)}.")
    return entries[number - 1]


def _counted(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"
