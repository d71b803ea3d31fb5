"""A session on hash engines."""

from __future__ import annotations

from collections.abc import Callable

from hash_engine import HashEngine

import parrot_nb as P
from parrot_nb.runtime.runtime import Runtime


class HashSession(P.Session):
    """A session on hash engines, which it keeps for the tests to look at."""

    def __init__(self, **settings: object) -> None:
        self.engines: dict[str, HashEngine] = {}
        super().__init__(model="hash", loader=self._make, **settings)

    def _make(self, model: str, on_step: object) -> HashEngine:
        if model == "missing":
            raise P.ModelLoadError("There is no model 'missing': give a folder that exists.")
        self.engines[model] = HashEngine(model)
        return self.engines[model]

    @property
    def engine(self) -> HashEngine:
        return self.engines["hash"]

    @property
    def runtime(self) -> Runtime:
        """What runs its calls, in a thread of this process; started if need be."""
        return self._connection.started()._runtime

    def on_loop(self, function: Callable[..., object], *args: object) -> None:
        """Call something on the runtime's loop."""
        self._connection.started()._loop.post(function, *args)

    def release(self) -> None:
        """Let hanging generations go on."""
        self.on_loop(self.engine.release.set)
