"""Every lesson runs from top to bottom on the model that comes with the package, what it checks is right, and what it shows
is what is stored in it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import lessons
import nbformat
import pytest
from lessons import LESSONS, is_measured
from nbformat import NotebookNode

import parrot_nb as P

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_shows_again_what_is_stored_in_it(path, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "IPYTHONDIR": str(tmp_path),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    done = subprocess.run(
        [sys.executable, lessons.__file__, "--into", str(tmp_path), str(path)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ran, stored = nbformat.read(tmp_path / path.name, 4), nbformat.read(path, 4)
    assert all(cell.execution_count for cell in ran.cells if cell.cell_type == "code")
    failed = [cell.id for cell in ran.cells if any(out.output_type == "error" for out in cell.get("outputs", ()))]
    assert failed == [cell.id for cell in ran.cells if "raises-exception" in cell.metadata.get("tags", ())]

    assert [cell.source for cell in ran.cells] == [cell.source for cell in stored.cells]
    for now, then in zip(ran.cells, stored.cells, strict=True):
        if now.cell_type == "code":
            compared = kinds if is_measured(now) else texts
            assert compared(now) == compared(then), f"cell {now.id}: if the change is meant, `make lessons` stores it"


def test_the_solution_of_an_exercise_passes_its_check():
    cells = {cell.id: cell.source for cell in nbformat.read(lessons.FOLDER / "08_values_you_can_compute_with.ipynb", 4).cells}
    names: dict[str, Any] = {}
    exec(f"import enum\n{cells['exercise-data']}\n{cells['exercise-check'].partition('print(')[0]}", names)
    found = re.search(r"```\n%%semantic mood[^\n]*\n(.*?)\n```", cells["solution"], re.DOTALL)
    assert found is not None
    with P.Session():
        typed = P.SemanticFunction(found[1], namespace=names)
        assert names["check_exercise"](typed).startswith("Right.")
        with pytest.raises(AssertionError, match="no type yet"):
            names["check_exercise"](P.SemanticFunction(found[1].replace(": Mood", "")))


def test_the_solution_of_the_exercise_on_a_table_passes_its_check():
    cells = {cell.id: cell.source for cell in nbformat.read(lessons.FOLDER / "09_a_prompt_over_a_table.ipynb", 4).cells}
    found = re.search(r"```\n(question.*?)\n```", cells["solution"], re.DOTALL)
    assert found is not None
    names: dict[str, Any] = {"P": P}
    with P.Session():
        check = cells["exercise-check"].partition("print(")[0]
        exec(f"import pandas as pd\n{cells['exercise-data']}\n{check}\n{found[1]}", names)
        assert names["check_exercise"](names["better"]).startswith("Right.")
        with pytest.raises(AssertionError, match="not yet"):
            names["check_exercise"](names["feeling"])


def texts(cell: NotebookNode) -> list[NotebookNode]:
    return cell.outputs


def kinds(cell: NotebookNode) -> list[tuple[str, list[str]]]:
    """What sort of thing each output is."""
    return [(out.output_type, sorted(out.get("data", {})) or [out.get("name", "")]) for out in cell.outputs]
