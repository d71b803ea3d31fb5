"""Binding of a function's parameters to a table's columns."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from parrot_nb.errors import ArgumentError, InputValueError
from parrot_nb.language import NativeFunction, SemanticFunction, SemanticVariable

Function: TypeAlias = SemanticFunction | NativeFunction

_SHOWN_COLUMNS = 8


@dataclass(frozen=True, slots=True)
class Binding:
    """Arguments of each row's call.

    Attributes:
        columns: parameter -> column.
        constants: parameter -> value that is the same for all rows.
        by_position: parameters that take no name, in order.
        optional: parameters that have a default.
    """

    columns: Mapping[str, str]
    constants: Mapping[str, Any]
    by_position: tuple[str, ...]
    optional: frozenset[str]

    def arguments(self, cells: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Positional and named arguments for a row. Raises InputValueError where a cell is missing."""
        named = dict(self.constants)
        for parameter, column in self.columns.items():
            if column in cells:
                named[parameter] = cells[column]
            elif parameter not in self.optional:
                raise InputValueError(f"The row has no '{column}': give it one, or filter the rows first.")
        return tuple(named.pop(name) for name in self.by_position if name in named), named


def bind_columns(function: Any, columns: Sequence[str], given: Mapping[str, Any], *, dicts: bool) -> Binding:
    """Decide where each parameter's values come from: the column that is named, else the one of the parameter's own name.

    Args:
        function: semantic or native.
        columns: of the table.
        given: by parameter: a text names a column, anything else is the same for all rows.
        dicts: whether the table consists of dicts, which may have been meant as values.

    Raises:
        ArgumentError: a column that is not there, a parameter that is not there, or a list beside the table.
    """
    called = f"{function.name}.map()"
    parameters = {name: each for name, each in function.signature.parameters.items() if not is_variadic(each)}
    takes_any = any(each.kind is inspect.Parameter.VAR_KEYWORD for each in function.signature.parameters.values())
    bound: dict[str, str] = {}
    constants: dict[str, Any] = {}
    for name, value in given.items():
        if name not in parameters and not takes_any:
            raise ArgumentError(f"{called}: {function.name}{function.signature} has no parameter '{name}': check the spelling.")
        if isinstance(value, str):
            if value not in columns:
                raise ArgumentError(
                    f"{called}: the table has no column '{value}' for '{name}' (it has {_listed(columns)}): name one of these; "
                    "a text that is the same for all rows goes in as P.variable(value=...)."
                )
            bound[name] = value
        elif isinstance(value, Iterable) and not isinstance(value, (bytes, Mapping, SemanticVariable)):
            raise ArgumentError(
                f"{called}: '{name}' is a {type(value).__name__} beside the table: add it to the table as a column; "
                "a list that is the same for all rows goes in as P.variable(value=...)."
            )
        else:
            constants[name] = value
    for name, parameter in parameters.items():
        if name in given:
            continue
        if name in columns:
            bound[name] = name
        elif parameter.default is inspect.Parameter.empty:
            values = f", or give the dicts themselves as values, by name: {name}=[...]" if dicts else ""
            raise ArgumentError(
                f"{called}: the table has no column '{name}' (it has {_listed(columns)}): say which one it is, as in "
                f"{name}='column'{values}."
            )
    return Binding(
        bound,
        constants,
        tuple(name for name, each in parameters.items() if each.kind is inspect.Parameter.POSITIONAL_ONLY),
        frozenset(name for name, each in parameters.items() if each.default is not inspect.Parameter.empty),
    )


def is_variadic(parameter: inspect.Parameter) -> bool:
    """True for `*args` and `**kwargs`."""
    return parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def _listed(columns: Sequence[str]) -> str:
    if not columns:
        return "none with a text as its name"
    more = f" and {len(columns) - _SHOWN_COLUMNS} more" if len(columns) > _SHOWN_COLUMNS else ""
    return ", ".join(f"'{column}'" for column in columns[:_SHOWN_COLUMNS]) + more
