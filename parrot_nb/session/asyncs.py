"""`async` native functions: one loop on a thread of its own, and another where a function holds that up."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time
from asyncio import CancelledError
from collections.abc import Callable, Coroutine
from typing import Any

from parrot_nb.runtime.loop import RuntimeLoop

STUCK_S = 1.0  # after which a loop on which nothing starts is left to the function that holds it up

Finish = Callable[[Any, BaseException | None], None]


class _Start:
    """A function that waits for its loop.

    Attributes:
        begun: set on the loop, when it begins there; taken back where it moves to another loop first.
    """

    def __init__(self, call_id: int, context: contextvars.Context, function: Callable[[], Any], finish: Finish) -> None:
        self.call_id = call_id
        self.context = context
        self.function = function
        self.finish = finish
        self.loop: RuntimeLoop | None = None
        self.begun = False
        self.sent_s = 0.0
        self.task: asyncio.Task[None] | None = None


class AsyncFunctions:
    """Runs `async` functions. One that never yields holds up its own loop alone: what has not started there within `STUCK_S` starts on a
    new one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: RuntimeLoop | None = None
        self._starts: dict[int, _Start] = {}
        self._left: list[RuntimeLoop] = []  # loops that were given up
        self._closed = False
        self._watching = False
        self._timer: threading.Timer | None = None

    @property
    def is_current(self) -> bool:
        """Whether the caller is on such a loop."""
        return any(loop.is_current for loop in (*self._left, *([self._loop] if self._loop is not None else [])))

    def start(self, call_id: int, context: contextvars.Context, function: Callable[[], Any], finish: Finish) -> None:
        """Have a function run; `finish` is told what it gave or raised, on the loop's thread. Returns at once."""
        start = _Start(call_id, context, function, finish)
        with self._lock:
            self._starts[call_id] = start
            watch, self._watching = not self._watching, True
        self._send(start)
        if watch:
            self._watch()

    def _send(self, start: _Start) -> None:
        with self._lock:
            if self._closed or start.begun:
                return
            if self._loop is None or not self._loop.alive:
                self._loop = RuntimeLoop("parrot-native-async")
            start.loop = loop = self._loop
            start.sent_s = time.monotonic()
        loop.post(self._begin, start, loop)

    def _begin(self, start: _Start, loop: RuntimeLoop) -> None:
        def done(_: object) -> None:
            if start.loop is loop:  # else it begins elsewhere
                self._ended(start, None, CancelledError("other code cancelled its task"))

        loop.loop.create_task(self._run(start, loop), context=start.context).add_done_callback(done)

    def _watch(self) -> None:
        timer = threading.Timer(STUCK_S, self._look)
        timer.daemon, timer.name = True, "parrot-native-look"
        with self._lock:
            if self._closed:
                return
            self._timer = timer
            timer.start()

    def _look(self) -> None:
        """Leave a loop on which nothing begins to whatever holds it up."""
        now_s = time.monotonic()
        with self._lock:
            waiting = [start for start in self._starts.values() if not start.begun]
            late = [start for start in waiting if now_s - start.sent_s >= STUCK_S]
            if self._loop is not None and any(start.loop is self._loop for start in late):
                self._left = [loop for loop in self._left if loop.alive] + [self._loop]
                self._loop = None
            self._watching = bool(waiting) and not self._closed
            goes_on = self._watching
        for start in late:
            self._send(start)
        if goes_on:
            self._watch()

    async def _run(self, start: _Start, loop: RuntimeLoop) -> None:
        with self._lock:
            if start.begun or start.loop is not loop or self._starts.get(start.call_id) is not start:
                return
            start.begun, start.task = True, asyncio.current_task()
        value, error = None, None
        try:
            found = start.function()
            value = await found if isinstance(found, Coroutine) or hasattr(found, "__await__") else found
        except BaseException as raised:  # KeyboardInterrupt and SystemExit would end the loop
            error = raised
        self._ended(start, value, error)

    def _ended(self, start: _Start, value: Any, error: BaseException | None) -> None:
        """Tell of a function's end, once: its task may end before it has begun."""
        with self._lock:
            wanted = self._starts.get(start.call_id) is start
            if wanted:
                del self._starts[start.call_id]
        if wanted:
            start.finish(value, error)

    def cancel(self, call_id: int) -> None:
        """Stop a function at its next await."""
        with self._lock:
            start = self._starts.pop(call_id, None)
        if start is not None and start.loop is not None and start.loop.alive:
            start.loop.post(lambda: start.task.cancel() if start.task is not None else None)

    def close(self) -> None:
        """End all loops; one that is held up ends with what holds it up."""
        with self._lock:
            self._closed = True
            if self._timer is not None:
                self._timer.cancel()
            loops = [*self._left, *([self._loop] if self._loop is not None else [])]
            self._starts.clear()
            self._left, self._loop = [], None
        for loop in loops:
            loop.stop(patience_s=1.0)
