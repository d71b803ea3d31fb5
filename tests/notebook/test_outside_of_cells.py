"""Calls and displays that belong to no cell of their own, or to several: callbacks of widgets, captured outputs, cells in cells, subshells."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

WRITE = "%%semantic write(x) -> y --max-tokens 6 --ignore-eos\nWrite {{input:x}}: {{output:y}}"
LATER = "%%semantic later(x) -> y --max-tokens 300 --ignore-eos\nWrite {{input:x}}: {{output:y}}"
WAIT_S = 30


@pytest.fixture(autouse=True, scope="module")
def loaded(notebook):
    code = "%load_ext parrot_nb\nimport asyncio, threading, time, ipywidgets as W, parrot_nb as P\nfrom IPython.display import display"
    assert notebook.run(code).error is None
    for cell in (WRITE, LATER):
        assert notebook.run(cell).error is None
    notebook.run("write('warm').get() and None")


def comes_true(notebook, expression: str, folder: Path) -> Callable[[], bool]:
    """Has a thread of the kernel watch for something; what is returned waits for it, and no cell runs meanwhile."""
    seen = folder / "seen"
    code = f"def watch():\n    while not ({expression}):\n        time.sleep(0.05)\n    open({str(seen)!r}, 'w').close()"
    assert notebook.run(f"{code}\nthreading.Thread(target=watch, daemon=True).start()").error is None

    def came() -> bool:
        deadline = time.monotonic() + WAIT_S
        while not seen.exists():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.05)
        return True

    return came


def told_by(notebook, message: dict[str, Any]) -> list[dict[str, Any]]:
    """The displays of the request that `message` is."""
    notebook.client.shell_channel.send(message)
    found = []
    while True:
        try:
            said = notebook.client.get_iopub_msg(timeout=WAIT_S)
        except queue.Empty:
            raise AssertionError(f"the request did not end: {found}") from None
        if said["parent_header"].get("msg_id") == message["header"]["msg_id"]:
            if said["msg_type"] == "display_data":
                found.append(said["content"])
            elif said["content"].get("execution_state") == "idle":
                return found


def click(notebook, button: str) -> list[dict[str, Any]]:
    comm = notebook.value(f"{button}.comm.comm_id").strip("'")
    data = {"method": "custom", "content": {"event": "click"}}
    return told_by(notebook, notebook.client.session.msg("comm_msg", {"comm_id": comm, "data": data}))


def graphs(output) -> list[str]:
    return [text for shown in output.shown if " call" in (text := shown["text/plain"]).splitlines()[0]]


def test_what_a_button_calls_runs_and_what_it_shows_says_how_to_go_on(notebook, tmp_path):
    notebook.run(
        "v = None\ndef clicked(_):\n    global v\n    v = write('a click')\n    display(v)\nbutton = W.Button()\nbutton.on_click(clicked)"
    )
    came = comes_true(notebook, "v is not None and v.done()", tmp_path)
    (shown,) = click(notebook, "button")
    assert "y (pending)" in shown["data"]["text/plain"]
    assert "not updated" in shown["data"]["text/plain"]
    assert "get()" in shown["data"]["text/html"]
    assert "display_id" not in shown.get("transient", {}), "nothing would ever update it"
    assert came()


def test_a_final_value_is_final_wherever_it_is_shown(notebook):
    notebook.run("there = write('there')\nthere.get() and None\nshows = W.Button()\nshows.on_click(lambda _: display(there))")
    (shown,) = click(notebook, "shows")
    assert "y (done)" in shown["data"]["text/plain"]
    assert "not updated" not in shown["data"]["text/plain"]


def test_a_task_a_thread_and_a_timer_outside_of_cells_are_served(notebook, tmp_path):
    notebook.run("found = {}")
    came = comes_true(notebook, "len(found) == 3 and all(v.done() for v in found.values())", tmp_path)
    code = (
        "def call(who):\n    found[who] = write(who)\n"
        "async def task():\n    await asyncio.sleep(0.2)\n    call('task')\n"
        "kept = asyncio.get_running_loop().create_task(task())\n"
        "asyncio.get_running_loop().call_later(0.2, call, 'loop')\n"
        "threading.Timer(0.2, call, ['thread']).start()"
    )
    assert notebook.run(code).error is None
    assert came()


def load_in_silence(notebook) -> None:
    notebook.collect(notebook.client.execute("%load_ext parrot_nb", silent=True))


def load_in_callback(notebook) -> None:
    load = "asyncio.get_running_loop().call_later(0.05, get_ipython().extension_manager.load_extension, 'parrot_nb')"
    notebook.run(load)
    while notebook.value("'parrot_nb' in get_ipython().extension_manager.loaded") != "True":
        time.sleep(0.05)


@pytest.mark.parametrize("load", [load_in_silence, load_in_callback])
def test_loaded_outside_of_a_cell_it_serves_what_is_called_outside_of_cells(notebook, tmp_path, load):
    assert notebook.run("%unload_ext parrot_nb").error is None
    load(notebook)
    notebook.run("outside = None\ndef call():\n    global outside\n    outside = write('outside of cells')")
    came = comes_true(notebook, "outside is not None and outside.done()", tmp_path)
    assert notebook.run("asyncio.get_running_loop().call_later(0.2, call) and None").error is None
    assert came()


def test_in_an_output_widget_it_says_how_to_go_on_and_the_graph_is_the_cells(notebook):
    output = notebook.run("out = W.Output()\nwith out:\n    inside = later('inside')\n    display(inside)\n    inside.get()")
    assert "not updated" in output.shown[0]["text/plain"]
    assert not any("y (" in text for text in graphs(output))
    assert "1 done" in graphs(output)[-1]


def test_interact_shows_each_value(notebook):
    output = notebook.run("@W.interact(n=(0, 5))\ndef shows(n=1):\n    display(write(f'number {n}'))")
    assert "not updated" in output.shown[0]["text/plain"]


def test_what_was_captured_shows_what_became_of_it(notebook):
    output = notebook.run("%%capture cap\nc = later('captured')\ndisplay(c)")
    assert not output.displayed
    notebook.run("c.get() and None")
    assert "y (done)" in notebook.run("cap.show()").shown[0]["text/plain"]
    assert notebook.value("len(cap.outputs)") == "2", "the variable and the graph, once each"


def test_what_was_captured_and_shown_early_fills_in(notebook):
    notebook.run("%%capture cap\nc = later.options(fresh=True)('captured')\ndisplay(c)")
    sent = notebook.send("cap.show()\nc.get() and None")
    output = notebook.collect(sent)
    assert any("y (done)" in shown["text/plain"] for shown in output.shown)


def test_a_capture_takes_nothing_of_other_cells(notebook):
    notebook.run("running = later.options(fresh=True)('running')\ndisplay(running)")
    assert notebook.run("%%capture cap\nrunning.get() and None\ntime.sleep(0.3)").error is None
    shown = notebook.value("[output.data['text/plain'] for output in cap.outputs]")
    assert "y (" not in shown


@pytest.mark.parametrize("inner", ["'k = write(\"inner\")'", "''", "'1'", "'k = write(\"in\").get()', store_history=True"])
def test_a_cell_that_runs_another_shows_its_own_graph(notebook, inner):
    output = notebook.run(f"before = write('before')\nget_ipython().run_cell({inner})\nafter = write('after')\nnot after.get()")
    assert output.error is None, output.message
    assert "2 calls" in graphs(output)[-1]
    assert notebook.value("before.get() != ''") == "True"


@pytest.fixture
def subshell(notebook):
    client = notebook.client
    request = client.session.msg("create_subshell_request")
    client.control_channel.send(request)
    return client.get_control_msg(timeout=WAIT_S)["content"]["subshell_id"]


def in_subshell(notebook, subshell: str, code: str) -> str:
    content = {"code": code, "silent": False, "store_history": True, "user_expressions": {}, "allow_stdin": True}
    message = notebook.client.session.msg("execute_request", content)
    message["header"]["subshell_id"] = subshell
    notebook.client.shell_channel.send(message)
    return message["header"]["msg_id"]


def test_a_subshells_cell_shows_its_graph(notebook, subshell):
    output = notebook.collect(in_subshell(notebook, subshell, "s = write('a subshell')\ns.get() and None"))
    assert output.error is None, output.message
    assert "1 done" in graphs(output)[-1]


def test_a_cell_beside_a_subshells_keeps_its_own(notebook, subshell):
    main = notebook.send("m = write('main')\ngo = threading.Event()\ngo.wait(30)\nn = write('main again')\nn.get() and None")
    beside = in_subshell(
        notebook, subshell, "while 'go' not in globals(): time.sleep(0.05)\ns = write('beside')\ns.get()\ngo.set()"
    )
    found: dict[str, list[str]] = {main: [], beside: []}
    left = set(found)
    while left:
        said = notebook.client.get_iopub_msg(timeout=WAIT_S)
        parent = said["parent_header"].get("msg_id")
        if parent in found and said["msg_type"] in ("display_data", "update_display_data"):
            found[parent].append(said["content"]["data"]["text/plain"])
        elif parent in found and said["content"].get("execution_state") == "idle":
            left.discard(parent)
    assert "1 call" in found[beside][-1]
    assert "2 calls" in found[main][-1]
