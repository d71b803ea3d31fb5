"""Beside other extensions of IPython: handlers of errors that others set, and functions of modules that `%autoreload` loads again."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HANDLERS = """
import parrot_nb as P
class Theirs(Exception): pass
def handler(shell, kind, error, trace, tb_offset=None):
    print("theirs:", kind.__name__)
    return ["theirs"]
ip = get_ipython()
"""
PROMPTS = """
import parrot_nb as P

@P.semantic_function(max_tokens=3)
def say(x):
    '''{greeting} {{{{input:x}}}}: {{{{output:y}}}}'''

@P.native_function
def mark(x):
    return x + "{greeting}"

made = P.SemanticFunction("{greeting} again {{{{input:x}}}}: {{{{output:y, max_tokens=3}}}}", name="made")
"""


@pytest.fixture(scope="module")
def kernel(open_notebook):
    opened = open_notebook()
    assert opened.run(HANDLERS).error is None
    return opened


def test_a_handler_set_before_goes_on_and_is_put_back(kernel):
    kernel.run("ip.set_custom_exc((Theirs,), handler)\nbefore = ip.custom_exceptions, ip.CustomTB")
    kernel.run("%load_ext parrot_nb")
    output = kernel.run("raise Theirs('x')")
    assert output.text == "theirs: Theirs\n"
    output = kernel.run("raise P.UsageError('ours')")
    assert output.error == "UsageError"
    assert output.message == "UsageError: ours"
    kernel.run("%unload_ext parrot_nb")
    assert kernel.value("(ip.custom_exceptions, ip.CustomTB) == before") == "True"
    assert kernel.run("raise Theirs('x')").text == "theirs: Theirs\n"
    assert "Traceback" in kernel.run("raise P.UsageError('ours')").message


def test_a_handler_set_after_stays(kernel):
    kernel.run("%load_ext parrot_nb")
    kernel.run("ip.set_custom_exc((Theirs,), handler)")
    kernel.run("%unload_ext parrot_nb")
    assert kernel.run("raise Theirs('x')").text == "theirs: Theirs\n"


def test_without_a_handler_there_is_none_afterwards(kernel):
    kernel.run("ip.custom_exceptions = ()\n%load_ext parrot_nb")
    kernel.run("%unload_ext parrot_nb")
    assert kernel.value("ip.custom_exceptions") == "()"
    assert "ZeroDivisionError" in kernel.run("1 / 0").message


def write_prompts(folder: Path, greeting: str, seconds: int) -> None:
    path = folder / "reloaded_prompts.py"
    path.write_text(PROMPTS.format(greeting=greeting))
    os.utime(path, (seconds, seconds))  # autoreload looks at whole files by their time


@pytest.mark.parametrize(("begun", "mode"), [(1_000_000, "2"), (2_000_000, "2 --full"), (3_000_000, "3")])
def test_autoreload_updates_functions_in_place(kernel, tmp_path, begun, mode):
    write_prompts(tmp_path, "Hello", begun)
    kernel.run(f"import sys\nsys.path.insert(0, {str(tmp_path)!r})\nsys.modules.pop('reloaded_prompts', None)")
    kernel.run(f"%load_ext parrot_nb\n%load_ext autoreload\n%autoreload {mode}")
    assert (
        kernel.run("from reloaded_prompts import say, mark, made\nown = say\nmade_before = say(P.variable('late'))").error is None
    )
    for i, greeting in enumerate(("Hallo", "Bonjour"), 1):
        write_prompts(tmp_path, greeting, begun + i)
        found = kernel.value(
            "own is say, say.template.source[:8], made.template.source[:8], mark.function('x'), say.settings.max_tokens"
        )
        start = f"{greeting} {{{{in"[:8]
        assert found == f"(True, {start!r}, {f'{greeting} again'[:8]!r}, 'x{greeting}', 3)"
    assert kernel.value("import reloaded_prompts; reloaded_prompts.say.template == say.template") == "True"
    assert kernel.value("made_before.producer.semantic.template.source[:5]") == "'Hello'", "a call keeps what it was made with"
    assert kernel.value("import pickle; pickle.loads(pickle.dumps(reloaded_prompts.say)).template.source[:7]") == "'Bonjour'"
    kernel.run("made_before.cancel()\n%autoreload 0")
