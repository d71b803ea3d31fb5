"""The lessons in the repository are clean: valid, without outputs, with ids that stay."""

from __future__ import annotations

import json
import re
from pathlib import Path

import nbformat
import pytest

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LESSONS = sorted(NOTEBOOKS.glob("*.ipynb"))


def test_there_are_lessons():
    assert NOTEBOOKS / "01_semantic_variables.ipynb" in LESSONS


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_is_valid_and_without_outputs(path):
    raw = json.loads(path.read_text(encoding="utf-8"))
    assert (raw["nbformat"], raw["nbformat_minor"]) == (4, 5)
    notebook = nbformat.from_dict(raw)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert "widgets" not in notebook.metadata
    ids = [cell.id for cell in notebook.cells]
    assert len(ids) == len(set(ids))
    assert all(re.fullmatch(r"[a-z][a-z0-9-]*", cell_id) for cell_id in ids), "ids are words that stay when cells move"
    for cell in notebook.cells:
        if cell.cell_type == "code":
            assert cell.outputs == []
            assert cell.execution_count is None


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_a_lesson_says_first_that_the_default_model_is_untrained(path):
    first = nbformat.read(path, 4).cells[0]
    assert first.cell_type == "markdown"
    assert "untrained" in first.source
    assert "%parrot model" in first.source


@pytest.mark.parametrize("path", LESSONS, ids=lambda path: path.stem)
def test_files_that_a_lesson_reads_are_there(path):
    for cell in nbformat.read(path, 4).cells:
        for name in re.findall(r'"(data/[^"]+)"', cell.source):
            assert (NOTEBOOKS / name).is_file(), f"{path.name}, cell {cell.id}"


def test_the_meeting_has_paragraphs_that_fit_a_small_context():
    text = (NOTEBOOKS / "data" / "meeting.txt").read_text(encoding="utf-8")
    words = [len(paragraph.split()) for paragraph in text.strip().split("\n\n")]
    assert 1_500 <= sum(words) <= 2_000
    assert len(words) >= 6
    assert max(words) <= 300
