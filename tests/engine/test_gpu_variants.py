"""Variants of kernels that Triton would compile while an engine serves, by its own key of a launch; nothing is compiled or computed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
COUNT = """
import random, sys
import torch, triton
from pathlib import Path
from triton.backends.compiler import GPUTarget
from triton.compiler import make_backend
from triton.runtime.jit import create_function_from_signature
from parrot_kernels import activation, backend, kv_write, norm, penalties, rope, sample_triton, tiled, tiles
from parrot_nb.engine.embedded import graphs, load_engine, parcel
from parrot_nb.engine.embedded import model as models
from parrot_nb.engine.embedded.step import StepBatch, StepContext
from parrot_nb.engine.protocol import Sampling

folder, num_steps = Path(sys.argv[1]), int(sys.argv[3])
if sys.argv[2] == "anywhere":
    tiles._aligned = lambda count: count
backend_of_triton, variants, new = make_backend(GPUTarget("cuda", 90, 32)), set(), []

class Keys:
    def __init__(self, kernel):
        self.name, self.bind = kernel.__name__, create_function_from_signature(kernel.signature, kernel.params, backend_of_triton)
    def __getitem__(self, grid):
        def launch(*args, **options):
            _, specialisation, chosen = self.bind(*args, **options, debug=False)
            key = (self.name, str(specialisation), str(chosen))
            if key not in variants:
                variants.add(key)
                new.append(self.name)
        return launch

engine = load_engine(folder, device="cpu", dtype="float32", kv_memory="8MB", page_size=4)
model, device = engine._model, engine._model._device
for module in (activation, kv_write, norm, penalties, rope, sample_triton, tiled):
    for name, value in list(vars(module).items()):
        if isinstance(value, triton.JITFunction) and name.endswith("_kernel"):
            setattr(module, name, Keys(value))
backend.serves = lambda tensor: True
def send_all(tensors):
    layout = parcel.Parcel.of(tensors)
    layout.fill(buffer := torch.zeros(layout.num_bytes, dtype=torch.uint8), tensors)
    return layout.open(buffer)
device.send_all = send_all
def capture(function):
    out = function()
    return lambda: out
model.use_tiles(264, capture, model._num_pages)
model._warm_up()
model._graphs = None  # every step launches its kernels by itself
rng, at_load, by_step = random.Random(0), len(new), []
samplings = [Sampling(9), Sampling(9, temperature=0.7), Sampling(9, temperature=1.0, top_p=0.9, top_k=20)]
for _ in range(num_steps):
    parts, page = [], 0
    for number in range(rng.randrange(1, 12)):
        start, length = rng.choice([(rng.randrange(60), 1), (rng.choice([0, 8, 40]), rng.randrange(1, 90))])
        num_pages = -(-(start + length) // 4)
        pages = (*range(min(num_pages, 8)), *range(page + 8, page + 8 + max(0, num_pages - 8))) if rng.random() < 0.5 else range(page + 8, page + 8 + num_pages)
        sampling = rng.choice([None, *samplings])
        parts.append(StepContext(tuple(range(length)), start, tuple(pages), sampling, 1, 0, number))
        page += num_pages
    before = len(new)
    with torch.inference_mode():
        model._step(StepBatch(tuple(sorted(parts, key=lambda part: part.pages))), None)
    by_step.append(len(new) - before)
sys.stdout.write(f"{at_load} {sum(by_step[:5])} {sum(by_step[5:])}")
"""


def variants(folder: Path, parts_begin: str, num_steps: int) -> list[int]:
    """Numbers of new variants at load, in the first five steps, and in those after them."""
    env = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    env["PYTHONPATH"] = f"{ROOT}:{ROOT / 'kernels'}"
    command = [sys.executable, "-W", "ignore", "-c", COUNT, str(folder), parts_begin, str(num_steps)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return [int(word) for word in done.stdout.split()]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_no_step_after_the_first_five_has_a_kernel_compiled(checkpoints):
    at_load, first, later = variants(checkpoints("qwen3"), "aligned", 400)
    assert at_load >= 10, "each kernel, and attention in two sizes of tiles"
    assert first <= 2
    assert later == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_parts_of_a_plan_that_begin_anywhere_would_have_kernels_compiled(checkpoints):
    """What is counted are variants: they are many where the parts of a plan begin at any four bytes, as they once did."""
    _, first, later = variants(checkpoints("qwen3"), "anywhere", 30)
    assert first + later > 4
