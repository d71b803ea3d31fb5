"""The template that summarises a user's own text: its parts are the text, what is no text is refused, and it runs."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import nbformat
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lessons import FOLDER, cleaned

from parrot_nb.tiny import default_model

ROOT = FOLDER.parent
SCRIPT = FOLDER / "templates" / "your_text.py"
TEMPLATE = SCRIPT.with_suffix(".ipynb")


def source(cell_id: str) -> str:
    (cell,) = [cell for cell in nbformat.read(TEMPLATE, 4).cells if cell.id == cell_id]
    return cell.source


def parts_of():
    room: dict = {}
    exec(source("parts").partition("parts = parts_of(")[0], room)
    return room["parts_of"]


def run(*arguments: object, timeout: int = 60) -> subprocess.CompletedProcess[str]:
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")]), "JUPYTER_PREFER_ENV_PATH": "1",
    }  # fmt: skip
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        env=environment, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip


def test_the_template_is_clean_and_holds_nothing_that_was_run():
    notebook = nbformat.read(TEMPLATE, 4)
    nbformat.validate(notebook)
    assert cleaned(notebook) == notebook
    assert nbformat.writes(notebook) + "\n" == TEMPLATE.read_text(encoding="utf-8")
    assert not any(cell.outputs for cell in notebook.cells if cell.cell_type == "code")
    assert (TEMPLATE.parent / "../data/kakapo.txt").is_file()
    assert "../data/kakapo.txt" in source("parameters")


@given(st.text(alphabet=st.sampled_from("ab .!?\n\"'é\t"), min_size=1, max_size=400).filter(str.strip), st.integers(3, 90))
def test_parts_are_the_whole_text_and_none_is_too_long(text, size):
    parts = parts_of()(text, size)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= size for part in parts)


def test_parts_end_where_a_reader_would_pause():
    text = "One sentence here. Another one there.\n\nA second paragraph, which is longer than others are."
    assert parts_of()(text, 60) == text.split("\n\n")
    assert parts_of()(text, 30)[:2] == ["One sentence here.", "Another one there."]
    assert parts_of()("abc" * 10, 12) == ["abcabcabcabc", "abcabcabcabc", "abcabc"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no file"),
        (b"", "holds no text"),
        (b" \n\t", "holds no text"),
        (b"\x89PNG\r\n\x1a\n\xff", "is not text in UTF-8"),
        ("Käse".encode("latin-1"), "is not text in UTF-8"),
        (b"a\0b", "is a binary file"),
        (b"x " * 100_001, "is longer than 200,000 characters"),
        (b"x" * 800_001, "is longer than 200,000 characters"),
    ],
)
def test_what_is_no_text_is_refused_in_one_sentence(content, message, tmp_path):
    path = tmp_path / "it.txt"
    if content is not None:
        path.write_bytes(content)
    done = run("--check", "--model", "any", path)
    assert done.returncode == 1
    assert message in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not done.stdout


def test_a_folder_is_no_text_and_a_text_is_one(tmp_path):
    assert "is no file" in run("--check", "--model", "any", tmp_path).stderr
    (tmp_path / "a b.txt").write_text("Grüße", encoding="utf-8-sig")
    assert run("--check", "--model", "any", tmp_path / "a b.txt").returncode == 0


@pytest.mark.slow
def test_it_runs_to_its_end_on_any_model(tmp_path):
    text = tmp_path / "my notes.txt"
    text.write_text("Anna: I will send the report by Friday.\n\n" * 20, encoding="utf-8")
    into = tmp_path / "out"
    done = run("--model", default_model(), "--question", "Who sends the 'report'?", "--into", into, text, timeout=200)
    assert done.returncode == 0, done.stderr[-2000:]
    cells = {cell["id"]: cell for cell in json.loads((into / "your_text.ipynb").read_text(encoding="utf-8"))["cells"]}
    shown = json.dumps(cells["ask"]["outputs"])
    assert "Who sends the 'report'?" in shown
    assert "Anna: I will send the report by Friday." in shown
    assert "2 parts" in json.dumps(cells["parts"]["outputs"])
    assert "<html" in (into / "your_text.html").read_text(encoding="utf-8")


def test_a_model_that_is_none_stops_it_in_one_sentence(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("Some text.", encoding="utf-8")
    done = run("--model", tmp_path / "nowhere", "--into", tmp_path / "out", text, timeout=120)
    assert done.returncode == 1
    assert "The notebook stopped at an error" in done.stderr
    assert "nowhere" in done.stderr
