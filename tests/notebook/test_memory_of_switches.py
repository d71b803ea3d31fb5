"""`%parrot model` in a kernel gives back what the model before took: memory of both sides, and processes."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MOST_MB = 60.0  # of the last switch over the second
SETTINGS = "--device cpu --kv-memory 32MB --max-context 256"
BEGIN = """
%load_ext parrot_nb
import gc, os, pathlib
import parrot_nb as P
say = P.SemanticFunction("Number {{input:x}}: {{output:y, max_tokens=4, ignore_eos=True}}", name="say").options(chat=False, fresh=True)

def look():
    P.current_session().flush()
    children = [int(p) for path in pathlib.Path("/proc/self/task").glob("*/children") for p in path.read_text().split()]
    taken = {}
    for pid in [os.getpid(), *children]:
        lines = pathlib.Path(f"/proc/{pid}/status").read_text().splitlines()
        taken[pid] = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS")), 0.0)
    return taken
"""


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> Path:
    """A model of 20 million parameters in float32, 80 MB."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
    try:
        import transformers as hf
        from checkpoints import SHAPE, random_checkpoint
    finally:
        sys.path.pop(0)
    large = SHAPE | {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6}
    return random_checkpoint(tmp_path_factory.mktemp("large"), hf.LlamaConfig(**large))


def switched(notebook, models: list[str], count: int) -> list[tuple[float, float]]:
    """Take models in turn, a call on each: resident megabytes of the kernel and of its runtime's process after each switch.

    Whatever process had run before is gone by then."""
    assert notebook.run(BEGIN).error is None
    found, seen = [], set()
    for i in range(count):
        output = notebook.run(f"%parrot model '{models[i % len(models)]}' {SETTINGS}")
        assert output.error is None, output.message
        assert len(ast.literal_eval(notebook.value(f"say({i}).get(timeout=60)"))) > 0
        (kernel, own_mb), *others = ast.literal_eval(notebook.value("look()")).items()
        assert len(others) == 1, f"{len(others)} processes beside the kernel after switch {i + 1}"
        ((runtime, runtime_mb),) = others
        assert not [pid for pid in seen - {kernel, runtime} if Path(f"/proc/{pid}").exists()]
        seen |= {kernel, runtime}
        found.append((own_mb, runtime_mb))
    return found


def assert_flat(found: list[tuple[float, float]]) -> None:
    told = ", ".join(f"{own_mb:.0f} + {runtime_mb:.0f}" for own_mb, runtime_mb in found)
    print("resident MB of kernel + runtime after each switch:", told)  # pytest -s shows it
    for side in (0, 1):
        mb = [one[side] for one in found]
        assert mb[-1] - mb[1] < MOST_MB, told


@pytest.mark.slow
def test_models_taken_in_turn_leave_no_memory(notebook, built):
    found = switched(notebook, ["parrot-tiny", str(built)], 4)
    assert_flat(found)
    assert found[1][1] > found[0][1] + 40, "the larger model counts"


@pytest.mark.slow
def test_pretrained_models_taken_in_turn_leave_no_memory(open_notebook, smollm2_folder, gemma_folder):
    """Left out of `make test`, as all that needs Gemma is; `make test-models` runs it."""
    assert_flat(switched(open_notebook(), [str(smollm2_folder), str(gemma_folder)], 8))
