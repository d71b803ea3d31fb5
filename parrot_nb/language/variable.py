"""Semantic variables as a user holds them: read them, wait for them, join them, hand them to other functions."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import Any, NoReturn, overload

from parrot_nb.errors import AlreadySetError, OptionError, UsageError
from parrot_nb.language.host import Host, current_host
from parrot_nb.language.joins import collection, concatenation, submit
from parrot_nb.language.markdown import MarkdownView
from parrot_nb.language.nodes import Call, Objective, Perf, Span, State, Usage, VariableNode
from parrot_nb.language.perf import checked_perf
from parrot_nb.language.text import to_text

WAKE_S = 0.1  # an await looks up this often: the kernel's loop hands an interrupt over only at its next event


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


class SemanticVariable:
    """The text (or value) that connects calls; resolved later.

    Made by calling a function, or by hand from a plain value. Without a value it is empty until `set`.

    Args:
        value: a plain value; left out, the variable is empty.
        name: what to call it in views and errors.

    Raises:
        InputValueError: the value has no one obvious text.
    """

    def __init__(self, value: Any = UNSET, name: str | None = None) -> None:
        self.node = VariableNode(name or "variable")
        self._host: Host | None = None
        self._reach = self.node.reach()
        if value is not UNSET:
            self.set(value)

    @classmethod
    def of(cls, node: VariableNode, host: Host | None) -> SemanticVariable:
        """The user's handle of a node that `host` will resolve."""
        handle = cls.__new__(cls)
        handle.node = node
        handle._host = host
        handle._reach = node.reach()
        return handle

    @property
    def name(self) -> str:
        """Its name; not unique."""
        return self.node.name

    @property
    def state(self) -> State:
        """One of "pending", "running", "done", "failed" and "cancelled"."""
        return self.node.state

    @property
    def error(self) -> BaseException | None:
        """Why it has no value, once failed or cancelled."""
        return self.node.error

    @property
    def usage(self) -> Usage:
        """Tokens and seconds that computing it took; zero until done."""
        return self.node.usage

    @property
    def finish(self) -> str | None:
        """Why generation ended: "stop" or "length"; None where no model generated it, or not yet."""
        return self.node.finish

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
        """What it was asked for with, else what was deduced for its producer."""
        if self.node.objective is None and self.node.producer is not None:
            return self.node.producer.objective
        return self.node.objective

    @property
    def markdown(self) -> MarkdownView:
        """It, to be shown as Markdown: as a cell's result its text is rendered, while it is written too."""
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

    def get(self, perf: Perf | None = None, timeout: float | None = None) -> Any:
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
        return result_of(self.node)

    async def aget(self, perf: Perf | None = None) -> Any:
        """As `get`, without blocking the event loop."""
        await read_awaiting(self._host, [self.node], perf)
        return result_of(self.node)

    def __await__(self) -> Generator[Any, None, Any]:
        return self.aget().__await__()

    async def stream(self) -> AsyncIterator[str]:
        """The text piece by piece, as it comes; what came before is given first.

        Raises:
            ParrotError: what kept it from having a value, after the pieces that did come.
        """
        node, position = self.node, 0
        host = None if node.future.done() else _send(self._host, [node], None)
        loop, changed = asyncio.get_running_loop(), asyncio.Event()
        unsubscribe = node.subscribe(lambda: _wake(loop, changed))
        try:
            while True:
                changed.clear()
                ended = node.future.done()
                while position < len(node.pieces):
                    yield node.pieces[position]
                    position += 1
                if ended:
                    break
                await _tick(changed)
        except asyncio.CancelledError:
            if host is not None:
                host.interrupted([node])
            raise
        finally:
            unsubscribe()
        value = result_of(node)
        if not position:  # a plain value, or one that no model wrote
            yield node.text if node.spans is not None else to_text(value, f"variable '{self.name}'")

    def submit(self) -> None:
        """Let the call that produces it enter the graph, as its first reader would; only joins wait for that."""
        _submit_producers(self._host or current_host(), [self.node])

    def cancel(self) -> None:
        """Cancel the call that produces it, if it has not ended. Returns at once."""
        if self.node.producer is not None and not self.node.final:
            _cancel(self._host, [self.node])

    def __repr__(self) -> str:
        node = self.node
        if node.state == "done":
            return f"<variable {node.name}: {_clipped(node.value)}>"
        tail = f" {_clipped(node.text)}" if node.state == "running" and node.text else ""
        return f"<variable {node.name} {node.state}{tail}>"

    def __add__(self, other: Any) -> Any:
        return _plus(self, other)

    def __radd__(self, other: Any) -> Any:
        return _plus(other, self)

    def __bool__(self) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its value: use {self.name}.get() in a condition.")

    def __iter__(self) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its value: iterate over {self.name}.get(), or its stream().")

    def __str__(self) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its text: use {self.name}.get(), or join texts with + or P.join().")

    def __format__(self, spec: str) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its text: use {self.name}.get(), or join texts with + or P.join().")


