"""Waiting on a thread whose event loop is running, while the tasks of that very loop go on.

A blocked loop runs no task, so that a `get()` on it would wait for ever for a variable that only one of its tasks can
set. In this one case `nest_asyncio2` makes the loop re-entrant, for as long as the `get()` waits.
"""

from __future__ import annotations

import asyncio
import signal
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager

from parrot_nb.language import reading
from parrot_nb.language.nodes import VariableNode

_reentered: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop that runs on this thread."""
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


def empty_source(nodes: Sequence[VariableNode]) -> tuple[VariableNode, VariableNode] | None:
    """The first of `nodes` that depends on a variable without value and producer, and that variable."""
    seen: set[int] = set()
    for node in nodes:
        pending = [node]
        while pending:
            candidate = pending.pop()
            if candidate.final or candidate.id in seen:
                continue
            seen.add(candidate.id)
            if candidate.producer is None:
                return node, candidate
            pending.extend(candidate.producer.inputs.values())
    return None


def can_nest(loop: asyncio.AbstractEventLoop) -> bool:
    """True if this thread's running loop may be re-entered.

    A loop that tornado shares may not: a Jupyter kernel handles no message of a comm before a plain cell ends, so that a
    variable which a widget is to set would never be. Nor may one that is re-entered already: the first `get()` returns only
    after the second, which may wait for what follows the first.
    """
    tornado = sys.modules.get("tornado.ioloop")
    if tornado is not None and tornado.IOLoop.current(instance=False) is not None:
        return False
    return isinstance(loop, asyncio.SelectorEventLoop) and loop not in _reentered


@contextmanager
def cancellation() -> Iterator[Callable[[], bool]]:
    """Hold back what cancels the current task meanwhile; yields whether it was cancelled.

    To a task that is running, `cancel` does nothing before its next `await`, which would be a second one to whoever has
    been told by our exception: `asyncio.timeout` around a `get()` would cancel what comes after it.

    Raises:
        CancelledError: at the end, if it was cancelled.
    """
    task = None if running_loop() is None else asyncio.current_task()
    if task is None:
        yield lambda: False
        return
    messages: list[object] = []
    num_before = task.cancelling()

    def cancelled() -> bool:
        return bool(messages) or task.cancelling() > num_before  # by a method `cancel` that somebody took along before

    def cancel(msg: object = None) -> bool:
        messages.append(msg)
        return True

    task.cancel = cancel  # type: ignore[method-assign]
    try:
        yield cancelled
    except BaseException:
        del task.cancel
        if messages:
            task.cancel(messages[0])
        raise
    del task.cancel
    if cancelled():
        raise asyncio.CancelledError(*(message for message in messages[:1] if message is not None))


def run_until(
    loop: asyncio.AbstractEventLoop, futures: Sequence[Future[None]], deadline: float | None, tick: Callable[[], bool]
) -> None:
    """Run the loop's other tasks on this thread until all futures are done, `deadline` on the monotonic clock is past, or
    `tick`, called again and again, says to end.

    Raises:
        CancelledError: the loop was stopped.
        KeyboardInterrupt: the user interrupted the wait.
    """
    changed = asyncio.Event()

    def wake(_: object = None) -> None:
        reading.wake(loop, changed)

    with _noted_interrupts(wake) as interrupted, _reentrant(loop):

        def left_s() -> float:
            """Seconds to wait on; 0 if there is no reason to."""
            if interrupted() or tick() or all(future.done() for future in futures):
                return 0.0
            return reading.WAKE_S if deadline is None else min(reading.WAKE_S, deadline - time.monotonic())

        async def settle() -> None:
            for future in futures:
                future.add_done_callback(wake)
            while (seconds := left_s()) > 0:
                await reading.tick(changed, seconds)
                changed.clear()

        settling = loop.create_task(settle())
        settling._log_destroy_pending = False  # type: ignore[attr-defined]  # noqa: SLF001 - it may never run again
        try:
            loop.run_until_complete(settling)
        except RuntimeError:
            if settling.done():
                raise
            raise asyncio.CancelledError from None  # the loop was stopped: its main task has ended
        finally:
            settling.cancel()


@contextmanager
def _reentrant(loop: asyncio.AbstractEventLoop) -> Iterator[None]:
    """Let `loop` be run from within, this one loop and only meanwhile: `apply` would change asyncio for the whole process."""
    import nest_asyncio2

    plain, num_ready = type(loop), len(loop._ready)  # type: ignore[attr-defined]  # noqa: SLF001 - asyncio counts nowhere else
    loop.__class__ = type(plain.__name__, (plain,), {})
    _reentered.add(loop)
    try:
        nest_asyncio2._patch_loop(loop)  # noqa: SLF001 - `apply` would patch all of asyncio
        yield
    finally:
        _reentered.discard(loop)
        loop.__class__ = plain
        while len(loop._ready) < num_ready:  # type: ignore[attr-defined]  # noqa: SLF001
            loop.call_soon(lambda: None)  # the run outside has counted the handles, and goes on to take as many


@contextmanager
def _noted_interrupts(wake: Callable[[], None]) -> Iterator[Callable[[], bool]]:
    """Have an interrupt end the wait instead of whichever task happens to run; a second one strikes at once.

    A handler that somebody else installed stays: that of `asyncio.run` cancels the main task.

    Raises:
        KeyboardInterrupt: at the end, if one came.
    """
    noted = False

    def note(number: int, frame: object) -> None:
        nonlocal noted
        if noted:
            raise KeyboardInterrupt
        noted = True
        wake()

    on_main = threading.current_thread() is threading.main_thread()
    if not on_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield lambda: False
        return
    signal.signal(signal.SIGINT, note)
    try:
        yield lambda: noted
    finally:
        if signal.getsignal(signal.SIGINT) is note:
            signal.signal(signal.SIGINT, signal.default_int_handler)
    if noted:
        raise KeyboardInterrupt
