"""One of several variables, picked once all of them have values: by majority, or by a figure of each."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from parrot_nb.errors import ArgumentError, UsageError
from parrot_nb.language.calls import Call
from parrot_nb.language.host import current_host
from parrot_nb.language.joins import submit
from parrot_nb.language.native import NativeFunction
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.together import gather
from parrot_nb.language.variable import SemanticVariable, host_of

Key = Callable[[Any], Any]
V = TypeVar("V", bound=SemanticVariable)


class Pick(NativeFunction):
    """A native function that picks one of its inputs: its call has that variable's value, in that variable's own tokens.

    Args:
        place: finds the place of the one to pick among their values.
        name: of the calls.
    """

    def __init__(self, place: Callable[[Sequence[Any]], int], name: str) -> None:
        def pick(*values: Any) -> Any:
            return place(values)

        super().__init__(pick, name)

    def picked(self, call: Call) -> VariableNode:
        """The input of a call that it picks; all have values."""
        nodes = tuple(call.inputs.values())
        place: int = self.function(*(node.value for node in nodes))
        return nodes[place]


class Vote(SemanticVariable):
    """A variable with the value that most of several variables have; see `vote`."""

    key: Key | None = None

    @property
    def share(self) -> float | None:
        """The part of the values that agree with this one, above 0 and at most 1; None until done."""
        call = self.producer
        if self.state != "done" or call is None:
            return None
        own, *values = (_by(self.key, node.value) for node in (self.node, *call.inputs.values()))
        return sum(bool(own == value) for value in values) / len(values)


def vote(*variables: Any, key: Key | None = None) -> Vote:
    """A variable with the value that most of several variables have; of values that are equally frequent the one that stands
    first. A node of the graph, as a call is; without a value where one of the variables has none.

    Args:
        variables: variables, and lists of them.
        key: a Python function that says what of a value is compared, such as `str.strip`; without it the value itself.

    Raises:
        UsageError: no variables, or something else among them.
        ArgumentError: `key` is no plain function of a value.
        SessionError: the session is closed, or a variable belongs to another one.
    """
    _check_key(key, "vote")

    def place(values: Sequence[Any]) -> int:
        compared = [_by(key, value) for value in values]
        counts = [sum(bool(one == other) for other in compared) for one in compared]
        return counts.index(max(counts))

    elected = _submitted(Pick(place, "vote"), variables, Vote)
    elected.key = key
    return elected


def best(*variables: Any, key: Key) -> SemanticVariable:
    """A variable with the value for which `key` gives the most; of equal ones the one that stands first. A node of the graph, as a
    call is; without a value where one of the variables has none.

    Args:
        variables: variables, and lists of them.
        key: a Python function of a value, such as `len`; it may ask a model, as in `lambda text: grade(text).get()`.

    Raises:
        UsageError: no variables, or something else among them.
        ArgumentError: `key` is no plain function of a value.
        SessionError: the session is closed, or a variable belongs to another one.
    """
    _check_key(key, "best")

    def place(values: Sequence[Any]) -> int:
        figures = [key(value) for value in values]
        return max(range(len(figures)), key=figures.__getitem__)

    return _submitted(Pick(place, "best"), variables, SemanticVariable)


def _submitted(pick: Pick, variables: Sequence[Any], kind: type[V]) -> V:
    try:
        items = list(gather(*variables))
    except UsageError:
        raise UsageError(
            f"P.{pick.name}() takes variables, and lists of them: make one of a plain value by P.variable(value=...)."
        ) from None
    if not items:
        raise UsageError(f"P.{pick.name}() needs at least one variable.")
    host = host_of(items) or current_host()
    inputs = {f"values[{i}]": item.node for i, item in enumerate(items)}
    call = Call(pick, "native", inputs, pick.output_names, Options())
    handle = kind.of(call.outputs[0], host)  # first: what nobody holds need not run
    submit(host, call)
    return handle


def _by(key: Key | None, value: Any) -> Any:
    return value if key is None else key(value)


def _check_key(key: Any, name: str) -> None:
    if (key is None and name == "best") or (key is not None and not callable(key)):
        raise ArgumentError(f"The key of P.{name}() is a function of a value, not {type(key).__name__}.")
    if inspect.iscoroutinefunction(key):
        raise ArgumentError(f"The key of P.{name}() must be a plain function, not an async one: let it call get().")
