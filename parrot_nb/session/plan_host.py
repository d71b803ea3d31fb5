"""The host of a cell that is planned: it takes calls, and nothing runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode

if TYPE_CHECKING:
    from parrot_nb.session.plans import Plan
    from parrot_nb.session.session import Session


class PlanHost:
    """Takes the calls of a cell that is planned and not run; meets `parrot_nb.language.host.Host` as far as such a cell needs it.

    Args:
        session: whose plan it is.
    """

    takes_all = True  # rows of a table need not wait for each other, since none ends

    def __init__(self, session: Session) -> None:
        self._session = session
        self._calls: dict[int, Call] = {}

    @property
    def calls(self) -> list[Call]:
        """The calls that were made, in order."""
        return [self._calls[call_id] for call_id in sorted(self._calls)]

    def submit(self, calls: Sequence[Call]) -> None:
        """Take calls, which nothing will run."""
        for call in calls:
            self._calls[call.id] = call

    def read(self, nodes: Sequence[VariableNode], perf: Any) -> None:
        """End the plan: what follows depends on values that there are not. Raises PlanEnd."""
        raise PlanEnd(nodes[0].name if nodes else "a variable")

    def wait(self, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
        """Do as `read`."""
        self.read(nodes, None)

    def interrupted(self, nodes: Sequence[VariableNode]) -> None:
        """Nothing waits."""

    def cancel(self, nodes: Sequence[VariableNode]) -> None:
        """Nothing runs."""

    def when_cancelled(self, callback: Any) -> None:
        """Nothing runs."""

    def render(self, function: Any, inputs: Any) -> Any:
        """Ask the session."""
        return self._session.render(function, inputs)

    def plan(self, calls: Sequence[Call]) -> Plan:
        """Ask the session."""
        return self._session.plan(calls)

    def describe(self, call: Call) -> Any:
        """Ask the session."""
        return self._session.describe(call)


class PlanEnd(BaseException):
    """A planned cell reads a value; not an Exception, since the cell's own handlers are not for it. Its text is the variable's name."""
