"""Nothing that a model, a file or a function says acts in what the views give out; every payload through every one of them."""

from __future__ import annotations

import json
import re
import shutil
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import html5lib
import markupsafe
import msgspec
import pandas as pd
import pytest
from IPython.core.formatters import DisplayFormatter
from IPython.display import SVG, Latex, Markdown
from page_audit import audit, audit_svg, payloads

import parrot_nb as P
from parrot_nb.engine.loads import LoadProgress
from parrot_nb.engine.protocol import ModelInfo, StepRecord
from parrot_nb.errors import ParrotError, TraceError
from parrot_nb.language.formulas import draws_only
from parrot_nb.language.markdown import is_reachable, markdown_html
from parrot_nb.language.nodes import Span, TaskGroup, Usage, VariableNode
from parrot_nb.notebook import errors, values
from parrot_nb.notebook.compare import Comparison, Run
from parrot_nb.notebook.dot import drawn
from parrot_nb.notebook.loading import loading_bundle
from parrot_nb.notebook.page import page
from parrot_nb.notebook.prompts import prompt_html, prompt_text
from parrot_nb.notebook.report import Plain, Reports, report
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import (
    render_graph_html,
    render_graph_text,
    render_line_html,
    render_variable_html,
    render_variable_text,
)
from parrot_nb.notebook.timeline import render_timeline_html, render_timeline_text
from parrot_nb.record import TimelineFold, read_trace, write_trace
from parrot_nb.record.loading import loading_words
from parrot_nb.runtime import events
from parrot_nb.runtime.plan_figures import PlanFigures, PlannedCall, PlannedModel
from parrot_nb.session import Plan

PAYLOADS = payloads()
MARKDOWN_KEEPS = "**bold** ~~gone~~ `code`\n\n1. one\n\n> said\n\n| a | b |\n|:--|--:|\n| 1 | 2 |\n"
TERMINAL_OBEYS = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")
every_payload = pytest.mark.parametrize("payload", PAYLOADS)


def words(html: str) -> str:
    return "".join(html5lib.parseFragment(html, namespaceHTMLElements=False).itertext())


def history(said: str) -> list[events.Event]:
    """A run in which every text that an event can hold is `said`: calls of all kinds and ends, a stack, a loaded model, steps."""
    log: list[events.Event] = [
        events.ModelChanged(0.0, said, "loading", said),
        events.ModelChanged(2.0, said, "ready", said, note=said),
        events.VariableAdded(2.0, 1, said, None),
        events.VariableChanged(2.0, 1, "done", text=said),
    ]
    number = 10
    kinds = {
        "semantic": ["running", "failed", *["done"] * 4],
        "native": ["done", "cancelled"],
        "join": ["done"],
        "first": ["done"],
    }
    for kind, states in kinds.items():
        for state in states:
            call, output = number, number + 1
            log += [
                events.CallAdded(2.1, call, said, kind, ((said, 1 if number == 10 else 11),), (output,), 1),
                events.VariableAdded(2.1, output, said, call),
                events.CallChanged(2.2, call, "running", "decode", engine=said),
                events.ThinkingAppended(2.25, output, said, 2),
                events.TextAppended(2.3, output, said, 3),
            ]
            if state != "running":
                error = said if state != "done" else None
                usage = Usage(prefilled_tokens=2, decoded_tokens=3, prefill_s=0.1, decode_s=0.2)
                told = said if state == "done" else None
                log += [
                    events.VariableChanged(2.6, output, state, told, said, 3, error, said, usage=usage),
                    events.CallChanged(2.6, call, state, "ended", said, error),
                ]
            number += 2
    group = TaskGroup(14, 0, tuple(range(14, 22, 2)))
    return [*log, events.GroupDeduced(2.2, group), events.StepRan(2.5, said, StepRecord(2.2, 0.1, 2, 3, 1, 1, 9))]


def moved(event, by: int):
    """An event of another run, whose ids are greater by so much."""
    said = msgspec.structs.asdict(event)
    for name in said.keys() & {"variable_id", "call_id", "producer_id"}:
        said[name] = None if said[name] is None else said[name] + by
    if isinstance(event, events.CallAdded):
        said["inputs"] = tuple((name, variable + by) for name, variable in event.inputs)
        said["outputs"] = tuple(output + by for output in event.outputs)
    return type(event)(**said)


def state_of(log: list[events.Event]) -> GraphState:
    state = GraphState()
    state.add(log)
    return state


def node(name: str, value: object, **said: object) -> VariableNode:
    made = VariableNode(name)
    made.resolve(value, spans=(Span(value),) if isinstance(value, str) else None)
    for key, text in said.items():
        setattr(made, key, text)
    return made


