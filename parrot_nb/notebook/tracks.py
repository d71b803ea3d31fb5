"""The engine's steps over time, as tracks of a timeline: what each step computed, and how full the KV cache was."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from parrot_nb.engine.protocol import StepRecord
from parrot_nb.language.escaping import escape
from parrot_nb.notebook.static import INK, LINE, MUTED
from parrot_nb.notebook.timeaxis import TimeAxis, duration

HEIGHT, GAP = 40.0, 14.0
COLUMNS = 280  # two pixels each: what lies in one is drawn as its most
SLICES = 56  # with a title each

DECODE, GUESSED, PREFILL, OWNED, CACHED = "#2f7fd6", "#7fb2ea", "#e0771a", "#6a7fdb", "#27906f"


@dataclass(frozen=True, slots=True)
class _Column:
    """The steps that lie in a column; of the pages, those of the last one."""

    steps: tuple[StepRecord, ...]
    last: StepRecord | None

    def most(self, count: Callable[[StepRecord], int]) -> int:
        return max((count(step) for step in self.steps), default=0)


def draw_tracks(steps: Sequence[StepRecord], axis: TimeAxis, top: float, right: float, engine: str = "") -> tuple[str, float]:
    """Three tracks below each other from `top` on, named after the engine where there are several; returns them and where
    they end."""
    columns = _columns(steps, axis)
    pages = max((s.owned_pages + s.cached_pages for s in steps), default=0)
    capacity = max((s.num_pages for s in steps), default=0)
    decode = [(c.most(lambda s: s.decode_tokens), c.most(lambda s: s.decode_tokens + s.guessed_tokens)) for c in columns]
    prefill = [c.most(lambda s: s.prefill_tokens) for c in columns]
    held = [(c.last.owned_pages, c.last.owned_pages + c.last.cached_pages) if c.last else (0, 0) for c in columns]
    tracks = [
        (
            "decode tokens",
            engine or "of a step",
            [(GUESSED, "guessed", [b for _, b in decode]), (DECODE, "decoded", [a for a, _ in decode])],
        ),
        ("prefill tokens", engine or "of a step", [(PREFILL, "prefilled", prefill)]),
        ("KV pages", f"of {capacity:,}", [(CACHED, "cached", [b for _, b in held]), (OWNED, "in use", [a for a, _ in held])]),
    ]
    parts, y = [], top
    for name, what, bands in tracks:
        if name == "KV pages" and not pages:
            continue
        parts.append(_track(name, what, bands, axis, y, right))
        y += HEIGHT + GAP
    return "".join(parts) + _titles(columns, axis, top, y - GAP), y - GAP + 4


def _columns(steps: Sequence[StepRecord], axis: TimeAxis) -> list[_Column]:
    width = (axis.right - axis.left) / COLUMNS
    held: list[list[StepRecord]] = [[] for _ in range(COLUMNS)]
    for step in steps:
        first = int((axis.x(step.start_s) - axis.left) / width)
        last = int((axis.x(step.start_s + step.duration_s) - axis.left) / width - 1e-6)
        for i in range(max(0, first), min(COLUMNS - 1, max(first, last)) + 1):
            held[i].append(step)
    columns: list[_Column] = []
    before: StepRecord | None = None
    end = max((i for i, here in enumerate(held) if here), default=-1)
    for i, here in enumerate(held):
        before = None if i > end else here[-1] if here else before
        columns.append(_Column(tuple(here), before))
    return columns


def _track(name: str, what: str, bands: Sequence[tuple[str, str, Sequence[int]]], axis: TimeAxis, y: float, right: float) -> str:
    most = max((max(values, default=0) for _, _, values in bands), default=0)
    scale, width = HEIGHT / max(1, most), (axis.right - axis.left) / COLUMNS
    shapes = "".join(
        f'<path d="{_steps([v * scale for v in values], axis.left, y + HEIGHT, width)}" style="fill:{color}"/>'
        for color, _, values in bands
        if any(values)
    )
    lower = [*(values for _, _, values in bands[1:]), [0] * len(bands[0][2])]  # each band is drawn over by the next
    seen = [(color, label) for (color, label, values), below in zip(bands, lower, strict=True) if list(values) != list(below)]
    keys = seen[::-1] if len(bands) > 1 else []
    legend = "".join(
        f'<rect x="{right + 12:.0f}" y="{y + 14 * i + 14:.1f}" width="9" height="9" rx="1.5" style="fill:{color}"/>'
        f'<text x="{right + 26:.0f}" y="{y + 14 * i + 22:.1f}" style="fill:{MUTED};font-size:10.5px">{escape(label)}</text>'
        for i, (color, label) in enumerate(keys)
    )
    return (
        f'<g><text x="{axis.left - 12:.0f}" y="{y + 14:.1f}" text-anchor="end" style="fill:{INK};font-size:12px">{escape(name)}</text>'
        f'<text x="{axis.left - 12:.0f}" y="{y + 29:.1f}" text-anchor="end" style="fill:{MUTED};font-size:10.5px">{escape(what)}</text>'
        f'<path d="M{axis.left:.1f},{y:.1f}H{axis.right:.1f}" style="stroke:{LINE};stroke-width:1;stroke-dasharray:2 3"/>'
        f'<path d="M{axis.left:.1f},{y + HEIGHT + 0.5:.1f}H{axis.right:.1f}" style="stroke:{LINE};stroke-width:1"/>'
        f'{shapes}<text x="{right + 12:.0f}" y="{y + 8:.1f}" style="fill:{MUTED};font-size:10.5px">most: {most:,}</text>{legend}</g>'
    )


def _steps(heights: Sequence[float], left: float, bottom: float, width: float) -> str:
    """Columns standing on a line; equal neighbours as one."""
    parts, i = [], 0
    while i < len(heights):
        j = i
        while j < len(heights) and heights[j] == heights[i]:
            j += 1
        if heights[i]:
            parts.append(f"M{left + i * width:.1f},{bottom:.1f}v{-heights[i]:.1f}h{(j - i) * width:.1f}v{heights[i]:.1f}z")
        i = j
    return "".join(parts)


def _titles(columns: Sequence[_Column], axis: TimeAxis, top: float, bottom: float) -> str:
    every = COLUMNS // SLICES
    width = (axis.right - axis.left) / COLUMNS
    parts = []
    for i in range(0, COLUMNS, every):
        steps = list(dict.fromkeys(step for column in columns[i : i + every] for step in column.steps))
        if not steps:
            continue
        last = steps[-1]
        free = last.num_pages - last.owned_pages - last.cached_pages
        title = (
            f"{len(steps)} step{'s' * (len(steps) != 1)} of {duration(sum(s.duration_s for s in steps) / len(steps))} · "
            f"{_counted(max(s.num_contexts for s in steps), 'context')}, "
            f"{_counted(sum(s.prefill_tokens for s in steps), 'token')} prefilled, "
            f"{sum(s.decode_tokens for s in steps)} decoded, {sum(s.guessed_tokens for s in steps)} guesses checked · "
            f"pages: {last.owned_pages} in use, {last.cached_pages} cached, {free} free"
        )
        box = f'<rect x="{axis.left + i * width:.1f}" y="{top:.1f}" width="{every * width:.1f}" height="{bottom - top:.1f}">'
        parts.append(f"{box}<title>{title}</title></rect>")
    return f'<g style="fill:transparent">{"".join(parts)}</g>'


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"
