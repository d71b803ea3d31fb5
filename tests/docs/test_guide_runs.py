"""Every example of the documentation runs, page by page, and prints what the page says."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGES = ROOT / "docs" / "pages"
WITH_EXAMPLES = sorted(
    path for path in PAGES.rglob("*.md") if re.search(r"^```(python|semantic)$", path.read_text(), re.MULTILINE)
)


def test_the_guide_has_examples():
    names = {path.relative_to(PAGES).as_posix() for path in WITH_EXAMPLES}
    assert {"index.md", "prompts.md", "watching.md", "models.md", "tables.md"} <= names


@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=lambda path: path.relative_to(PAGES).as_posix())
def test_examples_print_what_the_page_says(page, tmp_path):
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]),
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    command = [sys.executable, str(Path(__file__).with_name("run_page.py")), str(page)]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told
    for example in told:
        where = f"{page.name}, line {example['line']}, printed:\n{example['printed']}"
        assert is_as_said(example["printed"], example["said"] or ""), where
        assert not example["raised"] or example["said"], where


def is_as_said(printed: str, said: str) -> bool:
    """Whether they are equal; … in what is said stands for what differs from run to run."""
    pattern = ".+?".join(re.escape(part) for part in said.rstrip().split("…"))
    return re.fullmatch(pattern, printed.rstrip()) is not None


def test_what_was_not_printed_is_told_from_what_was():
    assert is_as_said("a page: x.html (36 kB)\n", "a page: x.html (… kB)\n")
    assert not is_as_said("a page: x.html (36 MB)\n", "a page: x.html (… kB)\n")
    assert not is_as_said("two\n", "three\n")
    assert not is_as_said("two\n", "")
