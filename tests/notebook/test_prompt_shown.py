"""A prompt function as a cell's result, and the settings of `%config Parrot` that a session is made with, in a real kernel."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="module", autouse=True)
def loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    assert notebook.run("%%semantic write(x) -> y --max-tokens 9\nWrite <b> of {{input:x}}: {{output:y}}").error is None


def test_a_function_shows_its_prompt(notebook):
    shown = notebook.run("write").result
    assert shown["text/plain"] == "write(x) -> y   max_tokens=9\nWrite <b> of {{input:x}}: {{output:y}}"
    assert "Write &lt;b&gt; of <span" in shown["text/html"]
    assert notebook.run("print(write)").text.startswith("<")


def test_usage_is_a_sentence(notebook):
    usage = notebook.value("v = write('rain')\nv.get()\nv.usage")
    assert "9 decoded" in usage
    assert "queued" in usage
    assert "guessed_tokens" not in usage


def test_the_model_alone(notebook):
    assert "tokens" not in notebook.value("%parrot model").split("KV pages")[0].splitlines()[0]
    assert "calls" not in notebook.value("%parrot model")
    assert "parrot-tiny" in notebook.value("%parrot model")


def test_settings_of_the_next_session(notebook):
    notebook.run("%unload_ext parrot_nb")
    assert notebook.run("write").result["text/plain"].startswith("<"), "as Python shows it"
    notebook.run("%load_ext parrot_nb\n%config Parrot.max_tokens = 3\n%config Parrot.device = 'cpu'")
    notebook.run("%%semantic short(x) -> y --ignore-eos\nWrite of {{input:x}}: {{output:y}}")
    assert notebook.value("w = short('snow')\nw.get()\nw.usage.decoded_tokens") == "3"
