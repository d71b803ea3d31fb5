"""The user's own functions, conditions and checks as the runtime sees them: asked for here, run on the notebook's side."""

from __future__ import annotations

import asyncio

from parrot_nb.language.nodes import THROUGHPUT, Objective
from parrot_nb.runtime.messages import CheckAsked, ConditionAsked, FunctionEnded, FunctionUnwanted, FunctionWanted, Judged
from parrot_nb.runtime.wire import Say


class Functions:
    """Lives on the runtime loop.

    Args:
        say: tells the notebook.
    """

    def __init__(self, say: Say) -> None:
        self._say = say
        self._running: dict[int, asyncio.Future[FunctionEnded]] = {}
        self._asked: dict[tuple[int, int], asyncio.Future[bool]] = {}
        self._checking: dict[tuple[int, int], asyncio.Future[Judged]] = {}

    async def run(self, call_id: int, objective: Objective | None) -> FunctionEnded:
        """Have a call of a native function run and return its outcome, which is wanted with `objective`. Cancelling disowns it.

        Raises:
            ParrotError: it gave no value.
        """
        future: asyncio.Future[FunctionEnded] = asyncio.get_running_loop().create_future()
        self._running[call_id] = future
        self._say(FunctionWanted(call_id, objective or THROUGHPUT))
        try:
            ended = await future
        except asyncio.CancelledError:
            self._say(FunctionUnwanted(call_id))
            raise
        finally:
            del self._running[call_id]
        if ended.value.error is not None:
            raise ended.value.error
        return ended

    async def accepts(self, call_id: int, variable_id: int, objective: Objective | None) -> bool:
        """Whether the condition of a choice accepts a value.

        Raises:
            NativeFunctionError: it raised, or said neither yes nor no.
        """
        key = call_id, variable_id
        future: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._asked[key] = future
        self._say(ConditionAsked(call_id, variable_id, objective or THROUGHPUT))
        try:
            return await future
        except asyncio.CancelledError:
            self._say(FunctionUnwanted(call_id))
            raise
        finally:
            del self._asked[key]

    async def checked(self, call_id: int, variable_id: int, text: str, objective: Objective | None) -> str | None:
        """Return why the text of an output is no value, in words; None where it is one."""
        key = call_id, variable_id
        future: asyncio.Future[Judged] = asyncio.get_running_loop().create_future()
        self._checking[key] = future
        self._say(CheckAsked(call_id, variable_id, text, objective or THROUGHPUT))
        try:
            judged = await future
        except asyncio.CancelledError:
            self._say(FunctionUnwanted(call_id))
            raise
        finally:
            del self._checking[key]
        return None if judged.accepted else judged.reason

    def ended(self, message: FunctionEnded) -> None:
        """A function has ended; nothing happens where nobody waits for it any more."""
        future = self._running.get(message.call_id)
        if future is not None and not future.done():
            future.set_result(message)

    def judged(self, message: Judged) -> None:
        """A condition or a check has been asked."""
        checking = self._checking.get((message.call_id, message.variable_id))
        if checking is not None and not checking.done():
            checking.set_result(message)
        future = self._asked.get((message.call_id, message.variable_id))
        if future is None or future.done():
            return
        if message.error is not None:
            future.set_exception(message.error)
        else:
            future.set_result(message.accepted)
