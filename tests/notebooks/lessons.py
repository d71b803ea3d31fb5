"""The lessons with what they show: executed, cleaned, and stored where they are (`make lessons`) or in another folder.

What is stored is what a reader without a kernel sees: text, still pictures and numbers. Cells that are tagged `measured`
show what depends on the machine or the moment; all others show the same in every run, and a test compares.
"""

from __future__ import annotations

import argparse
import math
import shutil
import tempfile
from pathlib import Path

import nbformat
from nbconvert.preprocessors import ExecutePreprocessor
from nbformat import NotebookNode

FOLDER = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(FOLDER.glob("*.ipynb"))

CELL_LIMIT_S = 120
WORDS_A_MINUTE, LINES_A_MINUTE = 150, 20  # of somebody who reads to learn
KERNELSPEC = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}
WIDGET_VIEW = "application/vnd.jupyter.widget-view+json"  # of no use without its kernel
LANGUAGE = {"name": "python", "pygments_lexer": "ipython3"}  # no version: it is the machine's


def executed(path: Path) -> NotebookNode:
    """A lesson after all its cells have run, cleaned; raises at an error that the cell is not tagged for."""
    notebook = nbformat.read(path, 4)
    execute = ExecutePreprocessor(
        kernel_name="python3", timeout=CELL_LIMIT_S, store_widget_state=False, record_timing=False, coalesce_streams=True
    )
    with tempfile.TemporaryDirectory() as scratch:  # what a lesson writes goes there
        beside = shutil.copytree(path.parent, Path(scratch) / "notebooks", ignore=shutil.ignore_patterns("*.ipynb", "build"))
        execute.preprocess(notebook, {"metadata": {"path": str(beside)}})
    return cleaned(notebook)


def cleaned(notebook: NotebookNode) -> NotebookNode:
    """The notebook without what is the machine's, the moment's or a live widget's."""
    kept = NotebookNode(notebook)
    kept.metadata = nbformat.from_dict({"kernelspec": KERNELSPEC, "language_info": LANGUAGE})
    kept.cells = [clean_cell(cell) for cell in notebook.cells]
    return kept


def clean_cell(cell: NotebookNode) -> NotebookNode:
    kept = NotebookNode(cell)
    kept.metadata = NotebookNode({"tags": cell.metadata.tags} if cell.metadata.get("tags") else {})
    if cell.cell_type == "code":
        kept.outputs = [clean_output(output) for output in cell.outputs]
    return kept


def clean_output(output: NotebookNode) -> NotebookNode:
    kept = NotebookNode(output)
    if "data" in output:
        kept.data = NotebookNode({kind: data for kind, data in output.data.items() if kind != WIDGET_VIEW})
        kept.metadata = NotebookNode()
    return kept


def is_measured(cell: NotebookNode) -> bool:
    """Whether what the cell shows may differ from run to run."""
    return "measured" in cell.metadata.get("tags", ())


def minutes_to_read(notebook: NotebookNode) -> int:
    """Return how long a lesson takes to read, from its words and its lines of code, in steps of five minutes."""
    words = sum(len(cell.source.split()) for cell in notebook.cells if cell.cell_type == "markdown")
    lines = sum(bool(line.strip()) for cell in notebook.cells if cell.cell_type == "code" for line in cell.source.splitlines())
    return 5 * math.ceil((words / WORDS_A_MINUTE + lines / LINES_A_MINUTE) / 5)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--into", type=Path, help="another folder than that of the lessons")
    parser.add_argument("lessons", nargs="*", type=Path, default=LESSONS)
    options = parser.parse_args()
    for path in options.lessons:
        notebook = executed(path)
        target = (options.into or path.parent) / path.name
        nbformat.write(notebook, target)
        print(f"{path.name}: {target.stat().st_size / 1000:.0f} kB", flush=True)


if __name__ == "__main__":
    main()
