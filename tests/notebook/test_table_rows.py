"""A map over a table as a cell's result, and in the table of variables, in a real kernel."""

from __future__ import annotations

import re

import pytest

WRITE = "%%semantic write(x) -> y --max-tokens 6 --ignore-eos\nWrite {{input:x}}: {{output:y}}"


@pytest.fixture(scope="module", autouse=True)
def loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P\nimport pandas as pd").error is None
    assert notebook.run(WRITE).error is None


def test_rows_fill_in_where_they_are_shown(notebook):
    output = notebook.run(
        "rows = write.map(pd.DataFrame({'x': ['<b>a</b>', None, *'cdefghijklm']}))\ndisplay(rows)\nrows.get() and None"
    )
    assert output.error is None, output.message
    bundle = next(shown for shown in reversed(output.shown) if "write: 13 rows" in shown.get("text/plain", ""))
    plain, html = bundle["text/plain"], bundle["text/html"]
    assert "✓ 12 done, ✕ 1 failed; the first 10 are shown, to_frame() has all" in plain
    assert re.search(r"^1 .*argument 'x' of write\(\).* failed$", plain, re.MULTILINE)
    assert plain.count(" done\n") == 9
    assert "&lt;b&gt;a&lt;/b&gt;" in html
    assert "<b>a</b>" not in html


def test_rows_that_nobody_reads_go_on_after_their_cell(notebook):
    notebook.run("later = write.map([{'x': f'later {n}'} for n in range(60)])")
    notebook.run("import time\nwhile not later.done(): time.sleep(0.01)")
    assert notebook.value("repr(later)") == "'<60 rows of write: 60 done>'"


def test_an_interrupt_of_a_cell_that_waits_ends_the_map(notebook):
    notebook.run("import threading\nstarted, go = threading.Event(), threading.Event()")
    notebook.run(
        "slow = P.native_function(lambda n: (started.set(), go.wait(20)), name='slow')\nrows = slow.map([{'n': n} for n in range(200)])"
    )
    sent = notebook.send("rows.get()")
    assert notebook.collect(sent, until="display").shown, "the graph, when it begins to wait"
    notebook.manager.interrupt_kernel()
    output = notebook.collect(sent)
    assert output.error is not None
    notebook.run("go.set()\nwhile not rows.done(): pass")
    assert notebook.value("rows.counts['cancelled'] > 100") == "True"
    assert notebook.value("write('after').get() != ''") == "True"


def test_scores_are_tables_of_words(notebook):
    notebook.run(
        "same = P.native_function(lambda flag: flag == '<b>yes</b>', name='same')\n"
        "frame = pd.DataFrame({'flag': ['<b>yes</b>', 'no'], 'label': [True, True]})"
    )
    output = notebook.run("P.evaluate(same, frame, 'label')")
    shown = last_table(output)
    assert shown["text/plain"].startswith("same, exact: 0.500 [0.013, 0.987] (95%, exact) on 2 rows\nexpected \\ value")
    assert "<td" in shown["text/html"]
    assert "data-parrot-view" not in shown["text/html"]
    output = notebook.run("P.compare({'<i>one</i>': same, 'two': same}, frame, 'label')")
    shown = last_table(output)
    assert "2 functions on 2 rows" in shown["text/plain"]
    assert "&lt;i&gt;one&lt;/i&gt;" in shown["text/html"]
    assert "<i>one" not in shown["text/html"]


def last_table(output):
    return next(shown for shown in reversed(output.shown) if "parrot-table" in shown.get("text/html", ""))
