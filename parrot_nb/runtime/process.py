"""The process that a runtime runs in: reads messages, lets the runtime do them, writes what it says.

It ignores the kernel's interrupts, and ends with whoever started it, however that one ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import importlib
import os
import queue
import signal
import sys
import threading
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from parrot_nb.engine.deadline import allow_ending
from parrot_nb.engine.losses import end_when_lost
from parrot_nb.engine.machine import cores
from parrot_nb.runtime import events, messages
from parrot_nb.runtime.choice import ModelChoice
from parrot_nb.runtime.messages import Item
from parrot_nb.runtime.runtime import Runtime
from parrot_nb.runtime.wire import GREETING, Frames, Wire, WireError

READ_BYTES = 1 << 18
HURRY_S = 0.01  # how long text and steps may wait for more to go with them: whoever hears them is woken for each frame
PR_SET_PDEATHSIG = 1
STORING_S = 1.5  # to write what is still to be stored, at the end: a notebook waits two seconds for that
UNWANTED_S = 900.0  # after which a process that no session has taken ends
COLLECT_EVERY = 20_000  # objects that came and have not gone; each time Python's collector looks through those made since
SPINS = "20000"  # of a thread that waits for work, some 50 us: longer than between two loops of a step, shorter than a neighbour's turn
UNHURRIED = (events.TextAppended, events.ThinkingAppended, events.StepRan)


def main() -> None:
    """Run until standard input ends."""
    ignore_interrupts()
    die_with_parent()
    heard, said = own_channels()
    collect_seldom()
    allow_ending()
    share_cores()
    warm_up()
    end_when_lost(partial(give_up, 6))
    asyncio.run(_Process(heard, said).run())
    os._exit(0)  # a step that runs, or a thread of a library, would hold it up


def share_cores() -> None:
    """Have OpenMP start no more threads than this process may have cores, and threads that wait for others sleep soon. What the user's
    environment says of either holds. OpenMP reads its variables when torch is imported."""
    if not any(name in os.environ for name in ("OMP_NUM_THREADS", "OMP_THREAD_LIMIT", "MKL_NUM_THREADS")):
        allowed = cores()
        if allowed.source.startswith("the container"):  # what limits the machine and its affinity OpenMP sees by itself
            os.environ["OMP_NUM_THREADS"] = str(allowed.threads)
    if not any(name in os.environ for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")):
        os.environ["GOMP_SPINCOUNT"] = SPINS


def ignore_interrupts() -> None:
    """Ignore those of the notebook's group; until now they were blocked by whoever started this process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def die_with_parent() -> None:
    """Have Linux end this process with the thread that started it; elsewhere the end of standard input does, a little later."""
    if sys.platform == "linux":
        parent = os.getppid()
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it has ended before
            os._exit(0)


def own_channels() -> tuple[int, int]:
    """Keep standard input and output for messages, and give others what they may read and write: nothing, and standard error.
    Says the greeting."""
    heard, said = os.dup(0), os.dup(1)
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    os.write(said, GREETING)
    return heard, said


def give_up(code: int, why: str) -> NoReturn:
    """End at once. Whoever started this process shows what is said last."""
    sys.stderr.write(f"{why}.\n")
    sys.stderr.flush()
    os._exit(code)


def warm_up() -> None:
    """Import what every engine needs, torch among it, while the notebook goes on."""

    def load() -> None:
        with contextlib.suppress(Exception):  # whoever loads a model is told what is wrong
            importlib.import_module("parrot_nb.engine.embedded.model")

    threading.Thread(target=load, name="parrot-warm-up", daemon=True).start()


def collect_seldom() -> None:
    """Have Python's collector look up less often, since what runs here leaves few cycles, and thousands of calls are made at once."""
    gc.set_threshold(COLLECT_EVERY, 10, 10)


class _Process:
    """Joins a runtime to its channels.

    Args:
        heard: descriptor of what the notebook tells.
        said: descriptor of what it is told.
    """

    def __init__(self, heard: int, said: int) -> None:
        self._heard = heard
        self._said = said
        self._wire = Wire(1)
        self._runtime: Runtime | None = None
        self._waiting: list[Item] = []  # to be said
        self._flush: asyncio.TimerHandle | asyncio.Handle | None = None
        self._hurried = False
        self._outbox: queue.SimpleQueue[list[Item]] = queue.SimpleQueue()

    async def run(self) -> None:
        """Run until the notebook has gone."""
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._crashed)
        self._over = asyncio.Event()
        threading.Thread(target=self._read, name="parrot-hears", daemon=True).start()
        threading.Thread(target=self._write, name="parrot-tells", daemon=True).start()
        self._loop.call_later(UNWANTED_S, self._leave_unwanted)
        await self._over.wait()

    def _leave_unwanted(self) -> None:
        if self._runtime is None:
            os._exit(0)

    def _crashed(self, _loop: Any, context: dict[str, Any]) -> None:
        error = context.get("exception") or RuntimeError(context["message"])
        if self._runtime is None:
            give_up(5, f"The runtime could not be made, {type(error).__name__}: {error}")
        self._runtime.crashed(error)

    def _read(self) -> None:
        frames = Frames()
        while data := os.read(self._heard, READ_BYTES):
            try:
                for payload in frames.add(data):
                    self._loop.call_soon_threadsafe(self._handle, self._wire.items(payload))
            except WireError as error:  # the notebook must not wait for what is not understood
                give_up(4, f"What the notebook tells cannot be understood, {error}")
        self._leave()  # the notebook has gone, or wants us gone: nothing here outlives it, but what is to be stored

    def _leave(self) -> NoReturn:
        if self._runtime is not None:
            self._runtime.finish_store(STORING_S)
        os._exit(0)

    def _handle(self, items: tuple[messages.Message, ...]) -> None:
        for item in items:
            if isinstance(item, messages.Start):
                self._runtime = self._started(item)
            elif self._runtime is None:
                give_up(4, f"What the notebook tells cannot be understood, a {type(item).__name__} before the start")
            else:
                self._runtime.handle(item)

    def _started(self, start: messages.Start) -> Runtime:
        if start.version != messages.VERSION:
            give_up(
                3, f"This is version {messages.VERSION} of the runtime, the notebook's is {start.version}: restart the kernel"
            )
        choice = ModelChoice(start.model, None, lambda: Path(start.default_folder), dict(start.settings))
        return Runtime(choice, start.options, start.policy, self._say, store=start.store)

    # Saying

    def _say(self, item: Item) -> None:
        self._waiting.append(item)
        hurries = not isinstance(item, UNHURRIED)
        if self._flush is None:
            self._flush = self._loop.call_soon(self._send) if hurries else self._loop.call_later(HURRY_S, self._send)
            self._hurried = hurries
        elif hurries and not self._hurried:
            self._flush.cancel()
            self._flush, self._hurried = self._loop.call_soon(self._send), True

    def _send(self) -> None:
        self._flush = None
        waiting, self._waiting = self._waiting, []
        self._outbox.put(waiting)

    def _write(self) -> None:
        while True:
            items = self._outbox.get()
            try:
                data = memoryview(self._wire.frame(items))
            except Exception as error:  # a message that is no data is our own bug: the notebook must not wait for it
                give_up(4, f"A message could not be written: {error}")
            try:
                while data:
                    data = data[os.write(self._said, data) :]
            except OSError:
                self._leave()
