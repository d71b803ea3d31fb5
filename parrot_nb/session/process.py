"""A runtime in a process of its own: started on first need, heard by one thread, gone with its session.

Messages go through the child's standard input and output, which it keeps to itself once it has written `GREETING`; what is printed
before that, or later to standard error, is no message, and its last lines are kept.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import site
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from parrot_nb.engine.deadline import OVERDUE, is_overdue
from parrot_nb.errors import EngineLostError
from parrot_nb.runtime.messages import Message, Start
from parrot_nb.runtime.wire import GREETING, Frames, Wire, WireError
from parrot_nb.session.links import Broken, Hear, Link

READ_BYTES = 1 << 18
KEPT_LINES = 20  # of what the process prints
LINE_CHARS = 400
ENDING_S = 2.0  # for the process to end by itself, when its input has ended
LOOK_S = 0.5  # how often to look whether it has ended, where a process of its own keeps its channels open
INTERPRETERS = ("python", "pypy", "graalpy")  # an executable of another name is a program that embeds one


class NoProcessError(Exception):
    """Error that no process can be started, and why."""


class ProcessLink(Link):
    """See the module.

    Args:
        start: what the session is; None where the process is nobody's until `begin`.
        hear: is told what the runtime says, on the thread that hears it.
        broken: is told that the process has ended by itself.

    Raises:
        NoProcessError: none can be started.
    """

    def __init__(self, start: Start | None = None, hear: Hear | None = None, broken: Broken | None = None) -> None:
        self._hear = hear
        self._broken = broken
        self._beginning = threading.Lock()  # what ends has a session, which is told, or will never have one
        self._surroundings = _surroundings()
        self._wire = Wire(0)
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._printed: deque[str] = deque(maxlen=KEPT_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._refused: NoProcessError | None = None
        self._unsaid: str | None = None  # why a message could not be told
        self._started = threading.Event()
        self._stopped_s: float | None = None
        self._ended = threading.Event()
        if start is not None:
            self.post(start)
        # The thread that starts the process lives as long as it does: on Linux the process goes with that thread.
        self._thread = threading.Thread(target=self._run, name="parrot-hears", daemon=True)
        try:
            self._thread.start()  # which waits, too
            self._started.wait()
        except BaseException:  # an interrupt: nobody will have this link
            self.dismiss()
            with contextlib.suppress(RuntimeError):  # where the thread has not begun yet it ends by itself
                self._thread.join()
            raise
        if self._refused is not None:
            raise self._refused

    def begin(self, start: Start, hear: Hear, broken: Broken) -> bool:
        """Let what was nobody's be the runtime of a session, as if it had been made for it. Returns False where it has ended."""
        with self._beginning:
            if not self.alive or self._process is None or self._process.poll() is not None:  # or it has not been heard of yet
                return False
            self._hear, self._broken = hear, broken
            self.post(start)
            return True

    @property
    def fits(self) -> bool:
        """Whether environment and working directory, which it has taken from this process, are here what they were."""
        return self._surroundings == _surroundings()

    @property
    def is_current(self) -> bool:
        """See `Link`."""
        return threading.current_thread() is self._thread

    @property
    def alive(self) -> bool:
        """See `Link`."""
        return not self._ended.is_set() and self._stopped_s is None

    @property
    def pid(self) -> int | None:
        """Id of the process, once it is started."""
        return None if self._process is None else self._process.pid

    @property
    def place(self) -> str:
        """See `Link`."""
        return "in a process of its own"

    def post(self, message: Message) -> None:
        """See `Link`."""
        self._outbox.put(message)

    def close(self, ask: Callable[[], object]) -> None:
        """See `Link`. Nothing of it is needed: all that it holds goes with it."""

    def stop(self) -> None:
        """See `Link`."""
        self.dismiss()
        if not self.is_current:
            self._thread.join()

    def dismiss(self) -> None:
        """End it, and do not wait for that."""
        if self._stopped_s is None:
            self._stopped_s = time.monotonic()
        self._outbox.put(None)

    def abandon(self) -> None:
        """See `Link`. A copy of a pipe would keep the process waiting for a message when its notebook has gone."""
        if (process := self._process) is not None:
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
            process.returncode = 0  # of the parent's child there is nothing to wait for

    # The thread that hears

    def _run(self) -> None:
        try:
            with _interrupts_blocked():
                process = self._process = _start(self._surroundings.environment)
        except NoProcessError as error:
            self._refused = error
            self._ended.set()
            return
        finally:
            self._started.set()
        writer = threading.Thread(target=self._write, args=(process,), name="parrot-tells", daemon=True)
        writer.start()
        problem = "nothing hears it"
        try:
            problem = self._listen(process) or self._unsaid or ""
        except Exception as error:  # our own bug: calls must not wait for what nobody hears any more
            problem = f"what it said could not be taken in, {type(error).__name__}: {error}"
        finally:
            code = self._end(process, writer, kill=bool(problem))
            with self._beginning:
                broken = self._broken if self._stopped_s is None else None
                if broken is None:
                    self._ended.set()
            if broken is not None:
                broken(self, EngineLostError(self._sentence(code, problem)))
                self._ended.set()  # last: until its calls have failed, no other is started

    def _listen(self, process: subprocess.Popen[bytes]) -> str:
        """Hear until the process ends or is told to; returns what was wrong, if anything was."""
        frames, rest, strayed, greeted = Frames(), b"", b"", False
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, "said")
            selector.register(process.stderr, selectors.EVENT_READ, "printed")
            while True:
                ready = selector.select(LOOK_S)
                if self._stopped_s is not None and time.monotonic() > self._stopped_s + ENDING_S:
                    return "it did not end"
                over = not ready and process.poll() is not None
                for key, _ in ready:
                    data = os.read(key.fd, READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                        over = over or key.data == "said"
                    elif key.data == "printed":
                        rest = self._note(rest + data)
                    elif not greeted:
                        strayed, greeting, data = (strayed + data).partition(GREETING)
                        greeted = bool(greeting)
                        strayed = self._note(strayed + b"\n" * greeted)
                    if greeted and key.data == "said":
                        try:
                            self._take(frames, data)
                        except WireError as error:
                            return f"it said what cannot be understood, {error}"
                if over:
                    self._note(strayed + b"\n" + rest + _rest_of(process, selector))
                    return ""

    def _take(self, frames: Frames, data: bytes) -> None:
        for payload in frames.add(data):
            for item in self._wire.items(payload):
                if self._stopped_s is None and self._hear is not None:
                    self._hear(item)

    def _note(self, data: bytes) -> bytes:
        """Keep the whole lines of what was printed; returns what may go on."""
        *lines, rest = data[-(1 << 16) :].split(b"\n")
        shown = (line.rstrip().rpartition(b"\r")[2] for line in lines)  # of a bar that is drawn again and again, how it was last
        self._printed += [line.decode(errors="replace")[:LINE_CHARS] for line in shown if line]
        return rest

    def _end(self, process: subprocess.Popen[bytes], writer: threading.Thread, *, kill: bool) -> int:
        """End the process if it has not ended, wait for it, and close what leads to it; returns its code."""
        if kill:
            process.kill()
        try:
            code = process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            code = process.wait()
        self._outbox.put(None)
        writer.join(ENDING_S)
        # While the writer writes, which it does if a fork holds the other end, its descriptor must not become another file's.
        for pipe in (None if writer.is_alive() else process.stdin, process.stdout, process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()
        return code

    def _sentence(self, code: int, problem: str) -> str:
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        if problem or is_overdue(code):
            how = f"was ended, since {problem or OVERDUE}"
        told = "; ".join(self._printed)
        printed = f" Its last lines: {told}" if told else ""
        return f"The runtime's process {how}: make the call again, which starts another.{printed}"

    # The thread that tells

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stdin is not None
        descriptor = process.stdin.fileno()
        going = True
        while going:
            batch = [self._outbox.get()]
            with contextlib.suppress(queue.Empty):
                while batch[-1] is not None:
                    batch.append(self._outbox.get_nowait())
            going = batch[-1] is not None
            messages = [message for message in batch if message is not None]
            try:
                if messages:
                    _write_all(descriptor, self._wire.frame(messages))
            except OSError:  # it has ended, which the other thread hears
                return
            except Exception as error:  # what is no data: calls must not wait for what was never told
                self._unsaid = f"a message to it could not be written, {type(error).__name__}: {error}"
                process.kill()
                return
        with contextlib.suppress(OSError):
            process.stdin.close()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _rest_of(process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> bytes:
    """Return the rest of what the process printed, without waiting for whoever else holds its standard error."""
    assert process.stderr is not None
    found = b""
    while selector.get_map() and selector.select(0.2):
        data = os.read(process.stderr.fileno(), READ_BYTES)
        if not data:
            break
        found += data
    return found + b"\n"


@dataclass(frozen=True, slots=True)
class _Surroundings:
    """Surroundings that a process takes from the one that starts it."""

    environment: dict[str, str]
    folder: str | None  # None where it was deleted


def _surroundings() -> _Surroundings:
    try:
        return _Surroundings(_environment(), os.getcwd())  # noqa: PTH109 - compared, not used as a path
    except FileNotFoundError:
        return _Surroundings(_environment(), None)


def _start(environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start the process. Raises NoProcessError."""
    executable = Path(sys.executable or "")
    if not sys.executable:
        raise NoProcessError("sys.executable is empty")
    if getattr(sys, "frozen", False) or not executable.name.lower().startswith(INTERPRETERS):
        raise NoProcessError(f"sys.executable, '{executable}', is a program that embeds Python")
    try:
        return subprocess.Popen(
            [sys.executable, "-P", "-m", "parrot_nb.runtime"],  # -P: a file of the user's must not stand for a module of Python's
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=environment,
        )
    except (OSError, ValueError, subprocess.SubprocessError) as error:
        raise NoProcessError(f"'{executable}': {error}") from error


def _environment() -> dict[str, str]:
    """The environment as it is now, and this process's own way of finding the package, where Python does not find it by itself."""
    # oneDNN and, to no use, torch beside it keep compiled code for the last so many shapes of products: 1,024 take 150 MB.
    bounded = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "128", "LRU_CACHE_CAPACITY": "1", **os.environ}
    root = Path(__file__).resolve().parents[2]
    if str(root) in (*site.getsitepackages(), site.getusersitepackages()):  # before Python's own modules it has no place
        return bounded
    path = os.environ.get("PYTHONPATH", "")
    paths = [str(root), str(root / "kernels"), *([path] if path else [])]
    return {**bounded, "PYTHONPATH": os.pathsep.join(paths)}


@contextlib.contextmanager
def _interrupts_blocked() -> Iterator[None]:
    """A process that is started meanwhile is not ended by an interrupt that comes before it ignores them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
