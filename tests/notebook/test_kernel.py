"""The face in a real IPython kernel."""

from __future__ import annotations

import time

import pytest
from drawn_pictures import pictures

WRITE = "%%semantic write(x) -> y --max-tokens 6 --ignore-eos\nWrite {{input:x}}: {{output:y}}"
LONG = "%%semantic long(x) -> y --max-tokens 3900 --ignore-eos\nWrite {{input:x}}: {{output:y}}"


@pytest.fixture(autouse=True, scope="module")
def loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P, sys, asyncio").error is None
    for cell in (WRITE, LONG):
        assert notebook.run(cell).error is None


def pages_used(notebook) -> str:
    deadline = time.monotonic() + 20  # a freed context's pages return when the step that runs has ended
    while (shown := notebook.value("[load.owned_pages for load in P.current_session().loads().values()]")) != "[0]":
        assert time.monotonic() < deadline, shown
    return shown


def test_loading_is_light_and_harmless_twice(notebook):
    assert notebook.run("%load_ext parrot_nb\n%reload_ext parrot_nb").error is None
    assert notebook.run(WRITE).error is None
    assert notebook.run(LONG).error is None
    fresh = "import subprocess; subprocess.run([sys.executable, '-c', 'import sys, parrot_nb.notebook; assert \"torch\" not in sys.modules'], check=True).returncode"
    assert notebook.value(fresh) == "0"


def test_define_call_and_get_across_cells(notebook):
    notebook.run('y = write("a poem")')
    output = notebook.run("value = y.get(perf=P.LATENCY); print(type(value).__name__, y.state, y.usage.decoded_tokens)")
    assert output.text.strip() == "str done 6"
    shown = output.shown[-1] if output.shown else notebook.run("%parrot graph").shown[-1]
    assert "write" in shown["text/html"]
    assert "write" in pictures(shown["text/html"])[0]
    assert "write" in shown["text/plain"]


def test_await_works(notebook):
    output = notebook.run('value = await write("b")\nprint(len(value) > 0)')
    assert output.text.strip() == "True"
    output = notebook.run('print(len(await P.gather(write("c"), write("d"))))')
    assert output.text.strip() == "2"
    output = notebook.run('print("".join([piece async for piece in write("e").stream()]) == write("e").get())')
    assert output.text.strip() == "True"


def test_a_variable_as_a_result_fills_in(notebook):
    output = notebook.run('shown = write("shown")\nshown')
    assert output.shown, "it is shown at once"
    assert "shown" not in output.result
    notebook.run("shown.get()")
    assert "done" in notebook.run("shown").shown[-1]["text/html"]


@pytest.mark.parametrize("read", ["long('slow').get()", "await long('slow again')"])
def test_interrupting_a_cell_cancels_it_and_the_next_cell_works(notebook, read, record_property):
    sent = notebook.send(read)
    notebook.collect(sent, until="display")
    time.sleep(0.3)
    began = time.monotonic()
    notebook.manager.interrupt_kernel()
    output = notebook.collect(sent)
    record_property("interrupt_s", time.monotonic() - began)
    print(f"interrupt of {read!r} took {time.monotonic() - began:.2f} s")
    assert output.error in ("CellInterrupted", "KeyboardInterrupt", "CancelledError")
    assert len(output.message.splitlines()) < 40
    assert notebook.value("1 + 1") == "2"
    assert pages_used(notebook) == "[0]"
    assert notebook.value("len(write('after').get()) > 0") == "True"


def test_queued_cells_all_run_and_keep_their_output(notebook):
    sent = [notebook.send(f"print('cell', {i}, len(write('queued {i}').get()) > 0)") for i in range(3)]
    assert [notebook.collect(s).text.strip() for s in sent] == [f"cell {i} True" for i in range(3)]


@pytest.mark.parametrize(
    ("cell", "line", "column", "shown"),
    [
        ("%%semantic f(x -> y\n{{output:y}}", 1, 13, "never closed"),
        ("%%semantic f(x) -> y\nHello {{input:x}}\n and {{output:y, max_tokens=0}}", 3, 18, "at least 1"),
        ("%%semantic f\nHello {{input:x", 2, 7, "never closed"),
        ("%%semantic f --nonsense\n{{output:y}}", 1, 14, "Unknown option"),
    ],
)
def test_a_mistake_points_at_its_place_in_the_cell(notebook, cell, line, column, shown):
    output = notebook.run(cell)
    assert output.error == "TemplateError"
    assert shown in output.message
    assert f"(line {line}, column {column})" in output.message
    assert output.message.splitlines()[-1].index("^") == column + 1
    assert output.message.splitlines()[-2].strip() == cell.splitlines()[line - 1].strip()


