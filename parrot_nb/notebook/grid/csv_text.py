"""The table view as CSV, some rows at a time."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Sequence
from numbers import Number

from parrot_nb.notebook.grid.cells import full_text
from parrot_nb.notebook.grid.grid import Grid

CHUNK_ROWS = 2_000
CHUNK_CHARS = 4_000_000  # of a chunk: the page gets no larger message
# Spreadsheets run what begins so as a formula, unless a quote stands before it, which they do not show.
SIGNS = r"=+\-@\uff1d\uff0b\uff0d\uff20"  # the last four are full-width
FORMULA = re.compile(rf"[{SIGNS}\t\r\n]|.*[;\t][{SIGNS}]", re.DOTALL)  # some split a cell at a semicolon or a tab


def csv_chunk(grid: Grid, positions: Sequence[int], start: int) -> tuple[str, int]:
    """Lines of some rows, the header's before the first, and the place of the next row.

    Args:
        grid: whose rows.
        positions: of all rows of the file, in order.
        start: place of the first row among them.
    """
    columns, sides = grid.columns(), grid.sides
    several = len(sides) > 1
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\r\n")
    if start == 0:
        out.write("\ufeff")  # by which spreadsheets know UTF-8
        names = [f"{sides[c.side].name}.{c.name}" if several and c.role in ("output", "score") else c.name for c in columns]
        ends = [f"{side.name}.{name}" if several else name for side in sides for name in ("state", "error")]
        writer.writerow(["row", *map(guarded, names), *map(guarded, ends)])
    at = start
    while at < min(start + CHUNK_ROWS, len(positions)) and out.tell() < CHUNK_CHARS:
        position = positions[at]
        ends = []
        for side in sides:
            error = None if side.rows is None else side.rows.error(position)
            ends += ["pending" if side.rows is None else side.rows.state(position), guarded("" if error is None else str(error))]
        writer.writerow([position, *(cell(grid.value(position, column)) for column in columns), *ends])
        at += 1
    return out.getvalue(), at


def cell(value: object) -> str:
    """A value's text in a file: a number as it is, another guarded, nothing for a gap."""
    text = full_text(value)
    if text is None:
        return ""
    return text if isinstance(value, Number) else guarded(text)


def guarded(text: str) -> str:
    """A text that no spreadsheet takes for a formula."""
    return f"'{text}" if FORMULA.match(text) else text
