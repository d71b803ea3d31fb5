from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))  # `checkpoints` runs an engine without the rest

from peer import Peer


@pytest.fixture(scope="session")
def smollm2_peer(smollm2_folder) -> Peer:
    return Peer(smollm2_folder)


@pytest.fixture(scope="session")
def gemma_peer(gemma_folder) -> Peer:
    return Peer(gemma_folder)
