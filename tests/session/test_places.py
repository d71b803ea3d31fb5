"""Where the runtime is: in a process, or for good reasons in a thread, and how the session says so."""

from __future__ import annotations

import re
import sys
import warnings

import pytest
from side import WAIT_S, write

import parrot_nb as P
from parrot_nb.tiny import default_model

IN_THREAD = "in a thread of this process, where a busy cell slows it"
NO_PROCESS = {
    "empty": ("", "is empty"),
    "None": (None, "is empty"),
    "not there": ("nowhere/python3", "No such file"),
    "a folder": ("python", "Permission denied|Is a directory"),
    "no program": ("python3", "Exec format error"),
    "another program": ("editor", "embeds Python"),
}


@pytest.mark.parametrize(("executable", "why"), NO_PROCESS.values(), ids=NO_PROCESS)
def test_where_no_process_can_be_started_a_thread_is_taken(executable, why, monkeypatch, tmp_path):
    (tmp_path / "python").mkdir()
    (tmp_path / "python3").write_bytes(b"\x7fELF and no more")
    (tmp_path / "python3").chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(tmp_path / executable) if executable else executable)
    with P.Session(isolate=True, max_tokens=4) as session:
        assert session.place == "in a process of its own, not started yet"
        first = write()("a")
        with pytest.warns(RuntimeWarning, match="in a thread of this process.*isolate=False") as warned:
            assert first.get(timeout=WAIT_S)
        assert len(warned) == 1
        assert session.place.startswith(IN_THREAD)
        assert re.search(f"no process can be started \\(.*({why})", session.place), session.place
        assert session.load_model(default_model(), max_context=64).max_context_tokens == 64
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert write()("b").get(timeout=WAIT_S)
        assert session.place.startswith(IN_THREAD)


def test_a_model_that_the_user_holds_and_a_loader_stay_here():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from parrot_nb.engine.embedded import load_engine

    folder = default_model()
    model, tokenizer = AutoModelForCausalLM.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
    with P.Session(isolate=True, max_tokens=4) as apart:
        value = write()("a").get(timeout=WAIT_S)
        assert apart.place.startswith("in a process of its own")
    with P.Session(model=model, tokenizer=tokenizer, isolate=True, max_tokens=4) as held:
        assert held.place == IN_THREAD
        assert write()("a").get(timeout=WAIT_S) == value
        assert held.place == IN_THREAD
    with P.Session(loader=lambda _, on_step: load_engine(folder, on_step=on_step), isolate=True, max_tokens=4) as own:
        assert write()("a").get(timeout=WAIT_S) == value
        assert own.place == IN_THREAD
    with P.Session(isolate=True, max_tokens=4) as moved:
        assert write()("a").get(timeout=WAIT_S) == value
        moved.load_model(model, tokenizer=tokenizer)
        assert write(fresh=True)("a").get(timeout=WAIT_S) == value
        assert moved.place == IN_THREAD
        moved.load_model(str(folder))
        assert write(fresh=True)("a").get(timeout=WAIT_S) == value
        assert moved.place.startswith("in a process of its own")


def test_a_model_that_the_user_holds_before_anything_runs():
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = default_model()
    with P.Session(isolate=True, max_tokens=4) as session:
        model = AutoModelForCausalLM.from_pretrained(folder)
        info = session.load_model(model, tokenizer=AutoTokenizer.from_pretrained(folder))
        assert info.id == type(model).__name__
        assert session.place == IN_THREAD
        assert write()("a").get(timeout=WAIT_S) is not None


def test_a_thread_where_that_is_asked_for():
    with P.Session(isolate=False) as session:
        assert session.place == IN_THREAD
