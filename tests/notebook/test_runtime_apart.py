"""A real kernel whose runtime is in a process of its own: what it stays free of, and what it says."""

from __future__ import annotations

import sys

import pytest

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

WRITE = "%%semantic write(x) -> y --max-tokens 6\nWrite {{input:x}}: {{output:y}}"
RSS_MB = "next(int(line.split()[1]) // 1024 for line in open('/proc/self/status') if line.startswith('VmRSS'))"


@pytest.fixture(autouse=True, scope="module")
def loaded(notebook):
    """The process that waits for a session, before and after a function is defined."""
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P, sys\nfrom parrot_nb.session import spare").error is None
    before = notebook.value("spare._spare is None")
    assert notebook.run(WRITE).error is None
    return before, notebook.value("spare._spare.pid")


def test_the_first_call_takes_the_process_that_a_definition_has_started(notebook, loaded):
    before, waiting = loaded
    assert before == "True", "the extension alone costs no process"
    assert (
        notebook.value("write('first').get(timeout=60) != '', P.current_session()._connection.link.pid") == f"(True, {waiting})"
    )
    assert notebook.run(WRITE).error is None
    assert notebook.value("spare._spare is None") == "True"


def test_the_kernel_stays_free_of_torch_and_small(notebook):
    assert (
        notebook.run("values = write.map(range(50)).get(timeout=60)\nshout = P.native_function(str.upper)(write('a'))").error
        is None
    )
    assert notebook.value("shout.get(timeout=60) == write('a').get(timeout=60).upper()") == "True"
    assert notebook.run("%parrot graph\nwrite('b')").error is None
    assert notebook.run("%parrot timeline").error is None
    assert notebook.value("sorted({name.split('.')[0] for name in sys.modules} & {'torch', 'transformers', 'numpy'})") == "[]"
    assert int(notebook.value(RSS_MB)) < 150


def test_it_says_where_the_runtime_is(notebook):
    assert notebook.value("write('a').get(timeout=60) != ''") == "True"
    shown = notebook.run("%parrot").result["text/plain"]
    (line,) = [line for line in shown.splitlines() if line.startswith("runtime")]
    assert line.split(None, 1)[1] == notebook.value("P.current_session().place").strip("'")
    assert "in a process of its own" in line


def test_it_says_what_a_model_that_the_user_holds_costs(open_notebook):
    notebook = open_notebook()
    cell = """
from transformers import AutoModelForCausalLM, AutoTokenizer
import parrot_nb as P
from parrot_nb.tiny import default_model
%load_ext parrot_nb
model, tokenizer = AutoModelForCausalLM.from_pretrained(default_model()), AutoTokenizer.from_pretrained(default_model())
P.current_session().load_model(model, tokenizer=tokenizer)
"""
    output = notebook.run(cell)
    assert output.error is None, output.message
    shown = notebook.run("%parrot").result["text/plain"]
    (line,) = [line for line in shown.splitlines() if line.startswith("runtime")]
    assert line.split(None, 1)[1] == "in a thread of this process, where a busy cell slows it"


def test_a_runtime_that_dies_leaves_the_kernel_alive(notebook):
    cell = """
import os, signal
known = write('known')
text, behind = known.get(timeout=60), write(known).get(timeout=60)
endless = P.SemanticFunction("Go {{input:x}}: {{output:y, max_tokens=400, ignore_eos=True}}", name="endless").options(fresh=True)('a')
P.current_session().flush()
os.kill(P.current_session()._connection.link.pid, signal.SIGKILL)
"""
    assert notebook.run(cell).error is None
    output = notebook.run("endless.get(timeout=60)")
    assert output.error == "EngineLostError", output.message
    assert "SIGKILL" in output.message
    assert notebook.value("known.get() == text and write(known).get(timeout=60) == behind") == "True"


def test_an_interrupted_cell_leaves_its_process_running(notebook):
    assert notebook.run("write('before').get(timeout=60); before = P.current_session().place").error is None
    sent = notebook.send(
        "print('begun', flush=True); P.SemanticFunction('Go {{input:x}}: {{output:y, max_tokens=3000, ignore_eos=True}}', name='go')"
        ".options(fresh=True)('a').get()"
    )
    while notebook.client.get_iopub_msg(timeout=60)["msg_type"] != "stream":
        pass
    notebook.manager.interrupt_kernel()
    assert notebook.collect(sent).error in ("CellInterrupted", "KeyboardInterrupt")  # as far as the cell had come
    assert notebook.value("write('after').get(timeout=60) != '' and P.current_session().place == before") == "True"
