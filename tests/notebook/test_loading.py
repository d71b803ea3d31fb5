"""Loading a model in a real kernel: what is shown while it loads, and what stays."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path

import pytest

from parrot_nb.tiny import default_model


def test_loading_is_shown_and_then_replaced_by_what_was_loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    output = notebook.run("%parrot model parrot-tiny --max-context 512")
    assert output.error is None, output.message
    assert not output.result, "one display, which changes"
    texts = [shown["text/plain"] for shown in output.shown]
    assert texts[0] == "loading parrot-tiny · 0 s"
    assert "Qwen3ForCausalLM" in texts[-1]
    assert "up to 512 tokens" in texts[-1]
    assert "loading" not in texts[-1]
    assert output.text == "", "nothing is printed"


@pytest.fixture(scope="module")
def gpt2(tmp_path_factory):
    """A checkpoint of a class that has no fused decoder."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))
    try:
        from checkpoints import checkpoint
    finally:
        sys.path.pop(0)
    return checkpoint(tmp_path_factory.mktemp("gpt2"), "gpt2")


def test_what_does_not_run_is_a_line_of_the_report_and_no_warning(notebook, gpt2):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    output = notebook.run(f"%parrot model {gpt2} --compile")
    assert output.error is None, output.message
    assert output.text == "", "nothing is printed, and nothing is red"
    lines = [line.partition(" ") for line in output.shown[-1]["text/plain"].splitlines()]
    assert [rest.strip() for name, _, rest in lines if name == "unavailable"] == [
        "fused decoder: there is none for GPT2LMHeadModel, only for Llama, Mistral, Phi 3, Qwen 2 and 3, and Gemma 1 to 3; the model's own modules run",
        "layers compiled by torch.compile: there are none but for a fused decoder on a CPU",
    ]
    assert notebook.run("%parrot model parrot-tiny").error is None
    assert "unavailable" not in notebook.run("%parrot").result["text/plain"]


def test_a_failure_leaves_a_line_without_a_time_and_an_error(notebook):
    output = notebook.run("%parrot model /nowhere/at/all")
    assert output.error == "ModelLoadError"
    assert output.shown[-1]["text/plain"] == "/nowhere/at/all was not loaded."
    assert notebook.value("P.current_session().default_model") == "'parrot-tiny'"


def test_a_comment_is_not_part_of_the_line(notebook, tmp_path):
    notebook.run("%load_ext parrot_nb")
    shown = notebook.run("%parrot model parrot-tiny --max-context 384  # it's the built-in one").shown
    assert "up to 384 tokens" in shown[-1]["text/plain"]
    assert "up to 384 tokens" in notebook.value("%parrot  # what runs")
    odd = f"{tmp_path}/no#such # folder"
    assert f"'{odd}'" in notebook.run(f"%parrot model '{odd}'").message, "a # in a word or in quotes begins no comment"


def test_numbers_are_read_and_mistakes_in_them_said(notebook):
    assert notebook.run("%parrot model parrot-tiny --engines 2 --step-timeout 90.5").error is None
    assert notebook.value("len(P.current_session().loads())") == "1", "the second is loaded when it is needed"
    assert notebook.value("(s := P.current_session().choice.settings)['engines'], s['step_timeout']") == "(2, 90.5)"
    for option, kind in (("--engines", "a whole number"), ("--step-timeout", "seconds")):
        output = notebook.run(f"%parrot model parrot-tiny {option} many")
        assert f"{option} must be {kind}, not 'many'" in output.text + output.message


def test_values_stay_for_the_next_model_and_switches_do_not(notebook):
    """A switch has no word that turns it off, and whose code is to be run is said for each model."""
    names = ("compile", "trust_remote_code", "max_context")
    settings = f"[P.current_session().choice.settings[name] for name in {names}]"
    assert notebook.run("%parrot model parrot-tiny --trust-remote-code --max-context 256").error is None
    assert notebook.value(settings) == "[False, True, 256]"
    assert notebook.run("P.current_session().choice.settings['compile'] = True\n%parrot model parrot-tiny").error is None
    assert notebook.value(settings) == "[False, False, 256]"


def test_the_report_says_what_the_files_ask_for_and_how_to_take_what_they_recommend(notebook, tmp_path):
    folder = shutil.copytree(default_model(), tmp_path / "model")
    path = folder / "generation_config.json"
    settings = {"do_sample": True, "temperature": 0.6, "top_k": 20, "repetition_penalty": 1.05, "num_beams": 2}
    path.write_text(json.dumps(json.loads(path.read_text()) | settings))
    output = notebook.run(f"%parrot model {folder}")
    assert output.error is None, output.message
    told = output.shown[-1]["text/plain"]
    assert "temperature=0.6, top_k=20, repetition_penalty=1.05 (take it with %parrot model ID --sampling model)" in told
    assert "repetition_penalty=1.05 is what its files ask for" in told
    assert "num_beams=2 is asked for by its files and not done here" in told
    output = notebook.run(f"%parrot model {folder} --sampling model")
    assert "(taken, as --sampling model says)" in output.shown[-1]["text/plain"]
    sampling = "P.current_session().choice.settings['sampling']"
    assert notebook.value(sampling) == "'model'"
    output = notebook.run(f"%parrot model {folder} --sampling beam")
    assert "sampling must be 'greedy' or 'model'" in output.message
    assert notebook.run("%parrot model parrot-tiny").error is None
    assert notebook.value(sampling) == "'greedy'", "recommendations are for the model that they are asked for with"


BEGINNINGS = {
    "process, by the magic": "%parrot model {folder} --trust-remote-code",
    "process": "s = P.current_session()\ns.load_model({folder!r}, trust_remote_code=True)",
    "thread": "s = P.Session(isolate=False)\ns.load_model({folder!r}, trust_remote_code=True)",
}


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_an_interrupt_ends_a_load_wherever_it_runs(notebook, gpt2, tmp_path, begin):
    """Of a folder whose code, which the user trusts, never ends."""
    folder, came = shutil.copytree(gpt2, tmp_path / "endless"), tmp_path / "came"
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(
        json.dumps(config | {"model_type": "unheard_of", "auto_map": {"AutoConfig": "endless.Config"}})
    )
    (folder / "endless.py").write_text(
        "import pathlib, time\nfrom transformers import PreTrainedConfig\nclass Config(PreTrainedConfig):\n"
        f"    def __init__(self, **settings):\n        pathlib.Path({str(came)!r}).touch()\n        while True: time.sleep(0.01)\n"
    )
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    assert notebook.run("@P.semantic_function(max_tokens=2)\ndef say():\n    '''Say {{output:y}}'''").error is None
    sent = notebook.send(BEGINNINGS[begin].format(folder=str(folder)))
    while not came.exists():
        time.sleep(0.02)
    notebook.manager.interrupt_kernel()
    output = notebook.collect(sent)
    assert output.error == "LoadInterrupted", output.message
    assert output.message == f"Interrupted: {folder} was not loaded, and the session goes on."
    session = "s" if begin == "thread" else "P.current_session()"
    output = notebook.run(
        f"{session}.load_model('parrot-tiny', max_context=256)\nwith {session}:\n    text = say().get(timeout=60)\nassert text is not None"
    )
    assert output.error is None, output.message
    alive = "any(t.name.startswith('parrot-load') for t in __import__('threading').enumerate())"
    while notebook.value(alive) == "True":  # the test ends in time, or its limit does it
        time.sleep(0.1)
