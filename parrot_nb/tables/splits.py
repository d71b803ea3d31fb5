"""Parts of a table for tuning: rows that choose between trials, rows on which the choice is measured, and rows to take examples from.

No row is in two parts, and rows with equal inputs are in the same one: what a prompt shows, or was chosen by, says nothing of how good
it is.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parrot_nb.errors import ArgumentError

Cells = Mapping[str, Any]
LEAST_ROWS = 2  # of a part that is scored


@dataclass(frozen=True, slots=True)
class Parts:
    """A table in parts.

    Attributes:
        choosing: rows that trials are chosen by.
        held_out: rows that the choice is measured on.
        pool: rows that examples are taken from.
        num_left_out: rows in no part, since a given example shows them or a held-out table has them.
    """

    choosing: list[Cells]
    held_out: list[Cells]
    pool: list[Cells]
    num_left_out: int


def key_of(values: Collection[Any]) -> Hashable:
    """Return a key that is equal for equal inputs: cells of any class count by their texts."""
    return tuple(str(value) for value in values)


def parts_of(
    rows: Sequence[Cells],
    inputs: Callable[[Cells], Collection[Any]],
    *,
    held_out: float | Sequence[Cells],
    shown: Collection[Hashable],
    pool_rows: int,
    seed: int,
) -> Parts:
    """Part a table at random.

    Args:
        rows: of the table.
        inputs: the inputs in a row.
        held_out: the share of rows to measure on, or these rows themselves.
        shown: keys of rows that given examples show.
        pool_rows: rows that examples need at least; a third of what is left beside the held-out rows is kept for them. 0 for none.
        seed: of the parting.

    Raises:
        ArgumentError: the rows are too few.
    """
    own = not isinstance(held_out, float)
    measured = [row for row in held_out if key_of(inputs(row)) not in shown] if not isinstance(held_out, float) else []
    taken = {*shown, *(key_of(inputs(row)) for row in measured)}
    groups: dict[Hashable, list[Cells]] = {}
    for row in rows:
        if (key := key_of(inputs(row))) not in taken:
            groups.setdefault(key, []).append(row)
    order = list(groups.values())
    random.Random(seed).shuffle(order)  # noqa: S311 - no secret
    num_rows = sum(map(len, order))
    if not isinstance(held_out, float):
        num_left_out = len(rows) + len(held_out) - num_rows - len(measured)
        num_others = num_rows
    else:
        num_left_out = len(rows) - num_rows
        measured = _drawn(order, round(num_rows * held_out))
        num_others = num_rows - len(measured)
    pool = _drawn(order, max(pool_rows, num_others // 3)) if pool_rows else []
    choosing = [row for group in order for row in group]
    if min(len(choosing), len(measured)) < LEAST_ROWS:
        beside = f", {len(pool)} to take examples from" if pool_rows else ""
        raise ArgumentError(
            f"P.tune(): {len(choosing)} rows to choose by{beside} and {len(measured)} to measure on are too few: give more rows"
            f"{' to each table' if own else ''}, or ask for fewer examples."
        )
    return Parts(choosing, measured, pool, num_left_out)


def example_sets(pool: Sequence[Cells], label: Callable[[Cells], Any], size: int, count: int, seed: int) -> list[list[Cells]]:
    """Draw sets of rows from a pool, each with labels as different as it can have; fewer than asked for where the pool has no others.

    Args:
        pool: rows.
        label: the expected value of a row.
        size: rows of a set.
        count: sets.
        seed: of the drawing.
    """
    draws = random.Random(seed)  # noqa: S311 - no secret
    found: dict[frozenset[int], list[int]] = {}
    for _ in range(20 * count):
        if len(found) == count:
            break
        order = draws.sample(range(len(pool)), len(pool))
        seen: dict[str, int] = {}
        ranks = {}
        for i in order:
            name = str(label(pool[i]))
            ranks[i] = seen[name] = seen.get(name, -1) + 1
        chosen = sorted(order, key=ranks.__getitem__)[:size]  # in the drawn order among equals
        found.setdefault(frozenset(chosen), chosen)
    return [[pool[i] for i in chosen] for chosen in found.values()]


def _drawn(order: list[list[Cells]], count: int) -> list[Cells]:
    """Take whole groups from the end until there are so many rows."""
    rows: list[Cells] = []
    while order and len(rows) < count:
        rows += order.pop()
    return rows
