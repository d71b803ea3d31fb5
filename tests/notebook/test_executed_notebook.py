"""Executing a notebook with nbconvert leaves its graph in the HTML, and a mistake fails it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

ROOT = Path(__file__).parents[2]
LOAD = "%load_ext parrot_nb"
DEFINE = "%%semantic write(x) -> y --max-tokens 5\nWrite {{input:x}}: {{output:y, ignore_eos=True}}"


def execute(folder: Path, *cells: str) -> subprocess.CompletedProcess[str]:
    path = folder / "story.ipynb"
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells]), path)
    command = [
        sys.executable,
        "-m",
        "nbconvert",
        "--to",
        "html",
        "--execute",
        "--ExecutePreprocessor.kernel_name=python3",
        str(path),
    ]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "IPYTHONDIR": str(folder),
        "JUPYTER_PREFER_ENV_PATH": "1",
    }
    return subprocess.run(
        command, env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=200, check=False
    )


def test_the_graph_is_in_the_html_twice_the_same(tmp_path):
    pages = []
    for name in ("a", "b"):
        (folder := tmp_path / name).mkdir()
        done = execute(folder, LOAD, DEFINE, 'shown = write("left running")\nshown', 'write.map(["a", "b"]).get()')
        assert done.returncode == 0, done.stderr
        pages.append((folder / "story.html").read_text(encoding="utf-8"))
    graphs = [re.findall(r'<div class="parrot-(?:graph|variable).*?</div>', page, re.DOTALL) for page in pages]
    assert len(graphs[0]) == 3, "a variable, and a graph for each of the two cells with calls"
    assert all("write" in graph or "shown" in graph or "<b" in graph for graph in graphs[0])
    assert "2 calls · 2 done · 10 tokens" in pages[0]
    assert graphs[0][-1] == graphs[1][-1], "nothing in a still picture differs from run to run"


def test_what_happens_after_a_cell_has_ended_is_in_its_picture(tmp_path):
    cells = [
        LOAD + "\nimport time",
        DEFINE,
        'early = write("left running")',
        "%parrot graph",
        "early.get()\ntime.sleep(0.4)  # meanwhile the pictures above are brought up to date",
    ]
    done = execute(tmp_path, *cells)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "story.html").read_text(encoding="utf-8")
    assert re.findall(r'alt="(\d calls?[^".]*)\.', page) == ["1 call · 1 done · 5 tokens"] * 3


def test_what_a_cell_calls_after_all_has_settled_is_in_its_picture(tmp_path):
    done = execute(tmp_path, LOAD + "\nimport time", DEFINE, 'write("one").get()\ntime.sleep(0.4)\nwrite("two").get()')
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "story.html").read_text(encoding="utf-8")
    assert re.findall(r'alt="(\d calls?[^".]*)\.', page) == ["2 calls · 2 done · 10 tokens"]


def test_a_mistake_fails_the_execution(tmp_path):
    done = execute(tmp_path, LOAD, "%%semantic f(x) -> y\n{{input:x")
    assert done.returncode != 0
    assert "never closed" in done.stderr
