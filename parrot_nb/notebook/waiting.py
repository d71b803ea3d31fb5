"""How a `get()` in a cell waits: an interrupt ends it in one sentence."""

from __future__ import annotations

from collections.abc import Sequence

from parrot_nb.language.nodes import VariableNode
from parrot_nb.session import Session, wait_blocking


class CellInterrupted(KeyboardInterrupt):
    """The user interrupted a cell that was waiting for variables; their calls are cancelled."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"interrupted: {', '.join(names)} cancelled")

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self.args[0].removeprefix('interrupted: ')}; the session goes on."]


def wait_in_cell(session: Session, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
    """Wait as `wait_blocking` does. An interrupt leaves as `CellInterrupted`."""
    try:
        wait_blocking(session, nodes, timeout_s)
    except KeyboardInterrupt:
        names = list(dict.fromkeys(node.name for node in nodes))
        shown = [f"'{name}'" for name in names[:3]] + (["..."] if len(names) > 3 else [])
        raise CellInterrupted(shown) from None
