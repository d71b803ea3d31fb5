"""A variable's value as its reader wants it: text as it comes, Markdown, or as a value of its type shows itself.

Where trust ends: text is a model's words, whoever returned it and whatever subclass of `str` it is, and reaches a page as
escaped text or as the HTML of `markdown_html`, which can do nothing. An object that is not text and that a native function
returned (a DataFrame, a figure) is the user's own code, and its `_repr_html_` and `_repr_png_` reach the page as they are,
as they would without us; its Markdown, SVG and LaTeX come in forms that run no script.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import Any

from IPython import get_ipython
from IPython.lib.pretty import pretty

from parrot_nb.errors import UpstreamError
from parrot_nb.language.calls import Call
from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.language.formulas import latex_html
from parrot_nb.language.markdown import markdown_html
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.state import Shown
from parrot_nb.notebook.static import render_variable_html, render_variable_text

Bundle = dict[str, str]

OWN_FORMATS = ("text/html", "image/svg+xml", "image/png", "text/markdown", "text/latex")  # the first that a value has

IN_HTML = ("text/html", "image/svg+xml", "text/markdown", "text/latex")  # those that can stand inside a page of HTML


def variables_bundle(nodes: Sequence[VariableNode], kept: dict[int, Bundle], *, markdown: bool = False) -> Bundle:
    """Variables one below the other, in every form a page may want; as Markdown those whose text has begun. Those that are
    final are rendered once and `kept`, by their number, for the next time."""
    if len(nodes) == 1:
        return _markdown(nodes[0]) if markdown and _has_begun(nodes[0]) else _once(nodes[0], OWN_FORMATS, kept)
    bundles = [_once(node, IN_HTML, kept) for node in nodes]
    plain = "\n".join(bundle["text/plain"] for bundle in bundles)
    return {"text/html": "".join(bundle["text/html"] for bundle in bundles), "text/plain": plain}


def _once(node: VariableNode, formats: Sequence[str], kept: dict[int, Bundle]) -> Bundle:
    if node.id in kept:
        return kept[node.id]
    final = node.final  # asked before it is rendered: else what was rendered could be of a moment ago
    bundle = _bundle(node, formats)
    if final:
        kept[node.id] = bundle
    return bundle


def _bundle(node: VariableNode, formats: Sequence[str]) -> Bundle:
    error = None if node.error is None else str(node.error)
    is_text = node.spans is not None or node.state != "done"
    shown = node.text if is_text else pretty(node.value)
    thinking = None if node.thinking is None else (thought(node), node.thinking)
    status = shown_state(node)
    html = render_variable_html(
        node.name, status, shown, finish=node.finish, error=error, note=node.note, thinking=thinking, scores=node.scores
    )
    text = render_variable_text(node.name, status, shown, error=error, note=_notes(node), scores=node.scores)
    own = {} if is_text else _own(node, html, formats)
    return {**(own or {"text/html": html}), "text/plain": text}


def shown_state(of: VariableNode | Call) -> Shown:
    """Return the state of a variable or a call as a view says it."""
    return "not run" if isinstance(of.error, UpstreamError) else of.state


def thought(node: VariableNode) -> str:
    """Return in words how much a model has thought before a variable's text."""
    thinks = node.state == "running" and not node.pieces
    count = node.num_thinking_tokens
    if not count:
        return "thinking" if thinks else "thought"  # nothing is counted where an equal generation was taken over
    return f"{'thinking, ' if thinks else 'thought for '}{count} token{'s' * (count != 1)}{' so far' * thinks}"


def _notes(node: VariableNode) -> str | None:
    return " · ".join(([] if node.thinking is None else [thought(node)]) + ([] if node.note is None else [node.note])) or None


def _own(node: VariableNode, html: str, formats: Sequence[str]) -> Bundle:
    """Return a value's own display, under the line that says what it is; nothing where it shows itself as text."""
    shell = get_ipython()
    formatters: dict[str, Any] = {} if shell is None else shell.display_formatter.formatters
    for kind in formats:
        shown = formatters[kind](node.value) if kind in formatters else None
        if isinstance(shown, bytes):  # a picture
            shown = base64.b64encode(shown).decode()
        if not isinstance(shown, str):
            continue
        if kind not in IN_HTML:
            return {kind: shown}  # alone: a page renders the richest form it knows, and HTML would be that
        head = html.partition("<pre")[0]
        return {"text/html": f"{head}{_in_html(kind, shown, node.name)}</div>"}
    return {}


def _in_html(kind: str, shown: str, name: str) -> str:
    match kind:
        case "text/markdown":
            return markdown_html(shown)
        case "text/latex":
            return latex_html(shown)
        case "image/svg+xml":  # as a picture: no browser runs a picture's scripts or loads what it refers to
            data = base64.b64encode(shown.encode("utf-8", "replace")).decode()
            return f'<img alt="{escape(name)}" src="data:image/svg+xml;base64,{data}">'
        case _:
            return visible(shown)


def _has_begun(node: VariableNode) -> bool:
    return (node.state == "running" and bool(node.pieces)) or (node.state == "done" and node.spans is not None)


def _markdown(node: VariableNode) -> Bundle:
    """Return the text as Markdown. Not as `text/markdown`, whose HTML JupyterLab trusts while the kernel runs."""
    notes = _notes(node)
    note = f'<p><em class="{UNTYPESET}">{escape(notes)}</em></p>' if notes else ""
    text = node.text + ("▍" if node.state == "running" else "")
    return {
        "text/html": markdown_html(text) + note,
        "text/plain": render_variable_text(node.name, node.state, node.text, error=None, note=notes),
    }
