"""Reductions: many items to one value by a function that takes several at a time, as a tree."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, cast

from parrot_nb.errors import ArgumentError
from parrot_nb.language import NativeFunction, SemanticFunction, SemanticVariable, VariableList
from parrot_nb.language.host import current_host
from parrot_nb.language.options import DEFAULTS, Options
from parrot_nb.language.template import Output
from parrot_nb.tables.binding import Function, is_variadic
from parrot_nb.tables.rows import Rows

if TYPE_CHECKING:
    from parrot_nb.session import Session

SEAM_TOKENS = 2  # for the line break between two items, which may also split a token


def reduce(function: Function, items: Iterable[Any], /, fanin: int | None = 8, **constants: Any) -> Any:
    """Reduce items to one value: a tree of calls, each of which reads a few items in order, or what calls below it wrote.

    Args:
        function: takes several items as one parameter, a prompt as lines of text, a native function as a list; its first parameter
            that is not among `constants`. It has one output, and is called at least once.
        items: plain values and variables.
        fanin: most items of a call. With None as many as the model's context has room for, by their tokens; variables of prompts
            that are still to come count with their `max_tokens`.
        constants: values of the function's other parameters, the same for all calls.

    Returns:
        The variable at the root.

    Raises:
        ArgumentError: no items, an unusable `fanin`, a function that cannot be used so, or items too long for two in a context.
        InputValueError: an item has no one obvious text.
    """
    if not isinstance(function, (SemanticFunction, NativeFunction)):
        raise ArgumentError(f"P.reduce() takes a semantic or native function, not {type(function).__name__}: decorate it first.")
    if len(function.output_names) > 1:
        raise ArgumentError(f"P.reduce() needs a function of one output: {function.name}() has {len(function.output_names)}.")
    if isinstance(items, Rows):
        raise ArgumentError("P.reduce() was given the rows of a map: give it what their get() returns.")
    if isinstance(items, (str, SemanticVariable)) or not isinstance(items, Iterable):
        raise ArgumentError(f"P.reduce() takes a list of items, not {type(items).__name__}: put a single one into brackets.")
    if fanin is not None and (isinstance(fanin, bool) or not isinstance(fanin, int) or fanin < 2):
        raise ArgumentError(f"fanin must be a whole number of at least 2, or None, not {fanin!r}.")
    parameter = _parameter(function, constants)
    level = list(items)
    if not level:
        raise ArgumentError(f"P.reduce() was given no items: {function.name}() has nothing to read.")
    room = None if fanin is not None else _Room(function, parameter, constants)
    while True:
        sizes = _even(len(level), fanin) if fanin is not None else cast("_Room", room).sizes(level)
        groups = _cut(level, sizes)
        alone = len(groups) > 1  # an item that is left over goes up as it is
        level = [group[0] if alone and len(group) == 1 else _called(function, parameter, group, constants) for group in groups]
        if len(level) == 1:
            return level[0]


def _parameter(function: Function, constants: dict[str, Any]) -> str:
    names = [name for name, each in function.signature.parameters.items() if not is_variadic(each)]
    if unknown := next((name for name in constants if name not in names), None):
        raise ArgumentError(f"{function.name}{function.signature} has no parameter '{unknown}': check the spelling.")
    free = [name for name in names if name not in constants]
    if not free:
        raise ArgumentError(f"{function.name}() has no parameter left for the items: give fewer constants.")
    return free[0]


def _called(function: Function, parameter: str, group: Sequence[Any], constants: dict[str, Any]) -> Any:
    plain = not any(isinstance(item, SemanticVariable) for item in group)
    if plain and isinstance(function, NativeFunction):
        return function(**{parameter: list(group)}, **constants)
    variables = [item if isinstance(item, SemanticVariable) else SemanticVariable(item) for item in group]
    return function(**{parameter: VariableList(variables)}, **constants)


def _even(count: int, fanin: int) -> list[int]:
    """Sizes of as few groups as there can be, as even as they can be."""
    groups = -(-count // fanin)
    return [count // groups + (i < count % groups) for i in range(groups)]


def _cut(items: Sequence[Any], sizes: Sequence[int]) -> list[Sequence[Any]]:
    groups, start = [], 0
    for size in sizes:
        groups.append(items[start : start + size])
        start += size
    return groups


class _Room:
    """Room in a model's context for the items of one call.

    Args:
        function: whose prompt they go into.
        parameter: as which.
        constants: of its other parameters.
    """

    def __init__(self, function: Function, parameter: str, constants: dict[str, Any]) -> None:
        if isinstance(function, NativeFunction):
            raise ArgumentError(
                f"fanin=None is for prompts: {function.name}() is a native function, which has no context to fill."
            )
        self._function = function
        self._parameter = parameter
        self._constants = constants
        session = cast("Session", current_host())
        self._defaults = session.options
        self._empty_tokens = self._count("")  # loads the model
        wanted = function.settings.over(session.options).model or session.default_model
        context = next(info.max_context_tokens for info in session.models() if info.id == wanted)
        self._room_tokens = context - self._empty_tokens - _most_written(function, session.options)

    def sizes(self, items: Sequence[Any]) -> list[int]:
        """Sizes of groups that fit, filled in order. Raises ArgumentError where two neighbours do not."""
        tokens = [self._tokens(item) + SEAM_TOKENS for item in items]
        sizes, filled = [0], 0
        for count in tokens:
            if sizes[-1] and filled + count > self._room_tokens:
                sizes.append(0)
                filled = 0
            sizes[-1] += 1
            filled += count
        if len(items) > 1 and len(sizes) == len(items):
            raise ArgumentError(
                f"No two items fit into the {self._room_tokens} tokens that {self._function.name}() has room for: shorten them, or "
                "lower its max_tokens."
            )
        return sizes

    def _tokens(self, item: Any) -> int:
        if not isinstance(item, SemanticVariable):
            return self._count(item) - self._empty_tokens
        if item.done():
            return self._count(item.text) - self._empty_tokens if item.error is None else 0
        producer = item.producer
        if producer is None or producer.kind != "semantic":
            raise ArgumentError(f"How long '{item.name}' will be is not known yet: get() it first, or give fanin.")
        return _most_written(producer.semantic, self._defaults, item.name)

    def _count(self, text: Any) -> int:
        segments = self._function.render(**{self._parameter: text}, **self._constants)
        return sum(len(segment.token_ids) for segment in segments)


def _most_written(function: SemanticFunction, defaults: Options, output: str | None = None) -> int:
    """Most tokens that a function writes, or one output of it."""
    own = [each for each in function.template.segments if isinstance(each, Output) and output in (None, each.name)]
    limits = [each.options.over(function.settings).over(defaults).over(DEFAULTS).max_tokens for each in own]
    return sum(limit for limit in limits if limit is not None)
