"""A time axis on which nothing happens only where something happened: pauses between cells are cut out and marked.

Seconds become pixels by pieces: what is busy is drawn to one scale, a pause longer than a good part of it as a gap.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

PAUSE_SHARE = 0.06  # of the busy time: a longer pause is cut out
MIN_PAUSE_S = 0.02
GAP_PX = 18.0  # what is left of a pause that is cut out
MIN_SPAN_S = 1e-4  # the axis shows at least so much: shorter times are the clock's grain
TICK_PX = 62.0  # least distance of ticks: room for a label such as "1,250 ms"


@dataclass(frozen=True, slots=True)
class Tick:
    """A mark on the axis."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Gap:
    """A pause that is cut out: where it is drawn, and when it was."""

    x: float
    start_s: float
    end_s: float


class TimeAxis:
    """Axis that says where a time is drawn.

    Args:
        busy: when anything happened, as (from, to) in order.
        left: pixels where the axis begins.
        width: its length in pixels.
        least_s: busy seconds that it has room for at least, to draw several to one scale.
    """

    def __init__(self, busy: Sequence[tuple[float, float]], left: float, width: float, least_s: float = MIN_SPAN_S) -> None:
        pieces = _bridged(list(busy) or [(0.0, 0.0)])
        self.left, self.right = left, left + width
        self.start_s, self.end_s = pieces[0][0], pieces[-1][1]
        room = max(width / 2, width - GAP_PX * (len(pieces) - 1))
        gap_px = (width - room) / max(1, len(pieces) - 1)
        total_s = sum(end - start for start, end in pieces)
        self.px_per_s = room / max(total_s, least_s, MIN_SPAN_S)
        self._pieces: list[tuple[float, float, float]] = []  # from, to, x of from
        self.gaps: list[Gap] = []
        x = left
        for i, (start, end) in enumerate(pieces):
            if i:
                self.gaps.append(Gap(x + gap_px / 2, pieces[i - 1][1], start))
                x += gap_px
            self._pieces.append((start, end, x))
            x += (end - start) * self.px_per_s
        self._gap_px = gap_px

    def x(self, time_s: float) -> float:
        """The place of a time; times in a pause lie within its gap, times outside at the ends."""
        i = bisect_right(self._pieces, time_s, key=lambda piece: piece[0]) - 1
        if i < 0:
            return self.left
        start, end, x = self._pieces[i]
        if time_s <= end:
            return x + (time_s - start) * self.px_per_s
        after = x + (end - start) * self.px_per_s
        if i + 1 == len(self._pieces):
            return after
        return after + (time_s - end) / (self._pieces[i + 1][0] - end) * self._gap_px

    def time_s(self, x: float) -> float:
        """The time drawn at a place; within a gap, the end of its pause."""
        i = max(0, bisect_right(self._pieces, x, key=lambda piece: piece[2]) - 1)
        start, end, begin = self._pieces[i]
        time_s = start + (x - begin) / self.px_per_s
        return time_s if time_s <= end or i + 1 == len(self._pieces) else self._pieces[i + 1][0]

    def ticks(self) -> Iterator[Tick]:
        """Marks at round times since the start, as far apart as their labels need."""
        step_s = nice(TICK_PX / self.px_per_s)
        in_ms = self.end_s - self.start_s < 1
        free_from = -math.inf
        for start, end, _ in self._pieces:
            n = math.ceil((start - self.start_s) / step_s - 1e-6)
            while (time_s := self.start_s + n * step_s) <= end + 1e-6 * step_s:
                x = self.x(time_s)
                if x >= free_from:
                    yield Tick(x, in_steps(n * step_s, step_s, in_ms=in_ms))
                    free_from = x + TICK_PX * 0.75
                n += 1


def nice(step: float) -> float:
    """The next number from 1, 2 and 5 times a power of ten that is not smaller."""
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * (1 - 1e-9))


def in_steps(seconds: float, step_s: float, *, in_ms: bool) -> str:
    """A time as a tick says it: with as many digits as its step has."""
    scale, unit = (1000, "ms") if in_ms else (1, "s")
    digits = max(0, -math.floor(math.log10(step_s * scale) + 1e-9))
    return f"{seconds * scale:,.{digits}f} {unit}"


def duration(seconds: float) -> str:
    """A duration with three digits, in ms below one second."""
    if seconds < 1:
        ms = seconds * 1000
        return f"{ms:.2f} ms" if ms < 1 else f"{ms:.1f} ms" if ms < 100 else f"{ms:.0f} ms"
    if seconds < 60:
        return f"{seconds:.2f} s"
    return f"{int(seconds // 60)} min {seconds % 60:.0f} s"


def _bridged(busy: list[tuple[float, float]]) -> list[tuple[float, float]]:
    """Busy times with the pauses between them that are too short to be cut out."""
    threshold = max(MIN_PAUSE_S, PAUSE_SHARE * sum(end - start for start, end in busy))
    pieces = [busy[0]]
    for start, end in busy[1:]:
        if start - pieces[-1][1] <= threshold:
            pieces[-1] = pieces[-1][0], end
        else:
            pieces.append((start, end))
    return pieces
