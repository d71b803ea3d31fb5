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


@pytest.fixture
def standin(checkpoints, monkeypatch):
    """Two devices that are none, with graphs of few sizes; the checkpoint of these tests is made before."""
    from standin import StandIn

    from parrot_nb.engine.embedded import graphs, model

    checkpoints("qwen3")
    monkeypatch.setattr(graphs, "LADDER", (1, 2, 4))
    monkeypatch.setattr(graphs, "MIXED", ())  # most of these tests fail operations of a prompt
    monkeypatch.setattr(model, "MANY_ROWS", 30)
    with StandIn(num_devices=2) as made:
        yield made
