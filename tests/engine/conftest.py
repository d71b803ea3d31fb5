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


@pytest.fixture(autouse=True)
def engines_on_stand_in(request, monkeypatch):
    """With `--device stand-in`, engines that would be on the CPU are on a stand-in; tests that make one of their own are as always."""
    if request.config.getoption("--device") == "cpu" or request.path.stem.startswith(
        ("test_gpu", "test_standin", "test_elastic")
    ):
        yield
        return
    import torch
    from standin import StandIn

    from parrot_nb.engine.embedded import graphs, loader, model

    monkeypatch.setattr(graphs, "LADDER", (1, 4))
    monkeypatch.setattr(graphs, "MIXED", (16,))
    monkeypatch.setattr(model, "MANY_ROWS", 30)
    monkeypatch.setattr(loader, "find_device", lambda *_: torch.device("cuda", 0))
    with StandIn(memory=2**31):
        yield


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
