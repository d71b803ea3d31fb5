"""Choices by likelihood: what a choice scores, and which is the likeliest."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

Scoring = Literal["total", "mean"]
SCORINGS: tuple[Scoring, ...] = ("total", "mean")


@dataclass(frozen=True, slots=True)
class ScoredChoice:
    """A choice and its log-likelihood after the prompt, under the model's own distribution.

    Attributes:
        text: the choice.
        logprob: the sum of the log-probabilities of its tokens; no token that would end the text is among them.
        num_tokens: how many tokens that are, those that write again what was taken back from the prompt included.
        probability: its share among all choices: the softmax of what each of them scores.
    """

    text: str
    logprob: float
    num_tokens: int
    probability: float = 0.0


def shared_out(choices: Sequence[ScoredChoice], scoring: Scoring) -> tuple[ScoredChoice, ...]:
    """Return the choices with their probabilities, in the same order.

    Args:
        choices: with one finite log-likelihood at least.
        scoring: "total" compares log-likelihoods, "mean" log-likelihoods per token.
    """
    scores = [choice.logprob / (choice.num_tokens if scoring == "mean" else 1) for choice in choices]
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    total = math.fsum(weights)
    return tuple(
        ScoredChoice(choice.text, choice.logprob, choice.num_tokens, weight / total)
        for choice, weight in zip(choices, weights, strict=True)
    )


def likeliest(choices: Sequence[ScoredChoice]) -> int:
    """Return the place of the choice with the greatest probability; of equal ones the first."""
    return max(range(len(choices)), key=lambda i: choices[i].probability)
