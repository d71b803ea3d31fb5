"""`%parrot store` and `%%parrot plan` in a kernel."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

SETUP = """
%load_ext parrot_nb
import parrot_nb as P
step = P.SemanticFunction("Say {{input:x}}: {{output:y}}", name="step", options=P.language.Options(max_tokens=4))
"""


@pytest.fixture(scope="module", autouse=True)
def folder(notebook):
    """Where the kernel runs, with a function in it."""
    notebook.run(SETUP)
    return Path(notebook.run("import os; print(os.getcwd())").text.strip())


def shown(output) -> str:
    return output.result.get("text/plain", "") + output.text + output.message


def test_a_cell_is_planned_and_not_run(notebook):
    output = notebook.run("%%parrot plan\nresults = step.map(['a', 'b'])\ntext = results[0].get()\nlater = step('c')")
    assert "Plan: 2 calls of prompts; nothing was run" in shown(output)
    assert "line 3 of the cell reads 'y'" in shown(output)
    assert "<table>" in output.result["text/html"]
    assert "NameError" in notebook.run("results").error
    assert "no calls" in shown(notebook.run("%%parrot plan\nx = 1"))
    assert shown(notebook.run("%parrot vars")).startswith("0 calls")


def test_a_measure_is_planned(notebook):
    rows = "[{'x': str(i), 'label': 'a'} for i in range(6)]"
    output = notebook.run(f"%%parrot plan\nresult = P.evaluate(step, {rows}, 'label')")
    assert output.error is None, output.message
    assert "Plan: 6 calls of prompts; nothing was run" in shown(output)


def test_a_store_is_opened_listed_exported_and_cleared(notebook, folder):
    assert "Nothing is stored: %parrot store results.db" in shown(notebook.run("%parrot store"))
    assert "results.db: 0 texts, 0 bytes of 2 MB, kept for 30 days" in shown(
        notebook.run("%parrot store results.db --size 2MB --days=30")
    )
    notebook.run("values = step.map(['a', 'b']).get()")
    listed = shown(notebook.run("%parrot store"))
    assert "2 texts" in listed
    assert "Say b:" in listed
    assert "2 texts were written to out.jsonl" in shown(notebook.run("%parrot store --export out.jsonl --messages"))
    roles = [[m["role"] for m in json.loads(line)["messages"]] for line in (folder / "out.jsonl").read_text().splitlines()]
    assert all(each[-2:] == ["user", "assistant"] for each in roles)
    assert "results.db" in shown(notebook.run("%parrot"))
    assert "2 texts were deleted" in shown(notebook.run("%parrot store --clear"))
    assert "Nothing is stored from now on" in shown(notebook.run("%parrot store --off"))


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("--messages", "one of them at a time"),
        ("a.db --clear", "one of them at a time"),
        ("--size 1GB", "are said with the file"),
        ("a.db --size big", "must be a number of bytes"),
        ("a.db --days 0", "number of days above 0"),
        ("a.db b.db", "takes one file"),
        ("--what", "has no option"),
        ("nowhere/a.db", "There is no folder"),
    ],
)
def test_mistakes_are_said(notebook, line, said):
    assert said in shown(notebook.run(f"%parrot store {line}"))


def test_a_plan_of_a_map_over_a_table_has_all_rows(notebook):
    notebook.run(
        "%load_ext parrot_nb\nimport parrot_nb as P\n@P.semantic_function(max_tokens=2)\ndef per_row(x):\n    '''Say {{input:x}}: {{output:y}}'''"
    )
    output = notebook.run("%%parrot plan\nrows = per_row.map([{'x': str(i)} for i in range(100)])")
    assert output.error is None, output.message
    assert "100 calls" in str(output.result) + output.text + str(output.shown)
