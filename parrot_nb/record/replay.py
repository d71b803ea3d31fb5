"""A recorded run, told again in its own time, without any model."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from pathlib import Path

from parrot_nb.errors import OptionError
from parrot_nb.record.timeline import Timeline, TimelineFold
from parrot_nb.record.trace import read_trace
from parrot_nb.runtime.events import Event

MAX_PAUSE_S = 1.0  # of the recorded time: what lies between cells is not waited for
TICK_S = 0.1  # how long it sleeps at once, so that an interrupt gets through


class Replay:
    """The events of a run. Iterate to have them come as they came; in a notebook it shows the graph and the timeline as
    they grew, when it is a cell's result.

    Args:
        events: of the run, in order.
        speed: how many recorded seconds pass in one; `math.inf` for all at once.
        source: where it comes from, for `repr`.
    """

    def __init__(self, events: list[Event], speed: float, source: str = "a run") -> None:
        self.events = events
        self.speed = speed
        self._source = source

    @property
    def timeline(self) -> Timeline:
        """Timeline of the recorded events."""
        return TimelineFold.of(self.events).timeline()

    @property
    def duration_s(self) -> float:
        """Seconds that the replay takes."""
        due_s = _due(self.events)
        return (due_s[-1] if due_s else 0.0) / self.speed

    def __len__(self) -> int:
        return len(self.events)

    def __iter__(self) -> Iterator[Event]:
        """Each event when it is due; its times are those of then."""
        begin_s = time.monotonic()
        for event, due_s in zip(self.events, _due(self.events), strict=True):
            moment_s = begin_s + due_s / self.speed
            while (left_s := moment_s - time.monotonic()) > 0:
                time.sleep(min(TICK_S, left_s))
            yield event

    def __repr__(self) -> str:
        return f"<replay of {self._source}: {len(self.events)} events, {self.duration_s:.1f} s>"


def replay(path: str | Path, speed: float = 1.0) -> Replay:
    """A run that `%parrot export trace.json` recorded, to be shown again: as a cell's result it animates the graph and the
    timeline; iterated, it gives the events when they are due. Loads no model.

    Args:
        path: of the file.
        speed: 2 is twice as fast, `math.inf` shows the end at once. Pauses of more than a second are cut short.

    Raises:
        TraceError: there is no such file, or it is not one of ours.
        OptionError: the speed is not a number above 0.
    """
    number = isinstance(speed, (int, float)) and not isinstance(speed, bool)
    if not number or math.isnan(speed) or speed <= 0:
        raise OptionError(f"speed must be a number above 0, not {speed!r}.")
    return Replay(read_trace(path), float(speed), f"'{path}'")


def _due(events: list[Event]) -> list[float]:
    """When each event is due, in recorded seconds from the beginning; pauses cut short, and never back in time: a step is
    told when it has ended, with the time at which it began."""
    due_s: list[float] = []
    now_s = latest_s = events[0].time_s if events else 0.0
    passed_s = 0.0
    for event in events:
        now_s = max(now_s, event.time_s)
        passed_s += min(MAX_PAUSE_S, now_s - latest_s)
        latest_s = now_s
        due_s.append(passed_s)
    return due_s
