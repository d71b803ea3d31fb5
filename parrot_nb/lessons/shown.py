"""Short notes below a cell, which are readable as text and neat as HTML; the HTML needs no script, and folds without a kernel."""

from __future__ import annotations

import re
import textwrap
from dataclasses import dataclass

from parrot_nb.language.escaping import UNTYPESET, escape, visible

INK, MUTED = "var(--jp-ui-font-color1, #212121)", "var(--jp-ui-font-color2, #616161)"
LINE = "var(--jp-border-color1, #bdbdbd)"
SANS = "var(--jp-ui-font-family, system-ui, sans-serif)"
MONO = "var(--jp-code-font-family, ui-monospace, monospace)"
BOX = f"font:13px/1.5 {SANS};color:{INK};padding:2px 14px 6px;max-width:72ch;overflow-wrap:anywhere"
WIDTH = 88  # characters of a line of text


@dataclass(frozen=True, slots=True)
class Part:
    """One block of a note.

    Attributes:
        text: what it says; `code` in backticks is set as such.
        is_code: whether all of it is code, shown as it stands.
        folded: text behind it that a click opens; empty for none. Text form leaves it out.
    """

    text: str
    is_code: bool = False
    folded: str = ""


@dataclass(frozen=True, slots=True)
class Shown:
    """A note.

    Attributes:
        title: its first line.
        parts: its blocks, in order.
        is_right: True or False where it judges an answer, else None.
    """

    title: str
    parts: tuple[Part, ...] = ()
    is_right: bool | None = None

    def __repr__(self) -> str:
        blocks = [textwrap.indent(part.text, "    ") if part.is_code else _filled(part.text) for part in self.parts]
        return visible("\n".join([self.title, *blocks]))

    def _repr_html_(self) -> str:
        body = "".join(map(_block, self.parts))
        return f'<div class="parrot-lesson {UNTYPESET}" style="{BOX}"><b>{_inline(self.title)}</b>{body}</div>'


def _filled(text: str) -> str:
    """Text in lines of a width; lines that are indented, as choices are, stay apart."""
    return "\n".join(
        textwrap.fill(line, WIDTH, subsequent_indent=" " * (len(line) - len(line.lstrip()) + 3 * line.startswith("  ")))
        for line in text.split("\n")
    )


def _inline(text: str) -> str:
    """Text as HTML, with what stands in backticks as code."""
    return re.sub(
        r"`([^`]+)`", rf'<code style="font-family:{MONO};color:{INK};background:transparent;padding:0">\1</code>', escape(text)
    )


def _block(part: Part) -> str:
    if part.is_code:
        return (
            f'<pre tabindex="0" style="margin:4px 0;padding:6px 10px;border-left:3px solid {LINE};overflow-x:auto;'
            f'font:12px/1.45 {MONO};color:{INK};background:transparent">{escape(part.text)}</pre>'
        )
    if part.folded:
        return (
            f'<details style="padding:1px 0 1px 12px"><summary style="cursor:pointer">{_inline(part.text.strip())}</summary>'
            f'<div style="padding:2px 0 4px 14px;color:{MUTED}">{_inline(part.folded)}</div></details>'
        )
    return "".join(f'<div style="padding-top:4px">{_inline(line)}</div>' for line in part.text.split("\n"))
