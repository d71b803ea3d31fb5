"""How a `get()` in a cell waits: an interrupt ends it in one sentence."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from parrot_nb.language.nodes import VariableNode
from parrot_nb.session import Session
from parrot_nb.session.nested import running_loop


class CellInterrupted(KeyboardInterrupt):
    """The user interrupted a cell that was waiting for variables; their calls are cancelled."""

    def __init__(self, names: Sequence[str]) -> None:
        super().__init__(f"interrupted: {', '.join(names)} cancelled")

    def _render_traceback_(self) -> list[str]:
        return [f"Interrupted: {self.args[0].removeprefix('interrupted: ')}; the session goes on."]


def wait_in_cell(session: Session, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
    """Wait as `Session.wait_blocking` does. An interrupt leaves as `CellInterrupted`, or where a kernel cancels for it as CancelledError."""
    try:
        with _interrupts_at_once():
            session.wait_blocking(nodes, timeout_s)
    except KeyboardInterrupt:
        names = list(dict.fromkeys(node.name for node in nodes))
        shown = [f"'{name}'" for name in names[:3]] + (["..."] if len(names) > 3 else [])
        raise CellInterrupted(shown) from None


@contextmanager
def _interrupts_at_once() -> Iterator[None]:
    """Have an interrupt cancel the task that waits: in an async cell a kernel's handler asks the loop to do so, which stands still."""
    before = signal.getsignal(signal.SIGINT)
    on_main = threading.current_thread() is threading.main_thread()
    task = asyncio.current_task() if on_main and running_loop() is not None else None
    if task is None or before is signal.default_int_handler or not callable(before):
        yield
        return

    def handle(number: int, frame: FrameType | None) -> None:
        before(number, frame)
        task.cancel()

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
