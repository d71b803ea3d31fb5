from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from hash_session import HashSession


@pytest.fixture
def session() -> Iterator[HashSession]:
    with HashSession(max_tokens=12) as s:
        yield s


@pytest.fixture(scope="session")
def make_session() -> type[HashSession]:
    return HashSession
