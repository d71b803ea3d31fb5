"""Progress line that says what is being waited for, and disappears from the terminal; nothing where there is no terminal.

The thread that waits writes it, while it waits: no other thread ever prints. What the user's functions print meanwhile is
written where the line was, which comes again below.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Callable
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Self, TextIO

from parrot_nb.engine.loads import LoadProgress
from parrot_nb.record.loading import loading_words
from parrot_nb.runtime import events
from parrot_nb.runtime.events import Event, EventLog

SHOW_AFTER_S = 0.5  # a wait that is over by then shows nothing
INTERVAL_S = 0.2

_around: ContextVar[ProgressLine | None] = ContextVar("parrot_progress_around", default=None)


class Count:
    """Progress of a wait, folded from the log.

    Args:
        start: how many events there were when the wait began; what had ended by then is not counted.
    """

    def __init__(self, start: int = 0) -> None:
        self.num_calls = 0
        self.num_ended = 0
        self.num_tokens = 0
        self.loading: dict[str, float] = {}  # models -> since when, in seconds of the log's clock
        self.progress: dict[str, LoadProgress] = {}  # of those that told
        self.writing = ""
        self._start = start
        self.num_events = 0
        self._names: dict[int, str] = {}

    def add(self, news: list[Event], position: int | None = None) -> None:
        """Take in the events that come next, up to the one before `position`; a log may have let go of some in between."""
        if position is not None:
            self.num_events = position - len(news)
        for event in news:
            before = self.num_events < self._start
            self.num_events += 1
            match event:
                case events.CallAdded() if event.kind in ("semantic", "native"):
                    self._names[event.call_id] = event.function
                    self.num_calls += 1
                case events.CallChanged() if event.call_id in self._names:
                    self.writing = self._names[event.call_id]
                    if event.phase == "ended":
                        del self._names[event.call_id]
                        self.num_calls -= before
                        self.num_ended += not before
                case events.TextAppended() | events.ThinkingAppended() if not before:
                    self.num_tokens += event.num_tokens
                case events.ModelChanged():
                    self.loading.pop(event.model, None)
                    self.progress.pop(event.model, None)
                    if event.state == "loading":
                        self.loading[event.model] = event.time_s
                case events.ModelLoading():
                    self.progress[event.model] = event.progress
                case events.SessionReset():
                    self._names.clear()
                    self.num_calls = self.num_ended = self.num_tokens = 0
                case _:
                    pass

    def line(self, waited_s: float, now_s: float, columns: int) -> str:
        """Return the progress in words, no longer than a terminal has columns."""
        from tqdm import tqdm

        if self.loading:
            model, since_s = next(iter(self.loading.items()))
            text = loading_words(model, self.progress.get(model), now_s - since_s)
        elif self.num_calls > 1:
            tokens = f"{self.num_tokens:,} tokens"
            text = tqdm.format_meter(self.num_ended, self.num_calls, waited_s, columns, "calls", unit="call", postfix=tokens)
        else:
            text = f"{self.writing or 'waiting'}: {self.num_tokens:,} tokens, {waited_s:.0f} s"
        return text[:columns]


class ProgressLine:
    """The line, from when a wait has taken half a second until it is over.

    Args:
        log: of the session that is waited for.
        stream: where to write; standard error when None.
        words: the progress in words, of seconds waited and columns of the terminal. Waits inside this one then show this line and
            none of their own. If None, the calls that end are counted.
    """

    def __init__(self, log: EventLog, stream: TextIO | None = None, words: Callable[[float, int], str] | None = None) -> None:
        self._log = log
        self._stream = stream or sys.stderr
        self._start = len(log)
        self._begun_s = time.monotonic()
        self._due_s = self._begun_s + SHOW_AFTER_S
        self._count: Count | None = None
        self._shown = 0  # characters
        self._lock = threading.Lock()  # of what is on the terminal
        self._beside: _Beside | None = None
        self._words = words
        self._before: ProgressLine | None = None
        self._wanted = threading.current_thread() is threading.main_thread() and _is_terminal(self._stream)

    def __enter__(self) -> Self:
        self._before = _around.get()
        if self._words is not None:
            _around.set(self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._words is not None:
            _around.set(self._before)
        if self._beside is not None:
            self._beside.leave()
        self.clear()

    def clear(self) -> None:
        """Take the line off the terminal, until the next tick (any thread)."""
        if self._shown:
            self._write("")

    def tick(self) -> None:
        """The wait goes on; called as often as one likes."""
        if self._before is not None:
            self._before.tick()
            return
        now_s = time.monotonic()
        if not self._wanted or now_s < self._due_s:
            return
        self._due_s = now_s + INTERVAL_S
        if self._count is None:
            self._count = Count(self._start)
            self._beside = _Beside(self)
        self._count.add(*self._log.news(self._count.num_events))
        columns = shutil.get_terminal_size().columns - 1
        if self._words is None or self._count.loading:
            self._write(self._count.line(now_s - self._begun_s, now_s, columns))
        else:
            self._write(self._words(now_s - self._begun_s, columns)[:columns])

    def _write(self, text: str) -> None:
        with self._lock:
            blank = " " * max(0, self._shown - len(text))
            try:
                self._stream.write(f"\r{text}{blank}" if text else f"\r{blank}\r")
                self._stream.flush()
            except (OSError, ValueError):  # the terminal went away: the wait matters more
                self._wanted = False
            self._shown = len(text)


class _Beside:
    """Stands in for `sys.stdout` while a line is on the same terminal, and takes the line away before anything is written.

    Args:
        line: that line.
    """

    def __init__(self, line: ProgressLine) -> None:
        self._line = line
        self._stream = sys.stdout
        if _is_terminal(self._stream):
            sys.stdout = self

    def leave(self) -> None:
        """Put the stream back, unless somebody has put another one in its place."""
        if sys.stdout is self:
            sys.stdout = self._stream

    def write(self, text: str) -> int:
        """Write to the stream."""
        self._line.clear()
        return self._stream.write(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _is_terminal(stream: TextIO | None) -> bool:
    try:
        return stream is not None and stream.isatty()
    except ValueError:  # closed
        return False
