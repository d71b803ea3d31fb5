"""Lets the attacks use what the tests of the runtime have: an engine of hashes, and its shorthand."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import parrot_nb as P

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
sys.path.insert(0, str(Path(__file__).parent))

from attacking import assert_usable, hash_session


@pytest.fixture
def session() -> Iterator[P.Session]:
    with hash_session() as s:
        yield s
        assert_usable(s)
        s.reset()
        assert_usable(s)


@pytest.fixture(scope="module")
def honest(tmp_path_factory) -> Path:
    """A good checkpoint."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
    from checkpoints import checkpoint

    return checkpoint(tmp_path_factory.mktemp("honest") / "model", "llama")


@pytest.fixture
def folder(honest, tmp_path) -> Path:
    """A copy of a good checkpoint, to damage."""
    return shutil.copytree(honest, tmp_path / "model")


@pytest.fixture(scope="module")
def apart() -> Iterator[P.Session]:
    """A session whose runtime is a process of its own."""
    with P.Session(isolate=True, max_tokens=4) as s:
        yield s


@pytest.fixture(params=["thread", "process"])
def either(request: pytest.FixtureRequest) -> Iterator[P.Session]:
    """A session of each kind, which is the same after the attack: no runtime was lost."""
    s = request.getfixturevalue("session" if request.param == "thread" else "apart")
    assert_usable(s)
    link = s._connection.link
    yield s
    assert_usable(s)
    assert s._connection.link is link
