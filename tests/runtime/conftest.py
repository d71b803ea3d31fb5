from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import parrot_nb as P

sys.path.insert(0, str(Path(__file__).parent))

from hash_engine import HashEngine


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

    def release(self) -> None:
        """Let hanging generations go on."""
        self._runtime.post(self.engine.release.set)


@pytest.fixture
def session() -> Iterator[HashSession]:
    with HashSession(max_tokens=12) as s:
        yield s


@pytest.fixture(scope="session")
def make_session() -> type[HashSession]:
    return HashSession
