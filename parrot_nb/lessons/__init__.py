"""Exercises and quizzes of the lessons, which check themselves, and a run told decision by decision. Plain cells and text:
nothing needs a browser."""

from parrot_nb.lessons.content import Exercise, Question
from parrot_nb.lessons.lesson import Lesson, lesson
from parrot_nb.lessons.shown import Shown
from parrot_nb.lessons.steps import Decision, Steps, steps

__all__ = ["Decision", "Exercise", "Lesson", "Question", "Shown", "Steps", "lesson", "steps"]
