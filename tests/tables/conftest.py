from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import parrot_nb as P

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))

from hash_engine import HashEngine


@pytest.fixture
def engines() -> list[HashEngine]:
    """The engines of `session`, in order of their loading."""
    return []


@pytest.fixture
def session(engines) -> Iterator[P.Session]:
    def load(model: str, on_step: object) -> HashEngine:
        engines.append(HashEngine(model))
        return engines[-1]

    with P.Session(model="hash", loader=load, max_tokens=12) as opened:
        yield opened


@pytest.fixture(scope="module")
def tiny() -> Iterator[P.Session]:
    """A session on parrot-tiny, for outputs with a type."""
    with P.Session(max_tokens=24) as opened:
        yield opened