@pytest.fixture
def shell(monkeypatch):
    """IPython's own formatters, as a notebook has them."""
    formatters = DisplayFormatter().formatters
    monkeypatch.setattr(values, "get_ipython", lambda: SimpleNamespace(display_formatter=SimpleNamespace(formatters=formatters)))


# The judge itself


@pytest.mark.parametrize(
    "html",
    [
        "<script>x</script>", "<img src=x>", "<p onclick=x>", '<a href="javascript:x">', '<a href="/x">', "<svg><a xlink:href=x></svg>",
        "<p style='background:url(x)'>", "<p id=x>", "<p data-x=x>", r"<p>$\href{x}{y}$</p>", "a\0b", "<!-- x -->", "<math></math>",
        r"<p class=mathjax_ignore><b class=mathjax_process>\(\def\a{}\)</b></p>", "<iframe>", "<svg><foreignObject></svg>",
    ],
)  # fmt: skip
def test_the_judge_finds_what_acts(html):
    assert audit(html)


def test_there_are_enough_attacks_and_most_act_when_nobody_stops_them():
    acting = [payload for payload in PAYLOADS if audit(payload)]
    assert len(PAYLOADS) >= 60
    assert len(acting) > 80, "the others are Markdown, which acts once it is rendered"


# Markdown


@every_payload
def test_markdown(payload):
    for text in (payload, f"* a\n\n  {payload}\n\n| a |\n|---|\n| {payload} |", f"> {payload} and **{payload}**", f"# {payload}"):
        assert not audit(markdown_html(text)), text


@every_payload
def test_markdown_at_every_moment_of_its_being_written(payload):
    for end in range(1, len(payload)):
        html = markdown_html(f"**Here** it is: {payload[:end]}▍")
        if "<" in re.sub(r"</?(div|p|strong|em|bdi|code|span)[^<>]*>", "", html):  # parsed only where there is more than usual
            assert not audit(html), payload[:end]


def test_markdown_still_is_markdown():
    html = markdown_html(MARKDOWN_KEEPS)
    for part in (
        "<strong>bold</strong>",
        "<s>gone</s>",
        "<code>code</code>",
        "<ol>",
        "<blockquote>",
        '<td style="text-align:right">2',
    ):
        assert part in html


def test_links_show_where_they_lead_and_pictures_are_words():
    html = markdown_html("[bank](https://evil.test/?q=1) <https://shown.test/> ![a *plan*](https://evil.test/x.png) [top](/tree)")
    assert words(html).strip() == (
        "bank (https://evil.test/?q=1) https://shown.test/ picture, not loaded: a plan (https://evil.test/x.png) top (/tree)"
    )
    assert re.findall(r"<a ([^>]*)>", html) == [
        f'href="https://{host}" target="_blank" rel="noopener noreferrer"' for host in ("evil.test/?q=1", "shown.test/")
    ]


@pytest.mark.parametrize("address", ["https://a.test/?x=1#y", "HTTP://a.test", "mailto:a@b.test", "#here"])
def test_addresses_that_a_link_may_lead_to(address):
    assert is_reachable(address)


@pytest.mark.parametrize(
    "address",
    ["javascript:0", " https://a.test", "https:/a", "//a.test", "/a", "data:,", "https://a b", "http\t://a", "", "ftp://a"],
)
def test_addresses_that_no_link_may_lead_to(address):
    assert not is_reachable(address)


@pytest.mark.parametrize(
    "source",
    [
        r"x_1 + \frac{a}{b} \leq \sqrt[3]{2}", r"\begin{pmatrix} 1 & 2 \\ 3 & 4 \end{pmatrix}", r"\left\{ x \mid x > 0 \right\}",
        r"\sum_{i=1}^n \mathbb{E}\,[X_i]", r"P(A \mid B) = \text{50\% of it}", "e^{i\\pi} = -1",
    ],
)  # fmt: skip
def test_formulas_that_only_draw_are_typeset(source):
    assert draws_only(source)
    for text in (f"is ${source}$ so", f"is \\({source}\\) so", f"\\[\n{source}\n\\]", f"$$\n{source}\n\n- 1\n$$"):
        assert markdown_html(text).count('<span class="mathjax_process tex2jax_process">') == 1, text


@pytest.mark.parametrize("text", ["It costs $5 and $6.", "`$x$`", "```\n$x$\n```", "a $ b $ c", r"\$x$", "\\("])
def test_dollars_that_are_no_formulas(text):
    assert "mathjax_process" not in markdown_html(text)


@pytest.mark.parametrize("text", ["[" * 50_000, "![" * 30_000, "\\(" * 30_000, "$$\n" * 30_000, "> " * 30_000, "**a" * 30_000])
def test_a_text_made_to_be_slow_is_shown_all_the_same(text):
    assert words(markdown_html(text)).strip()


# Variables and values


