"""Small tables for `%parrot`: readable as text, neat as HTML."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.notebook.static import ICONS, INK, MUTED, SANS, WORD_COLORS

CELL_CHARS = 60
STATE = "state"  # the header of the column whose words get an icon; elsewhere `failed` may be a value, and `done` a name
FIGURE = re.compile(r"[\d.,]+( (ms|s))?|\d+ min \d+ s|")
RIGHT = "text-align:right;white-space:nowrap;font-variant-numeric:tabular-nums"


@dataclass(frozen=True, slots=True)
class Report:
    """A title, and rows under headers (which may be empty strings)."""

    title: str
    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def __repr__(self) -> str:
        table = [self.headers, *self.rows] if any(self.headers) else list(self.rows)
        widths = [max((len(row[i]) for row in table), default=0) for i in range(len(self.headers))]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in table]
        return visible("\n".join([self.title, *lines]))

    def _repr_html_(self) -> str:
        styles = [self._style(column) for column in range(len(self.headers))]
        head = "".join(f'<th style="{style}">{escape(h)}</th>' for style, h in zip(styles, self.headers, strict=True))
        columns = list(zip(self.headers, styles, strict=True))
        body = ""
        for row in self.rows:
            cells = (
                f'<td style="{style}">{_state(cell) if header == STATE else escape(cell)}</td>'
                for cell, (header, style) in zip(row, columns, strict=True)
            )
            body += f"<tr>{''.join(cells)}</tr>"
        thead = f"<thead><tr>{head}</tr></thead>" if any(self.headers) else ""
        table = f"<table>{thead}<tbody>{body}</tbody></table>" if self.rows else ""
        title = f'<div style="font:600 13px {SANS};color:{INK};padding:4px 0 6px">{escape(self.title)}</div>'
        return f'<div class="{UNTYPESET}">{title}{table}</div>'

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


def _state(cell: str) -> str:
    """A state with its icon."""
    state = next((state for state in ICONS if state == cell), None)
    icon = "" if state is None else f'<span style="color:{WORD_COLORS[state]}">{ICONS[state]}</span> '
    return icon + escape(cell)


def clipped(text: str) -> str:
    """A cell's text on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= CELL_CHARS else flat[: CELL_CHARS - 1] + "…"


def report(title: str, rows: Sequence[Sequence[str]], headers: Sequence[str] | None = None) -> Report:
    """A report; without headers its first column names the second."""
    columns = len(rows[0]) if rows else len(headers or ())
    return Report(title, tuple(headers or [""] * columns), tuple(tuple(row) for row in rows))
