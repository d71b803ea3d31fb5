"""How large a step may be for those who want their tokens within some time."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_nb.engine.embedded.batch import Budget
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.protocol import Speed

FIRST_SHARE, LEAST_SHARE = 0.8, 0.1
BURST = 256  # tokens of prompts at a time: each of a few costs two or three times as much as each of many
BACK_OFF, RECOVER = 0.9, 1.005  # so that about one step in twenty is too long: 0.105 v = 0.005 (1 - v)


class Pacer:
    """Turns seconds into tokens by how long steps have taken, and, where a pace is firm, learns from steps that were too long all
    the same: their time varies, and work between steps takes some of it. Multiplicative decrease, slow increase.

    Args:
        most: tokens of a step that nobody bounds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = FIRST_SHARE  # of the time asked for that a step is planned to take
        self._wanted_s: float | None = None
        self._saved = 0  # tokens that others have not had

    def budget(self, contexts: Iterable[Context], speed: Speed) -> Budget:
        """What the next step may compute besides them, for the sake of those who are being written and have a pace."""
        paces = [context.pace for context in contexts if context.pace is not None and context.decodes]
        self._wanted_s = min((pace.tpot_s for pace in paces if pace.firm), default=None)
        if not paces:
            return Budget(self._most, self._most)
        alone_s = speed.step_s(len(paces))
        firm = self._most if self._wanted_s is None else self._tokens(self._wanted_s * self._share - alone_s, speed)
        soft = [self._tokens(pace.tpot_s - alone_s, speed) for pace in paces if not pace.firm]
        others = min(firm, self._at_times(min(soft))) if soft else firm
        return Budget(firm, others, speed.row_s / speed.prefill_s)

    def _at_times(self, tokens: int) -> int:
        """What others get of this step who may have so many tokens of each: many at a time."""
        self._saved += tokens
        if self._saved < BURST:
            return 0
        burst, self._saved = min(self._saved, self._most), 0
        return burst

    def stepped(self, seconds: float) -> None:
        """So much time lay between the last two steps' ends."""
        if self._wanted_s is not None:
            factor = BACK_OFF if seconds > self._wanted_s else RECOVER
            self._share = min(1.0, max(LEAST_SHARE, self._share * factor))

    def _tokens(self, seconds: float, speed: Speed) -> int:
        """Of prompts, that a step has so much time for."""
        return max(0, min(self._most, int(seconds / speed.prefill_s)))
