"""What a cell shows of its calls: a graph where something ran, one line where nothing did, nothing where it is told so."""

from __future__ import annotations

import pytest
from drawn_pictures import pictures

WRITE = "%%semantic write(x) -> y --max-tokens 6 --ignore-eos\nWrite {{input:x}}: {{output:y}}"


@pytest.fixture(autouse=True, scope="module")
def loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P").error is None
    assert notebook.run(WRITE).error is None
    notebook.run("known = write('known')\nknown.get() and None")


def kinds(output) -> list[str]:
    found = ["line" if "parrot-line" in html else "graph" for shown in output.shown if (html := shown.get("text/html", ""))]
    return [kind for i, kind in enumerate(found) if i == 0 or found[i - 1] != kind]


def test_a_graph_where_something_ran(notebook):
    output = notebook.run("write('new').get() and None")
    assert kinds(output)[-1] == "graph"
    assert "write(x)" in output.shown[-1]["text/plain"]


def test_a_line_that_opens_where_all_was_reused(notebook):
    output = notebook.run("a, b = write('known'), write('known')\nb.get() and None")
    assert kinds(output) == ["line"]
    shown = output.shown[-1]
    assert shown["text/plain"].startswith("2 calls · 2 done · 2 reused")
    assert "\n" not in shown["text/plain"]
    assert shown["text/html"].startswith("<details")
    assert pictures(shown["text/html"].partition("</summary>")[2])


def test_a_line_that_more_calls_make_a_graph_and_one_graph_a_cell(notebook):
    output = notebook.run("write('known').get()\nwrite('newer').get() and None")
    assert kinds(output) == ["line", "graph"]
    assert output.shown[-1]["text/plain"].startswith("2 calls · 2 done")


def test_what_waits_is_soon_a_graph_in_which_it_can_be_cancelled(notebook):
    sent = notebook.send("late = P.variable('late')\nwrite(late).get(timeout=60) and None")
    html = "<details"
    while "parrot-graph" not in html or "<details" in html:
        message = notebook.client.get_iopub_msg(timeout=30)
        html = str(message["content"].get("data")) if message["parent_header"].get("msg_id") == sent else ""
    notebook.manager.interrupt_kernel()
    assert notebook.collect(sent).error == "CellInterrupted"


def test_joins_alone_are_nothing_that_runs(notebook):
    output = notebook.run("('text ' + known).get() and None")
    assert kinds(output) in ([], ["line"])


@pytest.mark.parametrize("failing", ["P.native_function(lambda: 1 / 0)().get()", "write('x' * 100_000).get()"])
def test_what_failed_is_shown_as_a_graph(notebook, failing):
    assert kinds(notebook.run(failing))[-1] == "graph"


@pytest.mark.parametrize(
    "cell",
    [
        "write('quiet 1').get();",
        "v = write('quiet 2');  # of no interest",
        "%%parrot show off\nwrite('quiet 3').get()",
        "%%parrot show off\nawait write('quiet 4')",
    ],
)
def test_a_cell_that_is_told_to_show_nothing(notebook, cell):
    output = notebook.run(cell)
    assert output.error is None, output.message
    assert kinds(output) == []


def test_the_line_above_a_cell_changes_nothing_else(notebook):
    output = notebook.run("%%parrot show off\nwrite('quiet 5').get() and 'the result'")
    assert output.result["text/plain"] == "'the result'"
    output = notebook.run("%%parrot show off\n\n1 / 0")
    assert ", line 3" in output.message
    assert notebook.run("%%parrot show off\n%%semantic named(x) -> y --max-tokens 3\n{{input:x}}{{output:y}}").error is None
    assert notebook.value("named.name") == "'named'"
    assert "auto, graph, line, off" in notebook.run("%%parrot show all\n1").text


@pytest.mark.parametrize(("show", "expected"), [("graph", ["graph"]), ("line", ["line"]), ("off", [])])
def test_a_setting_for_all_cells(notebook, show, expected):
    notebook.run(f"%config Parrot.show = '{show}'")
    assert kinds(notebook.run("write('known').get() and None")) == expected
    assert kinds(notebook.run(f"write('new under {show}').get() and None")) == expected
    notebook.run("%config Parrot.show = 'auto'")


def test_a_setting_that_is_none_is_refused(notebook):
    output = notebook.run("%config Parrot.show = 'loud'")
    assert "auto" in output.text + output.message


def test_what_is_asked_for_is_always_shown(notebook):
    assert kinds(notebook.run("%%parrot show off\n%parrot graph")) == ["graph"]
    assert "y (done)" in notebook.run("%%parrot show off\ndisplay(known)").shown[-1]["text/plain"]


def test_a_long_list_shows_its_first_ones_and_counts(notebook):
    output = notebook.run("many = P.gather(*(P.variable(f'v{i}', value='x' * 50) for i in range(500)))\nmany")
    (shown,) = output.shown
    assert shown["text/plain"].startswith("500 variables: ✓ 500 done; the first 30 are shown")
    assert len(shown["text/html"]) < 40_000
    assert "v29" in shown["text/html"]
    assert "v30" not in shown["text/html"]
