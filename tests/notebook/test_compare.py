"""`%%parrot compare` in a real kernel."""

from __future__ import annotations

import re

import pytest

SHARED = "You are a careful assistant who answers in one short sentence and never in two, whatever the question may be. "
WRITE = f"%%semantic write(x) -> y --max-tokens 12 --ignore-eos\n{SHARED}Write of {{{{input:x}}}}: {{{{output:y}}}}"


@pytest.fixture(scope="module", autouse=True)
def loaded(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P\ncounter = 0\nkept = 'as it was'").error is None
    assert notebook.run(WRITE).error is None
    notebook.run("own = write('own')\nown.get()")


def rows(text: str) -> dict[str, list[str]]:
    found = {}
    for line in text.splitlines():
        if match := re.match(r"(as it is|without [\w, ]+?)\s{2,}(.*)", line):
            found[match[1]] = re.split(r"\s{2,}", match[2])
    return found


def test_it_runs_under_every_setting_and_keeps_the_first_runs_variables(notebook):
    before = notebook.value("len(P.current_session().calls())")
    cell = (
        "%%parrot compare --off sharing,dedup --off memo\n"
        "counter += 1\nprint('ran', counter)\nkept = f'run {counter}'\n"
        "xs = write.map(['a', 'b', 'c', 'd', 'e', 'f'])\nagain = write('a')\nxs.get(); again.get()"
    )
    output = notebook.run(cell)
    assert output.error is None, output.message
    assert output.text.strip() == "ran 1", "what later runs print is not shown"
    found = rows(output.result["text/plain"])
    assert list(found) == ["as it is", "without sharing, dedup", "without memo"]
    prefilled = {name: int(row[3].replace(",", "")) for name, row in found.items()}
    reused = {name: int(row[4].replace(",", "")) for name, row in found.items()}
    decoded = {name: int(row[5]) for name, row in found.items()}
    assert prefilled["without sharing, dedup"] > 2 * prefilled["as it is"]
    assert reused["as it is"] > 100 > reused["without sharing, dedup"]
    assert decoded["without memo"] == decoded["as it is"] + 12
    assert "3 times each" in output.result["text/plain"]
    assert all(re.fullmatch(r"[\d.]+×|no difference", row[2]) for row in found.values())
    assert "other text" not in output.result["text/plain"], "what is left out changes no text"
    html = output.result["text/html"]
    assert html.count("parrot-timeline") == 3
    assert "<script" not in html
    assert notebook.value("counter, kept") == "(1, 'run 1')"
    assert notebook.value("len(xs), len(xs.get()[0]) > 0") == "(6, True)"
    assert notebook.value("len(P.current_session().calls())") == before, "the user's session is as it was"
    assert notebook.value("len(write('after').get()) > 0") == "True"


def test_calls_that_nobody_reads_run_too(notebook):
    output = notebook.run("%%parrot compare --off memo\nunread = write('unread')")
    assert output.error is None, output.message
    assert "12" in rows(output.result["text/plain"])["as it is"]
    assert notebook.value("unread.state") == "'done'"


def test_an_error_in_the_cell_is_the_cells_and_the_session_goes_on(notebook):
    output = notebook.run("%%parrot compare --off memo\nwrite('x').get()\n1 / 0")
    assert output.error == "ZeroDivisionError"
    assert notebook.value("len(write('still').get()) > 0") == "True"


def test_its_help_names_every_word(notebook):
    help_text = notebook.value("get_ipython().magics_manager.magics['cell']['parrot'].__doc__")
    assert "%%parrot compare" in help_text
    assert "%%parrot show" in help_text


@pytest.mark.parametrize(
    ("cell", "told"),
    [
        ("%%parrot compare\nwrite('x')", "something to compare with"),
        ("%%parrot compare --off\nwrite('x')", "memo, dead_work, prefill_ahead, streaming, sharing, dedup"),
        (
            "%%parrot compare --off dag\nwrite('x')",
            "There is no 'dag' to turn off: choose from memo, dead_work, prefill_ahead, streaming, sharing",
        ),
        ("%%parrot compare --on memo\nwrite('x')", "no option '--on'"),
        ("%%parrot compare --off memo\n1 + 1", "makes no calls"),
        ("%%parrot compare --off memo\nawait write('x')", "in place of await"),
        ("%%parrot nonsense\n1", "%%parrot compare or %%parrot plan or %%parrot show"),
        ("%%parrot\n1", "compare"),
    ],
)
def test_what_cannot_be_compared_is_said(notebook, cell, told):
    output = notebook.run(cell)
    assert told in output.text + output.message
    assert "Traceback" not in output.message