class VariableList(Sequence[SemanticVariable]):
    """Variables in a row. As an argument its items are joined with newlines (a native function gets a list of values)."""

    def __init__(self, variables: Iterable[SemanticVariable], perf: Perf | None = None) -> None:
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

    def get(self, perf: Perf | None = None, timeout: float | None = None) -> list[Any]:
        """Wait for all values; `timeout` is for all of them together. Raises what the first item without value raises."""
        read_blocking(self._host, self.nodes, perf or self._perf, timeout)
        return [result_of(node) for node in self.nodes]

    async def aget(self, perf: Perf | None = None) -> list[Any]:
        """As `get`, without blocking the event loop."""
        await read_awaiting(self._host, self.nodes, perf or self._perf)
        return [result_of(node) for node in self.nodes]

    def __await__(self) -> Generator[Any, None, list[Any]]:
        return self.aget().__await__()

    def done(self) -> bool:
        """Whether all items are final."""
        return all(node.final for node in self.nodes)

    def cancel(self) -> None:
        """Cancel the calls of all items that have not ended."""
        if pending := [node for node in self.nodes if node.producer is not None and not node.final]:
            _cancel(self._host, pending)

    @property
    def _host(self) -> Host | None:
        return next((item._host for item in self._items if item._host is not None), None)

    @overload
    def __getitem__(self, index: int) -> SemanticVariable: ...
    @overload
    def __getitem__(self, index: slice) -> VariableList: ...
    def __getitem__(self, index: int | slice) -> SemanticVariable | VariableList:
        return VariableList(self._items[index]) if isinstance(index, slice) else self._items[index]

    def __len__(self) -> int:
        return len(self._items)

    def __iter__(self) -> Iterator[SemanticVariable]:
        return iter(self._items)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, VariableList):
            return VariableList((*self._items, *other._items))
        return _plus(self, other)

    def __radd__(self, other: Any) -> Any:
        return _plus(other, self)

    def __repr__(self) -> str:
        states = [node.state for node in self.nodes]
        counts = ", ".join(f"{states.count(state)} {state}" for state in dict.fromkeys(states))
        return f"<{len(self)} variables{': ' if counts else ''}{counts}>"

    def __str__(self) -> NoReturn:
        raise UsageError("This is a list of variables, not of texts: use .get(), or P.join(list, sep).")

    def __format__(self, spec: str) -> NoReturn:
        raise UsageError("This is a list of variables, not of texts: use .get(), or P.join(list, sep).")


def variable(name: str | None = None, value: Any = UNSET) -> SemanticVariable:
    """A variable by hand: empty until `set`, or with a value."""
    return SemanticVariable(value, name)


def gather(*variables: SemanticVariable | Iterable[Any], perf: Perf | None = None) -> VariableList:
    """Several variables (lists and namedtuples of them are unpacked) to be read together: `await P.gather(a, b)` or
    `P.gather(a, b).get()`."""
    return VariableList(_flat(variables), perf)


def join(variables: Iterable[Any], sep: str = "\n") -> SemanticVariable:
    """The texts of variables and plain values in a row, with `sep` between them; a node of the graph.

    Raises:
        InputValueError: a plain value has no one obvious text.
        UsageError: `sep` is not a string, or `variables` is a single variable or text.
    """
    if not isinstance(sep, str):
        raise UsageError(f"The separator must be a string, not {type(sep).__name__}.")
    if isinstance(variables, (SemanticVariable, str)):
        raise UsageError("P.join() takes a list of variables: put a single one into brackets.")
    if not isinstance(variables, Iterable):
        raise UsageError(f"P.join() takes a list of variables, not {type(variables).__name__}.")
    items = list(variables)
    parts: list[Any] = []
    for i, item in enumerate(items):
        parts += [sep, item] if i and sep else [item]
    return _joined("join", parts)


