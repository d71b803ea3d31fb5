r"""Text for a page: whatever it says is read there, and nothing of it acts.

Every view escapes by `escape` and no other function. Pages also give meaning to plain text: JupyterLab has MathJax typeset
whatever looks like a formula, and its MathJax runs `\href{javascript:...}`. `UNTYPESET` names the classes that keep
MathJax away from an element and all that is in it.
"""

from __future__ import annotations

import html

UNTYPESET = "mathjax_ignore tex2jax_ignore"  # of MathJax 3 and 4, and of MathJax 2

_PICTURES = {code: chr(0x2400 + code) for code in range(0x20) if chr(code) not in "\t\n\r"} | {0x7F: "\u2421"}
_NO_CHARACTERS = [*range(0x80, 0xA0), *range(0xD800, 0xE000), *range(0xFDD0, 0xFDF0), 0xFFFE, 0xFFFF]
_VISIBLE = _PICTURES | dict.fromkeys(_NO_CHARACTERS, "\ufffd")


def visible(text: str) -> str:
    """Text without control characters: their pictures (␀, ␛) and replacement characters stand for what a terminal would obey,
    and for what no HTML, SVG or UTF-8 file may hold."""
    return str.translate(text, _VISIBLE)  # by `str` itself: a subclass such as markupsafe's answers for its own methods


def escape(text: str, quote: bool = True) -> str:
    """Text as the HTML or SVG that shows it, for content and for quoted attributes."""
    return html.escape(visible(text), quote)
