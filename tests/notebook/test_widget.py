"""What is sent to the page about a graph, what its panel is told of a call, and the module that draws it."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbclient import NotebookClient
from nbformat.v4 import new_code_cell, new_notebook
from test_graph_views import folded, histories

import parrot_nb as P
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.widget import FrontEnd, GraphView, Sent, details, structure
from parrot_nb.notebook.widget.details import MAX_CHARS, safe_repr, seconds, shared_segments
from parrot_nb.notebook.widget.wire import BUSY, BUSY_TEXT_CHARS, TEXT_CHARS
from parrot_nb.runtime import events

WIDGET = Path(__file__).parents[2] / "parrot_nb" / "notebook" / "widget"
FRONTEND = WIDGET / "frontend"


# Rows


@settings(max_examples=100, deadline=None)
@given(histories(), st.integers(0, 60))
def test_news_upon_news_is_everything(history, cut):
    """A page that took over every message knows what one that was told everything at the end knows."""
    state, sent = GraphState(), Sent()
    calls: dict[int, Any] = {}
    variables: dict[int, Any] = {}
    for part in (history[:cut], history[cut:]):
        state.add(part)
        if (news := sent.news(state)) is not None:
            calls |= news["calls"]
            variables |= news["variables"]
    everything = Sent().everything(state)
    assert calls == everything.get("calls", {})
    assert variables == everything.get("variables", {})
    assert sent.news(state) is None, "nothing is said twice"


@settings(max_examples=60, deadline=None)
@given(histories())
def test_everything_is_numbered_on(history):
    state, sent = folded(history), Sent()
    first = sent.everything(state)["seq"]
    assert sent.everything(state)["seq"] == first + 1
    shown = structure(state)
    assert [call[0] for call in shown["calls"]] == list(state.calls)
    assert [variable[0] for variable in shown["variables"]] == list(state.variables)


def test_a_busy_graph_sends_less_of_each_text():
    def written(number: int) -> list[events.Event]:
        return [
            event
            for i in range(number)
            for event in (
                events.VariableAdded(0.0, i, "y", None, 100),
                events.VariableChanged(0.0, i, "running"),
                events.TextAppended(0.0, i, "x" * 500, 9),
            )
        ]

    for number, chars in ((3, TEXT_CHARS), (BUSY + 1, BUSY_TEXT_CHARS)):
        rows = Sent().everything(folded(written(number)))["variables"]
        assert {len(row[2]) for row in rows.values()} == {chars}


def test_groups_are_of_several_calls_that_are_shown():
    group = SimpleNamespace(id=1, stage=1, call_ids=(1, 2, 77))
    history = [
        events.CallAdded(0.0, 1, "f", "semantic", (), (10,), 1),
        events.CallAdded(0.0, 2, "f", "semantic", (), (20,), 1),
        events.CallAdded(0.0, 3, "g", "semantic", (), (30,), 1),
        events.GroupDeduced(0.0, group),
    ]
    state = folded(history)
    assert structure(state)["groups"] == [[1, [1, 2]]]
    before = state.structure
    state.add([events.GroupDeduced(1.0, group)])
    assert state.structure == before, "the same again is no change"


# The panel


@P.semantic_function
def answer(question: str) -> str:
    """Answer briefly.
    Question: {{input:question}}
    Answer: {{output:said, max_tokens=7}}"""


@P.native_function
def broken(text):
    raise ValueError("no good")


@pytest.fixture(scope="module")
def session():
    with P.Session() as made:
        yield made


def view_of(session: P.Session) -> GraphState:
    state = GraphState()
    state.add(session.events.since(0))
    return state


def panel(session: P.Session, variable: Any) -> dict[str, Any]:
    call = variable.producer
    return details(call, session.calls(), view_of(session).calls.get(call.id), 1e9)


def test_the_panel_tells_all_of_a_call(session):
    one, two = answer("what is a parrot?"), answer("what is a nest?")
    P.gather(one, two).get(timeout=60)
    shown = panel(session, one)
    kinds = [(segment["kind"], segment["shared"]) for segment in shown["prompt"]]
    assert kinds == [("constant", True), ("input", False), ("constant", False), ("output", False)]
    assert shown["sharers"] == 1
    assert shown["prompt"][1]["text"] == "what is a parrot?"
    assert shown["outputs"][0]["text"] == one.get()
    assert shown["tokens"]["decoded"] == one.usage.decoded_tokens > 0
    assert shown["why"][0].startswith("Objective: LATENCY")
    assert {"prefill", "decode"} <= dict(shown["seconds"]).keys()
    assert shown["engine"]
    assert not shown["error"]
    assert view_of(session).variables[one.node.id].max_tokens == 7


def test_the_panel_tells_how_likely_each_choice_was(session):
    chosen = P.choose("Yes or no? ", ["yes", "no", "per\nhaps"])
    chosen.get(timeout=60)
    (shown,) = panel(session, chosen)["outputs"]
    assert [share for _, _, share in shown["scores"]] == sorted(chosen.scores.values(), reverse=True)
    assert {text for text, _, _ in shown["scores"]} == {"yes", "no", "per haps"}
    (plain,) = panel(session, answer("what?"))["outputs"]
    assert plain["scores"] == []


def test_the_panel_tells_why_a_call_failed(session):
    read = answer(broken("x"))
    with pytest.raises(P.ParrotError):
        read.get(timeout=60)
    shown = panel(session, read)
    assert "UpstreamError" in shown["error"][0]
    assert any("ValueError: no good" in line for line in shown["error"])


def test_the_panel_of_a_call_that_has_not_begun(session):
    late = P.variable(name="late")
    waiting = answer(late)
    shown = panel(session, waiting)
    assert shown["seconds"] == []
    assert shown["prompt"][1] == {"kind": "input", "name": "question", "state": "pending", "text": "", "cut": 0, "shared": False}
    waiting.cancel()


def test_long_texts_are_cut_and_other_values_shown(session):
    joined = P.variable(value="x" * (MAX_CHARS + 5)) + "!"
    joined.get(timeout=60)
    shown = panel(session, joined)
    assert len(shown["outputs"][0]["text"]) == MAX_CHARS
    assert shown["outputs"][0]["cut"] == 6

    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError

    assert safe_repr(Shy()) == "<Shy, whose repr raises RuntimeError>"
    made = P.native_function(object)()
    made.get(timeout=60)
    assert "object object" in panel(session, made)["outputs"][0]["text"]


def test_prefixes_are_shared_with_the_nearest(session):
    calls = [answer(text).producer for text in ("a", "a", "b")]
    assert shared_segments(calls[0], calls) == (3, 1)
    assert shared_segments(calls[2], calls) == (1, 2)
    assert shared_segments(calls[0], calls[:1]) == (0, 0)


def test_seconds_of_phases():
    history = [
        events.CallAdded(0.0, 1, "f", "semantic", (), (10,), 1),
        *(
            events.CallChanged(time_s, 1, "running", phase)
            for time_s, phase in ((1.0, "queued"), (2.0, "prefill"), (2.5, "waiting"), (3.0, "prefill"), (4.0, "decode"))
        ),
    ]
    assert seconds(folded(history).calls[1], 6.0) == [("queued", 1.5), ("prefill", 1.5), ("decode", 2.0)]
    history.append(events.CallChanged(7.0, 1, "done", "ended"))
    assert seconds(folded(history).calls[1], 99.0)[-1] == ("decode", 3.0)


# What the page says


class Page:
    """A front end that keeps what it is sent."""

    model_id = "page"

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.graph: dict[str, Any] = {}

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


@pytest.fixture
def viewed(session):
    """A view of all calls, its page, and the questions that wait to be answered."""
    questions: list[tuple[GraphView, dict[str, Any]]] = []
    view = GraphView(session, lambda state: state.calls, FrontEnd(None), questions.append)
    view._display = SimpleNamespace(update=lambda bundle: None)
    view._widget = Page()
    view.update(view_of(session), in_cell=False)
    return view, view._widget, questions


def test_details_are_answered_by_who_sends(session, viewed):
    variable = answer("who answers?")
    variable.get(timeout=60)
    view, page, questions = viewed
    view.heard({"type": "details", "call": variable.producer.id})
    assert len(questions) == 1
    view.answer(questions[0][1])
    assert page.sent[-1]["type"] == "details"
    assert page.sent[-1]["id"] == variable.producer.id
    view.answer({"type": "details", "call": -1})
    assert page.sent[-1]["forgotten"]
    view.answer({"type": "of another version"})


def test_cancelling_goes_to_the_runtime_at_once(session, viewed):
    view, _, questions = viewed
    one, other = answer(P.variable()), answer(P.variable())
    for variable in (one, other):
        variable.submit()
    session.flush()
    threading.Thread(target=view.heard, args=({"type": "cancel", "call": one.producer.id},)).start()
    with pytest.raises(P.ParrotError):
        one.get(timeout=60)
    assert one.state == "cancelled"
    assert other.state == "pending"
    view.update(view_of(session), in_cell=False)
    view.heard({"type": "cancel_all"})
    with pytest.raises(P.ParrotError):
        other.get(timeout=60)
    assert not questions


def test_a_page_that_missed_something_is_told_everything(session, viewed):
    view, page, _ = viewed
    seq = page.sent[-1]["seq"]
    view.answer({"type": "ready", "seq": seq, "found": True})
    assert page.sent[-1]["seq"] == seq, "it knows all"
    view.answer({"type": "ready", "seq": seq - 1, "found": True})
    assert page.sent[-1]["seq"] == seq + 1
    assert len(page.sent[-1]["calls"]) == len(view_of(session).calls)


def test_nobody_but_a_person_gets_a_widget():
    def kernel(**content: Any) -> Any:
        return SimpleNamespace(get_parent=lambda channel: {"content": content})

    assert not FrontEnd(None).has_person
    assert not FrontEnd(kernel(allow_stdin=False)).has_person
    assert not FrontEnd(kernel()).has_person
    assert FrontEnd(kernel(allow_stdin=True)).has_person


def test_tools_that_execute_notebooks_see_no_widget(tmp_path, monkeypatch):
    """Their files would hold the state of every widget, under ids that differ from run to run."""
    cells = [
        "%load_ext parrot_nb",
        "%%semantic f(x) -> y --max-tokens 3\nSay {{input:x}}: {{output:y}}",
        'f.map(["a", "b"]).get()',
    ]
    notebook = new_notebook(cells=[new_code_cell(cell) for cell in cells])
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(WIDGET.parents[2]), str(WIDGET.parents[2] / "kernels")]))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path))
    NotebookClient(notebook, kernel_name="python3", timeout=100).execute(cwd=str(tmp_path))
    assert "widgets" not in notebook.metadata
    (shown,) = [output for output in notebook.cells[2].outputs if output.output_type == "display_data"]
    assert set(shown.data) == {"text/html", "text/plain"}
    assert "data-parrot-view" not in shown.data["text/html"]
    assert "2 calls · 2 done" in shown.data["text/html"]


# The module


@pytest.mark.parametrize("name", ["graph", "table"])
def test_the_built_module_is_current(name):
    """`make widget` writes digests of all sources and of the body into the first line; npm is not needed to compare."""
    banner, _, body = (WIDGET / "static" / f"{name}.js").read_text(encoding="utf-8").partition("\n")
    found = re.search(r"sources ([0-9a-f]{64}); body ([0-9a-f]{64})", banner)
    assert found is not None
    names = [f"src/{path.name}" for path in (FRONTEND / "src").iterdir()]
    names += ["build.mjs", "package.json", "package-lock.json", "tsconfig.json"]
    digest = hashlib.sha256()
    for name in sorted(names):
        digest.update(f"{name}\0".encode() + (FRONTEND / name).read_bytes() + b"\0")
    assert found[1] == digest.hexdigest(), "the sources have changed: make widget"
    assert found[2] == hashlib.sha256(body.encode()).hexdigest(), "the built file was changed by hand: make widget"


@pytest.mark.parametrize(("name", "limit"), [("graph", 100_000), ("table", 40_000)])
def test_the_module_is_small_and_fetches_nothing(name, limit):
    text = (WIDGET / "static" / f"{name}.js").read_text(encoding="utf-8")
    assert len(text.encode()) < limit, "it travels to every page that shows one"
    assert set(re.findall(r"https?://[\w./]+", text)) <= {"http://www.w3.org/2000/svg"}
    licences = (WIDGET / "static" / "LICENSES.txt").read_text(encoding="utf-8")
    assert licences.count("Permission is hereby granted") == 2


def test_the_lockfile_names_no_registry():
    lock = (FRONTEND / "package-lock.json").read_text(encoding="utf-8")
    assert "http" not in lock
    assert '"resolved"' not in lock


def test_loading_the_face_imports_no_widgets():
    program = "import sys, parrot_nb.notebook; sys.stdout.write(' '.join({'anywidget', 'ipywidgets'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
