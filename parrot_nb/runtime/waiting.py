"""Waiting for variables on a thread that has nothing else to do."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent import futures
from typing import TypeVar

from parrot_nb.errors import GetTimeoutError
from parrot_nb.language.nodes import VariableNode
from parrot_nb.runtime.native import blocked

T = TypeVar("T")

WAIT_TICK_S = 0.1  # how often a blocked reader looks up, so that an interrupt reaches it


def wait_until_final(nodes: Sequence[VariableNode], timeout_s: float | None, tick: Callable[[], None]) -> None:
    """Block the calling thread until all nodes are final; `tick` is called on it again and again meanwhile.

    Raises:
        GetTimeoutError: `timeout_s` seconds have passed.
    """
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with blocked():
        for node in nodes:
            while not node.future.done():
                left = WAIT_TICK_S if deadline is None else min(WAIT_TICK_S, deadline - time.monotonic())
                if left <= 0:
                    raise GetTimeoutError(
                        f"'{node.name}' is still {node.state} after {timeout_s:g} s: it goes on; get() it again later."
                    )
                futures.wait([node.future], timeout=left)
                tick()


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
