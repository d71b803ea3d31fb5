"""The GPU's way of a step: tiles, padded decode steps, sampling on the device. Interpreted on the CPU with a stand-in for
the capture (a graph there is the function itself, on the captured tensors); as it is where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[2]
CHECK = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from checkpoints import PRIORITY, all_pages_free, penalised_by_hand, reference, write
from pathlib import Path
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Constraint, Sampling
device, folder = sys.argv[2], Path(sys.argv[3])
shared = list(range(40, 61))
prompts = [[*shared, 7, i] for i in range(3)] + [[9, 8], [*shared[:13], 3, 3]]
engine = load_engine(folder, device=device, dtype="float32", kv_memory="256KB", page_size=4, max_step_tokens=16)
captured = []
if device == "cpu":
    def capture(function):
        captured.append(function)
        return function
    engine._looks_ahead = True
    engine._model.use_tiles(8, capture, engine._cache.num_pages, ladder=(1, 2, 4, 8))
async def one(prompt, sampling):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    _, end = await write(engine, context, sampling)
    engine.free(context)
    return list(end.token_ids)
async def scored(prompt):
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    choices = Constraint("choices", '["abc", "abd", "b", "ca"]')
    (piece,) = [piece async for piece in engine.generate(context, Sampling(1, constraint=choices, scoring="total"))]
    engine.free(context)
    return [choice.logprob for choice in piece.end.choices]
async def main():
    greedy = Sampling(max_tokens=6, ignore_eos=True)
    found = await asyncio.gather(*(one(p, greedy) for p in prompts))
    seeded = Sampling(max_tokens=5, temperature=1.5, top_p=0.9, seed=4, ignore_eos=True)
    alone = await one(prompts[0], seeded)
    crowd = await asyncio.gather(one(prompts[3], greedy), one(prompts[0], seeded), one(prompts[1], greedy))
    assert crowd[1] == alone, (crowd[1], alone)
    penalised = Sampling(max_tokens=8, repetition_penalty=0.5, presence_penalty=2.0, ignore_eos=True)
    alone = await one(prompts[0], penalised)  # while nothing else runs, a step of it is a candidate for a graph
    crowd = await asyncio.gather(one(prompts[3], greedy), one(prompts[0], penalised), one(prompts[1], greedy))
    want = penalised_by_hand(folder, prompts[0], penalised)
    assert crowd[1] == alone == want != found[0], (crowd[1], alone, want)
    context = engine.open(PRIORITY)
    engine.fill(context, prompts[0])
    text, end = await write(engine, context, Sampling(max_tokens=6, logprobs=2, ignore_eos=True))
    engine.free(context)
    assert [len(score.others) for score in end.scores] == [2] * 6 and "".join(s.text for s in end.scores) == text
    alone = await scored(prompts[0])
    crowd = await asyncio.gather(one(prompts[3], greedy), scored(prompts[0]), one(prompts[1], greedy))
    assert max(abs(a - b) for a, b in zip(crowd[1], alone)) < 1e-4 and len(set(alone)) == 4, (crowd[1], alone)
    assert (crowd[0], crowd[2]) == (found[3], found[1])
    assert found == [[t for t in reference(folder, p, 6) if t < 256] for p in prompts]
    assert engine._model._graphs is not None and len(engine._model._graphs) >= 4
    assert device != "cpu" or len(captured) == len(engine._model._graphs)
    await asyncio.sleep(0)
    assert all_pages_free(engine)
    assert not any(verdict.outcome == "failed" for verdict in engine.model.verdicts), engine.model.verdicts
    await engine.close()
asyncio.run(main())
sys.stdout.write("all equal")
"""


def check(folder: Path, device: str, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", **environment}
    command = [sys.executable, "-c", CHECK, str(Path(__file__).parent), device, str(folder)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=280, check=False)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted(checkpoints):
    assert check(checkpoints("qwen3"), "cpu", TRITON_INTERPRET="1") == "all equal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("name", ["qwen3", "llama", "mistral"])
def test_on_a_gpu(checkpoints, name):
    assert check(checkpoints(name), "cuda") == "all equal"
