"""Small tables for `%parrot`: readable as text, neat as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.notebook.static import ICONS, INK, MUTED, SANS, WORD_COLORS

CELL_CHARS = 60
FOLDED_CHARS = 4_000  # of a folded cell
FIRST_ROWS, MOST_ROWS = 50, 1_000  # of a table that folds: shown at first, and at all
STATE = "state"  # the header of the column whose words get an icon; elsewhere `failed` may be a value, and `done` a name
FIGURE = re.compile(r"[\d.,]+( (ms|s))?|\d+ min \d+ s|")
RIGHT = "text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"


@dataclass(frozen=True, slots=True)
class Report:
    """A title, and rows under headers (which may be empty strings).

    Attributes:
        folds: whether long cells, and rows after the first `FIRST_ROWS`, are folded away: a click opens them.
    """

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    folds: bool = False

    def __repr__(self) -> str:
        rows = [tuple(map(clipped, row)) for row in self.rows[:FIRST_ROWS]] if self.folds else list(self.rows)
        table = [self.headers, *rows] if any(self.headers) else rows
        widths = [max((len(row[i]) for row in table), default=0) for i in range(len(self.headers))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
        more = [f"and {left:,} more"] if (left := len(self.rows) - len(rows)) else []
        return visible("\n".join([self.title, *lines, *more]))

    def _repr_html_(self) -> str:
        styles = [self._style(column) for column in range(len(self.headers))]
        head = "".join(f'<th style="{style}">{escape(h)}</th>' for style, h in zip(styles, self.headers, strict=True))
        columns = list(zip(self.headers, styles, strict=True))
        show = _folded if self.folds else escape
        body = [
            "".join(
                f'<td style="{style}">{_state(cell) if header == STATE else show(cell)}</td>'
                for cell, (header, style) in zip(row, columns, strict=True)
            )
            for row in (self.rows[:MOST_ROWS] if self.folds else self.rows)
        ]
        thead = f"<thead><tr>{head}</tr></thead>" if any(self.headers) else ""
        first = len(body) if not self.folds else FIRST_ROWS
        table = _table(thead, body[:first]) + (self._more(thead, body[first:]) if body[first:] else "")
        title = f'<div style="font:600 13px {SANS};color:{INK};padding:4px 0 6px">{escape(self.title)}</div>'
        return f'<div class="{UNTYPESET}">{title}{table}</div>'

    def _more(self, thead: str, body: list[str]) -> str:
        left = len(self.rows) - FIRST_ROWS
        said = f"{left:,} more" + (f", {len(body):,} of them here" if len(body) < left else "")
        summary = f'<summary style="font:12px {SANS};color:{MUTED};padding:4px 0;cursor:pointer">{said}</summary>'
        return f"<details>{summary}{_table(thead, body)}</details>"

    def _style(self, column: int) -> str:
        """Figures stand under each other by their last digit; words that name a row stay on one line."""
        if not any(self.headers):
            return "text-align:left" if column else f"text-align:left;white-space:nowrap;color:{MUTED}"
        return RIGHT if column and all(FIGURE.fullmatch(row[column]) for row in self.rows) else "text-align:left"


@dataclass(frozen=True, slots=True)
class Reports:
    """Several of them, one below the other."""

    parts: tuple[Report, ...]

    def __repr__(self) -> str:
        return "\n\n".join(map(repr, self.parts))

    def _repr_html_(self) -> str:
        return "".join(f'<div style="padding-bottom:8px">{part._repr_html_()}</div>' for part in self.parts)


@dataclass(frozen=True, slots=True)
class Plain:
    """Text as it stands, in columns."""

    text: str

    def __repr__(self) -> str:
        return visible(self.text)

    def _repr_html_(self) -> str:
        return f'<pre tabindex="0" style="white-space:pre;overflow-x:auto">{escape(self.text)}</pre>'


def _table(thead: str, body: Sequence[str]) -> str:
    return f"<table>{thead}<tbody>{''.join(f'<tr>{row}</tr>' for row in body)}</tbody></table>" if body else ""


def _folded(cell: str) -> str:
    """A cell whose long text opens on a click."""
    short = clipped(cell)
    if short == cell:
        return escape(cell)
    text = cell if len(cell) <= FOLDED_CHARS else f"{cell[:FOLDED_CHARS]}…"
    whole = f'<pre style="margin:0;white-space:pre-wrap;overflow-wrap:anywhere;background:transparent;color:{INK}">{escape(text)}</pre>'
    return f'<details><summary style="cursor:pointer">{escape(short)}</summary>{whole}</details>'


def _state(cell: str) -> str:
    """A state with its icon."""
    state = next((state for state in ICONS if state == cell), None)
    icon = "" if state is None else f'<span style="color:{WORD_COLORS[state]}">{ICONS[state]}</span> '
    return icon + escape(cell)


def clipped(text: str, limit: int = CELL_CHARS) -> str:
    """A cell's text on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def report(title: str, rows: Sequence[Sequence[str]], headers: Sequence[str] | None = None, *, folds: bool = False) -> Report:
    """A report; without headers its first column names the second."""
    columns = len(rows[0]) if rows else len(headers or ())
    return Report(title, tuple(headers or [""] * columns), tuple(tuple(row) for row in rows), folds)
