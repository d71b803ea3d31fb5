"""`%parrot bench` on the page: what it measures now, a button that ends it, and its table."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, Any

from IPython.core.error import UsageError

from parrot_nb.language.escaping import UNTYPESET, escape
from parrot_nb.notebook.live import LiveViews
from parrot_nb.notebook.places import Display, Place
from parrot_nb.notebook.report import Plain
from parrot_nb.notebook.static import MUTED, SANS
from parrot_nb.notebook.views import Bundle, DrawnView
from parrot_nb.notebook.widget import FrontEnd
from parrot_nb.notebook.widget.front import close_widget

TICK_S = 1.0
WAIT_S = 0.1  # how often the waiting cell looks up, so that an interrupt reaches it
PATIENCE_S = 3.0  # for a benchmark to end what it has started


class BenchInterrupted(KeyboardInterrupt):
    """The user interrupted a cell that was measuring."""

    def _render_traceback_(self) -> list[str]:
        return ["Interrupted: %parrot bench has ended, with all its processes; the session goes on."]


class Benchmark:
    """A benchmark in processes of its own, so that this kernel's threads do not slow it down.

    Args:
        arguments: of its command line.
        news: called when there is more to tell (any thread).
    """

    def __init__(self, arguments: Sequence[str], news: Callable[[], None]) -> None:
        from parrot_nb.bench.table import PROGRESS  # late: the benchmark takes a second to import

        self.name = arguments[0]
        self.cancelled = False
        self._over = False  # nothing of it runs any more
        self._news = news
        self._told: list[str] = []  # on standard error: progress and complaints
        self._table: list[str] = []
        self._begun_s = time.monotonic()
        command = [sys.executable, "-m", "parrot_nb.bench", *arguments]
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            command,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, PROGRESS: "1"},
            start_new_session=True,  # so that it ends with all that it starts, and by our hand alone
        )
        pipes = ((self._process.stdout, self._table), (self._process.stderr, self._told))
        self._readers = [threading.Thread(target=self._read, args=pipe, daemon=True) for pipe in pipes]
        for reader in self._readers:
            reader.start()

    def wait(self) -> str:
        """Wait until it ends; returns its table. Raises UsageError with what it complains of."""
        while self._process.poll() is None:
            time.sleep(WAIT_S)
        self._over = not self.cancelled
        for reader in self._readers:
            reader.join()
        if self._process.returncode != 0 and not self._table and not self.cancelled:
            raise UsageError((self._told or ["%parrot bench failed."])[-1])
        return "\n".join(self._table).rstrip()

    def end(self) -> None:
        """End it with all its processes, if it has not ended by itself."""
        if self._over:
            return
        self._signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(PATIENCE_S)
        self._signal(getattr(signal, "SIGKILL", signal.SIGTERM))
        self._over = True

    def cancel(self) -> None:
        """End it because somebody asks for that."""
        self.cancelled = True
        self.end()

    def line(self) -> str:
        """Return the benchmark's current activity, in words."""
        if self._process.poll() is None:
            doing = self._told[-1] if self._told else "starting"
            return f"{self.name}: {doing} · {time.monotonic() - self._begun_s:.0f} s"
        measured = "measured" if self._process.returncode == 0 else "not measured"
        return f"{self.name}: {'cancelled' if self.cancelled else measured}"

    def _signal(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self._process.pid, number)
            else:
                self._process.terminate()

    def _read(self, pipe: IO[str], lines: list[str]) -> None:
        for line in pipe:
            if line.strip() or lines is self._table:
                lines.append(line.rstrip("\n"))
                self._news()


def run_bench(views: LiveViews, front: FrontEnd, arguments: Sequence[str]) -> Plain | None:
    """Run a benchmark and show here how far it is; returns its table, or None if it was cancelled.

    Raises:
        UsageError: its command line has a mistake.
        BenchInterrupted: the user interrupted the cell.
    """
    bench = Benchmark(arguments, views.wake)
    over = threading.Event()

    def ticking() -> None:
        while not over.wait(TICK_S):
            views.wake()

    try:
        if views.can_update:
            views.open(DrawnView(lambda _state: _told(bench.line()), over.is_set))
            threading.Thread(target=ticking, name="parrot-bench", daemon=True).start()
        with _cancel_button(front, bench):
            table = bench.wait()
    except KeyboardInterrupt:
        bench.cancel()
        raise BenchInterrupted from None
    finally:
        bench.end()
        over.set()
        views.flush_now(in_cell=True)
    return None if bench.cancelled else Plain(table)


@contextlib.contextmanager
def _cancel_button(front: FrontEnd, bench: Benchmark) -> Iterator[None]:
    """A button that ends it, for as long as it runs, where somebody could press it."""
    if front.place is not Place.CELL or not front.has_person:
        yield
        return
    from ipywidgets import Button

    button: Any = Button(description="Cancel", tooltip=f"End the benchmark {bench.name}")
    front.route(button.comm)
    button.on_click(lambda _button: bench.cancel())
    shown = Display(button._repr_mimebundle_(), Place.CELL)
    try:
        yield
    finally:
        shown.update({"text/plain": ""})  # nothing of it stays in the file
        close_widget(button)


def _told(text: str) -> Bundle:
    return {
        "text/html": f'<div class="{UNTYPESET}" style="font:12px {SANS};color:{MUTED}">{escape(text)}</div>',
        "text/plain": text,
    }
