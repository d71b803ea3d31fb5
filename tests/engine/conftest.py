from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory):
    """`checkpoints("llama")` is the folder of that tiny checkpoint, made once."""
    import torch
    from checkpoints import checkpoint

    torch.set_num_threads(1)
    made = {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = checkpoint(tmp_path_factory.mktemp(name), name)
        return made[name]

    return get
