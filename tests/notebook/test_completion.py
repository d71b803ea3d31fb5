"""What Tab offers, as a table; and in a real kernel, with Shift-Tab."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.language import TYPES
from parrot_nb.notebook.completion import attributes, choices

NAMES = {"topic": "rain", "topics": ["a"], "total": 3, "_hidden": "x", "sys": __import__("sys"), "var": P.variable("v", "text")}
NAMES |= {"Item": type("Item", (), {"__module__": "__main__"}), "Path": Path, "is_short": lambda text: len(text) < 9}
CELL = "%%semantic f(topic, tone='dry') -> poem, title --max-tokens 5\nWrite {{output:poem}} "


def offered(text: str) -> list[str] | None:
    """At the end of a cell's text."""
    _first, _, rest = text.partition("\n")
    found = choices(text.rpartition("\n")[2], text, not rest and "\n" not in text, NAMES)
    return None if found is None else found[1]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("%%semantic f(x) --max", ["--max-tokens"]),
        ("%%semantic f(x) --top", ["--top-p", "--top-k"]),
        ("%%semantic f(x) --rep", ["--repetition-penalty"]),
        ("%%semantic f(x) --chat ", ["auto", "on", "off"]),
        ("%%semantic f(top", ["topic", "topics"]),
        ("%%semantic f(x) ", []),
        (CELL + "{{", ["input:", "output:", "topic", "tone", "poem"]),
        (CELL + "{{inp", ["input:"]),
        (CELL + "{{input:to", ["topic", "tone", "topics", "total"]),
        (CELL + "{{input:po", ["poem"]),
        (CELL + "{{output:", ["poem", "title"]),
        (CELL + "{{output:title: ", [*TYPES, "Item"]),
        (CELL + "{{output:title: list[It", ["Item"]),
        (CELL + "{{output:title: int | No", []),
        (CELL + "{{output:title: int, check=is_", ["is_short"]),
        (CELL + "{{output:title: int, che", ["check="]),
        (CELL + "{{output:title, max", ["max_tokens="]),
        (CELL + "{{output:title: str, te", ["temperature="]),
        (CELL + "{{output:title, logp", ["logprobs="]),
        (CELL + "{{input:topic, f", ["fit="]),
        (CELL + '{{input:topic, fit="m', ['"middle"']),
        (CELL + "{{input:topic}} to", None),
        (CELL + "to", None),
        ("%parrot ti", ["timeline"]),
        ("%parrot ", ["model", "graph", "timeline", "vars", "store", "export", "bench", "cancel", "reset", "help"]),
        ("x = 1\n%parrot exp", ["export"]),
        ("%parrot export ", ["report.html", "app.py", "trace.json", "graph.svg", "graph.pdf"]),
        ("%parrot model --d", ["--device", "--dtype"]),
        ("%parrot model x --device c", ["cpu", "cuda"]),
        ("%parrot model x --off me", ["memo"]),
        ("%parrot model x --sampling ", ["greedy", "model"]),
        ("%parrot model x --quantize int", ["int8", "int4"]),
        ("%parrot bench map", ["map_reduce"]),
        ("%parrot store --e", ["--export"]),
        ("%parrot store a.db --size ", ["100MB", "1GB"]),
        ("%%parrot ", ["compare", "plan", "show"]),
        ("%%parrot show li", ["line"]),
        ("%%parrot compare ", ["--off"]),
        ("%%parrot compare --off sh", ["sharing"]),
        ("%%parrot compare --off sharing,me", ["memo"]),
        ("print({{", None),
        ("topic", None),
        ("%parrotx ", None),
    ],
)
def test_what_is_offered(text, expected):
    assert offered(text) == expected


def test_models_on_this_machine_are_offered(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in (
        "mine.gguf",
        "MINE.GGUF",
        "notes.txt",
        "two words.gguf",
        "shelf/inner.gguf",
        "deep/shelf/x.txt",
        "other/config.json",
        ".h/a.gguf",
    ):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    models = [word for word in offered("%parrot model ") if not word.startswith("-")]
    assert models == ["parrot-tiny", "MINE.GGUF", "mine.gguf", "other/", "shelf/"]
    assert offered("%parrot model mi") == ["mine.gguf"]
    assert offered("%parrot model de") == ["deep/"]
    assert offered("%parrot model deep/") == ["deep/shelf/"]
    assert offered("%parrot model ~/sh") == ["~/shelf/"]
    assert offered(f"%parrot model {tmp_path}/shelf/in") == [f"{tmp_path}/shelf/inner.gguf"]
    assert offered("%parrot model .h/") == [".h/a.gguf"]
    assert offered("%parrot model nowhere/at/all") == []
    assert offered("%parrot model x.gguf mi") == [], "one model is enough"


@given(st.text(st.sampled_from("%semantic parrot{}:,=-\"'()\n outp"), max_size=60))
def test_anything_may_be_typed(text):
    for prefix in ("", "%%semantic ", "%%semantic f\n", "%parrot ", "%%parrot "):
        offered(prefix + text)


def test_tab_in_a_kernel(notebook):
    assert notebook.run("%load_ext parrot_nb\nimport parrot_nb as P\nfavourite = 'snow'").error is None
    code = "%%semantic f\nWrite of {{input:fav"
    reply = notebook.client.complete(code, reply=True, timeout=30)["content"]
    assert reply["matches"] == ["favourite"]
    assert code[reply["cursor_start"] : reply["cursor_end"]] == "fav"
    reply = notebook.client.complete("%parrot export r", reply=True, timeout=30)["content"]
    assert reply["matches"] == ["report.html"]
    assert notebook.run("late = P.variable(name='late')").error is None
    reply = notebook.client.complete("late.", reply=True, timeout=30)["content"]
    assert {"get", "state", "stream", "text", "usage"} <= set(reply["matches"])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("late.st", ["state", "stream"]),
        ("print(late.us", ["usage"]),
        ("pair[1].us", ["usage"]),
        ("answer.who.us", ["usage"]),
        ("ask.opt", ["options"]),
        ("plain.st", None),
        ("f().late.st", None),
        ("'late.st", None),
        ("unknown.st", None),
        ("answer.late.", None),
        ("pair[9].", None),
    ],
)
def test_attributes_are_offered(text, expected):
    late = P.variable(name="late")
    ask = P.SemanticFunction("{{input:x}} {{output:who}} {{output:when}}")
    names = {"late": late, "pair": [late, late], "ask": ask, "answer": ask(late), "plain": "text"}
    found = attributes(text, names)
    assert (None if found is None else found[1]) == expected


def test_shift_tab_on_functions_and_magics(notebook):
    notebook.run(
        "%%semantic poem(topic, tone='dry') -> verse --max-tokens 5\nA {{input:tone}} poem on {{input:topic}}: {{output:verse}}"
    )
    shown = str(notebook.client.inspect("poem", reply=True, timeout=30)["content"]["data"])
    assert "poem(topic, tone='dry')" in shown
    assert "-> verse" in shown
    assert "A {{input:tone}} poem on" in shown
    for code, told in (("%%semantic", "--temperature"), ("%parrot", "timeline"), ("%%parrot", "--off")):
        assert told in str(notebook.client.inspect(code, reply=True, timeout=30)["content"]["data"]), code
    assert "Placeholders" in str(notebook.run("%%semantic?").__dict__) + str(
        notebook.client.inspect("%%semantic", reply=True)["content"]
    )
