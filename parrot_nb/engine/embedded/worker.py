"""The thread that computes an engine's steps."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextlib import AbstractContextManager
from functools import partial
from queue import Empty, SimpleQueue
from threading import Lock, Thread
from typing import Any, TypeVar

from parrot_nb.engine.loads import BrokenOffError

T = TypeVar("T")


class Worker(Executor):
    """One thread, which does what it is given in that order.

    A daemon: Python waits at its end for the threads of a `ThreadPoolExecutor`, and would for ever where a device never
    finishes a step.

    Args:
        name: of the thread.
        within: makes the context in which the thread does everything, and ends it last.

    Attributes:
        ended: done as soon as the thread does nothing more; nobody can cancel it.
    """

    def __init__(self, name: str, within: Callable[[], AbstractContextManager[None]] = contextlib.nullcontext) -> None:
        self._within = within
        self.ended: Future[None] = Future()
        self.ended.set_running_or_notify_cancel()
        self._tasks: SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None] = SimpleQueue()
        self._switching = Lock()  # held while it changes whether the thread may be broken off
        self._calling = False
        self._unusable: Exception | None = None
        self._last: Callable[[], None] = lambda: None
        self._thread = Thread(target=self._work, name=name, daemon=True)
        self._thread.start()

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Have the thread call a function."""
        future: Future[T] = Future()
        self._tasks.put((future, partial(fn, *args, **kwargs)))  # unlike a closure, no traceback keeps what it refers to
        return future

    def finish(self, last: Callable[[], None]) -> None:
        """Drop what the thread has not begun; when it is free, it does this last thing and ends."""
        self._drop_waiting()
        self._last = last
        self.shutdown(wait=False)

    def break_off(self) -> None:
        """Have the call that runs end as soon as it is in Python: between two operations of torch, but not inside of one.

        A thread that comes back from one while Python itself ends takes the whole process down.
        """
        with self._switching:
            if self._calling:
                self._raise_in_thread(ctypes.py_object(BrokenOffError))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the thread after what it was given; it takes nothing more."""
        if cancel_futures:
            self._drop_waiting()
        self._tasks.put(None)
        if wait:
            self._thread.join()

    async def ends_within(self, seconds: float) -> bool:
        """Wait for the thread to do nothing more; returns whether it does."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.wrap_future(self.ended), seconds)
        return self.ended.done()

    def _drop_waiting(self) -> None:
        with contextlib.suppress(Empty):
            while True:
                if (task := self._tasks.get_nowait()) is not None:
                    task[0].cancel()

    def _work(self) -> None:
        stack = contextlib.ExitStack()
        try:
            stack.enter_context(self._within())
        except Exception as error:  # such as a device that does not answer: who asks for something is told
            self._unusable = error
        try:
            self._loop()
        finally:
            with contextlib.suppress(Exception):  # nothing follows, and a device that was lost raises here too
                stack.close()
            self.ended.set_result(None)

    def _loop(self) -> None:
        while (task := self._tasks.get()) is not None:
            future, call = task
            if future.set_running_or_notify_cancel():
                try:
                    result = self._called(call)
                except BaseException as error:  # whoever waits for the future gets it
                    future.set_exception(error)
                else:
                    future.set_result(result)
                    del result
            del task, future, call  # and with them what they refer to: a model that was dropped meanwhile
        self._last()

    def _called(self, call: Callable[[], T]) -> T:
        """Only in here the thread may be broken off."""
        if self._unusable is not None:
            raise self._unusable
        with self._switching:
            self._calling = True
        try:
            return call()
        finally:
            with self._switching:
                self._calling = False
                self._raise_in_thread(None)  # what has not been raised yet

    def _raise_in_thread(self, error: Any) -> None:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self._thread.ident or 0), error)
