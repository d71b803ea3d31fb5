"""Runs a page of the guide in a shell of its own, from its first example to its last: `python run_page.py PAGE`.

Prints, as JSON, for each example its line, what the page says that it prints (None where it says nothing), what it did print,
and whether it raised.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output

FENCE = re.compile(r"^```(python|semantic|output)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
OUT = re.compile(r"^Out\[\d+\]: \n?")  # the result itself is shown, not printed


def examples(text: str) -> list[tuple[int, str, str | None]]:
    """(line, code, said output) of each example."""
    found: list[tuple[int, str, str | None]] = []
    for match in FENCE.finditer(text):
        kind, body = match[1], match[2]
        if kind == "output":
            line, code, said = found[-1]
            assert said is None, f"line {line} has two outputs"
            found[-1] = line, code, body
        else:
            found.append((text[: match.start()].count("\n") + 1, body, None))
    return found


def main(page: Path) -> list[dict[str, object]]:
    shell = InteractiveShell.instance(colors="nocolor")
    told = []
    for line, code, said in examples(page.read_text(encoding="utf-8")):
        with capture_output() as printed:
            result = shell.run_cell(code, store_history=True)
        told.append({"line": line, "said": said, "printed": OUT.sub("", printed.stdout), "raised": not result.success})
    return told


if __name__ == "__main__":
    told = main(Path(sys.argv[1]))
    sys.stdout.write("\n" + json.dumps(told))
