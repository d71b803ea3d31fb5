"""Outputs that a Python function with a prompt declares, and the names that the types in the prompt may use."""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from parrot_nb.errors import TemplateError
from parrot_nb.language.defined import calling_frame
from parrot_nb.language.scalars import UnusableTypeError
from parrot_nb.language.types import ValueType, value_type
from parrot_nb.language.variable import SemanticVariable, VariableList


def callers_names() -> Mapping[str, Any]:
    """The names that the code which called into this package can use."""
    frame = calling_frame()
    return {**frame.f_globals, **frame.f_locals}


def names_of(function: Callable[..., Any], callers: Mapping[str, Any]) -> Mapping[str, Any]:
    """The names that a function's annotations and docstring can use."""
    return {**getattr(function, "__globals__", {}), **callers, **inspect.getclosurevars(function).nonlocals}


def returned_types(
    function: Callable[..., Any], name: str, outputs: Sequence[str], names: Mapping[str, Any]
) -> dict[str, ValueType]:
    """The types of outputs as the annotation of what a function returns has them; none where it says nothing of them.

    Raises:
        TemplateError: the annotation cannot be the type of an output.
    """
    written = getattr(function, "__annotations__", {}).get("return")
    if written is None or not outputs:
        return {}
    shown = written if isinstance(written, str) else inspect.formatannotation(written)
    try:
        kind = eval(written, dict(names)) if isinstance(written, str) else written  # noqa: S307 - the user's own annotation
    except Exception as error:  # whatever it raises, the annotation is at fault
        raise TemplateError(
            f"'{name}' returns '{shown}', which cannot be read ({type(error).__name__}: {error}): define it first.",
            text=f"def {name}(...)",
        ) from None
    kind = _of_value(kind)
    if kind is None or kind is Any:
        return {}
    kinds: Sequence[Any] = [kind]
    if len(outputs) > 1:
        kinds = typing.get_args(kind) if typing.get_origin(kind) is tuple else ()
        if len(kinds) != len(outputs):
            raise TemplateError(
                f"'{name}' has the outputs {', '.join(outputs)}: write what it returns as tuple[...] of {len(outputs)} types.",
                text=f"def {name}(...)",
            )
    found: dict[str, ValueType] = {}
    for output, each in zip(outputs, map(_of_value, kinds), strict=True):
        if each is Any:
            continue
        try:
            typed = value_type(each, _shown(each), names)
        except UnusableTypeError as error:
            raise TemplateError(
                f"'{_shown(each)}' cannot be the type of the output '{output}': {error}.", text=f"def {name}(...) -> {shown}"
            ) from None
        if typed is not None:
            found[output] = typed
    return found


def _of_value(annotation: Any) -> Any:
    """The type of the value: that of `SemanticVariable[int]` is `int`. `Any` where the annotation says nothing of it."""
    if typing.get_origin(annotation) is SemanticVariable:
        return _of_value(*typing.get_args(annotation))
    return Any if any(annotation is handle for handle in (SemanticVariable, VariableList)) else annotation


def _shown(kind: Any) -> str:
    return kind.__name__ if isinstance(kind, type) and not typing.get_args(kind) else inspect.formatannotation(kind)
