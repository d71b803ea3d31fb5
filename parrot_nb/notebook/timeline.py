"""A timeline as a still picture: what each call did, and what the engine's steps held; an image of SVG, and text.

Calls of one function stand together. Where there are many, they become one area: how many of them were in which phase.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import accumulate

from parrot_nb.language.escaping import UNTYPESET, escape
from parrot_nb.notebook.pictures import picture
from parrot_nb.notebook.report import report
from parrot_nb.notebook.static import ICONS, INK, LINE, MUTED, SANS, WORD_COLORS
from parrot_nb.notebook.timeaxis import TimeAxis, duration
from parrot_nb.notebook.tracks import draw_tracks
from parrot_nb.record import SPAN_KINDS, SPAN_WORDS, CallTimes, Span, SpanKind, Timeline, summed

LEFT, CHART, RIGHT = 176.0, 560.0, 164.0  # widths in pixels: names, chart, figures
WIDTH = LEFT + CHART + RIGHT
ROW, BAR = 21.0, 13.0  # heights: a call's row, and the bar in it
AREA = 58.0  # height of many calls together
MANY = 9  # so many calls of a function become an area
MAX_ROWS = 48  # rows and areas; beyond, smaller groups become areas too
TOP = 22.0  # for the labels of the axis
NAME_CHARS = 22
TOLD_ROWS = 12  # of a timeline in words
BEHIND = "var(--jp-layout-color0, #ffffff)"  # what a picture lies on
MIN_BAR_PX = 1.2
MAX_LEVELS = 280  # columns of an area

# Mid tones: each has at least 3:1 against white and against Jupyter's dark paper.
SPAN_COLORS: dict[SpanKind, str] = {
    "inputs": "#8a929b",
    "unread": "#8a929b",
    "model": "#a5752f",
    "memo": "#3a9d8f",
    "queued": "#8a929b",
    "prefill": "#e0771a",
    "streaming": "#b05ac4",
    "decode": "#2f7fd6",
    "reused": "#27906f",
    "native": "#b8527e",
}
FAINT: frozenset[SpanKind] = frozenset({"inputs", "unread", "model", "memo", "queued"})  # waits: drawn as thin lines
WAIT_PX: dict[SpanKind, float] = {"inputs": 1.5, "unread": 1.5, "model": 5.0, "memo": 5.0, "queued": 5.0}


@dataclass(frozen=True, slots=True)
class _Lane:
    """One row: a call, or many of one name as an area."""

    label: str
    calls: tuple[CallTimes, ...]
    is_area: bool


def render_timeline_html(timeline: Timeline, title: str = "", least_s: float = 0.0, *, inline: bool = False) -> str:
    """The picture: rows of calls, tracks of steps below them, and a legend.

    Args:
        timeline: what is shown.
        title: of the picture.
        least_s: busy seconds that the axis has room for at least.
        inline: whether the SVG is part of the page, for pages that are our own.
    """
    if not timeline.calls:
        return f'<div style="font:12px {SANS};color:{MUTED}">No call has been made yet: there is no timeline.</div>'
    axis = TimeAxis(timeline.busy or _whole(timeline), LEFT, CHART, least_s)
    lanes = _lanes(timeline.calls)
    y, rows = TOP, []
    for lane in lanes:
        rows.append(_area(lane, axis, y) if lane.is_area else _row(lane, axis, y))
        y += AREA + 8 if lane.is_area else ROW
    tracks, bottom = "", y
    for name, steps in timeline.engines.items():
        engine = name if len(timeline.engines) > 1 else ""
        track, bottom = draw_tracks(steps, axis, bottom + 8, WIDTH - RIGHT, _clipped(engine, NAME_CHARS))
        tracks += track
    label = escape(_summary(timeline), quote=True)
    told = f"Timeline: {_summary(timeline)}. " + ", ".join(lane.label for lane in lanes[:TOLD_ROWS])
    svg = (
        f'<svg xmlns="http://www.w3.org/2000/svg" role="img" aria-label="{escape(told)}" width="{WIDTH:.0f}" height="{bottom + 6:.0f}" '
        f'viewBox="0 0 {WIDTH:.0f} {bottom + 6:.0f}" style="display:block;max-width:none;font-family:{SANS}">'
        f"\n{_grid(axis, timeline, bottom)}\n{''.join(rows)}{tracks}</svg>"
    )
    heading = f'<div style="font:600 13px {SANS};color:{INK};padding:2px 0 6px">{escape(title)}</div>' if title else ""
    return (
        f'<div class="parrot-timeline {UNTYPESET}" tabindex="0" style="overflow-x:auto;max-width:100%">{heading}{svg if inline else picture(svg, told)}'
        f"{_legend(timeline)}"
        f'<div style="font:12px {SANS};color:{MUTED};padding:2px 0 4px">{label}</div></div>'
    )


def render_timeline_text(timeline: Timeline) -> str:
    """The same in figures: a line for each function, with the mean seconds of its calls, and one for the steps."""
    if not timeline.calls:
        return "No call has been made yet: there is no timeline."
    start_s = min((start for start, _ in timeline.busy), default=timeline.calls[0].start_s)
    rows = []
    for name, calls in _by_function(timeline.calls).items():
        begun = min((s.start_s for c in calls for s in c.spans if s.kind not in ("inputs", "unread")), default=calls[0].start_s)
        used = summed(c.usage for c in calls)
        rows.append(
            (
                name,
                str(len(calls)),
                f"{duration(max(0.0, begun - start_s))} to {duration(max(0.0, max(c.end_s for c in calls) - start_s))}",
                *(_seconds(sum(c.seconds(*kinds) for c in calls) / len(calls)) for kinds in _TEXT_COLUMNS.values()),
                f"{used.prefilled_tokens} + {used.reused_tokens}",
                str(used.decoded_tokens),
            )
        )
    headers = ("function", "calls", "from start", *_TEXT_COLUMNS, "prompt + reused", "decoded")
    return repr(report(_summary(timeline), rows, headers))


_TEXT_COLUMNS: dict[str, tuple[SpanKind, ...]] = {
    "queued a call": ("queued", "memo", "model"),
    "prefill a call": ("prefill", "streaming"),
    "decode a call": ("decode",),
    "python a call": ("native",),
}


def _seconds(seconds: float) -> str:
    return duration(seconds) if seconds else ""


def _whole(timeline: Timeline) -> list[tuple[float, float]]:
    return [(min(c.start_s for c in timeline.calls), max(c.end_s for c in timeline.calls))]


def _summary(timeline: Timeline) -> str:
    used = summed(call.usage for call in timeline.calls)
    tokens = [
        f"{used.prefilled_tokens:,} token{'s' * (used.prefilled_tokens != 1)} prefilled",
        f"{used.reused_tokens:,} reused",
        f"{used.decoded_tokens:,} decoded",
    ]
    if used.guessed_tokens:
        tokens[-1] += f" ({used.guessed_tokens:,} guessed)"
    count = len(timeline.calls)
    parts = [f"{count:,} call{'s' * (count != 1)}", duration(timeline.busy_s), *tokens]
    if timeline.steps:
        parts.append(f"{len(timeline.steps):,} step{'s' * (len(timeline.steps) != 1)}")
    if any(call.critical for call in timeline.calls):
        parts.append(f"{sum(call.critical for call in timeline.calls)} on the critical path")
    return " · ".join(parts)


def _by_function(calls: Iterable[CallTimes]) -> dict[str, list[CallTimes]]:
    groups: dict[str, list[CallTimes]] = {}
    for call in calls:
        groups.setdefault(call.function, []).append(call)
    return groups


def _lanes(calls: Sequence[CallTimes]) -> list[_Lane]:
    """Rows in order of each function's first call; areas for many, and for ever smaller groups where there are too many
    rows; what is left over then becomes one area."""
    groups = _by_function(calls)
    many = MANY
    while many > 2 and sum(1 if len(g) >= many else len(g) for g in groups.values()) > MAX_ROWS:
        many -= 1
    lanes: list[_Lane] = []
    for name, group in groups.items():
        if len(group) >= many:
            lanes.append(_Lane(f"{_clipped(name, NAME_CHARS - 5)} ×{len(group)}", tuple(group), is_area=True))
        else:
            numbers = [""] if len(group) == 1 else [f" {i}" for i in range(1, len(group) + 1)]
            lanes += [_Lane(_clipped(name, NAME_CHARS) + n, (c,), is_area=False) for n, c in zip(numbers, group, strict=True)]
    if len(lanes) > MAX_ROWS:
        rest = lanes[MAX_ROWS - 1 :]
        together = tuple(call for lane in rest for call in lane.calls)
        names = len({call.function for call in together})
        lanes[MAX_ROWS - 1 :] = [_Lane(f"{names} more functions" if names > 1 else "the others", together, is_area=True)]
    return lanes


def _grid(axis: TimeAxis, timeline: Timeline, bottom: float) -> str:
    ticks = list(axis.ticks())
    lines = "".join(f"M{tick.x:.1f},{TOP - 4:.0f}V{bottom:.1f}" for tick in ticks)
    words = "".join(f'<text x="{tick.x:.1f}" y="12">{tick.label}</text>' for tick in ticks)
    gaps = "".join(_gap(gap.x, _pause(gap.start_s, gap.end_s, timeline), bottom) for gap in axis.gaps)
    return (
        f'<path d="{lines}" fill="none" style="stroke:{LINE};stroke-width:1;opacity:.45"/>'
        f'<g text-anchor="middle" style="fill:{MUTED};font-size:10.5px">{words}</g>{gaps}'
    )


def _pause(start_s: float, end_s: float, timeline: Timeline) -> str:
    model = next((m for m, t0, t1 in timeline.loads if t0 < end_s and t1 > start_s), None)
    return f"{duration(end_s - start_s)} {f'to load {model}' if model else 'in which nothing was computed'} left out"


def _gap(x: float, title: str, bottom: float) -> str:
    """A pause that is cut out: a zigzag over the whole height."""
    zigzag = f"M{x:.1f},{TOP - 6:.0f}" + "".join(f"l{dx},6" for dx in ([3, -3] * int((bottom - TOP + 6) / 12)))
    return (
        f"<g><title>{escape(title)}</title>"
        f'<rect x="{x - 6:.1f}" y="{TOP - 6:.0f}" width="12" height="{bottom - TOP + 6:.1f}" style="fill:{BEHIND}"/>'
        f'<path d="{zigzag}" fill="none" style="stroke:{LINE};stroke-width:1.2"/></g>'
    )


def _row(lane: _Lane, axis: TimeAxis, y: float) -> str:
    (call,) = lane.calls
    failed = call.state in ("failed", "cancelled")
    color = WORD_COLORS[call.state] if failed else INK
    weight = "600" if call.critical else "400"
    icon = f"{ICONS[call.state]} " if failed else ""
    name = (
        f'<text x="{LEFT - 12:.0f}" y="{y + 11:.1f}" text-anchor="end" style="fill:{color};font-size:12px;font-weight:{weight}">'
        f"<title>{escape(_told(call))}</title>{icon}{escape(lane.label)}</text>"
    )
    bars = "".join(_bar(span, call, axis, y) for span in call.spans)
    mark = _critical(call, axis, y + BAR + 3)
    figures = f'<text x="{LEFT + CHART + 12:.0f}" y="{y + 11:.1f}" style="fill:{MUTED};font-size:11px">{_figures(call)}</text>'
    return f"<g>{name}{bars}{mark}{figures}</g>\n"


def _critical(call: CallTimes, axis: TimeAxis, y: float) -> str:
    """A line under what a call of the critical path did."""
    busy = [s for s in call.spans if s.kind not in ("inputs", "unread", "model")] if call.critical else []
    if not busy:
        return ""
    x1, x2 = axis.x(busy[0].start_s), axis.x(busy[-1].end_s)
    return f'<path d="M{x1:.1f},{y:.1f}H{max(x2, x1 + 2):.1f}" style="stroke:{INK};stroke-width:1.6"/>'


def _bar(span: Span, call: CallTimes, axis: TimeAxis, y: float) -> str:
    x1, x2 = axis.x(span.start_s), axis.x(span.end_s)
    if span.kind in ("inputs", "unread") and x2 - x1 < MIN_BAR_PX:
        return ""
    height = WAIT_PX.get(span.kind, BAR)
    return (
        f'<rect x="{x1:.1f}" y="{y + (BAR - height) / 2 + 1:.1f}" width="{max(x2 - x1, MIN_BAR_PX):.1f}" height="{height:g}" '
        f'rx="{min(2.0, height / 2):g}" style="fill:{SPAN_COLORS[span.kind]};opacity:{0.55 if span.kind in FAINT else 1}">'
        f"<title>{escape(_span_told(span, call))}</title></rect>"
    )


def _span_told(span: Span, call: CallTimes) -> str:
    words = SPAN_WORDS[span.kind]
    if span.detail:
        words += f" {span.detail}" if span.kind in ("inputs", "model") else f" of {span.detail}"
    tokens = {
        "prefill": f": {call.usage.prefilled_tokens} tokens computed, {call.usage.reused_tokens} reused",
        "decode": f": {call.usage.decoded_tokens} tokens",
    }.get(span.kind, "")
    return f"{call.function} · {words}, {duration(span.duration_s)}{tokens}"


def _told(call: CallTimes) -> str:
    parts = [f"{call.function}: {call.state} after {duration(call.end_s - call.start_s)}"]
    if call.error:
        parts.append(call.error)
    if call.critical:
        parts.append("on the critical path")
    return " · ".join(parts)


def _figures(call: CallTimes) -> str:
    used = call.usage
    if call.state in ("failed", "cancelled"):
        return call.state
    if call.kind != "semantic":
        return "python" if call.kind == "native" else "text" if call.kind == "join" else "first"
    if used.from_memo:
        return "reused"
    if not used.decoded_tokens:
        return "" if call.state == "done" else call.state
    return f"{used.decoded_tokens:,} tok" + (f" · {used.reused_tokens:,} reused" if used.reused_tokens else "")


def _area(lane: _Lane, axis: TimeAxis, y: float) -> str:
    """Many calls: stacked from below, how many were in which phase at each moment."""
    columns = _levels(lane.calls, axis, MAX_LEVELS)
    top = max((sum(c.values()) for c in columns), default=1) or 1
    width, scale = (axis.right - axis.left) / MAX_LEVELS, AREA / top
    base, shapes = [0.0] * MAX_LEVELS, []
    for kind in _STACK:
        heights = [c.get(kind, 0) * scale for c in columns]
        if any(heights):
            path = _stacked(base, heights, axis.left, y + AREA, width)
            shapes.append(f'<path d="{path}" style="fill:{SPAN_COLORS[kind]};opacity:{0.35 if kind in FAINT else 1}"/>')
            base = [b + h for b, h in zip(base, heights, strict=True)]
    marks = "".join(_critical(call, axis, y + AREA + 2.5) for call in lane.calls)
    hover = _area_titles(columns, axis, y, lane.calls)
    counts = Counter(call.state for call in lane.calls)
    states = ", ".join(f"{n} {s}" for s, n in counts.items())
    used = summed(call.usage for call in lane.calls)
    x = LEFT + CHART + 12
    memo = sum(call.usage.from_memo for call in lane.calls)
    lines = [states, f"{used.decoded_tokens:,} tok" if used.decoded_tokens else ""]
    lines += [f"{used.reused_tokens:,} reused"] if used.reused_tokens else []
    lines += [f"{memo:,} calls from memo"] if memo else []
    figures = "".join(
        f'<text x="{x:.0f}" y="{y + 12 + 14 * i:.1f}">{escape(t)}</text>' for i, t in enumerate(filter(None, lines))
    )
    return (
        f'<g><text x="{LEFT - 12:.0f}" y="{y + 14:.1f}" text-anchor="end" style="fill:{INK};font-size:12px;font-weight:600">{escape(lane.label)}</text>'
        f'<text x="{LEFT - 12:.0f}" y="{y + 29:.1f}" text-anchor="end" style="fill:{MUTED};font-size:10.5px">up to {top:,} at once</text>'
        f'<path d="M{axis.left:.1f},{y + AREA + 0.5:.1f}H{axis.right:.1f}" style="stroke:{LINE};stroke-width:1"/>'
        f'{"".join(shapes)}{marks}{hover}<g style="fill:{MUTED};font-size:11px">{figures}</g></g>\n'
    )


_STACK: tuple[SpanKind, ...] = ("decode", "prefill", "streaming", "native", "reused", "memo", "queued", "model")


def _levels(calls: Sequence[CallTimes], axis: TimeAxis, count: int) -> list[Counter[SpanKind]]:
    """Return how many calls are in which phase in the middle of each column."""
    middles = [axis.time_s(axis.left + (i + 0.5) / count * (axis.right - axis.left)) for i in range(count)]
    changes: dict[SpanKind, list[int]] = {kind: [0] * (count + 1) for kind in _STACK}
    for call in calls:
        for span in call.spans:
            if span.kind in changes:
                changes[span.kind][bisect_left(middles, span.start_s)] += 1
                changes[span.kind][bisect_left(middles, span.end_s)] -= 1
    columns: list[Counter[SpanKind]] = [Counter() for _ in range(count)]
    for kind, steps in changes.items():
        for column, level in zip(columns, accumulate(steps), strict=False):
            if level:
                column[kind] = level
    return columns


def _stacked(base: Sequence[float], heights: Sequence[float], left: float, bottom: float, width: float) -> str:
    """A band of steps on top of what lies below it; equal neighbours as one."""
    parts: list[str] = []
    i = 0
    while i < len(heights):
        j = i
        while j < len(heights) and (heights[j], base[j]) == (heights[i], base[i]):
            j += 1
        if heights[i]:
            y = bottom - base[i] - heights[i]
            parts.append(f"M{left + i * width:.1f},{y:.1f}h{(j - i) * width:.1f}v{heights[i]:.1f}h{-(j - i) * width:.1f}z")
        i = j
    return "".join(parts)


def _area_titles(columns: Sequence[Counter[SpanKind]], axis: TimeAxis, y: float, calls: Sequence[CallTimes]) -> str:
    """Return the tooltips under the pointer: one title for every few columns."""
    every = 7
    width = (axis.right - axis.left) / len(columns)
    parts = []
    for i in range(0, len(columns), every):
        counts = columns[i + every // 2]
        if counts:
            words = ", ".join(f"{n} {SPAN_WORDS[k]}" for k, n in counts.items())
            box = f'<rect x="{axis.left + i * width:.1f}" y="{y:.1f}" width="{every * width:.1f}" height="{AREA:g}">'
            parts.append(f"{box}<title>{words} · of {len(calls)} calls</title></rect>")
    return f'<g style="fill:transparent">{"".join(parts)}</g>'


def _legend(timeline: Timeline) -> str:
    kinds = {span.kind for call in timeline.calls for span in call.spans if span.duration_s > 0 or span.kind == "reused"}
    items = [_key(kind) for kind in SPAN_KINDS if kind in kinds and kind != "unread"]
    if any(call.critical for call in timeline.calls):
        items.append(_sample(INK, 2, "critical path"))
    return f'<div style="font:11px {SANS};color:{MUTED};padding:4px 0 2px;display:flex;flex-wrap:wrap;gap:2px 14px">{"".join(items)}</div>'


def _key(kind: SpanKind) -> str:
    return _sample(SPAN_COLORS[kind], WAIT_PX.get(kind, 9.0), SPAN_WORDS[kind], 0.55 if kind in FAINT else 1)


def _sample(color: str, height_px: float, words: str, opacity: float = 1) -> str:
    """A colour of the picture with what it stands for; plain HTML, which untrusted notebooks show."""
    bar = f"display:inline-block;vertical-align:middle;width:18px;height:{height_px:g}px;background-color:{color};opacity:{opacity:g}"
    return f'<span style="white-space:nowrap"><span style="{bar}"></span> {words}</span>'


def _clipped(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"
