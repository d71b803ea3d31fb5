"""Semantic variables as a user holds them: read them, wait for them, join them, hand them to other functions."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Generator, Iterable, Iterator, Sequence
from typing import Any, NoReturn, overload

from parrot_nb.errors import AlreadySetError, ArgumentError, SessionError, UsageError
from parrot_nb.language import reading
from parrot_nb.language.calls import Call
from parrot_nb.language.handles import Handle
from parrot_nb.language.host import Host, current_host
from parrot_nb.language.joins import collection, concatenation
from parrot_nb.language.markdown import MarkdownView
from parrot_nb.language.nodes import Objective, Perf, Span, State, TokenLogprob, Usage, VariableNode
from parrot_nb.language.reading import cancel_producers, read_awaiting, read_blocking, result_of, send, submit_producers
from parrot_nb.language.text import checked_characters, to_text


class _Unset:
    def __repr__(self) -> str:
        return "UNSET"


UNSET: Any = _Unset()


class SemanticVariable(Handle):
    """The text (or value) that connects calls; resolved later.

    Made by calling a function, or by hand from a plain value. Without a value it is empty until `set`.

    Args:
        value: a plain value; left out, the variable is empty.
        name: what to call it in views and errors.

    Raises:
        ArgumentError: the name is not a string.
        InputValueError: the value has no one obvious text.
    """

    _noun, _remedy = "A variable", "use get() and pass on the value"

    def __init__(self, value: Any = UNSET, name: str | None = None) -> None:
        if name is not None and not isinstance(name, str):
            raise ArgumentError(f"A variable's name is a string, not {type(name).__name__}: write value=... for a value.")
        self.node = VariableNode(checked_characters(name or "variable", "a variable's name"))
        self._host: Host | None = None
        self._reach = self.node.reach()
        if value is not UNSET:
            self.set(value)

    @classmethod
    def of(cls, node: VariableNode, host: Host | None) -> SemanticVariable:
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
        """As `get`, without blocking the event loop; `await variable` is `await variable.aget()`.

        Args:
            perf: as for `get`.

        Raises:
            ParrotError: what kept it from having a value.
        """
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

    def __add__(self, other: Any) -> Any:
        return _plus(self, other)

    def __radd__(self, other: Any) -> Any:
        return _plus(other, self)

    def __bool__(self) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its value: use its get() in a condition.")

    def __getitem__(self, index: Any) -> NoReturn:  # for iteration too; with `__iter__`, pandas would take a variable for a list
        raise UsageError(f"'{self.name}' is a variable, not its value: iterate over its get(), or over its stream().")

    def __format__(self, spec: str) -> NoReturn:
        raise UsageError(f"'{self.name}' is a variable, not its text: use its get(), or join texts with + or P.join().")


class VariableList(Handle, Sequence[SemanticVariable]):
    """Variables in a row. As an argument its items are joined with newlines (a native function gets a list of values).

    Args:
        variables: its items.
        perf: for reads that name no objective themselves.

    Raises:
        UsageError: something else is among them.
    """

    _noun, _remedy = "A list of variables", "use get() and pass on the values"

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
            cancel_producers(self._host, pending)

    @property
    def _host(self) -> Host | None:
        return host_of(self._items)

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

    def __format__(self, spec: str) -> NoReturn:
        raise UsageError("This is a list of variables, not of texts: use .get(), or P.join(list, sep).")


def variable(name: str | None = None, value: Any = UNSET) -> SemanticVariable:
    """A variable by hand: empty until `set`, or with a value.

    Args:
        name: what to call it in views and errors.
        value: a plain value; left out, the variable is empty, and calls that read it wait.

    Raises:
        ArgumentError: the name is not a string.
        InputValueError: the value has no one obvious text.
    """
    return SemanticVariable(value, name)


def gather(*variables: SemanticVariable | Iterable[Any], perf: Perf | None = None) -> VariableList:
    """Several variables to be read together: `await P.gather(a, b)` or `P.gather(a, b).get()`.

    Args:
        variables: variables; lists and namedtuples of them are unpacked.
        perf: what is wanted of them together; see `SemanticVariable.get`.

    Raises:
        UsageError: something else is among them.
    """
    return VariableList(_flat(variables), perf)


def join(variables: Iterable[Any], sep: str = "\n") -> SemanticVariable:
    """The texts of variables and plain values in a row, with `sep` between them; a node of the graph.

    Args:
        variables: a list of variables and plain values.
        sep: the text between two of them.

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


def host_of(handles: Iterable[SemanticVariable | VariableList]) -> Host | None:
    """The session that the first bound of these handles belongs to."""
    return next((handle._host for handle in handles if handle._host is not None), None)  # noqa: SLF001 - of this module


def _joined(name: str, parts: Sequence[Any]) -> SemanticVariable:
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


def joined_list(variables: VariableList) -> VariableNode:
    """A list as one text: its items joined with newlines. The call is not yet submitted."""
    parts: list[str | VariableNode] = []
    for i, node in enumerate(variables.nodes):
        parts += ["\n", node] if i else [node]
    return concatenation("join", parts).outputs[0]


def collected_list(variables: VariableList) -> VariableNode:
    """A list as a Python list of its items' values. The call is not yet submitted."""
    return collection(variables.nodes).outputs[0]


def _flat(items: Iterable[Any]) -> Iterator[SemanticVariable]:
    for item in items:
        if isinstance(item, SemanticVariable):
            yield item
        elif isinstance(item, (VariableList, list, tuple)):
            yield from _flat(item)
        else:
            raise UsageError(f"P.gather() takes variables, not {type(item).__name__}.")


def nodes_of(variables: Sequence[Any]) -> list[VariableNode]:
    """The nodes of variables, nodes and lists of both. Raises SessionError for anything else."""
    nodes: list[VariableNode] = []
    for variable in variables:
        if isinstance(variable, (VariableNode, SemanticVariable)):
            nodes.append(variable if isinstance(variable, VariableNode) else variable.node)
        elif isinstance(variable, (list, tuple, VariableList)):
            nodes += nodes_of(list(variable))
        else:
            raise SessionError(f"cancel() takes variables, not {type(variable).__name__}.")
    return nodes
