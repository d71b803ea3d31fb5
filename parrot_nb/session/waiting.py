"""Waiting for variables on a thread that has nothing else to do but, perhaps, to run the tasks of its event loop."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import TypeVar

from parrot_nb.errors import GetTimeoutError, SessionError
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.reading import Countdown
from parrot_nb.session.nested import can_nest, cancellation, empty_source, run_until, running_loop
from parrot_nb.session.places import blocked

T = TypeVar("T")

WAIT_TICK_S = 0.1  # how often a blocked reader looks up, so that an interrupt reaches it


def wait_until_final(nodes: Sequence[VariableNode], timeout_s: float | None, tick: Callable[[], None]) -> None:
    """Block the calling thread until all nodes are final; `tick` is called on it again and again meanwhile.

    The thread's running event loop stands still with it, unless the nodes wait for a variable that nothing has set: its
    tasks then go on, since one of them may be to set it.

    Raises:
        GetTimeoutError: `timeout_s` seconds have passed.
        SessionError: nothing has set that variable, and the loop cannot be run from within.
        CancelledError: the task that waits was cancelled, by the interrupt handler of `asyncio.run` for example.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    loop = running_loop()

    def look_up() -> bool:
        """True if the wait should end."""
        tick()
        return cancelled()

    with blocked(), cancellation() as cancelled:
        if loop is not None and (found := empty_source(nodes)) is not None:
            if can_nest(loop):
                run_until(loop, [node.future for node in nodes], deadline, look_up)
            elif timeout_s is None:
                name, empty = found[0].name, found[1].name
                raise SessionError(
                    f"'{name}' waits for '{empty}', which nothing has set: set it first, or await {name} instead of get()."
                )
        ended = threading.Event()
        countdown = Countdown(nodes, ended.set)
        try:
            while not countdown.over and not cancelled():
                left = WAIT_TICK_S if deadline is None else min(WAIT_TICK_S, deadline - time.monotonic())
                if left <= 0 and (node := next((node for node in nodes if not node.final), None)) is not None:
                    raise GetTimeoutError(
                        f"'{node.name}' is still {node.state} after {timeout_s:g} s: it goes on; get() it again later."
                    )
                ended.wait(left)
                look_up()
        finally:
            countdown.stop()


def wait_for(future: futures.Future[T], tick: Callable[[], None], *, cancels: bool = True) -> T:
    """The result of a future, waited for in short steps with `tick` between them, so that an interrupt gets through; it then
    `cancels` the future."""
    while True:
        try:
            return future.result(WAIT_TICK_S)
        except futures.TimeoutError:
            if future.done():
                raise
        except KeyboardInterrupt:
            if cancels:
                future.cancel()
            raise
        tick()
