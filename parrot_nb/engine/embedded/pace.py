"""How large a step may be for those who want their tokens within some time."""

from __future__ import annotations

from collections.abc import Iterable

from parrot_nb.engine.embedded.batch import Budget
from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.times import StepTimes
from parrot_nb.engine.protocol import Speed

MANY_ROWS = 64  # a step with a longer piece of a prompt computes; a smaller one waits for the weights
FIRST_SHARE, LEAST_SHARE = 0.8, 0.1
BACK_OFF, RECOVER = 0.9, 1.005  # so that about one step in twenty is too long: 0.105 v = 0.005 (1 - v)


class Pacer:
    """Turns seconds into rows by how long steps have taken, and learns from steps that were too long all the same: their
    time varies, and work between steps takes some of it. Multiplicative decrease, slow increase.

    Args:
        most: rows of a step that nobody bounds.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._share = FIRST_SHARE  # of the time asked for that a step is planned to take
        self._wanted_s: float | None = None

    def budget(self, contexts: Iterable[Context], speed: Speed, long_times: StepTimes) -> Budget:
        """How many rows the next step may have, for the sake of those who are being written and have a pace."""
        paces = [context.pace for context in contexts if context.pace is not None and context.decodes]
        if not paces:
            self._wanted_s = None
            return Budget(self._most, self._most)
        self._wanted_s = min(pace.tpot_s for pace in paces)
        firm = min((self._rows(pace.tpot_s, speed, long_times) for pace in paces if pace.firm), default=self._most)
        return Budget(firm, self._rows(self._wanted_s, speed, long_times))

    def stepped(self, seconds: float) -> None:
        """So much time lay between the last two steps' ends."""
        if self._wanted_s is not None:
            factor = BACK_OFF if seconds > self._wanted_s else RECOVER
            self._share = min(1.0, max(LEAST_SHARE, self._share * factor))

    def _rows(self, seconds: float, speed: Speed, long_times: StepTimes) -> int:
        rows = speed.rows_within(seconds * self._share)
        if rows > MANY_ROWS and long_times.mean_row_s:  # there arithmetic decides, not the weights
            rows = max(MANY_ROWS, int(seconds * self._share / long_times.mean_row_s))
        return min(rows, self._most)