@pytest.mark.parametrize(
    ("code", "name", "shown"),
    [
        ("write()", "ArgumentError", "missing"),
        ("write(None)", "InputValueError", "None"),
        ("f'{write(1)}'", "UsageError", "P.join"),
        ("write.options(temperature=-1)", "OptionError", "temperature"),
        ("P.native_function(lambda: {}['gone'])().get()", "NativeFunctionError", "KeyError"),
        ("write('x' * 100_000).get()", "ContextLengthError", "4096"),
        ("e = P.variable('empty'); write(e).get()", "SessionError", "await"),
        ("%parrot model /nowhere/at/all", "ModelLoadError", "no folder"),
    ],
)
def test_errors_are_short_and_the_session_goes_on(notebook, code, name, shown):
    output = notebook.run(code)
    assert (output.error, shown in output.message) == (name, True), output.message
    assert len(output.message.splitlines()) <= 6
    assert notebook.value("len(write('on').get()) > 0") == "True"


def test_a_task_of_the_loop_can_set_what_is_awaited(notebook):
    code = "v = P.variable('late')\nasync def later():\n    await asyncio.sleep(0.1); v.set('now')\nt = asyncio.create_task(later())\nprint(len(await write(v)) > 0)"
    assert notebook.run(code).text.strip() == "True"


def test_the_parrot_line_magic(notebook):
    assert "parrot-tiny" in notebook.value("%parrot")
    assert "write" in notebook.value("%parrot vars")
    assert "%parrot reset" in notebook.value("%parrot help")
    assert "write" in notebook.run("%parrot graph").shown[-1]["text/html"]
    assert "attention over shared pages" in notebook.value("%parrot")
    bench = "%parrot bench single --model default --dtype float32 --device cpu --repeat 1 --shared 20 --out 3"
    assert "tok/s cold" in notebook.value(bench)
    for wrong in ("%parrot nonsense", "%parrot vars extra", "%parrot model --dtype", "%parrot bench nothing"):
        output = notebook.run(wrong)
        assert "UsageError" in (output.error or "") + output.text + output.message
    notebook.run("z = long('z')")
    assert notebook.run("%parrot cancel").error is None
    assert "cancelled" in notebook.value("[z.state, __import__('time').sleep(0.5), z.state][2]")
    assert notebook.run("%parrot reset").error is None
    assert notebook.value("%parrot vars").startswith("0 calls")
    assert pages_used(notebook) == "[0]"


def test_a_reset_leaves_earlier_views_as_they_were(notebook):
    sent = notebook.send("hanging = long('reset')\nimport time; time.sleep(0.2)")
    assert notebook.collect(sent).shown, "the cell shows its graph"
    output = notebook.run("%parrot reset")
    assert "0 calls" not in str(output.shown)
    assert notebook.value("hanging.state") == "'cancelled'"


def test_a_prompt_without_a_name_runs_at_once(notebook):
    output = notebook.run("topic = 'rain'")
    output = notebook.run("%%semantic -> verse --max-tokens 4\nA verse on {{input:topic}}: {{output:verse}}")
    assert output.error is None, output.message
    assert notebook.value("len(verse.get()) > 0") == "True"
    assert "UsageError" in (missing := notebook.run("%%semantic\n{{input:not_there}} {{output:q}}")).text + missing.message


def test_unread_calls_wait_when_not_eager(notebook):
    notebook.run("%config Parrot.eager = False")
    notebook.run("idle = write('idle')")
    assert notebook.value("[__import__('time').sleep(0.3), idle.state][1]") == "'pending'"
    notebook.run("%config Parrot.eager = True")
    assert notebook.value("len(idle.get()) > 0") == "True"


def test_completion_and_help(notebook):
    for code, expected in (("%%semantic f(x) --max", "--max-tokens"), ("%parrot mo", "model")):
        reply = notebook.client.complete(code, reply=True, timeout=30)
        assert expected in reply["content"]["matches"]
    reply = notebook.client.inspect("%%semantic", reply=True, timeout=30)
    shown = str(reply["content"]["data"])
    assert "{{input:NAME}}" in shown
    assert "--temperature" in shown


def test_unloading_takes_everything_out(notebook):
    assert notebook.run("%unload_ext parrot_nb").error is None
    output = notebook.run(WRITE)
    assert "not found" in output.text + output.message
    assert notebook.run("%load_ext parrot_nb").error is None
    assert notebook.run(WRITE).error is None
    assert notebook.value("len(write('again').get()) > 0") == "True"


BEGIN = """
import gc, threading, weakref
seen = []
def left():
    gc.collect()
    return sum(reference() is not None for reference in seen), sum(t.name == "parrot-views" for t in threading.enumerate())
"""
ONE_SESSION = """
with P.Session(max_tokens=4) as session:
    write("in a session").get()
    seen.append(weakref.ref(session))
    get_ipython().run_line_magic("parrot", "vars")
del session
"""


def test_sessions_that_were_closed_leave_no_views_behind(notebook):
    assert notebook.run(BEGIN).error is None
    views = notebook.value("left()[1]")
    for _ in range(5):
        output = notebook.run(ONE_SESSION)
        assert output.error is None, output.message
    deadline = time.monotonic() + 60
    while (found := notebook.value("left()")) != f"(0, {views})":  # in a cell of its own: IPython keeps what one displays
        assert time.monotonic() < deadline, found
