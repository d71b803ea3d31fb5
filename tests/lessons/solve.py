"""The solutions of all exercises, run below the cells that they need, each in a namespace of its own. Prints what their checks
say, as JSON. A program of its own: an IPython shell belongs to a process."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
from IPython.core.interactiveshell import InteractiveShell

from parrot_nb.lessons import lesson
from parrot_nb.lessons.content import numbers

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CELLS = {  # that the solutions of a lesson build on
    1: ["text", "list-actions"],
    2: ["write-code", "review", "revise", "write-test", "translate"],
    3: ["toy"],
    4: ["mixed"],
    6: ["list-actions", "functions"],
    8: ["classes", "exercise-data"],
    9: ["exercise-data"],
}


def solve(shell: InteractiveShell, number: int) -> dict[str, Any]:
    """Whether each exercise's solution is right, and what was raised."""
    (path,) = NOTEBOOKS.glob(f"{number:02}_*.ipynb")
    cells = {cell.id: cell.source for cell in nbformat.read(path, 4).cells}
    course, verdicts = lesson(number), {}

    def check(which: int, answer: Any) -> None:
        verdicts[which] = course.check(which, answer).is_right

    errors = []
    for source in [cells["load"], *(cells[name] for name in CELLS.get(number, ())), *(e.solution for e in course.exercises)]:
        shell.user_ns["check"] = check
        errors += [repr(error)] if (error := shell.run_cell(source).error_in_exec) is not None else []
    if number == 8:  # its solution defines the prompt, and the reader gives it to the check
        check(1, shell.user_ns["mood"])
    return {"right": verdicts, "errors": errors}


def main() -> None:
    os.chdir(NOTEBOOKS)
    found = {}
    for number in numbers():
        shell = InteractiveShell.instance(colors="nocolor")
        found[number] = solve(shell, number)
        shell.reset(new_session=False)
        shell.user_ns.clear()
        shell.init_user_ns()
        shell.run_line_magic("config", "Parrot.eager = True")  # as it is where a lesson begins
    sys.stdout.write("\n" + json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
