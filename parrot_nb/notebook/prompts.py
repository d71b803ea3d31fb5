"""A prompt function as a cell's result: its signature, and its prompt with the placeholders marked."""

from __future__ import annotations

import re

from parrot_nb.language import SemanticFunction
from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.notebook.static import COLORS, INK, MONO, MUTED, SANS

PLACEHOLDER = re.compile(r"\\?\{\{(?:[^{}\"']|\"[^\"]*\"|'[^']*')*\}\}")
NAME = re.compile(r"\{\{\s*(?:(input|output)\s*:)?\s*(\w+)")
READS, WRITES = (f"color-mix(in srgb, {COLORS[state]} 60%, {INK})" for state in ("running", "done"))


def prompt_html(function: SemanticFunction) -> str:
    """Return the function as HTML; inputs and outputs in colours of their own."""
    source, parts, start = function.template.source, list[str](), 0
    for match in PLACEHOLDER.finditer(source):
        parts.append(escape(source[start : match.start()]))
        parts.append(_placeholder(match[0], function))
        start = match.end()
    parts.append(escape(source[start:]))
    return (
        f'<div class="parrot-prompt {UNTYPESET}"><div style="font:12px {SANS};color:{MUTED};padding:3px 0 4px">'
        f'<b style="color:{INK}">{escape(function.name)}</b>{escape(_signature(function))}</div>'
        f'<pre style="margin:0;padding:6px 10px;border-left:3px solid {COLORS["pending"]};color:{INK};background:transparent;'
        f'white-space:pre-wrap;overflow-wrap:anywhere;font:13px/1.45 {MONO}">{"".join(parts)}</pre></div>'
    )


def prompt_text(function: SemanticFunction) -> str:
    """Return the function as text."""
    return visible(f"{function.name}{_signature(function)}\n{function.template.source}")


def _signature(function: SemanticFunction) -> str:
    said = ", ".join(f"{name}={value!r}" for name, value in function.settings.said().items())
    return f"{function.signature} -> {', '.join(function.output_names)}" + (f"   {said}" if said else "")


def _placeholder(text: str, function: SemanticFunction) -> str:
    name = NAME.match(text)
    if name is None:  # literal braces
        return escape(text)
    writes = name[1] == "output" or (name[1] is None and name[2] in function.output_names)
    return f'<span style="color:{WRITES if writes else READS};font-weight:600">{escape(text)}</span>'
