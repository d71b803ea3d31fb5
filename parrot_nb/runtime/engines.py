"""Which engine runs which model: loaded on first need, once, in a worker thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from parrot_nb.engine.protocol import Engine, StepListener, StepRecord
from parrot_nb.errors import ModelError, ModelLoadError
from parrot_nb.runtime.events import EventLog, ModelChanged, StepRan, now_s

Loader = Callable[[str, StepListener], Engine]


class EnginePool:
    """The engines of a session, by model id. Lives on the runtime loop.

    Args:
        load: makes the engine of a model; blocking, called in a worker thread.
        log: is told what is loaded and every step that an engine runs.
    """

    def __init__(self, load: Loader, log: EventLog) -> None:
        self._load = load
        self._log = log
        self._loading: dict[str, asyncio.Task[Engine]] = {}

    async def get(self, model: str) -> Engine:
        """The engine of a model, loaded if need be; whoever asks meanwhile waits for the same load.

        Raises:
            ModelError: it cannot be loaded. The failure stays the answer until `forget_failures`.
        """
        task = self._loading.get(model)
        if task is None:
            task = self._loading[model] = asyncio.create_task(self._load_logged(model))
        return await asyncio.shield(task)

    def forget_failures(self) -> None:
        """Let models that failed to load be tried again: the user may have mended what was wrong."""
        for model, task in list(self._loading.items()):
            if task.done() and (task.cancelled() or task.exception() is not None):
                del self._loading[model]

    @property
    def ready(self) -> dict[str, Engine]:
        """The engines that are loaded, by model id."""
        return {m: t.result() for m, t in self._loading.items() if t.done() and not t.cancelled() and t.exception() is None}

    def ready_for(self, model: str) -> Engine | None:
        """The engine of a model, if it is loaded."""
        task = self._loading.get(model)
        return task.result() if task is not None and task.done() and not task.cancelled() and task.exception() is None else None

    async def close(self, model: str | None = None) -> None:
        """Close the engine of a model, or all; one that is still loading is closed as soon as it is there."""
        for name in [model] if model is not None else list(self._loading):
            task = self._loading.pop(name, None)
            if task is None:
                continue
            try:
                engine = await task
            except ModelError:
                continue  # never came to be; whoever waited was told
            await engine.close()
            self._log.append(ModelChanged(now_s(), name, "closed"))

    async def _load_logged(self, model: str) -> Engine:
        self._log.append(ModelChanged(now_s(), model, "loading"))
        loop = asyncio.get_running_loop()

        def on_step(step: StepRecord) -> None:
            self._log.append(StepRan(step.start_s, model, step))

        try:
            with ThreadPoolExecutor(1, thread_name_prefix="parrot-load") as loader:  # a thread that ends, OpenMP's with it
                engine = await loop.run_in_executor(loader, self._load, model, on_step)
        except Exception as error:
            self._log.append(ModelChanged(now_s(), model, "failed", detail=str(error)))
            if isinstance(error, ModelError):
                raise
            raise ModelLoadError(f"Loading model '{model}' failed with {type(error).__name__}: {error}") from error
        info = engine.model
        detail = f"{info.architecture}, {info.num_parameters / 1e6:.1f} M parameters, {info.dtype} on {info.device}"
        self._log.append(ModelChanged(now_s(), model, "ready", detail=detail, note=info.note))
        return engine
