"""Common parts of semantic and native functions: arguments become variables, calls are submitted, lists are mapped over."""

from __future__ import annotations

import inspect
from collections import namedtuple
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from functools import lru_cache
from typing import Any, Protocol

from parrot_nb.errors import ArgumentError, InputValueError
from parrot_nb.language.calls import Call
from parrot_nb.language.host import Host
from parrot_nb.language.joins import submit
from parrot_nb.language.options import FUNCTION_NAMES
from parrot_nb.language.tabular import mapped_over_table
from parrot_nb.language.text import to_text
from parrot_nb.language.variable import SemanticVariable, VariableList


def bind(name: str, signature: inspect.Signature, args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by parameter, defaults filled in.

    Raises:
        ArgumentError: missing, extra or doubled arguments.
    """
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        raise ArgumentError(f"{name}{signature} cannot be called so: {error}.{_hint(name, signature, kwargs)}") from None
    bound.apply_defaults()
    return dict(bound.arguments)


def _hint(name: str, signature: inspect.Signature, kwargs: Mapping[str, Any]) -> str:
    """Return what the caller may have meant by a keyword that is no parameter; empty where nothing is near."""
    unknown = next((key for key in kwargs if key not in signature.parameters), None)
    if unknown is None:
        return ""
    if unknown in FUNCTION_NAMES:
        return f" '{unknown}' is an option: write {name}.options({unknown}=...)."
    near = get_close_matches(unknown, signature.parameters, n=1)
    return f" Did you mean '{near[0]}'?" if near else ""


def gathered(value: Any, argument: str) -> Any:
    """A plain list that holds variables is given on as a `VariableList`; other values as they are.

    Raises:
        ArgumentError: a tuple of variables, which is what a call of several outputs returns.
        InputValueError: beside the variables there is something without an obvious text.
    """
    if isinstance(value, tuple) and value and all(isinstance(item, SemanticVariable) for item in value):
        raise ArgumentError(f"{argument} is a tuple of variables: choose one, or give a list of them.")
    if isinstance(value, list) and any(isinstance(item, SemanticVariable) for item in value):
        return VariableList(
            item if isinstance(item, SemanticVariable) else _made(item, f"item {i} of {argument}") for i, item in enumerate(value)
        )
    return value


def _made(value: Any, where: str) -> SemanticVariable:
    to_text(value, where)  # so that an error names the item, not the variable made of it
    return SemanticVariable(value)


def submitted(host: Host, call: Call) -> Any:
    """Submit a call; returns its output variable, or a namedtuple of them."""
    handles = [SemanticVariable.of(node, host) for node in call.outputs]  # first: what nobody holds need not run
    submit(host, call)
    return outputs_of(call.name, call.output_names, handles)


def outputs_of(name: str, names: Sequence[str], values: Sequence[Any]) -> Any:
    """One value as it is; several as a namedtuple."""
    if len(values) == 1:
        return values[0]
    return _outputs_type(f"{name}_outputs", tuple(names))(*values)


@lru_cache(maxsize=256)
def _outputs_type(name: str, fields: tuple[str, ...]) -> Any:
    return namedtuple(name if name.isidentifier() else "outputs", fields)  # noqa: PYI024 - the fields are known only now


class Mappable(Protocol):
    """Interface of a function that `map_over` needs."""

    name: str
    output_names: tuple[str, ...]

    def make_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call for these arguments, not yet submitted."""


def map_over(host: Host, function: Mappable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """One call per item: sequences of equal length go in step, everything else is the same for all. Where one item
    cannot be used, no call is submitted. Of a table, as its first argument, one call per row.

    Raises:
        ArgumentError: no sequence, sequences of different lengths, or a table that cannot be used.
        InputValueError: an item has no one obvious text; says which, counted from 0.
    """
    rows, args = mapped_over_table(host, function, args, kwargs)
    if rows is not None:
        return rows
    name, output_names = function.name, function.output_names
    results = [submitted(host, call) for call in calls_of(function, args, kwargs)]
    if len(output_names) == 1:
        return VariableList(results)
    columns = [VariableList(result[k] for result in results) for k in range(len(output_names))]
    return outputs_of(name, output_names, columns)


def maps(args: Sequence[Any], kwargs: Mapping[str, Any]) -> bool:
    """True if `map_over` finds something to go over among these arguments."""
    return any(_items(value) is not None for value in (*args, *kwargs.values()))


def calls_of(function: Mappable, args: Sequence[Any], kwargs: Mapping[str, Any]) -> list[Call]:
    """The calls of `map_over`, not submitted; raises as that does."""
    name = function.name
    positional = [_items(value) for value in args]
    named = {key: _items(value) for key, value in kwargs.items()}
    lengths = {len(items) for items in (*positional, *named.values()) if items is not None}
    if not lengths:
        raise ArgumentError(f"{name}.map() needs at least one list to go over: for a single call write {name}(...).")
    if len(lengths) > 1:
        raise ArgumentError(
            f"{name}.map() was given lists of different lengths ({', '.join(map(str, sorted(lengths)))}): make them equal."
        )
    calls = []
    for i in range(lengths.pop()):
        item_args = tuple(value if items is None else items[i] for value, items in zip(args, positional, strict=True))
        item_kwargs = {key: kwargs[key] if items is None else items[i] for key, items in named.items()}
        try:
            calls.append(function.make_call(item_args, item_kwargs))
        except InputValueError as error:
            raise InputValueError(f"{name}.map(), item {i}: {error}") from None
    return calls


def _items(value: Any) -> list[Any] | None:
    """The items of what `map` goes over; None for what it holds constant."""
    if isinstance(value, (str, bytes, dict, SemanticVariable)) or not isinstance(value, Iterable):
        return None
    shape = getattr(value, "shape", None)
    if isinstance(shape, tuple) and len(shape) != 1:  # a NumPy scalar, a matrix, a DataFrame
        return None
    return list(value)
