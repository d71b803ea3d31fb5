"""Where native functions run: off the runtime thread, in the user's process, a thread each or on one loop for `async`."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from parrot_nb.errors import NativeFunctionError, ParrotError
from parrot_nb.language.host import Host, entered_host
from parrot_nb.language.native import NativeFunction
from parrot_nb.language.nodes import THROUGHPUT, Objective
from parrot_nb.language.variable import SemanticVariable, VariableList
from parrot_nb.runtime.loop import RuntimeLoop

MAX_THREADS = 32  # native functions mostly wait for other services; more of them at once rarely helps

_in_native_thread = threading.local()


class NativeRunner:
    """Runs native functions for one session. Lives on the runtime loop.

    A function that blocks in `get()` gives its place to another meanwhile (`blocked`), so that calls which wait for
    each other cannot use up all threads.
    """

    def __init__(self, host: Host) -> None:
        self._host = host
        self._num_running = 0
        self._queue: deque[Callable[[], None]] = deque()
        self._async_loop: RuntimeLoop | None = None

    def on_async_loop(self) -> bool:
        """Whether the caller is on the loop of the `async` native functions, which must never block."""
        return self._async_loop is not None and self._async_loop.is_current

    async def run(self, function: NativeFunction, args: tuple[Any, ...], kwargs: dict[str, Any], objective: Objective) -> Any:
        """The function's result, or what it raised. A variable that it returns is asked for with `objective`.

        Cancelling stops an `async` function, and disowns a plain one: Python cannot end a thread from outside.
        """
        context = contextvars.copy_context()
        context.run(entered_host.set, self._host)
        if function.is_async:
            if self._async_loop is None:
                self._async_loop = RuntimeLoop("parrot-native-async")
            coroutine = self._asynchronous(context, lambda: function.function(*args, **kwargs), objective)
            return await asyncio.wrap_future(self._async_loop.run(coroutine))
        return await self._in_thread(function.name, context, lambda: function.function(*args, **kwargs), objective)

    async def accepts(self, condition: NativeFunction | None, value: Any, objective: Objective | None) -> bool:
        """Whether a user's condition holds for a value; no condition always does.

        Raises:
            NativeFunctionError: it raised, or said neither yes nor no.
        """
        if condition is None:
            return True
        with failing_as("The condition of P.first"):
            said = await self.run(condition, (value,), {}, objective or THROUGHPUT)
            if isinstance(said, (SemanticVariable, VariableList)):
                raise TypeError("it returned a variable instead of True or False")
            return bool(said)

    async def _asynchronous(self, context: contextvars.Context, call: Callable[[], Any], objective: Objective) -> Any:
        value = await asyncio.get_running_loop().create_task(call(), context=context)
        self._ask_for(value, objective)
        return value

    def _ask_for(self, value: Any, objective: Objective) -> None:
        """Have the variables run that a native function returns."""
        if isinstance(value, SemanticVariable):
            self._host.read([value.node], objective)
        elif isinstance(value, VariableList):
            self._host.read([item.node for item in value], objective)

    async def _in_thread(self, name: str, context: contextvars.Context, call: Callable[[], Any], objective: Objective) -> Any:
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Any] = loop.create_future()

        def settle(value: Any, error: BaseException | None) -> None:
            self._num_running -= 1
            self._start_queued()
            if not result.done():  # else the call was cancelled meanwhile
                if error is None:
                    result.set_result(value)
                elif isinstance(error, StopIteration):  # which a future does not take
                    result.set_exception(RuntimeError("StopIteration was raised"))
                else:
                    result.set_exception(error)

        def work() -> None:
            _in_native_thread.runner = (self, loop)
            value, error = None, None
            try:
                value = context.run(call)
                self._ask_for(value, objective)
            except BaseException as raised:  # whatever user code raises belongs to its call
                error = raised
            if not loop.is_closed():
                loop.call_soon_threadsafe(settle, value, error)

        def start() -> None:
            self._num_running += 1
            threading.Thread(target=work, name=f"parrot-native-{name}", daemon=True).start()

        self._queue.append(start)
        self._start_queued()
        try:
            return await result
        except asyncio.CancelledError:
            if start in self._queue:
                self._queue.remove(start)
            raise

    def _start_queued(self) -> None:
        while self._queue and self._num_running < MAX_THREADS:
            self._queue.popleft()()

    def _lend_place(self, change: int) -> None:
        self._num_running += change
        self._start_queued()

    def close(self) -> None:
        """Stop the loop of `async` functions; threads end with their function."""
        self._queue.clear()
        if self._async_loop is not None:
            self._async_loop.stop()


@contextmanager
def failing_as(what: str) -> Iterator[None]:
    """Around user code: whatever it raises becomes NativeFunctionError; our own errors, and cancelling, pass."""
    try:
        yield
    except ParrotError:
        raise
    except (Exception, SystemExit, KeyboardInterrupt) as error:
        raise NativeFunctionError(f"{what} raised {type(error).__name__}: {error}") from error


class blocked:  # noqa: N801 - a context manager reads as a verb
    """Around a wait: if this thread runs a native function, another may run meanwhile."""

    def __enter__(self) -> None:
        self._change(-1)

    def __exit__(self, *exc_info: object) -> None:
        self._change(+1)

    def _change(self, change: int) -> None:
        owner = getattr(_in_native_thread, "runner", None)
        if owner is not None and not owner[1].is_closed():
            owner[1].call_soon_threadsafe(owner[0]._lend_place, change)
