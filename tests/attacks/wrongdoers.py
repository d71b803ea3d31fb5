"""What user code may do to whoever waits for it: tables, to which a case is added by a line."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from parrot_nb.errors import CallCancelledError, EngineLostError, ParrotError


class Panic(BaseException):
    """As the exceptions that libraries written in Rust raise when they panic."""


class MuteError(Exception):
    def __str__(self) -> str:
        raise ValueError("no message")


class MutePanic(Panic):
    def __str__(self) -> str:
        raise Panic("no message")


class MuteOwnError(ParrotError):
    def __str__(self) -> str:
        raise Panic("no message")


class StoppingError(ParrotError, StopIteration):
    """No future takes a StopIteration."""


class HalfTextError(Exception):
    def __str__(self) -> str:
        return "half a character: \ud800"


class UnhashableError(ParrotError):
    __hash__ = None  # type: ignore[assignment]


RAISED: dict[str, Callable[[], BaseException]] = {
    "an exception": lambda: ValueError("wrong"),
    "StopIteration": StopIteration,
    "StopAsyncIteration": StopAsyncIteration,
    "CancelledError": asyncio.CancelledError,
    "GeneratorExit": GeneratorExit,
    "KeyboardInterrupt": KeyboardInterrupt,
    "SystemExit": lambda: SystemExit(3),
    "a panic": lambda: Panic("panicked at src/lib.rs"),
    "a group": lambda: BaseExceptionGroup("two", [Panic("one"), SystemExit(2)]),
    "one without message": MuteError,
    "a panic without message": MutePanic,
    "one whose message is no text": HalfTextError,
    "an error of ours": lambda: EngineLostError("the engine is not lost"),
    "a cancellation of ours": lambda: CallCancelledError("nobody cancelled"),
    "one of ours without message": MuteOwnError,
    "one of ours that stops iterations": StoppingError,
    "one of ours that has no hash": UnhashableError,
}


class RaisesIn:
    """A value with methods of the user's that raise.

    Args:
        names: of these methods, without underscores.
        error: what they raise.
    """

    def __new__(cls, *names: str, error: Callable[[], BaseException]) -> Any:
        def raises(*_: object, **__: object) -> Any:
            raise error()

        return object.__new__(type("Raises", (), {f"__{name}__": raises for name in names}))


class TextThatRaises(str):
    __slots__ = ()

    def __str__(self) -> str:
        raise Panic("no text")

    __repr__ = __str__
    __len__ = __iter__ = encode = __str__  # type: ignore[assignment]


def _endless() -> list[Any]:
    row: list[Any] = []
    row.append(row)
    return row


VALUES: dict[str, Callable[[], Any]] = {
    "repr raises": lambda: RaisesIn("repr", error=lambda: ValueError("no repr")),
    "repr panics": lambda: RaisesIn("repr", "str", error=lambda: Panic("no repr")),
    "repr is interrupted": lambda: RaisesIn("repr", error=KeyboardInterrupt),
    "repr gives no text": type("Odd", (), {"__repr__": lambda _: 7}),
    "repr gives half a character": type("Half", (), {"__repr__": lambda _: "\ud800"}),
    "hash and equality panic": lambda: RaisesIn("hash", "eq", error=lambda: Panic("no equality")),
    "attributes panic": lambda: RaisesIn("getattr", error=lambda: Panic("no attribute")),
    "length and truth panic": lambda: RaisesIn("len", "bool", "iter", error=lambda: Panic("no truth")),
    "holds itself": _endless,
    "a list of what panics": lambda: [RaisesIn("repr", "str", error=lambda: Panic("no repr"))],
}


REFUSED_AT_ONCE: dict[str, Callable[[], Any]] = {
    "all attributes panic": lambda: RaisesIn("getattribute", error=lambda: Panic("no attribute")),
    "a text that panics": lambda: TextThatRaises("text"),
}


class ChangesItsMind(type):
    """The class of a class whose values can be made until `error` is set; then it raises that."""

    error: Callable[[], BaseException] | None = None

    def __call__(cls, *args: Any, **kwargs: Any) -> Any:
        if cls.error is not None:
            raise cls.error()
        return super().__call__(*args, **kwargs)


def _stop_loop() -> None:
    asyncio.get_running_loop().stop()


def _cancel_tasks() -> None:
    for task in asyncio.all_tasks():
        task.cancel()


def _callback(error: Callable[[], BaseException]) -> Callable[[], None]:
    def raises() -> None:
        raise error()

    return lambda: asyncio.get_running_loop().call_soon(raises) and None


def _task(error: Callable[[], BaseException]) -> Callable[[], None]:
    async def raises() -> None:
        raise error()

    kept: list[asyncio.Task[None]] = []
    return lambda: kept.append(asyncio.get_running_loop().create_task(raises()))


LOOP_DEEDS: dict[str, Callable[[], None]] = {
    "stops the loop": _stop_loop,
    "cancels all tasks": _cancel_tasks,
    "a callback exits": _callback(SystemExit),
    "a callback is interrupted": _callback(KeyboardInterrupt),
    "a callback panics": _callback(lambda: Panic("in a callback")),
    "a task exits": _task(SystemExit),
    "a task is interrupted": _task(KeyboardInterrupt),
    "a task panics": _task(lambda: Panic("in a task")),
}
