"""The template that summarises a user's own text: its parts are the text, what is no text is refused, and it runs."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from html import escape, unescape

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


class Calls:
    """Stands for `parrot_nb` in cells that are run outside a notebook: a native function is the function itself."""

    @staticmethod
    def native_function(function):
        return function


ROOM: dict = {"P": Calls}
for cell_id, end in (("parts", "parts = parts_of("), ("closest", None), ("show", None), ("find", None)):
    exec(source(cell_id).partition(end)[0] if end else source(cell_id), ROOM)
PROSE = st.text(alphabet=st.sampled_from("ab .!?\n\"'é\t-<&"), min_size=1, max_size=400).filter(str.strip)


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


@given(PROSE, st.integers(3, 90))
def test_parts_are_the_whole_text_and_none_is_too_long(text, size):
    parts = ROOM["parts_of"](text, size)
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert all(0 < len(part) <= size for part in parts)


def test_parts_end_where_a_reader_would_pause():
    text = "One sentence here. Another one there.\n\nA second paragraph, which is longer than others are."
    parts_of = ROOM["parts_of"]
    assert parts_of(text, 60) == text.split("\n\n")
    assert parts_of(text, 30)[:2] == ["One sentence here.", "Another one there."]
    assert parts_of("abc" * 10, 12) == ["abcabcabcabc", "abcabcabcabc", "abcabc"]


def test_sentences_are_those_of_a_reader():
    text = 'Notes\n\nAnna left. "Why?" asked Ben.\nNobody\nknew.\n- bread\n- milk'
    assert ROOM["sentences_of"](text) == ["Notes", "Anna left.", '"Why?"', "asked Ben.", "Nobody\nknew.", "- bread", "- milk"]


@given(PROSE, PROSE)
def test_what_is_quoted_is_a_sentence_of_the_part_and_is_shown_in_bold(part, note):
    quote = ROOM["closest"](part, note)
    assert quote.strip()
    assert quote in part
    shown = ROOM["with_bold"](part, quote)
    assert f"<b>{escape(quote)}</b>" in shown
    assert unescape(shown.replace("<b>", "").replace("</b>", "")) == part


def test_the_quote_is_the_sentence_that_the_model_wrote_about():
    part = (
        "The bird eats plants. Its fruit grows every two years. Rangers count the birds in spring and weigh all that they find."
    )
    assert ROOM["closest"](part, "The text says that birds are counted by rangers in spring") == ROOM["sentences_of"](part)[2]
    assert ROOM["closest"](part, "The text says that a bird eats only plants") == "The bird eats plants."
    assert ROOM["closest"]("The bird\n\nIt eats.", "The text says that the bird is one") == "It eats."
    assert ROOM["closest"]("The bird", "It is red") == "The bird"


@given(PROSE, PROSE)
def test_what_a_model_wrote_is_shown_whole_and_as_text(text, source):
    shown = ROOM["marked"](text, source)
    assert unescape(re.sub(r"</?(i|mark)( style='[^']*')?>", "", shown)) == text


def test_words_and_numbers_that_the_source_lacks_are_marked():
    shown = ROOM["marked"]("The text says that 73 birds ate the fruits.", "In 2019 the birds found fruit.")
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", shown) == ["73"]
    shown = ROOM["marked"]("An extinct <b>mammal</b> of 2019", "In 2019 the birds found fruit.")
    assert re.findall(r"<mark[^>]*>(.*?)</mark>", shown) == ["extinct", "mammal"]


KAKAPO = (TEMPLATE.parent / "../data/kakapo.txt").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("question", "inside"),
    [
        ("How far does a boom carry?", "five kilometres with the wind"),
        ("How heavy is a kakapo?", "up to four kilograms"),
        ("How many kakapos were alive in 1995?", "fifty-one kakapos"),
        ("Who brought dogs?", "The Maori brought dogs"),
        (
            "What is this text about?",
            "lives in New Zealand",
        ),  # no word of it is in the text, which is then read from its beginning
        ("?", "lives in New Zealand"),
    ],
)
def test_the_sentence_that_holds_the_answer_is_found(question, inside):
    assert inside in ROOM["find"](ROOM["parts_of"](KAKAPO), question)


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
    assert "Who sends the &#x27;report&#x27;?" in shown
    assert "According to the text," in shown
    assert "Anna: I will send the report by Friday." in shown
    assert "The text says" in json.dumps(cells["check"]["outputs"])
    assert "<li>Anna: I will send the report by Friday.</li>" in json.dumps(cells["show-summary"]["outputs"])
    assert "2 parts" in json.dumps(cells["parts"]["outputs"])
    assert "<html" in (into / "your_text.html").read_text(encoding="utf-8")


def test_a_model_that_is_none_stops_it_in_one_sentence(tmp_path):
    text = tmp_path / "a.txt"
    text.write_text("Some text.", encoding="utf-8")
    done = run("--model", tmp_path / "nowhere", "--into", tmp_path / "out", text, timeout=120)
    assert done.returncode == 1
    assert "The notebook stopped at an error" in done.stderr
    assert "nowhere" in done.stderr
