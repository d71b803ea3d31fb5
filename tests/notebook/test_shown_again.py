"""A cell of the page that runs again: the widget of its graph goes, though the page never said that it was cleared."""

from __future__ import annotations

import time

import pytest

COMMS = "len(get_ipython().kernel.comm_manager.comms)"
OF_ONE = 2  # a graph's model, and that of its layout
MODULE = 2  # the module's


@pytest.fixture
def page(notebook):
    code = "%load_ext parrot_nb\nimport parrot_nb as P\n@P.semantic_function(max_tokens=2)\ndef say(x):\n    '''Say {{input:x}}: {{output:y}}'''"
    assert notebook.run(code).error is None
    run_in(notebook, "zero", "%parrot reset")
    return notebook


def run_in(notebook, cell, code):
    """As JupyterLab and Notebook 7 send a cell."""
    content = {
        "code": code,
        "silent": False,
        "store_history": True,
        "user_expressions": {},
        "allow_stdin": True,
        "stop_on_error": True,
    }
    message = notebook.client.session.msg("execute_request", content, metadata={"cellId": cell})
    notebook.client.shell_channel.send(message)
    output = notebook.collect(message["header"]["msg_id"])
    assert output.error is None, output.message
    return output


def comms(notebook, expected):
    deadline = time.monotonic() + 60
    while (found := int(notebook.value(COMMS))) != expected:
        assert time.monotonic() < deadline, f"{found} comms, not {expected}"
        time.sleep(0.05)


def test_the_widget_of_the_run_before_goes(page):
    before = int(page.value(COMMS))
    for i in range(4):
        run_in(page, "one", f"say('{time.monotonic()} {i}').get() and None")
    comms(page, before + MODULE + OF_ONE)
    run_in(page, "two", f"say('{time.monotonic()}').get() and None")
    comms(page, before + MODULE + 2 * OF_ONE)
    run_in(page, "one", "1")
    comms(page, before + MODULE + OF_ONE)
    run_in(page, "two", "1")
    comms(page, before + MODULE)


def test_a_cell_that_runs_another_keeps_its_graph(page):
    run_in(page, "one", f"say('{time.monotonic()}').get() and None\nget_ipython().run_cell('2')")
    run_in(page, "two", "1")
    found = page.value(
        "[type(w).__name__ for w in __import__('ipywidgets').widgets.widget._instances.values()].count('DrawnWidget')"
    )
    assert found == "1"
    run_in(page, "one", "1")


def test_the_module_is_sent_once_and_again_after_it_was_closed(page):
    assert run_in(page, "one", "import ipywidgets; ipywidgets.Widget.close_all()").error is None
    run_in(page, "two", f"say('{time.monotonic()}').get() and None")
    sizes = "sorted(len(str(w.get_state())) > 50_000 for w in ipywidgets.widgets.widget._instances.values())"
    assert page.value(sizes) == "[False, False, False, True]"
    run_in(page, "three", f"say('{time.monotonic()}').get() and None")
    assert page.value(sizes) == "[False, False, False, False, False, True]"
