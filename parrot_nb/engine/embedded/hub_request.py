"""Calls of `huggingface_hub` that can be given up, and that count bytes instead of drawing bars."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from typing import Any, TypeVar

from parrot_nb.engine.loads import Load, LoadProgress, LoadStoppedError

T = TypeVar("T")

PATIENCE_S = 5.0  # with a hub that answers with errors, or a line that brings nothing more
TICK_S = 0.1  # between two looks at whether the load is still wanted
TELL_S = 0.5  # between two words on how far it has come


class Meter:
    """Counts what has come, and tells it now and then."""

    def __init__(self, load: Load, num_files: int, num_bytes: int) -> None:
        self._load = load
        self._num_files, self._num_bytes = num_files, num_bytes
        self._done_files = self._before = self._now = self._received = 0
        self._begun_s = self._told_s = time.monotonic()
        if num_files:
            self._tell()

    def begin(self, num_bytes: int) -> None:
        """A file is begun, of which so much is there already."""
        self._now = num_bytes

    def add(self, num_bytes: int) -> None:
        """Count bytes of the file that have come."""
        self._now += num_bytes
        self._received += num_bytes
        if time.monotonic() - self._told_s > TELL_S:
            self._tell()

    def file_done(self, num_bytes: int) -> None:
        """A file of this size is complete."""
        self._before, self._now = self._before + num_bytes, 0
        self._done_files += 1
        if self._done_files == self._num_files:
            self._tell()

    def _tell(self) -> None:
        self._told_s = time.monotonic()
        took_s = self._told_s - self._begun_s
        rate = self._received / took_s if took_s > TELL_S else 0.0
        done = min(self._before + self._now, self._num_bytes)
        self._load.tell(LoadProgress("downloading", self._done_files, self._num_files, done, self._num_bytes, rate))


class Request:
    """One call of `huggingface_hub`, on a thread of its own: it may wait for a line that brings nothing, and cannot be
    interrupted while it does. Whoever waits for it goes away as soon as the load is stopped or the hub has only brought errors
    for `PATIENCE_S`; the thread then ends at the next byte or error. Bars and warnings of the library are not shown.

    Args:
        model: for messages.
        load: may be stopped.
        meter: counts bytes.
    """

    def __init__(self, model: str, load: Load, meter: Meter | None = None) -> None:
        self._model, self._load, self.meter = model, load, meter
        self.left = False  # nobody waits any more
        self.trouble_s: float | None = None  # since when there were only errors
        self._thread = threading.Thread(name="parrot-download", daemon=True)
        self.bar = self._make_bar()

    def begin(self, num_bytes: int) -> None:
        """A file is begun, of which so much is there already (on the request's thread)."""
        if self.meter is not None:
            self.meter.begin(num_bytes)

    def received(self, num_bytes: int) -> None:
        """Count bytes that have come (on the request's thread)."""
        if self.left:
            raise LoadStoppedError("nobody waits for this download")
        self.trouble_s = None
        if self.meter is not None:
            self.meter.add(num_bytes)

    def result(self, call: Callable[[], T]) -> T:
        """Run the call and return its result, or raise its error."""
        done: Future[T] = Future()

        def run() -> None:
            try:
                result = call()
            except BaseException as error:
                done.set_exception(error)
            else:
                done.set_result(result)

        self._thread.run = run  # type: ignore[method-assign]
        loggers = [
            logging.getLogger(name) for name in list(logging.root.manager.loggerDict) if name.startswith("huggingface_hub")
        ]
        for logger in loggers:
            logger.addFilter(self._hears)
        self._thread.start()
        try:
            while True:
                try:
                    return done.result(TICK_S)
                except FutureTimeoutError:
                    if done.done():
                        raise
                    self._load.check(self._model)
                    if self.trouble_s is not None and time.monotonic() - self.trouble_s > PATIENCE_S:
                        raise TimeoutError("the hub answers with errors") from None
        finally:
            self.left = True
            done.add_done_callback(lambda _: self._listen_no_more(loggers))

    def _listen_no_more(self, loggers: list[logging.Logger]) -> None:
        for logger in loggers:
            logger.removeFilter(self._hears)

    def _hears(self, record: logging.LogRecord) -> bool:
        """Drop what the library says about this call, and note its errors."""
        if record.thread != self._thread.ident:
            return True
        if self.left:
            raise LoadStoppedError("nobody waits for this download")
        if record.levelno >= logging.WARNING and self.trouble_s is None:
            self.trouble_s = time.monotonic()
        return False

    def _make_bar(self) -> type[Any]:
        from tqdm import tqdm

        request = self

        class Bar(tqdm):  # type: ignore[misc, unused-ignore]
            """Draws nothing; counts bytes."""

            def __init__(self, *args: Any, **settings: Any) -> None:
                super().__init__(*args, **{**settings, "disable": True})
                request.begin(int(settings.get("initial") or 0))

            def update(self, n: float | None = 1) -> bool | None:
                """So many bytes have come."""
                request.received(int(n or 0))
                return None

            def update_transfer(self, n: float | None = 1) -> None:
                """Ignore the bytes that crossed the network, which are fewer where parts of a file were there."""

            def set_transfer_postfix_str(self, *_: Any, **__: Any) -> None:
                """Draw nothing."""

        return Bar