def _plus(left: Any, right: Any) -> Any:
    if not all(isinstance(side, (SemanticVariable, VariableList, str)) for side in (left, right)):
        return NotImplemented
    return _joined("+", [left, right])


def _joined(name: str, parts: Sequence[Any]) -> SemanticVariable:
    host = next(
        (part._host for part in parts if isinstance(part, (SemanticVariable, VariableList)) and part._host is not None), None
    )
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


def joined_list(variables: VariableList) -> VariableNode:
    """A list as one text: its items joined with newlines. The call is not yet submitted."""
    parts: list[str | VariableNode] = []
    for i, node in enumerate(variables.nodes):
        parts += ["\n", node] if i else [node]
    return concatenation("join", parts).outputs[0]


def collected_list(variables: VariableList) -> VariableNode:
    """A list as a Python list of its items' values. The call is not yet submitted."""
    return collection(variables.nodes).outputs[0]


def read_blocking(host: Host | None, nodes: Sequence[VariableNode], perf: Perf | None, timeout: float | None) -> None:
    """Block until all nodes are final. Raises GetTimeoutError, OptionError."""
    checked_perf(perf)
    if timeout is not None:
        number = isinstance(timeout, (int, float)) and not isinstance(timeout, bool)
        if not number or math.isnan(timeout) or timeout < 0:
            raise OptionError(f"timeout must be a number of seconds, 0 or more, not {timeout!r}.")
    pending = [node for node in nodes if not node.future.done()]
    if pending:
        _send(host, pending, perf).wait(pending, timeout)


async def read_awaiting(host: Host | None, nodes: Sequence[VariableNode], perf: Perf | None) -> None:
    """Wait until all nodes are final, without blocking the running loop."""
    checked_perf(perf)
    pending = [node for node in nodes if not node.future.done()]
    if not pending:
        return
    host = _send(host, pending, perf)
    loop, changed = asyncio.get_running_loop(), asyncio.Event()
    try:
        for node in pending:
            node.future.add_done_callback(lambda _: _wake(loop, changed))
            while not node.future.done():
                changed.clear()
                if not node.future.done():
                    await _tick(changed)
    except asyncio.CancelledError:
        host.interrupted(pending)
        raise


def result_of(node: VariableNode) -> Any:
    """A final node's value; raises its error with a traceback of this read alone."""
    if node.error is not None:
        raise node.error.with_traceback(None)
    return node.value


def _send(host: Host | None, nodes: Sequence[VariableNode], perf: Perf | None) -> Host:
    """Make sure that the nodes' calls are submitted, and say that somebody wants them."""
    host = host or current_host()
    _submit_producers(host, nodes)
    host.read(nodes, perf)
    return host


def _cancel(host: Host | None, nodes: Sequence[VariableNode]) -> None:
    host = host or current_host()
    _submit_producers(host, nodes)  # so that a join that nothing has used yet ends too
    host.cancel(nodes)


def _submit_producers(host: Host, nodes: Sequence[VariableNode]) -> None:
    for node in nodes:
        if node.producer is not None and not node.producer.submitted:
            submit(host, node.producer)


def _wake(loop: asyncio.AbstractEventLoop, changed: asyncio.Event) -> None:
    if not loop.is_closed():
        try:
            loop.call_soon_threadsafe(changed.set)
        except RuntimeError:  # closed this very moment: nobody waits any more
            return


async def _tick(changed: asyncio.Event) -> None:
    try:
        async with asyncio.timeout(WAKE_S):
            await changed.wait()
    except TimeoutError:
        return


def _flat(items: Iterable[Any]) -> Iterator[SemanticVariable]:
    for item in items:
        if isinstance(item, SemanticVariable):
            yield item
        elif isinstance(item, (VariableList, list, tuple)):
            yield from _flat(item)
        else:
            raise UsageError(f"P.gather() takes variables, not {type(item).__name__}.")


def _clipped(value: Any, limit: int = 60) -> str:
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 1] + "…"
