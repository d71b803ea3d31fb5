from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))


def pytest_collection_modifyitems(config, items):
    """What takes minutes runs only if it is asked for by its mark."""
    if "architectures" in (config.option.markexpr or ""):
        return
    left_out = [item for item in items if item.get_closest_marker("architectures")]
    if left_out:
        items[:] = [item for item in items if item not in left_out]
        config.hook.pytest_deselected(items=left_out)


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
