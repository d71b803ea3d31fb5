"""Semantic variables as a user holds them: read them, wait for them, join them, hand them to other functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import Any, Generic, NoReturn, Self, overload

from parrot_nb.errors import AlreadySetError, ArgumentError, UsageError
from parrot_nb.language import reading
from parrot_nb.language.calls import Call
from parrot_nb.language.handles import Handle
from parrot_nb.language.host import Host, current_host
from parrot_nb.language.joins import collection, concatenation
from parrot_nb.language.markdown import MarkdownView
from parrot_nb.language.nodes import Objective, Perf, Span, State, TokenLogprob, Usage, VariableNode
from parrot_nb.language.reading import cancel_producers, read_awaiting, read_blocking, result_of, send, submit_producers
from parrot_nb.language.static import A, T, T_co
from parrot_nb.language.text import checked_characters, to_text


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


class SemanticVariable(Handle, Generic[T_co]):
    """The text (or value) that connects calls; resolved later.

    Made by calling a function, or by hand from a plain value. Without a value it is empty until `set`. A type checker knows a
    variable by its value: `SemanticVariable[int]` is one whose `get` returns an int.

    Args:
        value: a plain value; left out, the variable is empty.
        name: what to call it in views and errors.

    Raises:
        ArgumentError: the name is not a string.
        InputValueError: the value has no one obvious text.
    """

    _noun, _remedy = "A variable", "use get() and pass on the value"

    def __init__(self, value: T_co = UNSET, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ArgumentError(f"A variable's name is a string, not {type(name).__name__}: write value=... for a value.")
        self.node = VariableNode(checked_characters(name or "variable", "a variable's name"))
        self._host: Host | None = None
        self._reach = self.node.reach()
        if value is not UNSET:
            self.set(value)

    @classmethod
    def of(cls, node: VariableNode, host: Host | None) -> Self:
        """The user's handle of a node that `host` will resolve."""
        handle = cls.__new__(cls)
        handle.node = node
        handle._host = host  # noqa: SLF001 - its own class
        handle._reach = node.reach()  # noqa: SLF001
        return handle

    @property
    def name(self) -> str:
        """Name of the variable; not unique."""
        return self.node.name

    @property
    def state(self) -> State:
        """One of "pending", "running", "done", "failed" and "cancelled"."""
        return self.node.state

    @property
    def error(self) -> BaseException | None:
        """Reason why the variable has no value, once failed or cancelled."""
        return self.node.error

    @property
    def text(self) -> str:
        """The text so far, the whole of it once done. Of a typed output it is what the model wrote, and `get` gives the value."""
        return reading.text_of(self.node)

    def partial(self) -> Any:
        """The value so far, of a type that is written as JSON: dicts and lists with what has come; see `partial_json`."""
        return reading.partial_of(self.node)

    @property
    def usage(self) -> Usage:
        """Tokens and seconds that computing it took; zero until done."""
        return self.node.usage

    @property
    def thinking(self) -> str | None:
        """Thoughts of a reasoning model before the answer, as far as they have come; None where it did not think. No part of the
        value, nor of what `stream` gives."""
        return self.node.thinking

    @property
    def finish(self) -> str | None:
        """Reason why generation ended: "stop" or "length"; None where no model generated it, or not yet."""
        return self.node.finish

    @property
    def logprobs(self) -> tuple[TokenLogprob, ...] | None:
        """Each token of the value with its log-probability, once done; None where `logprobs` was not asked for."""
        return self.node.logprobs

    @property
    def scores(self) -> dict[Any, float] | None:
        """The probability of each value that it was chosen from, once done; None where `score` was not asked for."""
        return reading.scores_of(self.node)

    @property
    def producer(self) -> Call | None:
        """The call that writes it, or None."""
        return self.node.producer

    @property
    def consumers(self) -> tuple[Call, ...]:
        """The calls that read it, in order."""
        return tuple(self.node.consumers)

    @property
    def objective(self) -> Objective | None:
        """Objective that the variable was requested with, else the one deduced for its producer."""
        if self.node.objective is None and self.node.producer is not None:
            return self.node.producer.objective
        return self.node.objective

    @property
    def markdown(self) -> MarkdownView:
        """A view that renders the text as Markdown as a cell's result, while it is written too. Nothing in the text can act:
        no script, no picture from elsewhere, no link that hides its address."""
        return MarkdownView(self)

    def done(self) -> bool:
        """Whether it is final: has its value, failed or was cancelled."""
        return self.node.final

    def set(self, value: Any) -> None:
        """Give an empty variable its value.

        Raises:
            AlreadySetError: it has one, or a call produces it.
            InputValueError: the value has no one obvious text.
            UsageError: the value is itself a variable.
        """
        if isinstance(value, (SemanticVariable, VariableList)):
            raise UsageError("A variable's value cannot be another variable: hand that one to the function directly.")
        if self.node.producer is not None:
            raise AlreadySetError(
                f"'{self.name}' is written by {self.node.producer.name}(): make an empty one with P.variable()."
            )
        text = to_text(value, f"the value of variable '{self.name}'")
        self.node.resolve(value, spans=(Span(text),))

    def get(self, perf: Perf | None = None, timeout: float | None = None) -> T_co:
        """Wait for the value, and return it.

        Args:
            perf: `P.LATENCY` (soon), `P.THROUGHPUT` (with the least cost) or `P.latency(ttft=..., tpot=...)` (by then);
                whoever waits wants it soon.
            timeout: seconds to wait at most; the call goes on when they have passed.

        Raises:
            GetTimeoutError: the time ran out.
            ParrotError: what kept it from having a value.
        """
        read_blocking(self._host, [self.node], perf, timeout)
        value: T_co = result_of(self.node)
        return value

    async def aget(self, perf: Perf | None = None) -> T_co:
        """As `get`, without blocking the event loop; `await variable` is `await variable.aget()`.

        Args:
            perf: as for `get`.

        Raises:
            ParrotError: what kept it from having a value.
        """
        await read_awaiting(self._host, [self.node], perf)
        value: T_co = result_of(self.node)
        return value

    def __await__(self) -> Generator[Any, None, T_co]:
        return self.aget().__await__()

    async def stream(self) -> AsyncIterator[str]:
        """The text piece by piece, as it comes; what came before is given first.

        Raises:
            ParrotError: what kept it from having a value, after the pieces that did come.
        """
        node, position = self.node, 0
        host = None if node.final else send(self._host, [node], None)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        unsubscribe = node.subscribe(lambda: reading.wake(loop, changed))
        try:
            while True:
                changed.clear()
                ended = node.final
                while position < len(node.pieces):
                    yield node.pieces[position]
                    position += 1
                if ended:
                    break
                await reading.tick(changed)
        except asyncio.CancelledError:
            if host is not None:
                host.interrupted([node])
            raise
        finally:
            unsubscribe()
        result_of(node)
        if not position:  # a plain value, or one that no model wrote
            yield reading.text_of(node)

    def submit(self) -> None:
        """Let the call that produces it enter the graph, as its first reader would; only joins wait for that."""
        submit_producers(self._host or current_host(), [self.node])

    def cancel(self) -> None:
        """Cancel the call that produces it, if it has not ended. Returns at once."""
        if self.node.producer is not None and not self.node.final:
            cancel_producers(self._host, [self.node])

    def __repr__(self) -> str:
        node = self.node
        if node.state == "done":
            return f"<variable {node.name}: {reading.clipped(node.value if node.spans is None else node.text)}>"
        tail = f" {reading.clipped(node.text)}" if node.state == "running" and node.text else ""
        return f"<variable {node.name} {node.state}{tail}>"

    def __add__(self, other: str | SemanticVariable[Any] | VariableList[Any]) -> SemanticVariable[str]:
        text: SemanticVariable[str] = _plus(self, other)
        return text

    def __radd__(self, other: str) -> SemanticVariable[str]:
        text: SemanticVariable[str] = _plus(other, self)
        return text

    def __bool__(self) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its value: use its get() in a condition.")

    def __getitem__(self, index: Any) -> NoReturn:  # for iteration too; with `__iter__`, pandas would take a variable for a list
        raise UsageError(f"'{self.name}' is a variable, not its value: iterate over its get(), or over its stream().")

    def __format__(self, spec: str) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its text: use its get(), or join texts with + or P.join().")