@every_payload
def test_a_variable(payload):
    html = render_variable_html(payload, "done", payload, finish="length", error=None, note=payload)
    assert not audit(html)
    assert not audit(render_variable_html(payload, "failed", "", finish=None, error=payload, note=None))
    shown = "".join(c if c in "\t\n\r" or ord(c) >= 32 else chr(0x2400 + ord(c)) for c in payload)
    assert shown.replace("\r", "\n") in words(html), "it is read as it was written"


@every_payload
def test_texts_of_any_class_and_plain_values(payload, shell):
    class Loud(str):
        __slots__ = ()

        def _repr_html_(self) -> str:
            return str(self)

        def replace(self, *_: object) -> str:
            return self

        def translate(self, *_: object) -> str:
            return self

    plain = [payload, Loud(payload), markupsafe.Markup(payload), [payload], {payload: [payload]}, (payload,), KeyError(payload)]
    for value in plain:
        made = node(payload, value, note=Loud(payload))
        for markdown in (False, True):
            bundle = values.variables_bundle([made], {}, markdown=markdown)
            assert set(bundle) == {"text/html", "text/plain"}
            assert not audit(bundle["text/html"]), type(value)
        assert not audit(values.variables_bundle([made, made], {})["text/html"])


@every_payload
def test_objects_that_show_words(payload, shell):
    frame = pd.DataFrame({payload: [payload]}, index=[payload])
    frame.index.name = payload
    for value in (frame, Markdown(payload), Latex(payload), Latex(f"${payload}$"), Latex(f"$${payload}$$")):
        bundle = values.variables_bundle([node(payload, value)], {})
        assert set(bundle) == {"text/html", "text/plain"}
        html = re.sub(r"<style scoped>.*?</style>", "", bundle["text/html"], count=1, flags=re.DOTALL)  # pandas' own
        assert not audit(html), type(value)


def test_a_drawing_is_a_picture_in_which_no_script_runs(shell):
    drawing = SVG(
        '<svg xmlns="http://www.w3.org/2000/svg" onload="x()"><script>x()</script><image href="http://evil.test/"/></svg>'
    )
    html = values.variables_bundle([node("drawing", drawing)], {})["text/html"]
    assert '<img alt="drawing" src="data:image/svg+xml;base64,' in html
    assert not audit(html)


@every_payload
def test_markdown_without_our_extension(payload):
    view = P.variable(value=payload, name="said").markdown
    data, _ = DisplayFormatter().format(view)
    assert set(data) == {"text/html", "text/plain"}
    assert not audit(data["text/html"])


# Graphs, timelines, tables, reports


@every_payload
def test_graphs_and_timelines_of_a_foreign_trace(payload, tmp_path):
    path = tmp_path / "trace.json"
    write_trace(path, history(payload), made_by=payload)
    log = read_trace(path)
    assert log == history(payload)
    state, timeline = state_of(log), TimelineFold.of(log).timeline()
    assert not audit(render_graph_html(state))
    assert not audit(render_line_html(state, True))
    assert not audit(Comparison((Run(payload, timeline, same=False),))._repr_html_())
    assert not audit(render_timeline_html(TimelineFold.of(log[:9]).timeline(), payload))


@every_payload
def test_tables(payload):
    table = report(payload, [(payload, payload), ("x", payload)], (payload, "state"))
    assert not audit(Reports((table, report(payload, [(payload, "1")])))._repr_html_())
    assert not audit(Plain(payload)._repr_html_())


@every_payload
def test_a_load(payload):
    for progress in (None, LoadProgress("downloading", 1, 2, 3, 4, 5.0)):
        bundle = loading_bundle(loading_words(payload, progress, 1.0))
        assert set(bundle) == {"text/html", "text/plain"}
        assert not audit(bundle["text/html"])
        assert not TERMINAL_OBEYS.search(bundle["text/plain"])


@every_payload
def test_a_prompt_a_plan_and_a_thought(payload):
    function = P.SemanticFunction(f"{payload.replace('{{', '{ {')} {{{{output:y}}}}", name=payload)
    assert not audit(prompt_html(function))
    assert not TERMINAL_OBEYS.search(prompt_text(function))
    call = PlannedCall(1, payload, "semantic", "model", problem=payload)
    plan = Plan(PlanFigures((call,), (PlannedModel(payload, 9, 16, 9, 1, measured=True),), 1.0, 2.0, (payload,)), note=payload)
    assert not audit(plan._repr_html_())
    assert not TERMINAL_OBEYS.search(repr(plan))
    scores = ((payload, 0.75), (f"{payload} other", 0.25))
    thinking = (payload, payload)
    html = render_variable_html(payload, "done", payload, finish=None, error=None, note=None, thinking=thinking, scores=scores)
    assert not audit(html)
    assert not TERMINAL_OBEYS.search(render_variable_text(payload, "done", payload, error=None, note=payload, scores=scores))


