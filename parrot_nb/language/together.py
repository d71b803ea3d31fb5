"""Several variables as one: gathered for one read, or joined into one text."""

from __future__ import annotations

from collections.abc import Generator, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Generic, overload

from parrot_nb.errors import SessionError, UsageError
from parrot_nb.language.nodes import Perf, VariableNode
from parrot_nb.language.static import A, B, C, D, E, F, T, V_co
from parrot_nb.language.variable import SemanticVariable, VariableList, joined


class Gathered(VariableList[Any], Generic[V_co]):
    """Variables that are read together. The values are a list; as with `asyncio.gather`, a type checker takes it for a tuple,
    so that it knows the type of each value."""

    if TYPE_CHECKING:

        def get(self, perf: Perf | None = None, timeout: float | None = None) -> V_co: ...  # type: ignore[override]
        async def aget(self, perf: Perf | None = None) -> V_co: ...  # type: ignore[override]
        def __await__(self) -> Generator[Any, None, V_co]: ...  # type: ignore[override]


@overload
def gather(a: SemanticVariable[A], b: SemanticVariable[B], /, *, perf: Perf | None = None) -> Gathered[tuple[A, B]]: ...
@overload
def gather(
    a: SemanticVariable[A], b: SemanticVariable[B], c: SemanticVariable[C], /, *, perf: Perf | None = None
) -> Gathered[tuple[A, B, C]]: ...
@overload
def gather(
    a: SemanticVariable[A], b: SemanticVariable[B], c: SemanticVariable[C], d: SemanticVariable[D], /, *, perf: Perf | None = None
) -> Gathered[tuple[A, B, C, D]]: ...
@overload
def gather(
    a: SemanticVariable[A],
    b: SemanticVariable[B],
    c: SemanticVariable[C],
    d: SemanticVariable[D],
    e: SemanticVariable[E],
    /,
    *,
    perf: Perf | None = None,
) -> Gathered[tuple[A, B, C, D, E]]: ...
@overload
def gather(
    a: SemanticVariable[A],
    b: SemanticVariable[B],
    c: SemanticVariable[C],
    d: SemanticVariable[D],
    e: SemanticVariable[E],
    f: SemanticVariable[F],
    /,
    *,
    perf: Perf | None = None,
) -> Gathered[tuple[A, B, C, D, E, F]]: ...
@overload
def gather(*variables: SemanticVariable[T] | Iterable[SemanticVariable[T]], perf: Perf | None = None) -> Gathered[list[T]]: ...
@overload
def gather(*variables: SemanticVariable[Any] | Iterable[Any], perf: Perf | None = None) -> Gathered[list[Any]]: ...
def gather(*variables: Any, perf: Perf | None = None) -> VariableList[Any]:
    """Several variables to be read together: `await P.gather(a, b)` or `P.gather(a, b).get()`.

    Args:
        variables: variables; lists and namedtuples of them are unpacked.
        perf: what is wanted of them together; see `SemanticVariable.get`.

    Returns:
        A `VariableList`, whose `get` gives a list of the values.

    Raises:
        UsageError: something else is among them.
    """
    return Gathered(_flat(variables), perf)


def join(variables: Iterable[Any], sep: str = "\n") -> SemanticVariable[str]:
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
    return joined("join", parts)


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


def _flat(items: Iterable[Any]) -> Iterator[SemanticVariable[Any]]:
    for item in items:
        if isinstance(item, SemanticVariable):
            yield item
        elif isinstance(item, (VariableList, list, tuple)):
            yield from _flat(item)
        else:
            raise UsageError(f"P.gather() takes variables, not {type(item).__name__}.")