class VariableList(Handle, Sequence[SemanticVariable[T_co]], Generic[T_co]):
    """Variables in a row. As an argument its items are joined with newlines (a native function gets a list of values).

    Args:
        variables: its items.
        perf: for reads that name no objective themselves.

    Raises:
        UsageError: something else is among them.
    """

    _noun, _remedy = "A list of variables", "use get() and pass on the values"

    def __init__(self, variables: Iterable[SemanticVariable[T_co]], perf: Perf | None = None) -> None:
        self._items = tuple(variables)
        self._perf = perf
        for item in self._items:
            if not isinstance(item, SemanticVariable):
                raise UsageError(
                    f"A VariableList holds variables, not {type(item).__name__}: make one with P.variable(value=...)."
                )

    @property
    def nodes(self) -> list[VariableNode]:
        """The graph's side of its items."""
        return [item.node for item in self._items]

    def get(self, perf: Perf | None = None, timeout: float | None = None) -> list[T_co]:
        """Wait for all values, and return them in order.

        Args:
            perf: as for `SemanticVariable.get`.
            timeout: seconds to wait at most, for all of them together.

        Raises:
            GetTimeoutError: the time ran out.
            ParrotError: what kept the first item without value from having one.
        """
        read_blocking(self._host, self.nodes, perf or self._perf, timeout)
        return [result_of(node) for node in self.nodes]

    async def aget(self, perf: Perf | None = None) -> list[T_co]:
        """As `get`, without blocking the event loop."""
        await read_awaiting(self._host, self.nodes, perf or self._perf)
        return [result_of(node) for node in self.nodes]

    def __await__(self) -> Generator[Any, None, list[T_co]]:
        return self.aget().__await__()

    def done(self) -> bool:
        """Whether all items are final."""
        return all(node.final for node in self.nodes)

    def cancel(self) -> None:
        """Cancel the calls of all items that have not ended."""
        if pending := [node for node in self.nodes if node.producer is not None and not node.final]:
            cancel_producers(self._host, pending)

    @property
    def _host(self) -> Host | None:
        return host_of(self._items)

    @overload
    def __getitem__(self, index: int) -> SemanticVariable[T_co]: ...
    @overload
    def __getitem__(self, index: slice) -> VariableList[T_co]: ...
    def __getitem__(self, index: int | slice) -> SemanticVariable[T_co] | VariableList[T_co]:
        return VariableList(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[SemanticVariable[T_co]]:
        return iter(self._items)

    @overload
    def __add__(self, other: VariableList[A]) -> VariableList[T_co | A]: ...
    @overload
    def __add__(self, other: str | SemanticVariable[Any]) -> SemanticVariable[str]: ...
    def __add__(self, other: Any) -> Any:
        if isinstance(other, VariableList):
            return VariableList((*self._items, *other._items))
        return _plus(self, other)

    def __radd__(self, other: str) -> SemanticVariable[str]:
        text: SemanticVariable[str] = _plus(other, self)
        return text

    def __repr__(self) -> str:
        states = [node.state for node in self.nodes]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<{len(self)} variables{': ' if counts else ''}{counts}>"

    def __format__(self, spec: str) -> NoReturn:
        raise UsageError("This is a list of variables, not of texts: use .get(), or P.join(list, sep).")


def variable(name: str | None = None, value: T = UNSET) -> SemanticVariable[T]:
    """A variable by hand: empty until `set`, or with a value.

    Args:
        name: what to call it in views and errors.
        value: a plain value; left out, the variable is empty, and calls that read it wait.

    Raises:
        ArgumentError: the name is not a string.
        InputValueError: the value has no one obvious text.
    """
    return SemanticVariable(value, name)


def _plus(left: Any, right: Any) -> Any:
    if not all(isinstance(side, (SemanticVariable, VariableList, str)) for side in (left, right)):
        return NotImplemented
    return joined("+", [left, right])


def host_of(handles: Iterable[SemanticVariable[Any] | VariableList[Any]]) -> Host | None:
    """The session that the first bound of these handles belongs to."""
    return next((handle._host for handle in handles if handle._host is not None), None)  # noqa: SLF001 - of this module


def joined(name: str, parts: Sequence[Any]) -> SemanticVariable[str]:
    """Texts and variables in a row, as one variable. The call is not yet submitted."""
    host = host_of([part for part in parts if isinstance(part, (SemanticVariable, VariableList))])
    pieces: list[str | VariableNode] = []
    for part in parts:
        if isinstance(part, SemanticVariable):
            pieces.append(part.node)
        elif isinstance(part, VariableList):
            pieces.append(joined_list(part))
        else:
            pieces.append(to_text(part, f"a part of '{name}'"))
    call = concatenation(name, pieces)
    return SemanticVariable.of(call.outputs[0], host)


def joined_list(variables: VariableList[Any]) -> VariableNode:
    """A list as one text: its items joined with newlines. The call is not yet submitted."""
    parts: list[str | VariableNode] = []
    for i, node in enumerate(variables.nodes):
        parts += ["\n", node] if i else [node]
    return concatenation("join", parts).outputs[0]


def collected_list(variables: VariableList[Any]) -> VariableNode:
    """A list as a Python list of its items' values. The call is not yet submitted."""
    return collection(variables.nodes).outputs[0]
