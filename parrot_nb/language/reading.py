"""How a reader waits for variables, on its own thread or on its own event loop, and gets what became of them."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable, Sequence
from typing import Any

from parrot_nb.errors import OptionError
from parrot_nb.language.host import Host, current_host
from parrot_nb.language.joins import submit
from parrot_nb.language.nodes import Perf, VariableNode
from parrot_nb.language.partial import partial_json
from parrot_nb.language.perf import checked_perf
from parrot_nb.language.text import to_text

WAKE_S = 0.1  # an await looks up this often: the kernel's loop hands an interrupt over only at its next event


def read_blocking(host: Host | None, nodes: Sequence[VariableNode], perf: Perf | None, timeout: float | None) -> None:
    """Block until all nodes are final. Raises GetTimeoutError, OptionError, SessionError, CancelledError."""
    checked_perf(perf)
    checked_timeout(timeout)
    pending = [node for node in nodes if not node.final]
    if pending:
        host = send(host, pending, perf)
        try:
            host.wait(pending, timeout)
        except asyncio.CancelledError:
            host.interrupted(pending)
            raise


def checked_timeout(timeout: Any) -> None:
    """Raise OptionError unless a timeout is None or a number of seconds, 0 or more."""
    if timeout is not None:
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not number or math.isnan(timeout) or timeout < 0:
            raise OptionError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}.")


async def read_awaiting(host: Host | None, nodes: Sequence[VariableNode], perf: Perf | None) -> None:
    """Wait until all nodes are final, without blocking the running loop."""
    checked_perf(perf)
    pending = [node for node in nodes if not node.final]
    if not pending:
        return
    host = send(host, pending, perf)
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    countdown = Countdown(pending, lambda: wake(loop, changed))
    try:
        while not countdown.over:
            changed.clear()
            if not countdown.over:
                await tick(changed)
    except asyncio.CancelledError:
        host.interrupted(pending)
        raise
    finally:
        countdown.stop()


class Countdown:
    """Waits for the last of some variables, so that whoever reads many is woken once.

    Args:
        nodes: of the variables.
        callback: called once all of them are final, on the thread that writes the last one; it may only hand a message over.

    Attributes:
        over: whether all are final.
    """

    def __init__(self, nodes: Sequence[VariableNode], callback: Callable[[], None]) -> None:
        self.over = not nodes
        self._nodes = nodes
        self._callback = callback
        self._left = len(nodes)
        self._lock = threading.Lock()
        for node in nodes:
            node.watch_end(self._arrived)

    def stop(self) -> None:
        """Wait no longer. Harmless when it is over."""
        if not self.over:
            for node in self._nodes:
                node.unwatch_end(self._arrived)

    def _arrived(self) -> None:
        with self._lock:
            self._left -= 1
            self.over = not self._left
        if self.over:
            self._callback()


def result_of(node: VariableNode) -> Any:
    """A final node's value; raises its error with a traceback of this read alone."""
    if node.error is not None:
        raise node.error.with_traceback(None)
    return node.value


def text_of(node: VariableNode) -> str:
    """The text so far. Raises InputValueError for a value that has none."""
    return node.text if node.state != "done" or node.spans is not None else to_text(node.value, f"variable '{node.name}'")


def partial_of(node: VariableNode) -> Any:
    """Return what is certain of a value while it is written: the value itself once done, before that dicts, lists and strings of
    JSON as far as they have come, and of text without type the text. None where nothing is certain yet.

    Raises:
        ParrotError: what kept it from having a value.
    """
    if node.final:
        return result_of(node)
    call = node.producer
    kind = call.semantic.template.types.get(node.name) if call is not None and call.kind == "semantic" else None
    if kind is None:
        return node.text or None
    return partial_json(node.text) if kind.form.kind == "json" else None


def scores_of(node: VariableNode) -> dict[Any, float] | None:
    """The probability of each value that a variable was chosen from; None where none were scored."""
    call = node.producer
    if node.scores is None or call is None:
        return None
    kind = call.semantic.template.types[node.name]
    return {kind.read(text): probability for text, probability in node.scores}


def clipped(value: Any, limit: int = 60) -> str:
    """A value's repr on one line, cut off where it is long."""
    text = " ".join(repr(value).split())
    return text if len(text) <= limit else text[: limit - 1] + "…"


def send(host: Host | None, nodes: Sequence[VariableNode], perf: Perf | None) -> Host:
    """Make sure that the nodes' calls are submitted, and say that somebody wants them."""
    host = host or current_host()
    submit_producers(host, nodes)
    host.read(nodes, perf)
    return host


def cancel_producers(host: Host | None, nodes: Sequence[VariableNode]) -> None:
    """Have the calls that produce these nodes cancelled."""
    host = host or current_host()
    submit_producers(host, nodes)  # so that a join that nothing has used yet ends too
    host.cancel(nodes)


def submit_producers(host: Host, nodes: Sequence[VariableNode]) -> None:
    """Let the calls that produce these nodes enter the graph, if they have not yet."""
    for node in nodes:
        if node.producer is not None and not node.producer.submitted:
            submit(host, node.producer)


def wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    """Set an event of a loop from whatever thread; a closed loop is let be."""
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:  # closed this very moment: nobody waits any more
            return


async def tick(changed: asyncio.Event, seconds: float = WAKE_S) -> None:
    """Wait for an event, but not longer than until the loop should look up."""
    try:
        async with asyncio.timeout(seconds):
            await changed.wait()
    except TimeoutError:
        return
