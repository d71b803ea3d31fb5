"""A runtime in a process of its own: started on first need, heard by one thread, gone with its session.

Messages go through the child's standard input and output, which it keeps to itself; what libraries print there lands in its
standard error, whose last lines are kept.
"""

from __future__ import annotations

import contextlib
import os
import queue
import selectors
import signal
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Callable

from parrot_nb.errors import EngineLostError
from parrot_nb.runtime.messages import Message, Start
from parrot_nb.runtime.wire import Frames, Wire, WireError
from parrot_nb.session.links import Broken, Hear, Link

READ_BYTES = 1 << 18
KEPT_LINES = 20  # of what the process prints
LINE_CHARS = 400
CLOSING_S = 5.0  # for its engines to close
ENDING_S = 2.0  # for the process to end by itself, when its input has ended


class ProcessLink(Link):
    """See the module.

    Args:
        start: what the session is.
        hear: is told what the runtime says, on the thread that hears it.
        broken: is told that the process has ended by itself.
    """

    def __init__(self, start: Start, hear: Hear, broken: Broken) -> None:
        self._hear = hear
        self._broken = broken
        self._wire = Wire(0)
        self._outbox: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._printed: deque[str] = deque(maxlen=KEPT_LINES)
        self._process: subprocess.Popen[bytes] | None = None
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self.post(start)
        # The thread that starts the process lives as long as it does: on Linux the process goes with that thread.
        self._thread = threading.Thread(target=self._run, name="parrot-hears", daemon=True)
        self._thread.start()

    @property
    def is_current(self) -> bool:
        """See `Link`."""
        return threading.current_thread() is self._thread

    @property
    def alive(self) -> bool:
        """See `Link`."""
        return not self._ended.is_set() and not self._stopped.is_set()

    @property
    def pid(self) -> int | None:
        """Of the process, once it is started."""
        return None if self._process is None else self._process.pid

    @property
    def place(self) -> str:
        """See `Link`."""
        return f"in a process of their own ({self.pid})"

    def post(self, message: Message) -> None:
        """See `Link`."""
        self._outbox.put(message)

    def close(self, ask: Callable[[], object]) -> None:
        """See `Link`. Nothing of it is needed: all that it holds goes with it."""

    def stop(self) -> None:
        """See `Link`."""
        self._stopped.set()
        self._outbox.put(None)
        if not self.is_current:
            self._thread.join()

    # The thread that hears

    def _run(self) -> None:
        try:
            process = self._process = self._started()
        except OSError as error:
            self._ended.set()
            self._broken(self, EngineLostError(f"The runtime's process could not be started ({error}): use isolate=False."))
            return
        writer = threading.Thread(target=self._write, args=(process,), name="parrot-tells", daemon=True)
        writer.start()
        try:
            problem = self._listen(process)
        finally:
            self._ended.set()
            self._outbox.put(None)
            code = self._reap(process)
            writer.join(ENDING_S)
            for pipe in (process.stdin, process.stdout, process.stderr):
                if pipe is not None:
                    with contextlib.suppress(OSError):
                        pipe.close()
        if not self._stopped.is_set():
            self._broken(self, EngineLostError(self._sentence(code, problem)))

    @staticmethod
    def _started() -> subprocess.Popen[bytes]:
        executable = sys.executable
        if not executable:
            raise FileNotFoundError("Python does not say where its executable is")
        return subprocess.Popen(  # noqa: S603 - this very Python
            [executable, "-m", "parrot_nb.runtime"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
            env=_environment(),
        )

    def _listen(self, process: subprocess.Popen[bytes]) -> str:
        """Hear until the process ends; returns what was wrong, if anything was."""
        frames, rest = Frames(), b""
        assert process.stdout is not None
        assert process.stderr is not None
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ, "said")
            selector.register(process.stderr, selectors.EVENT_READ, "printed")
            while True:
                for key, _ in selector.select():
                    data = os.read(key.fd, READ_BYTES)
                    if not data:
                        selector.unregister(key.fileobj)
                        if key.data == "said":
                            self._note(_rest_of(process, selector))
                            return ""
                    elif key.data == "printed":
                        rest = self._note(rest + data)
                    else:
                        try:
                            for payload in frames.add(data):
                                for item in self._wire.items(payload):
                                    self._hear(item)
                        except WireError as error:
                            return str(error)

    def _note(self, data: bytes) -> bytes:
        """Keep the whole lines of what was printed; returns what may go on."""
        *lines, rest = data[-(1 << 16) :].split(b"\n")
        self._printed += [line.decode(errors="replace").rstrip()[:LINE_CHARS] for line in lines if line.strip()]
        return rest

    def _reap(self, process: subprocess.Popen[bytes]) -> int:
        """End the process if it has not ended, and wait for it."""
        if process.stdin is not None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            return process.wait(ENDING_S)
        except subprocess.TimeoutExpired:
            process.kill()
            return process.wait()

    def _sentence(self, code: int, problem: str) -> str:
        how = f"was ended by {_signal_name(-code)}" if code < 0 else f"ended with code {code}"
        if problem:
            how = f"said what cannot be understood ({problem})"
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
        if self._stopped.is_set():
            with contextlib.suppress(OSError):
                process.stdin.close()


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _rest_of(process: subprocess.Popen[bytes], selector: selectors.BaseSelector) -> bytes:
    """What is left of what the process printed, without waiting for whoever else holds its standard error."""
    assert process.stderr is not None
    found = b""
    while selector.get_map() and selector.select(0.2):
        data = os.read(process.stderr.fileno(), READ_BYTES)
        if not data:
            break
        found += data
    return found + b"\n"


def _environment() -> dict[str, str]:
    """The environment as it is now, and this process's own way of finding the package. oneDNN keeps compiled code for the last so
    many shapes of products: its own 1,024 take some 100 MB."""
    import parrot_nb

    root = os.path.dirname(os.path.dirname(os.path.abspath(parrot_nb.__file__)))  # noqa: PTH100, PTH120 - as PYTHONPATH wants it
    path = os.environ.get("PYTHONPATH", "")
    paths = [root, os.path.join(root, "kernels"), *([path] if path else [])]  # noqa: PTH118
    return {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "256", **os.environ, "PYTHONPATH": os.pathsep.join(paths)}


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
