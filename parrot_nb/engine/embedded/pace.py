"""Limits to the size of a step, for those who want their tokens within some time."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_nb.engine.embedded.budget import Budget
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.protocol import Speed

FIRST_SHARE, LEAST_SHARE = 0.8, 0.1
BURST = 256  # tokens of prompts that are worth a step: each of a few costs two or three times as much as each of many
BACK_OFF, RECOVER = 0.9, 1.005  # so that about one step in twenty is too long: 0.105 v = 0.005 (1 - v)


class Pacer:
    """Turns seconds into tokens by how long steps have taken, and, where a pace is firm, learns from steps that were too long all
    the same: their time varies, and work between steps takes some of it. Multiplicative decrease, slow increase.

    Beside a pace that is not firm, others have an allowance in each step, which counts on the average: what they do not take is
    saved up, for a burst at most. Who writes takes from it in every step; a prompt waits until it is worth a step.

    Args:
        most: tokens of a step that nobody bounds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = FIRST_SHARE  # of the time asked for that a step is planned to take
        self._wanted_s: float | None = None
        self._saved = 0.0  # of what others may have, in tokens
        self._given: Budget | None = None  # from which they took last

    def budget(self, contexts: Sequence[Context], speed: Speed) -> Budget:
        """Return the other contexts' budget in the next step, limited for the sake of decoding contexts that have a pace."""
        paces = [context.pace for context in contexts if context.pace is not None and context.decodes]
        self._wanted_s = min((pace.tpot_s for pace in paces if pace.firm), default=None)
        if not paces:
            return Budget(self._most, self._most)
        alone_s, cost = speed.step_s(len(paces)), speed.row_s / speed.prefill_s
        firm = self._most if self._wanted_s is None else self._tokens(self._wanted_s * self._share - alone_s, speed)
        soft = [self._tokens(pace.tpot_s - alone_s, speed) for pace in paces if not pace.firm]
        if not soft:
            return Budget(firm, firm, cost)
        if self._given is not None:
            self._saved = max(0.0, self._saved - self._given.spent)
        self._saved = min(self._saved, BURST) + min(soft)
        waiting = sum(context.num_pending for context in contexts if context.pace is None and not context.decodes)
        self._given = Budget(firm, min(firm, int(self._saved)), cost, fills=self._saved >= min(BURST, firm, waiting))
        return self._given

    def stepped(self, seconds: float) -> None:
        """Learn from the time between the last two steps' ends."""
        if self._wanted_s is not None:
            factor = BACK_OFF if seconds > self._wanted_s else RECOVER
            self._share = min(1.0, max(LEAST_SHARE, self._share * factor))

    def _tokens(self, seconds: float, speed: Speed) -> int:
        """Return the number of prompt tokens that a step has so much time for."""
        return max(0, min(self._most, int(seconds / speed.prefill_s)))
