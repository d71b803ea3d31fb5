"""Syntax by which a cell chooses what is shown of its calls: `%%parrot show off` above it, or a semicolon at its end."""

from __future__ import annotations

import io
import re
import tokenize
from typing import cast

from parrot_nb.notebook.executions import SHOWS, Show

LINE = re.compile(rf"\s*%%parrot\s+show\s+({'|'.join(SHOWS)})\s*(?:#.*)?")

BLANK = (tokenize.ENDMARKER, tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT)


def show_of(cell: str, usual: Show) -> Show:
    """Return what a cell, as it was typed, asks to show; `usual` where it does not say."""
    if (said := LINE.fullmatch(cell.lstrip().partition("\n")[0])) is not None:
        return cast("Show", said[1])
    return "off" if _ends_with_semicolon(cell) else usual


def without_show_line(lines: list[str]) -> list[str]:
    """A cell without the line that says it: an input transformer, so that the rest runs as any other cell, `await` and magics
    included. Line numbers stay as they are."""
    first = next((i for i, line in enumerate(lines) if line.strip()), None)
    if first is None or LINE.fullmatch(lines[first].rstrip("\n")) is None:
        return lines
    rest = lines[first + 1 :]
    return rest if rest and rest[0].startswith("%%") else ["#\n", *rest]


def _ends_with_semicolon(cell: str) -> bool:
    """Whether a cell asks for no output, as IPython understands it: its last token is a semicolon."""
    if ";" not in cell.rstrip().rpartition("\n")[2] or cell.lstrip().startswith("%%"):
        return False
    try:
        tokens = [token.string for token in tokenize.generate_tokens(io.StringIO(cell).readline) if token.type not in BLANK]
    except (tokenize.TokenError, SyntaxError):  # no Python
        return False
    return tokens[-1:] == [";"]
