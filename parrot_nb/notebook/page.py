"""A session as one HTML page that needs nothing else: no script, no other file, no network; light or dark as the reader's."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version

from parrot_nb.engine.protocol import ModelInfo
from parrot_nb.language.escaping import escape
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.accounts import accounts
from parrot_nb.notebook.pictures import DARK, LIGHT
from parrot_nb.notebook.report import Report
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import ICONS, WORD_COLORS, render_graph_html
from parrot_nb.notebook.timeline import render_timeline_html
from parrot_nb.record import TimelineFold
from parrot_nb.runtime.events import Event

PACKAGES = ("parrot-nb", "torch", "transformers", "ipykernel")
LONG_CHARS = 600  # a longer value is folded

STYLE = """
:root { color-scheme: light dark; LIGHT }
@media (prefers-color-scheme: dark) { :root { DARK } }
body { margin: 0 auto; padding: 28px 32px 64px; max-width: 1080px; background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1); font: 14px/1.5 system-ui, sans-serif; }
h1 { font-size: 22px; margin: 0 0 2px; } h2 { font-size: 15px; margin: 34px 0 10px; }
p.sub { margin: 0; color: var(--jp-ui-font-color2); }
table { border-collapse: collapse; width: 100%; font-size: 13px; }
th { text-align: left; font-weight: 600; color: var(--jp-ui-font-color2); white-space: nowrap; }
th, td { padding: 5px 14px 5px 0; border-bottom: 1px solid var(--jp-border-color1); vertical-align: top; }
td.number, th.number { text-align: right; font-variant-numeric: tabular-nums; }
td pre { margin: 0; white-space: pre-wrap; overflow-wrap: anywhere; font: 12px/1.45 ui-monospace, Menlo, Consolas, monospace; }
td.value { width: 56%; } td.name { font-weight: 600; } summary { cursor: pointer; color: var(--jp-ui-font-color2); }
section.scroll { overflow-x: auto; } td.state { white-space: nowrap; }
section.scroll tbody tr:last-child:not(:first-child) td { font-weight: 600; border-bottom: 0; }
@media print { details > * { display: block; } }
""".replace("LIGHT", LIGHT).replace("DARK", DARK)


def page(
    events: Sequence[Event], variables: Sequence[VariableNode], models: Sequence[ModelInfo], *, when: datetime | None = None
) -> str:
    """The page: what ran on which model, the graph, the timeline, what it took, and every value in full."""
    state = GraphState()
    state.add(events)
    timeline = TimelineFold.of(events).timeline()
    table = accounts(timeline)
    written = (when or datetime.now().astimezone()).strftime("%Y-%m-%d %H:%M")
    sections = [
        ("Models and versions", _facts(models)),
        ("Graph", render_graph_html(state, inline=True)),
        ("Timeline", render_timeline_html(timeline, inline=True)),
        ("Accounting", "" if table is None else _accounts(table)),
        ("Variables", _variables(variables)),
    ]
    body = "".join(f"<h2>{title}</h2>{html}" for title, html in sections if html)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">'
        f"<title>parrot_nb report</title><style>{STYLE}</style></head><body>"
        f'<h1>A parrot_nb session</h1><p class="sub">written {written}</p>{body}</body></html>\n'
    )


def _facts(models: Sequence[ModelInfo]) -> str:
    rows = []
    for info in models:
        told = f"{info.architecture}, {info.num_parameters / 1e6:.1f} M parameters, {info.dtype} on {info.device}, context of up to {info.max_context_tokens:,} tokens"
        rows.append(("model", f"{info.id}: {told}"))
        rows += [("generation", sentence) for sentence in info.generation]
        rows += [("note", info.note)] if info.note else []
    rows.append(("versions", f"Python {sys.version.split()[0]}, " + ", ".join(_versions())))
    return _table([f"<td>{escape(a)}</td><td>{escape(b)}</td>" for a, b in rows])


def _versions() -> list[str]:
    return [f"{package} {found}" for package in PACKAGES if (found := version_of(package)) is not None]


def version_of(package: str) -> str | None:
    """The version of an installed package; None where it is used from a folder, or not at all."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _accounts(table: Report) -> str:
    def cells(row: Sequence[str], tag: str) -> str:
        return "".join(f"<{tag}{' class=number' if i else ''}>{escape(cell)}</{tag}>" for i, cell in enumerate(row))

    head = f"<thead><tr>{cells(table.headers, 'th')}</tr></thead>"
    return f'<section class="scroll" tabindex="0">{_table([cells(row, "td") for row in table.rows], head)}</section>'


def _variables(variables: Sequence[VariableNode]) -> str:
    head = "<thead><tr><th>name</th><th>type</th><th>state</th><th>value</th><th>from</th><th>read by</th></tr></thead>"
    rows = []
    for node in variables:
        error = None if node.error is None else str(node.error)
        value = error or (node.text if node.spans is not None else "" if node.state != "done" else repr(node.value))
        shown = f"<pre>{escape(value)}</pre>"
        if len(value) > LONG_CHARS:
            shown = f"<details><summary>{len(value):,} characters</summary>{shown}</details>"
        state = f'<span style="color:{WORD_COLORS[node.state]}">{ICONS[node.state]}</span> {node.state}'
        kind = type(node.value).__name__ if node.state == "done" else ""
        producer = "" if node.producer is None else node.producer.name
        readers = ", ".join(dict.fromkeys(call.name for call in node.consumers))
        rows.append(
            f"<td class=name>{escape(node.name)}</td><td>{escape(kind)}</td><td class=state>{state}</td><td class=value>{shown}</td>"
            f"<td>{escape(producer)}</td><td>{escape(readers)}</td>"
        )
    return _table(rows, head)


def _table(rows: Sequence[str], head: str = "") -> str:
    return f"<table>{head}<tbody>{''.join(f'<tr>{row}</tr>' for row in rows)}</tbody></table>"
