"""Every lesson runs from top to bottom on the model that comes with the package, what it checks is right, and what it shows
is what is stored in it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import lessons
import nbformat
import pytest
from lessons import LESSONS, is_measured
from nbformat import NotebookNode

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


def texts(cell: NotebookNode) -> list[NotebookNode]:
    return cell.outputs


def kinds(cell: NotebookNode) -> list[tuple[str, list[str]]]:
    """What sort of thing each output is."""
    return [(out.output_type, sorted(out.get("data", {})) or [out.get("name", "")]) for out in cell.outputs]
