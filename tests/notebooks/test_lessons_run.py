"""Every lesson runs from top to bottom on the model that comes with the package, and what it checks is right."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

ROOT = Path(__file__).parents[2]
LESSONS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.slow
@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_runs(path, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "IPYTHONDIR": str(tmp_path),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    done = subprocess.run(
        [
            sys.executable, "-m", "nbconvert", "--to", "notebook", "--execute", "--ExecutePreprocessor.kernel_name=python3",
            "--output-dir", str(tmp_path), str(path),
        ],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    ran = nbformat.read(tmp_path / path.name, 4)
    assert all(cell.execution_count for cell in ran.cells if cell.cell_type == "code")
    failed = [cell.id for cell in ran.cells if any(out.output_type == "error" for out in cell.get("outputs", ()))]
    assert failed == [cell.id for cell in ran.cells if "raises-exception" in cell.metadata.get("tags", ())]
