"""What views show, as a pure function of events: fold, layout, still pictures."""

from __future__ import annotations

import re
import threading
from xml.etree import ElementTree as ET

from drawn_pictures import drawn, pictures
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.notebook.layout import layout
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.static import render_graph_html, render_graph_text, render_variable_html, render_variable_text
from parrot_nb.notebook.widget.wire import Sent, variable_row
from parrot_nb.runtime import events

STATES = ["pending", "running", "done", "failed", "cancelled"]
nasty = st.text(st.sampled_from("ab<>&\"'\n✓é漢\x07 "), min_size=1, max_size=60)


@st.composite
def histories(draw, first_id: int = 1) -> list[events.Event]:
    """Events of a random application; ids start at `first_id`."""
    found: list[events.Event] = []
    variables, ids = [], iter(range(first_id, first_id + 10_000))
    for _ in range(draw(st.integers(1, 14))):
        kind = draw(st.sampled_from(["semantic", "semantic", "native", "join"]))
        inputs = []
        for k in range(draw(st.integers(0, 3))):
            if variables and draw(st.booleans()):
                inputs.append((f"p{k}", draw(st.sampled_from(variables))))
            else:
                plain = next(ids)
                found.append(events.VariableAdded(0.0, plain, draw(nasty), None))
                inputs.append((f"p{k}", plain))
        call, outputs = next(ids), [next(ids) for _ in range(draw(st.integers(1, 3)))]
        found.append(events.CallAdded(0.0, call, draw(nasty), kind, tuple(inputs), tuple(outputs), draw(st.sampled_from([1, 2]))))
        for output in outputs:
            found.append(events.VariableAdded(0.0, output, draw(nasty), call))
            if draw(st.booleans()):
                found.append(events.ThinkingAppended(0.0, output, draw(nasty), draw(st.integers(0, 5))))
            found.append(events.TextAppended(0.0, output, draw(nasty), draw(st.integers(0, 5))))
            found.append(
                events.VariableChanged(
                    0.0, output, draw(st.sampled_from(STATES)), text=draw(st.none() | nasty), note=draw(st.none() | nasty)
                )
            )
        state = draw(st.sampled_from(STATES))
        found.append(events.CallChanged(0.0, call, state, "ended", error=draw(nasty) if state == "failed" else None))
        variables += outputs
    return found


def folded(history) -> GraphState:
    state = GraphState()
    state.add(history)
    return state


@settings(max_examples=150, deadline=None)
@given(histories(), st.integers(0, 100))
def test_folding_in_parts_is_folding_at_once(history, cut):
    state = GraphState()
    state.add(history[:cut])
    state.add(history[cut:])
    assert state == folded(history)
    assert state.num_events == len(history)


