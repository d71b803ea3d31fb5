"""The graph as a file: what Graphviz reads holds every call, edge and group, and Graphviz can draw it."""

from __future__ import annotations

import re
import shutil
import subprocess
from types import SimpleNamespace
from xml.etree import ElementTree as ET

import pytest

import parrot_nb as P
from parrot_nb.errors import TraceError
from parrot_nb.notebook.dot import digraph
from parrot_nb.notebook.export import export
from parrot_nb.notebook.state import GraphState
from parrot_nb.runtime import events

needs_dot = pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
NASTY = 'a <b> & "c" \\l {x|y}\x0b\x07 ünï 漢字'

write = P.SemanticFunction("Write of {{input:topic}}: {{output:text}}", name="write").options(max_tokens=6, ignore_eos=True)
note = P.SemanticFunction("Note {{input:topic}}: {{output:text}}", name="note").options(max_tokens=3, ignore_eos=True)
combine = P.SemanticFunction("All: {{input:texts}} So: {{output:result}}", name="combine").options(max_tokens=6, ignore_eos=True)


@pytest.fixture(scope="module")
def session():
    with P.Session() as opened:
        texts = write.map(["sun", NASTY, "fog"])
        result = combine(P.join(texts))
        shout = P.native_function(str.upper)(result)
        many = note.map([str(i) for i in range(20)])
        P.gather(shout, many).get()
        broken = P.native_function(lambda text: text[1000] or NASTY)(result)
        with pytest.raises(P.ParrotError):
            broken.get()
        yield opened


def plain(session, folder) -> list[list[str]]:
    """What Graphviz understood, line by line."""
    export(session, folder / "graph.dot")
    done = subprocess.run(["dot", "-Tplain", folder / "graph.dot"], capture_output=True, text=True, check=True)
    assert not done.stderr
    return [line.split(" ") for line in done.stdout.splitlines()]


def test_the_source_needs_no_program(session, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", "")
    told = export(session, tmp_path / "graph.dot")
    source = (tmp_path / "graph.dot").read_text(encoding="utf-8")
    assert told.startswith("the graph of ")
    assert source.count("<b>write</b>") == 3
    assert source.count("<b>note</b>") == 1, "one node for the twenty"
    assert "<b>note</b> ×20<br/>20 done" in source
    assert 'label="task group of 3"' in source
    assert "漢字" not in source, "inputs are no part of the cards"
    with pytest.raises(TraceError, match=r"program 'dot' is not here: install it, or export a \.dot file"):
        export(session, tmp_path / "graph.pdf")
    assert not (tmp_path / "graph.pdf").exists()


@pytest.mark.parametrize(
    ("functions", "group", "frames"),
    [
        (["f"] * 6 + ["g", "h"], range(8), [("8", 3)]),  # six in a stack, and two
        (["f"] * 6, range(6), [("6", 1)]),  # all of a stack
        (["f"] * 7, range(6), []),  # a part of a stack alone cannot be framed
        (["f", "g"], range(2), [("2", 2)]),
        (["f"], range(1), []),
    ],
)
def test_a_frame_says_how_many_calls_a_task_group_has(functions, group, frames):
    history = [events.CallAdded(0.0, i, name, "semantic", (), (), 1) for i, name in enumerate(functions)]
    history.append(events.GroupDeduced(0.0, SimpleNamespace(id=1, stage=1, call_ids=tuple(group))))
    state = GraphState()
    state.add(history)
    source = digraph(state).source
    found = re.findall(r"subgraph.*?task group of (\d+)(.*?)\n\t}", source, re.DOTALL)
    assert [(number, body.count("shape=")) for number, body in found] == frames
    assert source.count("shape=") == len(set(functions)), "each node once"


@needs_dot
def test_graphviz_reads_every_call_and_edge(session, tmp_path):
    lines = plain(session, tmp_path)
    nodes = {line[1] for line in lines if line[0] == "node"}
    edges = [(line[1], line[2]) for line in lines if line[0] == "edge"]
    assert len(nodes) == 3 + 1 + 1 + 1 + 1 + 1, "writes, their join, combine, shout, the broken one, the stack"
    assert len(edges) == 3 + 1 + 1 + 1
    assert {end for edge in edges for end in edge} < nodes


@needs_dot
@pytest.mark.parametrize("suffix", [".svg", ".pdf", ".png"])
def test_it_is_drawn(session, tmp_path, suffix):
    export(session, tmp_path / f"graph{suffix}")
    drawing = (tmp_path / f"graph{suffix}").read_bytes()
    if suffix == ".svg":
        words = " ".join(ET.fromstring(drawing).itertext())
        assert words.count("write") == 3
        assert "task group of 3" in words
        assert re.search(r"IndexError", words), "what went wrong is on the card"
    else:
        assert drawing.startswith({".pdf": b"%PDF", ".png": b"\x89PNG"}[suffix])


@needs_dot
@pytest.mark.parametrize("text", [NASTY, "", "\n\n", "]]>", "<!--", "&amp;", "\\N", "%s", "🦜", 'say "c"'])
def test_any_text_can_be_drawn(tmp_path, text):
    with P.Session():
        P.native_function(lambda: text)().get()
        export(P.current_session(), tmp_path / "graph.svg")
    words = " ".join(ET.fromstring((tmp_path / "graph.svg").read_bytes()).itertext()).replace("\xa0", " ")
    assert all(part in words for part in text.replace("\x0b", " ").replace("\x07", " ").split())
