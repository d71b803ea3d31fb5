"""Closing gives everything back: memory, engines, tokenizers and threads, in a process of its own."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import statistics
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import transformers as hf
from checkpoints import PRIORITY, SHAPE, change_config, random_checkpoint, write

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.memory import forget_locals
from parrot_nb.engine.protocol import Sampling
from parrot_nb.runtime.stretches import encode

ROOT = Path(__file__).parents[2]
LARGE = SHAPE | {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 6}  # 20 M parameters, 80 MB
MOST_MB = 60.0  # of the last loads over the second
pytestmark = pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="what a process holds is read from /proc")


@pytest.fixture(scope="module")
def folders(tmp_path_factory) -> list[Path]:
    """One model that is read from its files, and one that needs transformers' modules."""
    plain = random_checkpoint(tmp_path_factory.mktemp("plain"), hf.LlamaConfig(**LARGE))
    other = random_checkpoint(tmp_path_factory.mktemp("modules"), hf.Qwen2Config(**LARGE))
    change_config(other, unheard_of=1)
    return [plain, other]


def left_after(how: str, folders: list[Path], count: int = 8) -> list[dict]:
    paths = os.pathsep.join([str(ROOT), str(ROOT / "kernels")])
    done = subprocess.run(
        [sys.executable, str(Path(__file__).with_name("memory_probe.py")), how, str(count), *map(str, folders)],
        env={**os.environ, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()]


@pytest.mark.parametrize(
    "how", ["sessions", pytest.param("failures", marks=pytest.mark.minutes), pytest.param("interrupts", marks=pytest.mark.slow)]
)
def test_loads_leave_no_memory(folders, how):
    left = left_after(how, folders)
    assert all(not any(one["live"].values()) for one in left), left
    assert all(one["threads"] == ["MainThread"] for one in left[1:]), left
    mb = [round(one["mb"]) for one in left]
    # The last load alone may stand out by memory that malloc keeps for a while.
    assert statistics.median(mb[-3:]) - mb[1] < MOST_MB, mb


class Codec:
    """Tokenizes as little as will do."""

    def encode(self, text: str, *, first: bool = False) -> list[int]:
        return [len(text), int(first)]


def test_remembered_encodings_go_with_their_codec():
    codec = Codec()
    assert encode(codec, "some words", first=True) == (10, 1)
    before = sum(type(one) is Codec for one in gc.get_objects())
    del codec
    assert sum(type(one) is Codec for one in gc.get_objects()) == before - 1


def test_a_kept_failure_keeps_no_locals():
    class Weights:
        pass

    def read() -> None:
        weights = Weights()
        try:
            int(repr(weights))
        except ValueError as error:
            raise RuntimeError("no room") from error

    try:
        read()
    except RuntimeError as error:
        kept = error
    forget_locals(kept)
    assert not any(type(one) is Weights for one in gc.get_objects())
    assert kept.__traceback__ is not None, "it can still be printed"


@pytest.mark.parametrize("index", [0, 1])
def test_a_closed_engine_is_freed_at_once(folders, index):
    """Half a gigabyte of weights must not wait for the garbage collector."""

    async def run() -> list[object]:
        engine = await asyncio.to_thread(load_engine, folders[index], device="cpu", kv_memory="8MB", max_context=64)
        watched = [weakref.ref(one) for one in (engine, engine.codec, engine._model._decoder)]
        context = engine.open(PRIORITY)
        engine.fill(context, [1, 2, 3])
        await write(engine, context, Sampling(max_tokens=2))
        await engine.close()
        del engine
        await asyncio.sleep(0)
        return [one() for one in watched]

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(run()) == [None] * 3
    finally:
        gc.enable()
