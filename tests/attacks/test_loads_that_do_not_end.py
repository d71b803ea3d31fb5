"""A load can be stopped at every stage, and has limits in time and memory: no thread of it stays."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import shutil
import sys
import threading
import time
from functools import partial
from pathlib import Path
from weakref import WeakSet

import numpy as np
import pytest
from shorthand import WAIT_S, f, until
from transformers import LlamaConfig, LlamaForCausalLM

import parrot_nb as P
from parrot_nb.engine import load_limits
from parrot_nb.engine.embedded import load_engine, parts
from parrot_nb.engine.loads import Load, LoadStoppedError
from parrot_nb.errors import ModelLoadError
from parrot_nb.runtime.events import ModelChanged
from parrot_nb.tiny import default_model

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))

from checkpoints import SHAPE, byte_tokenizer, change_config, checkpoint
from gguf_files import random_llama, write_gguf
from test_adapters import make_adapter

# Where loading spends its time, each in the thread that does it.
STAGES = {
    "config": "parrot_nb.engine.embedded.parts.read_config",
    "tokenizer": "parrot_nb.engine.embedded.parts.load_codec",
    "weights": "parrot_nb.engine.embedded.parts.with_modules",
    "packing": "parrot_nb.engine.embedded.model.StepModel.prepare",
    "cache": "parrot_nb.engine.embedded.model.StepModel.allocate",
}
# Stages that some models or options have: what is loaded, and with which options.
OTHER_STAGES = {
    "trial": ("parrot_nb.engine.embedded.model.Trial", "known", {}),
    "compilation": ("parrot_nb.engine.embedded.model.StepModel._try_compiled", "known", {"compile": True}),
    "GGUF header": ("parrot_nb.engine.embedded.parts.read_gguf_header", "gguf", {}),
    "GGUF weights": ("parrot_nb.engine.embedded.parts.with_gguf", "gguf", {}),
    "adapter": ("parrot_nb.engine.embedded.adapters.merged", "adapter", {}),
}
THREADS = ("parrot-load", "parrot-engine-", "parrot-load-limits")


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return checkpoint(tmp_path_factory.mktemp("honest") / "model", "llama by modules")


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(load_limits, "CHECK_S", 0.05)
    monkeypatch.setattr(load_limits, "LOOK_S", 0.02)
    before = loading_threads()
    yield
    until(lambda: loading_threads() <= before, "the end of the threads")


def loading_threads() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if thread.name.startswith(THREADS)}


@pytest.fixture(params=STAGES)
def stuck(request, monkeypatch):
    """Told when loading has come to a stage that never ends."""
    came = threading.Event()
    monkeypatch.setattr(STAGES[request.param], endless(came))
    return came


def endless(came):
    """A stage that says when it has begun, and never ends."""

    def runs(*args, **kwargs):
        came.set()
        while True:
            try:
                time.sleep(0.01)
            except Exception:  # as a library may catch what comes
                continue

    return runs


def test_a_stage_that_never_ends_is_stopped(honest, stuck):
    load = Load()
    threading.Thread(target=lambda: stuck.wait(WAIT_S) and load.stop(), daemon=True).start()
    with pytest.raises(LoadStoppedError, match=r"^The loading of 'model' was stopped, since nobody waited for it: load it again"):
        load.run(load_engine, honest)
    assert stuck.is_set()


def test_a_stage_that_never_ends_has_a_limit(honest, stuck):
    with pytest.raises(ModelLoadError, match=r"^Loading '.*model' took more than 0\.2 s: allow more with .* --load-timeout S"):
        load_engine(honest, load_timeout=0.2)


@pytest.fixture(scope="module")
def others(tmp_path_factory):
    """A checkpoint of each kind that has stages of its own."""
    folder = tmp_path_factory.mktemp("others")
    known = checkpoint(folder / "known", "llama")
    gguf = write_gguf(folder / "model.gguf", random_llama(folder / "to_write"))
    return {"known": known, "gguf": gguf, "adapter": make_adapter(folder / "adapter", known)}


@pytest.mark.slow
@pytest.mark.parametrize("stage", OTHER_STAGES)
def test_a_stage_of_some_models_that_never_ends_is_stopped(others, monkeypatch, stage):
    came = threading.Event()
    place, kind, options = OTHER_STAGES[stage]
    monkeypatch.setattr(place, endless(came))
    load = Load()
    threading.Thread(target=lambda: came.wait(WAIT_S) and load.stop(), daemon=True).start()
    with pytest.raises(LoadStoppedError, match="was stopped, since nobody waited for it"):
        load.run(partial(load_engine, **options), others[kind])
    assert came.is_set()


@pytest.mark.parametrize("stage", ["loader.held_parts", "parts.loaded_module"])
def test_a_stage_of_a_model_that_the_user_holds_has_a_limit(stage, monkeypatch):
    def endless(*args, **kwargs):
        while True:
            time.sleep(0.01)

    monkeypatch.setattr(f"parrot_nb.engine.embedded.{stage}", endless)
    model = LlamaForCausalLM(LlamaConfig(**SHAPE)).train()
    with pytest.raises(ModelLoadError, match=r"^Loading 'LlamaForCausalLM' took more than 0\.2 s"):
        load_engine(model, tokenizer=byte_tokenizer(), load_timeout=0.2)
    assert model.training, "it was given back"


ENDS = {
    "cancel": lambda s, call: s.cancel(),
    "the variable's cancel": lambda s, call: call.cancel(),
    "reset": lambda s, call: s.reset(),
    "close": lambda s, call: s.close(),
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("stuck", ["config", "weights"], indirect=True)
def test_a_session_ends_it(honest, stuck, end):
    with P.Session(model=honest, isolate=False, max_tokens=4) as s:
        call = f("Say {{output:y}}")()
        s.flush()
        assert stuck.wait(WAIT_S)
        ENDS[end](s, call)
        with pytest.raises(P.ParrotError):
            call.get(timeout=WAIT_S)
        until(lambda: not any(thread.name.startswith(THREADS[:2]) for thread in loading_threads()), "the end of the load")
        if end != "close":
            s.load_model(default_model(), max_context=256)
            assert f("Say {{output:y}}", fresh=True)().get(timeout=WAIT_S) is not None


def test_code_of_a_models_own_that_never_ends_in_a_process(honest, tmp_path):
    """Its process lives on: other models' engines are in it."""
    folder = shutil.copytree(honest, tmp_path / "model")
    change_config(folder, model_type="unheard_of", auto_map={"AutoConfig": "endless.Config"})
    (folder / "endless.py").write_text(
        "import pathlib, time\nfrom transformers import PreTrainedConfig\nclass Config(PreTrainedConfig):\n    def __init__(self, **settings):\n"
        f"        pathlib.Path({json.dumps(str(tmp_path / 'came'))}).touch()\n        while True: time.sleep(0.01)\n"
    )
    with P.Session(model=folder, isolate=True, trust_remote_code=True, max_tokens=4) as s:
        call = f("Say {{output:y}}")()
        s.flush()
        until((tmp_path / "came").exists, "the code")
        link = s._connection.link
        call.cancel()
        until(
            lambda: any(event.state == "failed" for event in s.events.since(0) if isinstance(event, ModelChanged)),
            "the end of the load",
        )
        s.reset()
        assert s.models() == []
        assert s._connection.link is link
        s.load_model(default_model(), max_context=256)
        assert f("Say {{output:y}}", fresh=True)().get(timeout=WAIT_S) is not None


ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the memory of a process is known on Linux")
TAKEN_MB = 200  # more than the limit below allows