@settings(max_examples=150, deadline=None)
@given(histories(), histories(first_id=20_001), st.integers(0, 12))
def test_what_is_let_go_leaves_a_graph_that_can_be_drawn(history, later, keep):
    state, whole = folded(history), folded(history)
    state.let_go(keep)
    ended = [call for call in whole.calls.values() if call.state in ("done", "failed", "cancelled")]
    gone = whole.calls.keys() - state.calls.keys()
    assert len(gone) == state.num_earlier
    assert len(state.calls) <= max(keep + keep // 4, len(whole.calls) - len(ended)) or not ended
    assert gone <= {call.id for call in ended}
    if any(whole.calls[call].state != "done" for call in gone):
        assert all(call.id in gone for call in ended if call.state == "done"), "what failed goes last"
    read = {v for call in state.calls.values() for v in (*call.outputs, *(variable for _, variable in call.inputs))}
    assert read & whole.variables.keys() <= state.variables.keys()
    layout(state)
    assert ("earlier call" in render_graph_text(state)) == bool(gone and state.calls)
    assert ("earlier call" in render_graph_html(state)) == bool(gone and state.calls)
    for event in (*history, *later):  # of calls that are gone, too
        state.add([event])


def test_thousands_of_calls_are_counted_and_not_listed():
    calls = [events.CallAdded(0.0, i, "f", "semantic", (), (), 1) for i in range(1, 700)]
    text = render_graph_text(folded(calls))
    assert len(text.splitlines()) < 600
    assert "… and 199 more calls" in text


@settings(max_examples=150, deadline=None)
@given(histories())
def test_every_call_has_a_place_of_its_own(history):
    state = folded(history)
    plan = layout(state)
    assert sorted(call.id for card in plan.cards for call in card.calls) == sorted(state.calls)
    for i, a in enumerate(plan.cards):
        assert 0 <= a.x <= a.x + a.width <= plan.width
        assert 0 <= a.y <= a.y + a.height <= plan.height
        for b in plan.cards[i + 1 :]:
            assert a.x + a.width <= b.x or b.x + b.width <= a.x or a.y + a.height <= b.y or b.y + b.height <= a.y, "cards overlap"
    assert all(plan.cards[e.source].x + plan.cards[e.source].width < plan.cards[e.target].x for e in plan.edges)


@settings(max_examples=150, deadline=None)
@given(histories())
def test_pictures_are_well_formed_and_hold_nothing_foreign(history):
    state = folded(history)
    html = render_graph_html(state)
    (svg,) = pictures(html)
    tags = {element.tag.rpartition("}")[2] for element in ET.fromstring(svg).iter()}
    assert tags <= {"svg", "style", "g", "rect", "text", "path"}
    assert "http" not in html
    assert re.findall(r"https?://[^\"]*", svg) == ["http://www.w3.org/2000/svg"]
    assert "<svg" not in html, "an untrusted notebook shows none"
    assert "None" not in render_graph_text(state)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_pictures_do_not_depend_on_ids(data):
    history = data.draw(histories())
    moved = [
        type(e)(**{f: _moved(f, getattr(e, f)) for f in e.__struct_fields__})
        for e in history
    ]  # fmt: skip
    assert render_graph_html(folded(history)) == render_graph_html(folded(moved))
    assert render_graph_text(folded(history)) == render_graph_text(folded(moved))


def _moved(name: str, value):
    if name in ("variable_id", "call_id") or (name == "producer_id" and value is not None):
        return value + 7000
    if name == "inputs":
        return tuple((parameter, variable + 7000) for parameter, variable in value)
    if name == "outputs":
        return tuple(variable + 7000 for variable in value)
    return value + 5.0 if name == "time_s" else value


@settings(deadline=None)
@given(histories(), st.sampled_from([1, 2]))
def test_a_cell_shows_its_calls_and_all_they_depend_on(history, cell):
    state = folded(history)
    part = state.of_cell(cell)
    own = {call.id for call in state.calls.values() if call.cell == cell}
    assert own <= set(part.calls)
    for call in part.calls.values():
        assert set(state.sources(call)) <= set(part.calls)
    feeding = {source for call in part.calls.values() for source in state.sources(call)}
    assert set(part.calls) == own | feeding


def test_many_like_calls_become_one_card():
    history: list[events.Event] = []
    for i in range(40):
        history.append(events.CallAdded(0.0, i + 1, "summarize", "semantic", (), (1000 + i,), 1))
        history.append(events.VariableAdded(0.0, 1000 + i, "summary", i + 1))
        history.append(events.CallChanged(0.0, i + 1, "done" if i < 31 else "running", "decode"))
    reader = tuple((str(i), 1000 + i) for i in range(40))
    history.append(events.CallAdded(0.0, 99, "reduce", "semantic", reader, (2000,), 1))
    history.append(events.VariableAdded(0.0, 2000, "whole", 99))
    state = folded(history)
    plan = layout(state)
    assert [len(card.calls) for card in plan.cards] == [40, 1]
    assert [(e.label, e.count) for e in plan.edges] == [("summary", 40)]
    html = drawn(render_graph_html(state))
    assert "summarize ×40" in html
    assert "31 done · 9 running" in html


def test_a_reset_forgets():
    history = [
        events.CallAdded(0.0, 1, "f", "semantic", (), (2,), 1),
        events.VariableAdded(0.0, 2, "y", 1),
        events.SessionReset(1.0),
        events.TextAppended(2.0, 2, "late", 1),
        events.ThinkingAppended(2.0, 2, "later", 1),
    ]
    state = folded(history)
    assert not state.calls
    assert not state.variables
    assert "No call" in render_graph_text(state)


def test_thoughts_are_counted_and_never_shown_as_the_text():
    history = [
        events.VariableAdded(0.0, 2, "y", 1, max_tokens=9),
        events.CallAdded(0.0, 1, "f", "semantic", (), (2,), 1),
        events.VariableChanged(0.0, 2, "running"),
        events.ThinkingAppended(1.0, 2, "hm", 3),
        events.ThinkingAppended(1.0, 2, "so", 4),
    ]
    view = folded(history).variables[2]
    assert (view.text, view.num_tokens, view.shown) == ("", 0, "thinking, 7 tokens so far")
    assert variable_row(view)[1:3] == [0, "thinking, 7 tokens so far"]
    html = drawn(render_graph_html(folded(history)))
    assert "thinking, 7 tokens so far" in html
    assert "hm" not in html
    history.append(events.TextAppended(2.0, 2, "yes", 1))
    view = folded(history).variables[2]
    assert (view.num_tokens, view.shown) == (1, "yes")


@given(nasty, st.sampled_from(STATES), nasty, st.none() | nasty, st.none() | st.tuples(nasty, nasty))
def test_a_variable_is_escaped(name, state, text, error, thinking):
    html = render_variable_html(name, state, text, finish=None, error=error, note="<i>", thinking=thinking)
    assert ("<details" in html) == (thinking is not None)
    assert " open" not in html.partition("<summary>")[0].rpartition("<details")[2] if thinking else True
    inside = re.sub(r"</?(div|span|b|pre|details|summary)( style=\"[^\"]*\"| class=\"[^\"]*\")*>", "", html)
    assert "<" not in inside
    assert ">" not in inside


@given(st.lists(st.tuples(nasty, st.floats(0, 1)), min_size=1, max_size=12))
def test_the_choices_of_a_variable_are_bars(scores):
    html = render_variable_html("x", "done", "a", finish=None, error=None, note=None, scores=scores)
    assert html.count("display:contents") == min(len(scores), 9)
    inside = re.sub(r"</?(div|span|b|pre)( style=\"[^\"]*\"| class=\"[^\"]*\")*>", "", html)
    assert "<" not in inside
    assert ">" not in inside
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", html)]
    assert widths[:8] == sorted(widths[:8], reverse=True)


def test_the_likeliest_choice_stands_first_in_words_too():
    scores = [("low", 0.0001), ("high", 0.99987), ("none", 0.00005)]
    text = render_variable_text("x", "done", "high", error=None, note=None, scores=scores)
    assert text.splitlines() == ["x (done)", "high", "high >99.9 % · low <0.1 % · none <0.1 %"]


def test_only_a_graph_that_waits_says_that_the_model_is_loaded():
    """A settled graph is drawn no more: what it said last would stay."""
    waiting = [
        events.ModelChanged(0.0, "m", "loading"),
        events.CallAdded(0.0, 1, "f", "semantic", (), (2,), 1),
        events.VariableAdded(0.0, 2, "y", 1),
    ]
    cancelled = [*waiting, events.CallChanged(0.0, 1, "cancelled", "ended"), events.VariableChanged(0.0, 2, "cancelled")]
    ready = [*waiting, events.ModelChanged(0.0, "m", "ready")]
    for history, said in ((waiting, True), (cancelled, False), (ready, False)):
        assert ("loading the model" in render_graph_text(folded(history))) == said
        assert ("loading the model" in render_graph_html(folded(history))) == said
        assert Sent().everything(folded(history))["loading"] == said


def application(*calls: tuple[int, str, tuple[tuple[str, int], ...], int]) -> list[events.Event]:
    """Calls of number, function, inputs and output."""
    found: list[events.Event] = []
    for call, function, inputs, output in calls:
        found.append(events.CallAdded(0.0, call, function, "semantic", inputs, (output,), 1))
        found.append(events.VariableAdded(0.0, output, "y", call))
    return found


def test_what_did_not_run_is_told_from_what_failed():
    history = application(
        (1, "read", (), 11), (2, "sum_up", (("x", 11),), 12), (3, "show", (("x", 12),), 13), (4, "apart", (), 14)
    )
    for call, output in ((1, 11), (2, 12), (3, 13), (4, 14)):
        state = "failed" if call < 4 else "done"
        history.append(events.VariableChanged(1.0, output, state, error="no file" if call < 4 else None))
        history.append(events.CallChanged(1.0, call, state, "ended", error="no file" if call < 4 else None))
    state = folded(history)
    assert render_graph_text(state).splitlines()[0] == "4 calls · 1 done · 1 failed · 2 not run"
    assert [row[0] for row in Sent().everything(state)["calls"].values()] == ["failed", "unrun", "unrun", "done"]
    assert [cause.id for cause in state.causes(state.calls[3])] == [1]
    html = render_graph_html(state)
    assert drawn(html).count("not run: read failed") == 2
    assert "read: failed, sum_up: not run" in html, "the alternative text says so too"


def test_cards_of_one_function_say_what_they_differ_in():
    history: list[events.Event] = []
    for i, part in enumerate(("the first part", "the second part")):
        history.append(events.VariableAdded(0.0, 20 + i, "part", None))
        history.append(events.VariableChanged(0.0, 20 + i, "done", text=part))
    history += application(
        (1, "refine", (("part", 20),), 11), (2, "refine", (("so_far", 11), ("part", 21)), 12), (3, "alone", (), 13)
    )
    state = folded(history)
    assert state.distinction(state.calls[3]) == ""
    html = drawn(render_graph_html(state))
    assert "part: the first part" in html
    assert "part: the second part" in html


def test_no_graph_is_said():
    assert "there is no graph" in render_graph_text(GraphState())
    assert "there is no graph" in render_graph_html(GraphState())


# Races


def test_the_winner_of_a_race_is_marked():
    """In the still picture, on the wire to the page, and in a recorded trace; before there is one, and where none is, nothing is."""
    go = threading.Event()
    with P.Session(isolate=False) as session:
        slow = P.native_function(lambda: go.wait(30) and "slow", name="slow")()
        fast = P.native_function(lambda: "fast", name="quick")()
        race = P.first(slow, fast)
        also = P.native_function(lambda text: text, name="reads")(slow)  # so that it is not cancelled
        also.submit()
        begun = folded(list(session.events.since(0)))
        assert race.get() == "fast"
        go.set()
        also.get()
        state = folded(session.events.since(0))
    assert not any(edge.lost for edge in layout(begun).edges)
    plan = layout(state)
    lost = {plan.cards[edge.source].calls[0].function for edge in plan.edges if edge.lost}
    assert lost == {"slow"}
    assert {plan.cards[edge.target].calls[0].function for edge in plan.edges if edge.lost} == {"first"}
    assert "first: done, quick was first" in render_graph_html(state)
    assert variable_row(state.variables[race.node.id])[-1] == fast.node.id
    assert variable_row(state.variables[fast.node.id])[-1] is None