@every_payload
def test_the_report(payload):
    variables = [node(payload, payload), node(payload, [payload]), node("long", payload * 90), VariableNode(payload)]
    variables[-1].fail(ParrotError(payload))
    model = ModelInfo(payload, payload, 1, payload, payload, 9, note=payload, swapped=(payload,))
    html = page(history(payload)[:9], variables, [model], when=datetime(2026, 1, 1, tzinfo=UTC))
    html = re.sub(r"<style>.*?</style>", "", html, count=1, flags=re.DOTALL)  # our own, which comes first
    assert not audit(html, page=True)


def test_graphs_as_files():
    for payload in PAYLOADS:
        source = drawn(state_of(history(payload)), ".dot").decode()
        outside = re.sub(r'"(?:[^"\\]|\\.)*"|<.*>', "", source)
        assert not re.search(r"\b(URL|href|edgeURL|image|tooltip)\s*=", outside), payload
        assert not re.search(r"label=<(?!<font color|<b>)", source), payload


@pytest.mark.skipif(shutil.which("dot") is None, reason="needs Graphviz")
def test_graphs_as_pictures():
    state = GraphState()
    for i, payload in enumerate(PAYLOADS):
        first = [e for e in history(payload) if getattr(e, "call_id", None) in (10, 12) or getattr(e, "variable_id", 99) <= 13]
        state.add(moved(event, 100 * i) for event in first)
    assert not audit_svg(drawn(state, ".svg"))


# Traces of somebody else


def test_a_foreign_trace_says_nothing_where_a_number_or_a_state_is_meant(tmp_path):
    """Those are written into pages as they are, so a file must not bring words in their place."""
    path = Path(tmp_path / "trace.json")
    write_trace(path, history("said"))
    whole = json.loads(path.read_text(encoding="utf-8"))
    bad, free = "<img src=x onerror=__pwned=1>", set()
    where = {(event["event"], key): i for i, event in enumerate(whole["parrot_nb"]["events"]) for key in event}
    for (_, key), i in where.items():
        changed = json.loads(json.dumps(whole))
        changed["parrot_nb"]["events"][i][key] = bad
        path.write_text(json.dumps(changed), encoding="utf-8")
        try:
            log = read_trace(path)
        except TraceError:
            continue
        free.add(key)
        assert not audit(render_graph_html(state_of(log)))
        assert not audit(render_timeline_html(TimelineFold.of(log).timeline()))
    assert free == {"name", "function", "text", "error", "note", "finish", "engine", "model", "detail"}


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity", "1e400", "1e300", "-1e300", str(2**63), str(10**40)])
def test_a_foreign_trace_holds_no_number_that_is_none(tmp_path, number):
    """Every number of every event, also those within a step, a group or a usage."""
    path = Path(tmp_path / "trace.json")
    write_trace(path, history("said"))
    events = json.loads(path.read_text(encoding="utf-8"))["parrot_nb"]["events"]
    assert read_trace(path)
    seen = set()
    for i, event in enumerate(events):
        for changed, key in altered(event):
            if (event["event"], key) in seen:
                continue
            seen.add((event["event"], key))
            text = json.dumps({"parrot_nb": {"format": 1, "events": [*events[:i], changed]}}).replace('"ODD"', number)
            path.write_text(text, encoding="utf-8")
            with pytest.raises(TraceError, match=f"its event {i + 1} cannot be read"):
                read_trace(path)
    assert len(seen) > 20


def altered(value, key=""):
    """Copies of a value, each with another one of its numbers replaced, and the name of that number."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        yield "ODD", key
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from (({**value, name: other}, f"{key}.{name}") for other, key in altered(inner, f"{key}.{name}"))
    elif isinstance(value, list):
        for i, inner in enumerate(value):
            yield from (([*value[:i], other, *value[i + 1 :]], key) for other, key in altered(inner, f"{key}[]"))


# Words for terminals


@pytest.mark.parametrize("payload", [p for p in PAYLOADS if any(ord(c) < 32 and c not in "\n\t\r" for c in p)])
def test_plain_texts_hold_nothing_that_a_terminal_obeys(payload):
    log = history(payload)
    cause = ParrotError(payload)
    cause.__cause__ = ValueError(payload)
    told = [
        render_variable_text(payload, "done", payload, error=None, note=payload),
        render_variable_text(payload, "failed", "", error=payload, note=None),
        render_graph_text(state_of(log)),
        render_timeline_text(TimelineFold.of(log).timeline()),
        repr(report(payload, [(payload, payload)])),
        repr(Plain(payload)),
        *errors.rendered(cause),
    ]
    assert not [text for text in told if any(ord(c) < 32 and c not in "\n\t\r" for c in text)]
    assert "\u241b" in "".join(told) or "\u2400" in "".join(told), "what is left of it is seen"
