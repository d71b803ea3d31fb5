"""Native functions: Python functions that are nodes of the same graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, Protocol, overload

from parrot_nb.errors import ArgumentError, InputValueError
from parrot_nb.language import calling
from parrot_nb.language.calls import Call
from parrot_nb.language.graph_function import GraphFunction
from parrot_nb.language.nodes import Span, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.static import Params, T, T_co
from parrot_nb.language.text import checked_characters
from parrot_nb.language.variable import SemanticVariable, VariableList, collected_list


class NativeFunction(GraphFunction[Params, SemanticVariable[T_co]], Generic[Params, T_co]):
    """A Python function, plain or `async`, as a node of the graph: called with its inputs' values once they are there,
    in this process, off the runtime thread.

    Args:
        function: any callable but a generator function; arguments that are not variables reach it by reference.
        name: what to call it; its own name when None.

    Raises:
        ArgumentError: it cannot be called so.
    """

    @overload
    def __init__(self, function: Callable[Params, Coroutine[Any, Any, T_co]], name: str | None = None) -> None: ...
    @overload
    def __init__(self, function: Callable[Params, T_co], name: str | None = None) -> None: ...
    def __init__(self, function: Callable[..., Any], name: str | None = None) -> None:
        if not callable(function):
            raise ArgumentError(f"A native function must be callable, not {type(function).__name__}.")
        self.name: str = name or getattr(function, "__name__", type(function).__name__).replace("<lambda>", "native")
        if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
            raise ArgumentError(f"'{self.name}' is a generator: return a value instead of yielding.")
        self.function = function
        self.is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(getattr(function, "__call__", None))  # noqa: B004 - asks what kind of callable
        try:
            self.signature = inspect.signature(function)
        except (TypeError, ValueError):  # some builtins have none
            self.signature = inspect.Signature(
                [
                    inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL),
                    inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD),
                ]
            )
        self.output_names: tuple[str, ...] = (self.name if self.name.isidentifier() else "result",)
        self._define(self.name, function)
        self.__signature__ = self.signature
        self.__doc__ = inspect.getdoc(function)
        self.__wrapped__ = function

    def make_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call for these arguments, not yet submitted; raises as calling does."""
        bound = calling.bind(self.name, self.signature, args, kwargs)
        inputs = {key: _input(key, value) for key, value in self._spread(bound).items()}
        return Call(self, "native", inputs, self.output_names, Options())

    def bind(self, values: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Arguments for `function` from the values of a call's inputs, by their names in the graph."""
        arguments: dict[str, Any] = {}
        for parameter in self.signature.parameters.values():
            prefix = f"{parameter.name}["
            if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
                arguments[parameter.name] = tuple(value for key, value in values.items() if key.startswith(prefix))
            elif parameter.kind is inspect.Parameter.VAR_KEYWORD:
                arguments[parameter.name] = {
                    key[len(prefix) : -1]: value for key, value in values.items() if key.startswith(prefix)
                }
            else:
                arguments[parameter.name] = values[parameter.name]
        bound = inspect.BoundArguments(self.signature, arguments)
        return bound.args, bound.kwargs

    def _spread(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """One entry per input of the graph: the items of *args and **kwargs get names of their own."""
        spread: dict[str, Any] = {}
        for key, value in arguments.items():
            kind = self.signature.parameters[key].kind
            if kind is inspect.Parameter.VAR_POSITIONAL:
                spread |= {f"{key}[{i}]": item for i, item in enumerate(value)}
            elif kind is inspect.Parameter.VAR_KEYWORD:
                spread |= {f"{key}[{name}]": item for name, item in value.items()}
            else:
                spread[key] = value
        return spread

    def __repr__(self) -> str:
        return f"<native function {self.name}{self.signature}>"


class NativeDecorator(Protocol):
    """Decorator that `native_function` returns where it is given a name."""

    @overload
    def __call__(self, function: Callable[Params, Coroutine[Any, Any, T]], /) -> NativeFunction[Params, T]: ...
    @overload
    def __call__(self, function: Callable[Params, T], /) -> NativeFunction[Params, T]: ...


@overload
def native_function(
    function: Callable[Params, Coroutine[Any, Any, T]], /, *, name: str | None = None
) -> NativeFunction[Params, T]: ...
@overload
def native_function(function: Callable[Params, T], /, *, name: str | None = None) -> NativeFunction[Params, T]: ...
@overload
def native_function(function: None = None, /, *, name: str | None = None) -> NativeDecorator: ...
def native_function(function: Callable[..., Any] | None = None, /, *, name: str | None = None) -> Any:
    """Decorator: a Python function becomes a node of the graph when called. Bare, or with a `name`.

    Args:
        function: plain or `async`; it is given values, not variables.
        name: what to call it in views and errors; its own name when None.

    Returns:
        A `NativeFunction`, or what makes one of a function.

    Raises:
        ArgumentError: it is not callable, or a generator.
    """
    if function is not None:
        return NativeFunction(function, name)
    return lambda decorated: NativeFunction(decorated, name)


def _input(name: str, value: Any) -> VariableNode:
    value = calling.gathered(value, f"argument '{name}'")
    if isinstance(value, SemanticVariable):
        return value.node
    if isinstance(value, VariableList):
        return collected_list(value)
    node = VariableNode(name)
    node.resolve(value, spans=_spans(value))
    return node


def _spans(value: Any) -> tuple[Span, ...] | None:
    try:
        return (Span(checked_characters(value, "")),) if isinstance(value, str) else None
    except InputValueError:  # a function may be given what no prompt could hold
        return None
