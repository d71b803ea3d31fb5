"""The first acceptable one of several variables."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, overload

from parrot_nb.errors import UsageError
from parrot_nb.language import calling
from parrot_nb.language.calls import Call
from parrot_nb.language.host import current_host
from parrot_nb.language.native import NativeFunction
from parrot_nb.language.options import Options
from parrot_nb.language.static import T
from parrot_nb.language.together import gather
from parrot_nb.language.variable import SemanticVariable, host_of


@dataclass(frozen=True, slots=True)
class First:
    """Race among variables, decided as they come; `where` says of a value whether it will do."""

    where: NativeFunction[..., Any] | None
    name: str = "first"


@overload
def first(
    *variables: SemanticVariable[T] | Iterable[SemanticVariable[T]], where: Callable[[T], Any] | None = None
) -> SemanticVariable[T]: ...
@overload
def first(*variables: Any, where: Callable[[Any], Any] | None = None) -> SemanticVariable[Any]: ...
def first(*variables: Any, where: Callable[[Any], Any] | None = None) -> SemanticVariable[Any]:
    """A variable with the value that comes first and is acceptable; a node of the graph, as a call is.

    The calls of the others are cancelled then, unless something else reads them, and so is what ran for them alone. One
    without value (it failed, or was cancelled) is passed over. Values that are there already are tried in order.

    Args:
        variables: variables, and lists of them.
        where: a Python function, plain or `async`, that is given a value and says whether it is acceptable; without it any
            value is.

    Raises:
        UsageError: no variables, or something else among them.
        ArgumentError: `where` cannot be called.
        SessionError: the session is closed, or a variable belongs to another one.
    """
    items = list(gather(*variables))
    if not items:
        raise UsageError("P.first() needs at least one variable.")
    condition = None if where is None else NativeFunction(where)
    host = host_of(items) or current_host()
    nodes = {item.node.id: item.node for item in items}
    call = Call(First(condition), "first", {str(i): node for i, node in enumerate(nodes.values())}, ("first",), Options())
    variable: SemanticVariable[Any] = calling.submitted(host, call)
    return variable
