"""Token budgets of a step: their size, and their rest while the step is planned."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.protocol import Kind

LEFT_OUT_STEPS = 32  # a context that was ready for so many steps and in none is overdue
AHEAD_TOKENS = 32  # so few rows more cost a step that decodes little: it waits for the weights, not for arithmetic
BEYOND = 4  # a step may exceed its budget by a quarter: for ends of prompts that follow another's, and for who was left out


@dataclass(slots=True)
class Budget:
    """Budget of a step besides the contexts with a pace that are being written, which are always in; in prompt tokens.

    Attributes:
        rows: all of it.
        others: of contexts without a pace.
        decode_cost: what a context costs that writes one token.
        fills: whether prompts of contexts without a pace get any of it; else only those that write.
        spent: what contexts without a pace take of it, once the step is planned.
    """

    rows: int
    others: int
    decode_cost: float = 1.0
    fills: bool = True
    spent: float = 0.0


def is_overdue(context: Context) -> bool:
    """True if a context has been left out of so many steps that it comes before all others."""
    return context.num_left_out >= LEFT_OUT_STEPS


class Left:
    """Rest of a step's budget.

    Attributes:
        ahead: for what is filled ahead of its time.
        ends: beyond the budget, for ends of prompts that follow another's.
    """

    def __init__(self, budget: Budget, page_size: int, *, ends: bool) -> None:
        self._budget, self._page_size = budget, page_size
        self._rows, self._others = float(budget.rows), float(budget.others)
        self._overdue = max(page_size, budget.rows // BEYOND)  # beyond the budget, for who was left out too long
        self.ahead = AHEAD_TOKENS
        self.ends = budget.rows // BEYOND if ends else 0

    @property
    def spent(self) -> float:
        """Prompt tokens that contexts without a pace have taken."""
        return self._budget.others - self._others

    def room(self, context: Context) -> int:
        """Return the number of tokens of a context that there is room for."""
        if is_overdue(context) and self._overdue > 0:
            return min(self._page_size, self._overdue)
        cost, budget = self._cost(context), self._budget
        fills = context.decodes or budget.fills
        paid = self._rows if context.pace is not None else min(self._rows, self._others) if fills else 0.0
        return 1 + max(0, int(paid - cost)) if not cost or paid >= cost else 0

    def _cost(self, context: Context) -> float:
        """Return the cost of a context's first token."""
        if not context.decodes:
            return 1.0
        return self._budget.decode_cost if context.pace is None else 0.0  # free of charge: the budget is what is left beside it

    def take(self, context: Context, count: int, *, is_end: bool) -> None:
        """Charge so many tokens of a context."""
        paid = self._cost(context) + count - 1
        self._rows -= paid
        if context.pace is None:
            self._others -= paid
        if context.priority.kind == Kind.AHEAD:
            self.ahead -= count
        if is_overdue(context):
            self._overdue -= count
        if is_end:
            self.ends -= count
