"""How a `get()` in a cell waits: interruptible, and never for something that only the waiting thread itself could do."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from parrot_nb.errors import SessionError
from parrot_nb.language.nodes import VariableNode
from parrot_nb.session import Session, wait_blocking


class CellInterrupted(KeyboardInterrupt):
    """The user interrupted a cell that was waiting for variables; their calls are cancelled."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"interrupted: {', '.join(names)} cancelled")

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self.args[0].removeprefix('interrupted: ')}; the session goes on."]


def wait_in_cell(session: Session, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
    """Wait as `wait_blocking` does. An interrupt leaves as `CellInterrupted`.

    Raises:
        SessionError: this thread's event loop is running and the variables wait for one that nothing has set: only a
            task on that very loop could still set it, and it cannot run while we block.
    """
    if timeout_s is None and _loop_is_running():
        for node in nodes:
            empty = _empty_source(node)
            if empty is not None:
                raise SessionError(
                    f"'{node.name}' waits for '{empty.name}', which nothing has set: set it first, or await {node.name} instead of get()."
                )
    try:
        wait_blocking(session, nodes, timeout_s)
    except KeyboardInterrupt:
        names = list(dict.fromkeys(node.name for node in nodes))
        shown = [f"'{name}'" for name in names[:3]] + (["..."] if len(names) > 3 else [])
        raise CellInterrupted(shown) from None


def _loop_is_running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True


def _empty_source(node: VariableNode) -> VariableNode | None:
    """A variable without value and producer that `node` depends on."""
    pending: list[Any] = [node]
    seen: set[int] = set()
    while pending:
        candidate = pending.pop()
        if candidate.final or candidate.id in seen:
            continue
        seen.add(candidate.id)
        if candidate.producer is None:
            return candidate
        pending.extend(candidate.producer.inputs.values())
    return None
