"""Which engine runs which model: loaded on first need, once, in a worker thread."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any

from parrot_nb.engine.load_limits import ENDING_S
from parrot_nb.engine.loads import Load, LoadProgress, LoadStoppedError
from parrot_nb.engine.memory import forget_locals, return_freed
from parrot_nb.engine.protocol import Engine, Speed, StepListener, StepRecord
from parrot_nb.engine.settings import SAMPLINGS, unusable_timeout
from parrot_nb.engine.waits import unbroken
from parrot_nb.errors import EngineLostError, ModelError, ModelLoadError, ParrotError, SessionError
from parrot_nb.runtime.events import ModelChanged, ModelLoading, StepRan, now_s
from parrot_nb.runtime.fleet import Fleet, Slot
from parrot_nb.runtime.wire import Say

Loader = Callable[[str, StepListener], Engine]
SETTING_TYPES = (bool, int, float, str, tuple, list, type(None))  # of what may cross to a process
MAX_SETTING = 2**63
TIMEOUTS = {"step_timeout", "load_timeout"}
LOOK_S = 1.0  # between two looks at an engine whose last step does not end


@dataclass(eq=False)
class _GivenUp:
    """An engine that was lost or closed and may still hold memory.

    Attributes:
        place: the model and number that it had; None where another device has taken its place.
        closing: ends in some seconds, whether it holds nothing any more or is stuck.
    """

    place: tuple[str, int] | None
    engine: Engine
    closing: asyncio.Task[None]

    @property
    def is_over(self) -> bool:
        return self.closing.done() and not self.engine.load().stuck

    def as_error(self) -> EngineLostError:
        """Return the error for a caller that needs its memory."""
        return EngineLostError(
            f"A step of '{self.engine.model.id}' still runs though its engine was given up, and keeps the memory that is needed "
            "here: try again when it has ended, restart the kernel, or choose another --device with %parrot model."
        )


class EnginePool:
    """The engines of a session: of each model as many as it is told, alike but each with weights and a cache of its own.
    Nothing is loaded in the place of an engine that still holds its memory. Lives on the runtime loop.

    Args:
        load: makes an engine of a model; blocking, called in a worker thread.
        say: is told what is loaded and every step that an engine runs.
        count: how many engines of each model, asked when the first is needed.
        sampling: one of `parrot_nb.engine.settings.SAMPLINGS`, asked anew each time.
    """

    def __init__(
        self, load: Loader, say: Say, count: Callable[[], int] = lambda: 1, sampling: Callable[[], str] = lambda: "greedy"
    ) -> None:
        self._load = load
        self._say = say
        self._count = count
        self._sampling = sampling
        self._loading: dict[tuple[str, int], asyncio.Task[Engine]] = {}
        self._loads: dict[tuple[str, int], Load] = {}  # those that run
        self._waiting: Counter[tuple[str, int]] = Counter()  # how many wait for each
        self._generations: Counter[str] = Counter()
        self._fleets: dict[str, Fleet] = {}
        self._given_up: list[_GivenUp] = []
        self._discarding: set[asyncio.Task[None]] = set()

    def fleet(self, model: str) -> Fleet:
        """The engines of a model, loaded or not, for the scheduler."""
        self._fleets[model] = Fleet([Slot(model, i, partial(self.speed, model, i)) for i in range(self._count())])
        self._tell_fleet(model)
        return self._fleets[model]

    def family(self, model: str) -> tuple[str, int]:
        """Equal for engines that give the same text: those of a model, until it is loaded again."""
        return model, self._generations[model]

    def defaults(self, engine: Engine) -> dict[str, float]:
        """Options that hold on an engine where neither a call nor the session says them, over the greedy ones."""
        return dict(engine.model.recommended) if self._sampling() == "model" else {}

    async def get(self, model: str, index: int = 0) -> Engine:
        """An engine of a model, loaded if need be; whoever asks meanwhile waits for the same load.

        Raises:
            ModelError: it cannot be loaded. The failure stays the answer until `forget_failures`.
            EngineLostError: the one before has not ended and keeps its memory.
        """
        key = model, index
        if not self._discarding and (ready := self._loading.get(key)) is not None and _is_ready(ready):
            return ready.result()  # as a rule, and without a turn of the loop
        await self._wait_for_room(key)
        task = self._loading.get(key)
        if task is None:
            task = self._loading[key] = asyncio.create_task(self._load_logged(*key))
        self._waiting[key] += 1
        try:
            return await unbroken(task)
        finally:
            del task  # who is interrupted here may keep the exception, and with this frame the engine
            self._waiting[key] -= 1
            if not self._waiting[key] and (load := self._loads.get(key)) is not None:
                load.stop()

    async def _wait_for_room(self, key: tuple[str, int]) -> None:
        await self._discarded()
        if (load := self._loads.get(key)) is not None and load.stopped:
            await self._ended(key[0], self._loading[key])
        if (task := self._loading.get(key)) is not None and task.done() and isinstance(task.exception(), LoadStoppedError):
            del self._loading[key]
        for before in [given_up for given_up in self._given_up if given_up.place == key]:
            await asyncio.wait({before.closing})
            if not before.is_over:
                raise before.as_error()

    def forget_failures(self) -> None:
        """Let models that failed to load be tried again: the user may have mended what was wrong."""
        for key, task in list(self._loading.items()):
            if task.done() and (task.cancelled() or task.exception() is not None):
                del self._loading[key]

    def lost(self, model: str, index: int, engine: Engine, error: EngineLostError) -> bool:
        """An engine has ended by itself: who asks for it next gets a new one, as soon as the old one holds nothing any more.
        Returns whether its calls may go on: elsewhere, or on the new one if they are not what the old one stalled at."""
        task = self._loading.get((model, index))
        if task is not None and _is_ready(task) and task.result() is engine:
            del self._loading[model, index]
            self._say(ModelChanged(now_s(), _shown(model, index), "failed", detail="the engine was lost"))
            self._give_up((model, index), engine)
        return not error.stalled or len(self._given_up_of(model)) < self._count()

    def make_way(self, device: str) -> None:
        """Make way for something else to be loaded on a device.

        Raises:
            EngineLostError: an engine that was given up keeps its memory there.
        """
        for before in self._given_up:
            if not before.is_over and (device == "auto" or before.engine.model.device.startswith(device)):
                raise before.as_error()
        for before in self._given_up:
            before.place = None  # it is on another device

    def _give_up(self, place: tuple[str, int] | None, engine: Engine) -> _GivenUp:
        given_up = _GivenUp(place, engine, asyncio.create_task(engine.close()))
        self._given_up.append(given_up)
        given_up.closing.add_done_callback(lambda _: self._look(given_up))
        if place is not None:
            self._tell_fleet(place[0])
        return given_up

    def _look(self, given_up: _GivenUp) -> None:
        """Forget an engine once it holds nothing any more."""
        if not given_up.is_over:
            asyncio.get_running_loop().call_later(LOOK_S, self._look, given_up)
            return
        self._given_up.remove(given_up)
        asyncio.get_running_loop().call_soon(return_freed)
        if given_up.place is not None:
            self._tell_fleet(given_up.place[0])

    def _tell_fleet(self, model: str) -> None:
        if (fleet := self._fleets.get(model)) is not None:
            fleet.lose(self._given_up_of(model))

    def _given_up_of(self, model: str) -> set[int]:
        return {before.place[1] for before in self._given_up if before.place is not None and before.place[0] == model}

    @property
    def ready(self) -> dict[str, Engine]:
        """The engines that are loaded, by model id; from the second of a model on with its number."""
        return {_shown(*key): task.result() for key, task in self._loading.items() if _is_ready(task)}

    def ready_for(self, model: str) -> list[Engine]:
        """The engines of a model that are loaded."""
        return [task.result() for (name, _), task in self._loading.items() if name == model and _is_ready(task)]

    async def close(self, model: str | None = None) -> None:
        """Close the engines of a model, or all, side by side; one that is still loading is closed as soon as it is there.
        What one of them raises is raised when all are closed."""
        await self._discarded()
        try:
            await self._close(model)
        finally:
            return_freed()  # their tokenizers, after their weights

    def discard(self, model: str) -> None:
        """Close the engines of a model whose load was given up; who asks for one meanwhile waits for that. Returns at once."""
        task = asyncio.create_task(self._close(model))
        self._discarding.add(task)
        task.add_done_callback(self._discarding.discard)

    async def _discarded(self) -> None:
        if self._discarding:
            await asyncio.wait(self._discarding)

    async def _close(self, model: str | None) -> None:
        closing: dict[tuple[str, int], _GivenUp] = {}
        keys = [key for key in self._loading if model is None or key[0] == model]
        for key in sorted(keys, key=lambda key: not self._loading[key].done()):
            task = self._loading.pop(key, None)
            if task is None:
                continue
            self._generations[key[0]] += 1
            if (load := self._loads.get(key)) is not None:
                load.stop()
            try:
                await self._ended(key[0], task)
                engine = task.result()
            except ModelError:
                continue  # never came to be; whoever waited was told
            closing[key] = self._give_up(key, engine)
        others = [before for before in self._given_up if model is None or before.place is None or before.place[0] == model]
        tasks = dict.fromkeys(before.closing for before in (*closing.values(), *others))
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)
        for key, given_up in closing.items():
            detail = "" if given_up.is_over else "a step of it has not ended"
            self._say(ModelChanged(now_s(), _shown(*key), "closed", detail=detail))
        for outcome in outcomes:
            if outcome is not None:
                raise outcome

    async def _ended(self, model: str, task: asyncio.Task[Engine]) -> None:
        """Wait for the end of a load that was stopped.

        Raises:
            ModelLoadError: it has not ended, and cannot be ended; an engine that still comes of it is closed.
        """
        await asyncio.wait({task}, timeout=ENDING_S)
        if not task.done():
            task.add_done_callback(lambda late: _is_ready(late) and self._give_up(None, late.result()))
            raise ModelLoadError(f"Loading '{model}' was stopped and has not ended: restart the kernel to load it again.")

    def speed(self, model: str, index: int = 0) -> Speed:
        """Return the duration of an engine's steps; the usual one where it is not loaded yet."""
        task = self._loading.get((model, index))
        return task.result().speed if task is not None and _is_ready(task) else Speed()

    async def _load_logged(self, model: str, index: int) -> Engine:
        name = _shown(model, index)
        self._say(ModelChanged(now_s(), name, "loading"))
        loop = asyncio.get_running_loop()

        def on_step(step: StepRecord) -> None:
            self._say(StepRan(step.start_s, name, step))

        def on_progress(progress: LoadProgress) -> None:
            with contextlib.suppress(RuntimeError):  # the session was closed meanwhile, and its loop with it
                loop.call_soon_threadsafe(self._say, ModelLoading(now_s(), name, progress))

        load = self._loads[model, index] = Load(on_progress)
        try:
            with ThreadPoolExecutor(1, thread_name_prefix="parrot-load") as loader:  # a thread that ends, OpenMP's with it
                engine = await loop.run_in_executor(loader, load.run, self._load, model, on_step)
        except Exception as error:
            self._say(ModelChanged(now_s(), name, "failed", detail=str(error)))
            forget_locals(error)  # who keeps the failure does not keep what was read before it
            return_freed()
            if isinstance(error, ModelError):
                raise
            if isinstance(error, ParrotError):  # no room, as a rule
                raise ModelLoadError(str(error)) from error
            raise ModelLoadError(f"Loading model '{model}' failed with {type(error).__name__}: {error}") from error
        finally:
            del self._loads[model, index]
        info = engine.model
        detail = f"{info.architecture}, {info.num_parameters / 1e6:.1f} M parameters, {info.dtype} on {info.device}"
        self._say(ModelChanged(now_s(), name, "ready", detail=detail, note=info.note))
        return engine


def check_settings(settings: Mapping[str, Any]) -> None:
    """Refuse what can be judged before a model is loaded. Raises SessionError."""
    for name, value in settings.items():
        if type(value) not in SETTING_TYPES or (type(value) is int and abs(value) >= MAX_SETTING):
            kind = "one of that size" if type(value) is int else type(value).__name__
            raise SessionError(f"{name} must be a plain number or string of Python's own, not {kind}: write it as such.")
    count = settings.get("engines", 1)
    if not isinstance(count, int) or isinstance(count, bool) or count < 1:
        raise SessionError(f"engines must be a whole number, at least 1, not {count!r}.")
    for name in TIMEOUTS & settings.keys():
        if (reason := unusable_timeout(name, settings[name])) is not None:
            raise SessionError(reason)
    if (sampling := settings.get("sampling", "greedy")) not in SAMPLINGS:
        raise SessionError(f"sampling must be 'greedy' or 'model' (what the model's makers recommend), not {sampling!r}.")


def _shown(model: str, index: int) -> str:
    return f"{model} #{index + 1}" if index else model


def _is_ready(task: asyncio.Task[Engine]) -> bool:
    return task.done() and not task.cancelled() and task.exception() is None