@pytest.fixture
def own_process(monkeypatch):
    """As in a runtime's own process; and little memory is allowed."""
    gc.collect()  # engines of tests before
    monkeypatch.setattr(load_limits, "may_end", lambda: True)
    monkeypatch.setattr(load_limits, "ROOM_BYTES", 32 * 2**20)
    monkeypatch.setattr(load_limits, "_engines", WeakSet())


@ON_LINUX
def test_memory_beyond_what_the_weights_need(honest, own_process, monkeypatch):
    taken = []

    def greedy(*args, **kwargs):
        while True:
            taken.append(bytearray(2**20))
            time.sleep(0.001)

    monkeypatch.setattr(STAGES["config"], greedy)
    with pytest.raises(
        ModelLoadError, match=r"^Loading '.*model' took more than 0\.0 GB of memory, which is more than the weights"
    ):
        load_engine(honest)
    assert len(taken) < 4_000


@ON_LINUX
@pytest.mark.parametrize("taker", ["user", "engine", "load"])
def test_memory_that_others_take_meanwhile_is_not_its_own(honest, own_process, monkeypatch, taker):
    taken, read = [], parts.read_config

    def slowly(*args, **kwargs):
        taken.append(np.ones(TAKEN_MB * 2**17))  # as if on another thread
        time.sleep(0.2)  # the limits look every 0.02 s
        return read(*args, **kwargs)

    monkeypatch.setattr(load_limits, "may_end", lambda: taker != "user")
    engines = [load_engine(default_model(), max_context=256)] if taker == "engine" else []
    monkeypatch.setattr(STAGES["config"], slowly)
    with contextlib.ExitStack() as stack:
        if taker == "load":
            stack.enter_context(load_limits.Limits(Load(), "another", 100))
        engines.append(load_engine(honest))
    for engine in engines:
        asyncio.run(engine.close())


@pytest.mark.parametrize("seconds", [0, -1, "soon", True, float("nan"), None])
def test_unusable_limits(honest, seconds):
    with pytest.raises(ModelLoadError, match=r"^load_timeout must be seconds, more than 0"):
        load_engine(honest, load_timeout=seconds)
    with P.Session() as s, pytest.raises(P.SessionError, match=r"^load_timeout must be seconds"):
        s.load_model(default_model(), load_timeout=seconds)
    with pytest.raises(P.SessionError, match=r"^load_timeout must be seconds"):
        P.Session(load_timeout=seconds)
