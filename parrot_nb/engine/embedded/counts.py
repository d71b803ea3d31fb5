"""Which tokens a context holds, and how often its generation has chosen each: what penalties depend on."""

from __future__ import annotations

from array import array
from collections.abc import Iterable

from parrot_nb.engine.protocol import Sampling


class TokenCounts:
    """Distinct tokens in order of their first appearance, each with how often it was chosen.

    Args:
        prompt: tokens that are there without having been chosen.

    Attributes:
        ids: the tokens, as C ints.
        counts: of each of them, as C ints; 0 for what stands in the prompt alone.
    """

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        self.ids = array("i", dict.fromkeys(prompt))
        self.counts = array("i", bytes(len(self.ids) * self.ids.itemsize))
        self._places: dict[int, int] | None = None  # of each token; made when one is added, which few copies live to see

    def add(self, token: int) -> None:
        """Count one more choice of a token."""
        if self._places is None:
            self._places = {token: place for place, token in enumerate(self.ids)}
        place = self._places.setdefault(token, len(self.ids))
        if place == len(self.ids):
            self.ids.append(token)
            self.counts.append(0)
        self.counts[place] += 1

    def copy(self) -> TokenCounts:
        """The same counts, which no longer change with these."""
        twin = TokenCounts()
        twin.ids, twin.counts = self.ids[:], self.counts[:]
        return twin


def counts_for(sampling: Sampling, prompt: Iterable[int]) -> TokenCounts | None:
    """Return the initial counts for a generation's penalties; None where it has none. The prompt matters to one of them only."""
    if not sampling.has_penalties:
        return None
    return TokenCounts(() if sampling.repetition_penalty in (None, 1.0) else prompt)
