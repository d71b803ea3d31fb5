"""Small tables for `%parrot`: readable as text, neat as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from html import escape

CELL_CHARS = 60


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
        return "\n".join([self.title, *lines])

    def _repr_html_(self) -> str:
        head = "".join(f'<th style="text-align:left">{escape(h)}</th>' for h in self.headers) if any(self.headers) else ""
        cells = ["".join(f'<td style="text-align:left">{escape(cell)}</td>' for cell in row) for row in self.rows]
        body = "".join(f"<tr>{row}</tr>" for row in cells)
        thead = f"<thead><tr>{head}</tr></thead>" if head else ""
        table = f"<table>{thead}<tbody>{body}</tbody></table>" if self.rows else ""
        return f"<div>{escape(self.title)}</div>{table}"


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
        return self.text

    def _repr_html_(self) -> str:
        return f'<pre tabindex="0" style="white-space:pre;overflow-x:auto">{escape(self.text)}</pre>'


def clipped(text: str) -> str:
    """A cell's text on one line."""
    flat = " ".join(text.split())
    return flat if len(flat) <= CELL_CHARS else flat[: CELL_CHARS - 1] + "…"


def report(title: str, rows: Sequence[Sequence[str]], headers: Sequence[str] | None = None) -> Report:
    """A report; without headers its first column names the second."""
    columns = len(rows[0]) if rows else len(headers or ())
    return Report(title, tuple(headers or [""] * columns), tuple(tuple(row) for row in rows))
