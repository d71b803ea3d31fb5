"""The pretrained model in lesson 07 finds what the lesson says that it finds."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
LESSON = ROOT / "notebooks" / "07_your_own_model.ipynb"
RUN = """
import sys
from IPython.core.interactiveshell import InteractiveShell

shell = InteractiveShell.instance()
for source in sys.stdin.read().split("\\0"):
    shell.run_cell(source).raise_error()
"""


def shown(model: Path, tmp_path: Path) -> str:
    """What the cells on the pretrained model print."""
    cells = {cell.id: cell.source for cell in nbformat.read(LESSON, 4).cells}
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "IPYTHONDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, "-c", RUN],
        input="\0".join(cells[cell_id] for cell_id in ("load", "read-message", "pretrained")),
        env={**environment, "PARROT_SMOLLM2": str(model)}, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


@pytest.mark.slow
def test_it_finds_names_and_numbers_in_messages(smollm2_folder, tmp_path):
    lines = shown(smollm2_folder, tmp_path).splitlines()
    assert any(line.startswith("Maria Lopez | 48213 | ") for line in lines)
    found = re.fullmatch(r"(\d+) of 16 names and numbers right; .*", lines[-1])
    assert found is not None
    assert int(found[1]) >= 15


def test_where_the_model_is_missing_one_line_says_how_to_get_it(tmp_path):
    (line,) = shown(tmp_path / "nowhere", tmp_path).splitlines()
    assert "make pretrained" in line
    assert "PARROT_SMOLLM2" in line
