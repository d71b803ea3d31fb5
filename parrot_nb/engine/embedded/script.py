"""Scripts: tokens that a generation writes whatever the model says, for the log-probabilities that the model gives there.

A script is computed like a guess that is always right: all of its tokens in one step, a sample before each of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor

    from parrot_nb.engine.embedded.step import StepContext


@dataclass(frozen=True, slots=True)
class Place:
    """A place of a script.

    Attributes:
        token: what is written there.
        asked: tokens whose log-probabilities are asked for there.
    """

    token: int
    asked: tuple[int, ...]


Script = tuple[Place, ...]


def prescribed(chosen: Tensor, contexts: Sequence[StepContext]) -> Tensor:
    """Return the samples of a step, int64 [S], with what scripts say in place of what was chosen; -1 stays where logits are
    unusable."""
    if all(context.script is None for context in contexts):
        return chosen
    import torch

    tokens: list[int] = []
    for context in contexts:
        tokens += [-1] * context.num_samples if context.script is None else [place.token for place in context.script]
    said = torch.tensor(tokens).to(chosen.device, non_blocking=True)
    return torch.where((said < 0) | (chosen < 0), chosen, said)
