"""A case: a prompt in the form that `%%semantic` produces, the values that go into it, and the right answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

_PLACEHOLDER = re.compile(r"\{\{(input|output):(\w+)\}\}")

NUM_SIZES = 4
ANSWER = "<answer>"


def phrased(instructions: tuple[str, ...], body: str, labels: tuple[str, ...]) -> tuple[str, ...]:
    """Prompts made of each instruction and each label around the same body; the plainest first."""
    return tuple(f"{instruction}{body}\n{label}" for instruction in instructions for label in labels)


@dataclass(frozen=True, slots=True)
class Turn:
    """The stretches of text that are filled before an answer, each tokenized for itself, and the answer."""

    fills: tuple[str, ...]
    answer: str


@dataclass(frozen=True, slots=True)
class Case:
    """One prompt with its right answers.

    Attributes:
        task: what is asked for, a key of `tasks.TASKS`.
        template: the prompt, with `{{input:name}}` and `{{output:name}}`.
        inputs: the text of each input.
        answers: the text of each output, exactly as the model should write it.
        program: where an answer is code, a Python program with `ANSWER` in its place, which ends without error if the
            answer does what it should.
    """

    task: str
    template: str
    inputs: Mapping[str, str]
    answers: Mapping[str, str]
    program: str | None = None

    def turns(self) -> tuple[Turn, ...]:
        """The prompt as fills and answers, in order."""
        turns: list[Turn] = []
        fills: list[str] = []
        end = 0
        for match in _PLACEHOLDER.finditer(self.template):
            if match.start() > end:
                fills.append(self.template[end : match.start()])
            end = match.end()
            if match[1] == "input":
                fills.append(self.inputs[match[2]])
            else:
                turns.append(Turn(tuple(fills), self.answers[match[2]]))
                fills = []
        return tuple(turns)
