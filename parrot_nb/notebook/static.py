"""A graph and a variable as still pictures: an image of SVG, HTML without script or outside address, and plain text.

They are what a live view shows at each moment and what a saved notebook keeps, so they hold no times and no ids that
differ from run to run. Colours are Jupyter's variables, with fallbacks for pages that have none.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Sequence
from itertools import islice

from parrot_nb.language.escaping import UNTYPESET, escape, visible
from parrot_nb.notebook.bars import Scores, bars_html, bars_text
from parrot_nb.notebook.layout import CARD_WIDTH, Card, Edge, layout
from parrot_nb.notebook.pictures import picture
from parrot_nb.notebook.state import CallView, GraphState, Shown, VariableView
from parrot_nb.notebook.timeaxis import duration

ICONS: dict[Shown, str] = {"pending": "○", "running": "◐", "done": "✓", "failed": "✕", "cancelled": "⊘", "not run": "–"}
INK, MUTED = "var(--jp-ui-font-color1, #212121)", "var(--jp-ui-font-color2, #616161)"
PAPER, LINE = "var(--jp-layout-color1, #ffffff)", "var(--jp-border-color1, #bdbdbd)"
COLORS: dict[Shown, str] = {
    "pending": "var(--jp-border-color0, #9e9e9e)",
    "running": "var(--jp-brand-color1, #1976d2)",
    "done": "var(--jp-success-color1, #388e3c)",
    "failed": "var(--jp-error-color1, #d32f2f)",
    "cancelled": "var(--jp-warn-color1, #f57c00)",
    "not run": "var(--jp-border-color0, #9e9e9e)",
}
# For letters and icons: Jupyter's colours alone have as little as 2 to 1 against its light paper.
WORD_COLORS: dict[Shown, str] = {
    state: MUTED if state in ("pending", "not run") else f"color-mix(in srgb, {color} 60%, {INK})"
    for state, color in COLORS.items()
}
SANS = "var(--jp-ui-font-family, system-ui, sans-serif)"
MONO = "var(--jp-code-font-family, ui-monospace, Menlo, Consolas, monospace)"
TEXT_COLUMNS, TEXT_LINES = 31, 3  # of a card, in the 11 px code font
NAME_COLUMNS = 21
NOTHING_YET = "No call has been made yet: there is no graph."
TOLD_CARDS = 12  # of a graph in words
TOLD_CALLS = 500  # line by line
STATE_ORDER: tuple[Shown, ...] = ("done", "running", "pending", "failed", "cancelled", "not run")


def render_graph_html(state: GraphState, link: str | None = None, *, inline: bool = False) -> str:
    """A graph's cards and edges, with a line of totals below.

    Args:
        state: the graph.
        link: mark by which a front end finds what it may bring to life.
        inline: whether the SVG is part of the page, for pages that are our own.
    """
    if not state.calls:
        return f'<div class="{UNTYPESET}" style="font:12px {SANS};color:{MUTED}">{NOTHING_YET}</div>'
    notes = "".join(f'<span style="opacity:.85"> · {escape(note)}</span>' for note in state.notes)
    label = escape(_totals(state), quote=True)
    return (
        f"{_figure(state, link, inline=inline)}"
        f'<div class="{UNTYPESET}" style="font:12px {SANS};color:{MUTED};padding:2px 14px 4px">{label}{notes}</div>'
    )


def _figure(state: GraphState, link: str | None = None, *, inline: bool = False) -> str:
    plan = layout(state)
    edges = "".join(_edge(edge, plan.cards) for edge in plan.edges)
    cards = "".join(_card(card, state) for card in plan.cards)
    label = _told(plan.cards, state)
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(label)}" width="{plan.width:.0f}" height="{plan.height:.0f}" '
        f'viewBox="0 0 {plan.width:.0f} {plan.height:.0f}" style="display:block;max-width:none;font-family:{SANS}">\n{edges}{cards}</svg>'
    )
    mark = f' data-parrot-view="{escape(link, quote=True)}"' if link else ""
    shown = svg if inline else picture(svg, label)
    return f'<div class="parrot-graph {UNTYPESET}"{mark} tabindex="0" style="overflow-x:auto;max-width:100%">{shown}</div>'


def _told(cards: Sequence[Card], state: GraphState) -> str:
    """Return a graph in a sentence or two, for those who cannot see it."""
    told = []
    for card in cards[:TOLD_CARDS]:
        many = f" ×{len(card.calls)}" if card.stacked else ""
        told.append(f"{card.calls[0].function}{many}: {_stack_state(card, state)}")
    more = f", and {len(cards) - TOLD_CARDS} more" if len(cards) > TOLD_CARDS else ""
    return f"{_totals(state)}. {', '.join(told)}{more}"


def render_graph_text(state: GraphState) -> str:
    """A graph in words: a line for each call, of many for the first `TOLD_CALLS`."""
    if not state.calls:
        return NOTHING_YET
    lines = [_totals(state), *state.notes]
    for call in islice(state.calls.values(), TOLD_CALLS):
        outputs = ", ".join(_described(state.variables[v]) for v in call.outputs if v in state.variables)
        lines.append(
            f"{ICONS[state.shown(call)]} {call.function}({', '.join(_arguments(call, state))}) -> {outputs}{_because(call)}"
        )
    if (more := len(state.calls) - TOLD_CALLS) > 0:
        lines.append(f"… and {more:,} more call{'s' * (more > 1)}")
    return visible("\n".join(lines))


def render_line_html(state: GraphState, timed: bool) -> str:
    """A graph as one line that opens to its picture; seconds only where it is `timed`, since they differ from run to run."""
    line = escape(render_line_text(state, timed))
    return (
        f'<details class="parrot-line {UNTYPESET}"><summary style="font:12px {SANS};color:{MUTED};padding:2px 14px;cursor:pointer">'
        f"{line}</summary>{_figure(state)}</details>"
    )


def render_line_text(state: GraphState, timed: bool) -> str:
    """The line: calls, states, tokens, seconds."""
    seconds = [duration(state.seconds)] if timed and state.settled and state.seconds else []
    return visible(" · ".join([_totals(state), *seconds, *state.notes]))


def render_variable_html(
    name: str,
    state: Shown,
    text: str,
    *,
    finish: str | None,
    error: str | None,
    note: str | None,
    thinking: tuple[str, str] | None = None,
    scores: Scores | None = None,
) -> str:
    """A variable's value, or what there is of it, with its state in a line above; what was thought before it folded away, under
    a word that says how much that was; and below it the probabilities of the choices that it was chosen from."""
    facts = [f'<span style="color:{WORD_COLORS[state]}">{ICONS[state]}</span> <b style="color:{INK}">{escape(name)}</b> {state}']
    if finish == "length":
        facts.append("cut at its length limit")
    facts += [escape(note)] if note else []
    head = f'<div style="font:12px {SANS};color:{MUTED};padding:3px 0 4px">{" · ".join(facts)}</div>'
    if thinking is not None:
        said, thoughts = thinking
        head += (
            f'<details class="parrot-thinking" style="font:12px {SANS};color:{MUTED};padding:0 0 4px">'
            f"<summary>{escape(said)}</summary>"
            f'<pre style="margin:0;padding:4px 10px;color:{MUTED};background:transparent;white-space:pre-wrap;'
            f'overflow-wrap:anywhere;font:12px/1.45 {MONO}">{escape(thoughts)}</pre></details>'
        )
    body = escape(error) if error else escape(text) + ("▍" if state == "running" else "")
    if not body:
        return f'<div class="parrot-variable {UNTYPESET}">{head}</div>'
    color = WORD_COLORS["failed"] if error else INK
    return (
        f'<div class="parrot-variable {UNTYPESET}">{head}<pre style="margin:0;padding:6px 10px;border-left:3px solid {COLORS[state]};color:{color};'
        f'background:transparent;white-space:pre-wrap;word-break:normal;overflow-wrap:anywhere;font:13px/1.45 {MONO}">{body}</pre>{bars_html(scores) if scores else ""}</div>'
    )


def render_variable_text(
    name: str, state: Shown, text: str, *, error: str | None, note: str | None, scores: Scores | None = None
) -> str:
    """The same in plain text."""
    if error:
        return visible(f"{name} {state}: {error}")
    head = f"{name} ({state})" + (f" - {note}" if note else "")
    return visible("\n".join([head, *([text] if text else []), *([bars_text(scores)] if scores else [])]))


def _totals(state: GraphState) -> str:
    calls = list(state.calls.values())
    counts = Counter(map(state.shown, calls))
    tokens = sum(view.num_tokens for view in state.variables.values())
    parts = [
        f"{len(calls)} call{'s' * (len(calls) != 1)}",
        *(f"{counts[s]} {s}" for s in STATE_ORDER if counts[s]),
        *([f"{tokens} token{'s' * (tokens != 1)}"] if tokens else []),
    ]
    if reused := sum(_reused(call, state) for call in calls):
        parts.append(f"{reused} reused")
    if state.loading:
        parts.append("loading the model")
    return " · ".join(parts)


def _reused(call: CallView, state: GraphState) -> bool:
    """Whether nothing was computed for a call, because an equal one had been."""
    return all(v in state.variables and state.variables[v].from_memo for v in call.outputs)


def _described(view: VariableView) -> str:
    shown = f": {_one_line(view.text, 48)}" if view.text else ""
    return f"{view.name}{shown}"


def _arguments(call: CallView, state: GraphState) -> list[str]:
    names = []
    for parameter, variable in call.inputs[:4]:
        view = state.variables.get(variable)
        plain = view is None or view.producer is None
        names.append(parameter if plain or view is None else view.name if view.name == parameter else f"{parameter}={view.name}")
    return [*names, "..."] if len(call.inputs) > 4 else names


def _because(call: CallView) -> str:
    return f" ({_one_line(call.error, 120)})" if call.error else ""


def _one_line(text: str, limit: int) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= limit else flat[: limit - 1] + "…"


def _edge(edge: Edge, cards: tuple[Card, ...]) -> str:
    source, target = cards[edge.source], cards[edge.target]
    x1, y1 = source.x + source.width + (8 if source.stacked else 0), source.y + source.height / 2  # past the stack's last card
    x2, y2 = target.x, target.y + target.height / 2
    bend = max(36.0, (x2 - x1) / 2)
    running = source.calls[0].state == "running"
    color = COLORS["running"] if running else LINE
    lost = ";opacity:.5;stroke-dasharray:2 5" if edge.lost else ""
    path = f'<path d="M{x1:.1f},{y1:.1f} C{x1 + bend:.1f},{y1:.1f} {x2 - bend:.1f},{y2:.1f} {x2 - 6:.1f},{y2:.1f}" fill="none" style="stroke:{color};stroke-width:1.5{lost}"/>'
    tip = f'<path d="M{x2 - 7:.1f},{y2 - 4:.1f} L{x2:.1f},{y2:.1f} L{x2 - 7:.1f},{y2 + 4:.1f} Z" style="fill:{color}{lost}"/>'
    name = edge.label if edge.count == 1 else f"{_clipped(edge.label, 8)} ×{edge.count}"
    # A label stands in the gap beside its source, where edges to several targets still run together.
    label = (
        f'<text x="{x1 + 8:.1f}" y="{y1 - 5:.1f}" style="fill:{MUTED};font-size:10.5px;paint-order:stroke;stroke:{PAPER};stroke-width:3px">'
        f"{escape(_clipped(name, 12))}</text>"
    )
    return f"{path}{tip}{label}\n"


def _card(card: Card, state: GraphState) -> str:
    if card.calls[0].kind in ("join", "first") and not card.stacked:
        return _join(card, state)
    call = card.calls[0]
    status = _stack_state(card, state)
    color = COLORS[status]
    dashed = "stroke-dasharray:5 3;" if call.kind == "native" else ""
    behind = "".join(
        f'<rect x="{card.x + d}" y="{card.y + d}" width="{card.width}" height="{card.height}" rx="7" style="fill:{PAPER};stroke:{LINE}"/>'
        for d in ((8, 4) if card.stacked else ())
    )
    box = (
        f'<rect x="{card.x}" y="{card.y}" width="{card.width}" height="{card.height}" rx="7" style="fill:{PAPER};stroke:{LINE};stroke-width:1;{dashed}"/>'
        f'<rect x="{card.x}" y="{card.y + 10}" width="3" height="{card.height - 20}" rx="1.5" style="fill:{color}"/>'
    )
    title = f"{call.function}: {status}" + (f". {call.error}" if call.error else "")
    name = _clipped(call.function, NAME_COLUMNS - (6 if card.stacked else 0)) + (f" ×{len(card.calls)}" if card.stacked else "")
    tokens = sum(state.variables[v].num_tokens for c in card.calls for v in c.outputs if v in state.variables)
    right = "python" if call.kind == "native" else f"{tokens} tok" if tokens else ""
    if all(_reused(c, state) for c in card.calls):
        right = "reused"
    head = (
        f'<text x="{card.x + 14}" y="{card.y + 23}" style="fill:{WORD_COLORS[status]};font-size:13px">{ICONS[status]}</text>'
        f'<text x="{card.x + 31}" y="{card.y + 23}" style="fill:{INK};font-size:13px;font-weight:600"> {escape(name)} </text>'
        f'<text x="{card.x + card.width - 12}" y="{card.y + 23}" text-anchor="end" style="fill:{MUTED};font-size:11px">{right}</text>'
    )
    body = _stack_body(card, state) if card.stacked else _body(card, state)
    return f"<g><title>{escape(title)}</title>\n{behind}{box}{head}\n{body}</g>\n"


def _join(card: Card, state: GraphState) -> str:
    call = card.calls[0]
    label = f"{ICONS[state.shown(call)]} {call.function if call.function != '+' else 'text +'}"
    winner = state.variables.get(state.winner(call) or 0)
    won = "" if winner is None else f", {winner.name} was first"
    return (
        f"<g><title>{escape(call.function)}: {state.shown(call)}{escape(won)}</title>"
        f'<rect x="{card.x}" y="{card.y}" width="{card.width}" height="{card.height}" rx="{card.height / 2}" style="fill:{PAPER};stroke:{LINE}"/>'
        f'<text x="{card.x + card.width / 2}" y="{card.y + card.height / 2 + 4}" text-anchor="middle" style="fill:{INK};font-size:12px">{escape(label)}</text></g>\n'
    )


def _stack_state(card: Card, state: GraphState) -> Shown:
    states = set(map(state.shown, card.calls))
    loud: tuple[Shown, ...] = ("failed", "running", "cancelled", "not run")
    if (first := next((one for one in loud if one in states), None)) is not None:
        return first
    return "done" if states == {"done"} else "running" if "done" in states else "pending"


def _stack_body(card: Card, state: GraphState) -> str:
    counts = Counter(map(state.shown, card.calls))
    words = " · ".join(f"{counts[s]} {s}" for s in STATE_ORDER if counts[s])
    x, y, width = card.x + 14, card.y + 62, CARD_WIDTH - 28
    bar, left = "", x
    for s in STATE_ORDER:
        part = width * counts[s] / len(card.calls)
        if part:
            bar += f'<rect x="{left:.1f}" y="{y}" width="{part:.1f}" height="6" style="fill:{COLORS[s]};opacity:{0.35 if s == "pending" else 1}"/>'
            left += part
    return f'<text x="{x}" y="{card.y + 46}" style="fill:{MUTED};font-size:11px">{words}</text>{bar}'


def _body(card: Card, state: GraphState) -> str:
    call = card.calls[0]
    views = [state.variables[v] for v in call.outputs if v in state.variables]
    x, y = card.x + 14, card.y + 44
    if call.error:
        status = state.shown(call)
        causes = ", ".join(dict.fromkeys(cause.function for cause in state.causes(call)))
        said = f"not run: {causes} failed" if status == "not run" and causes else call.error
        return _lines(x, y, _wrapped(said, TEXT_COLUMNS, TEXT_LINES + 1, tail=False), WORD_COLORS[status])
    if len(views) == 1:
        (view,) = views
        writing = view.state == "running"
        lines = _wrapped(view.shown, TEXT_COLUMNS, TEXT_LINES, tail=writing)
        told = _one_line(state.distinction(call), 34) or _clipped(view.name, 30)
        name = f'<text x="{x}" y="{y}" style="fill:{MUTED};font-size:11px">{escape(told)}</text>'
        return f"{name}\n{_lines(x, y + 17, lines, INK)}"
    shown = views if len(views) <= TEXT_LINES + 1 else views[:TEXT_LINES]
    rows = [f"{_clipped(v.name, 10)}: {_one_line(v.text, TEXT_COLUMNS - 2 - min(10, len(v.name)))}" for v in shown]
    rows += [f"and {len(views) - TEXT_LINES} more"] if len(shown) < len(views) else []
    return _lines(x, y, rows, INK)


def _lines(x: float, y: float, lines: list[str], color: str) -> str:
    style = f"fill:{color};font:11px {MONO}"
    return "\n".join(
        f'<text x="{x}" y="{y + 16 * i}" xml:space="preserve" style="{style}">{escape(line)}</text>'
        for i, line in enumerate(lines)
    )


def _wrapped(text: str, columns: int, count: int, *, tail: bool) -> list[str]:
    """Text cut into at most `count` lines by the width of its characters: the last ones of a text being written, else
    the first ones."""
    flat = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    lines, line, width = list[str](), "", 0
    for char in flat:
        wide = 2 if unicodedata.east_asian_width(char) in "WF" else 1
        if width + wide > columns:
            cut = line.rfind(" ")
            if cut > columns // 2 and char != " ":  # break at a word where that does not waste half the line
                lines.append(line[:cut])
                line = line[cut + 1 :]
            else:
                lines.append(line.rstrip())
                line = ""
            width = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in line)
            if char == " " and not line:
                continue
        line += char
        width += wide
    lines += [line] if line else []
    if len(lines) <= count:
        return lines
    if tail:
        return ["…" + lines[-count][: columns - 1], *lines[len(lines) - count + 1 :]]
    return [*lines[: count - 1], lines[count - 1][: columns - 1] + "…"]


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
