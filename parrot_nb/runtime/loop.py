"""The runtime thread: one asyncio loop that owns all mutable state of graph, scheduler and engines."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

T = TypeVar("T")


class RuntimeLoop:
    """An asyncio loop on a daemon thread of its own. Other threads hand it messages; they never touch what it owns.

    Args:
        name: of the thread.
        on_crash: called on the loop with an exception that nothing handled, so that no reader is left waiting.
    """

    def __init__(self, name: str, on_crash: Callable[[BaseException], None] | None = None) -> None:
        self.loop = asyncio.new_event_loop()
        self._stopping = False
        if on_crash is not None:
            self.loop.set_exception_handler(
                lambda _, context: on_crash(context.get("exception") or RuntimeError(context["message"]))
            )
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        try:
            self._thread.start()
        except BaseException:  # an interrupt, while it waits for the thread
            self._stopping = True
            self.loop.call_soon_threadsafe(self.loop.stop)
            raise

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        while not self._stopping:  # foreign code on it may raise SystemExit, or stop it
            try:
                self.loop.run_forever()
            except BaseException as error:
                self.loop.call_exception_handler({"message": "A callback ended the loop, which goes on.", "exception": error})
        self.loop.close()

    @property
    def is_current(self) -> bool:
        """Whether the caller is on this thread."""
        return threading.current_thread() is self._thread

    @property
    def alive(self) -> bool:
        """Whether messages are still taken."""
        return self._thread.is_alive() and not self.loop.is_closed()

    def post(self, function: Callable[..., Any], *args: Any) -> None:
        """Have `function(*args)` called on the loop, in order of posting."""
        self.loop.call_soon_threadsafe(function, *args)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def _stop(self) -> None:
        self._stopping = True
        self.loop.stop()

    def stop(self, patience_s: float = 10.0) -> None:
        """End the loop and wait for the thread, but not longer than so many seconds. Harmless when it has ended."""
        if self.alive:
            self.loop.call_soon_threadsafe(self._stop)
        if not self.is_current:
            self._thread.join(timeout=patience_s)
