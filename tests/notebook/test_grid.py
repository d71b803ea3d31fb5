"""The table view's rows: order, filters, windows, files, and what is sent to a page of them."""

from __future__ import annotations

import csv
import io
import threading
import time
from collections.abc import Iterator
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.notebook.grid import Grid, GridView, Query, csv_chunk
from parrot_nb.notebook.grid.csv_text import CHUNK_ROWS
from parrot_nb.notebook.grid.csv_text import cell as csv_cell
from parrot_nb.notebook.grid.view import MAX_WINDOW, query_of
from parrot_nb.notebook.state import GraphState
from parrot_nb.notebook.tables import still_bundle
from parrot_nb.notebook.widget import FrontEnd
from parrot_nb.tables import measuring


@pytest.fixture(scope="module")
def session() -> Iterator[P.Session]:
    with P.Session(isolate=False) as opened:
        yield opened


@P.native_function
def half(n: object) -> float:
    """Half of a number; fails on what is none."""
    return n / 2  # type: ignore[operator]


@P.native_function
def copied(text: str) -> str:
    return text


def halves(cells: list[Any]) -> Any:
    rows = half.map([{"n": cell} for cell in cells])
    rows.get()
    return rows


def places(grid: Grid, **asked: Any) -> list[int]:
    grid.ask(Query(**asked))
    return list(grid.order())


def test_rows_are_ordered_and_filtered(session):
    grid = Grid(halves([4, "x", 10, 2, None, 6]))
    assert places(grid) == [0, 1, 2, 3, 4, 5]
    assert places(grid, sort="out:0:0") == [3, 0, 5, 2, 1, 4], "numbers by size, gaps last"
    assert places(grid, sort="out:0:0", descending=True) == [2, 5, 0, 3, 1, 4]
    assert places(grid, failed_first=True) == [1, 4, 0, 2, 3, 5]
    assert places(grid, states=frozenset({"failed"})) == [1, 4]
    assert places(grid, sort="state") == [1, 4, 0, 2, 3, 5]
    assert places(grid, text="X") == [1]
    assert places(grid, text="5.0") == [2]
    assert places(grid, sort="row", descending=True) == [5, 4, 3, 2, 1, 0]
    assert places(grid, sort="no such column") == [0, 1, 2, 3, 4, 5]


@settings(max_examples=30, deadline=None)
@given(st.lists(st.one_of(st.integers(-50, 50), st.none()), min_size=1, max_size=30), st.booleans(), st.booleans())
def test_an_order_is_that_of_sorted(session, cells, descending, failed_first):
    grid = Grid(halves(cells))
    found = places(grid, sort="in:n", descending=descending, failed_first=failed_first)
    given_cells = [i for i, cell in enumerate(cells) if cell is not None]
    wanted = sorted(given_cells, key=lambda i: cells[i], reverse=descending)
    gaps = [i for i, cell in enumerate(cells) if cell is None]
    assert found == ([*gaps, *wanted] if failed_first else [*wanted, *gaps])


def test_columns_are_of_their_types(session):
    grid = Grid(halves([1, 2]))
    assert [(c.name, c.role, c.kind) for c in grid.columns()] == [("n", "input", "int"), ("half", "output", "float")]
    typed = P.SemanticFunction("{{input:x}} {{output:n: int, max_tokens=3}} {{output:good: bool}}", name="typed")
    grid = Grid(typed.map([{"x": "a"}]))
    assert [c.kind for c in grid.columns()] == ["text", "int", "bool"], "before there are values"


def test_a_window_has_its_rows_alone(session):
    grid = Grid(halves(list(range(50))))
    assert grid.window(10, 2) == [[10, ["done"], ["10", "5.0"], []], [11, ["done"], ["11", "5.5"], []]]
    assert grid.window(49, 10) == [[49, ["done"], ["49", "24.5"], []]]
    assert grid.window(90, 10) == []


def test_texts_are_cut_and_made_visible(session):
    rows = copied.map([{"text": "a\x1b[31m\u0000 b\n\nc"}, {"text": "long " * 100_000}, {"text": "half \ud800 a character"}])
    rows.get()
    texts = [row[2][0] for row in Grid(rows).window(0, 3)]
    assert texts[0] == "a␛[31m␀ b c"
    assert len(texts[1] or "") == 300
    assert "\ud800" not in (texts[2] or "")


# Files


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=20), min_size=1, max_size=5))
def test_a_file_says_what_the_cells_say(session, cells):
    rows = copied.map([{"text": cell} for cell in cells])
    rows.get()
    grid = Grid(rows)
    text, then = csv_chunk(grid, grid.order(), 0)
    assert then == len(cells)
    header, *lines = csv.reader(io.StringIO(text.removeprefix("\ufeff"), newline=""))
    assert header == ["row", "text", "copied", "state", "error"]
    for cell, line in zip(cells, lines, strict=True):
        for shown in line[1:3]:
            assert shown in (cell, f"'{cell}")
            assert not shown.startswith(("=", "+", "-", "@", "\t", "\r"))


def test_numbers_are_no_formulas_and_quotes_are_right(session):
    rows = half.map([{"n": -3}, {"n": '=HYPERLINK("http://x","a,b")'}])
    rows.get()
    grid = Grid(rows)
    _, number, formula = csv.reader(io.StringIO(csv_chunk(grid, grid.order(), 0)[0], newline=""))
    assert number[:4] == ["0", "-3", "-1.5", "done"]
    assert formula[1] == '\'=HYPERLINK("http://x","a,b")'
    assert formula[3] == "failed"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (np.int64(-5), "-5"),
        (Decimal(-2), "-2"),
        (-1.5, "-1.5"),
        ("-5", "'-5"),
        ("\n=1+2", "'\n=1+2"),
        ("\uff1d1+2", "'\uff1d1+2"),
        ("a;=1+2", "'a;=1+2"),
        ("a\nb\t@c", "'a\nb\t@c"),
        ("a = b; c-d", "a = b; c-d"),
    ],
)
def test_texts_are_guarded_and_numbers_are_not(value, shown):
    assert csv_cell(value) == shown


def test_a_long_file_comes_in_parts(session):
    rows = half.map([{"n": n} for n in range(CHUNK_ROWS + 5)])
    rows.get()
    grid = Grid(rows)
    first, then = csv_chunk(grid, grid.order(), 0)
    last, end = csv_chunk(grid, grid.order(), then)
    assert (then, end) == (CHUNK_ROWS, CHUNK_ROWS + 5)
    assert len(list(csv.reader(io.StringIO(first + last)))) == CHUNK_ROWS + 6


# Several functions, and scores


def test_functions_that_differ_are_told(session):
    other = P.native_function(lambda text: text.upper(), name="upper")
    table = [{"text": text, "label": "A"} for text in ("A", "b", "C")]
    grid = Grid(P.compare([copied, other], table, "label"))
    assert [side.name for side in grid.sides] == ["copied", "upper"]
    assert [(c.name, c.side) for c in grid.columns()] == [
        ("text", 0), ("expected", 0), ("copied", 0), ("score", 0), ("upper", 1), ("score", 1),
    ]  # fmt: skip
    assert grid.window(1, 1) == [[1, ["done", "done"], ["b", "A", "b", "0", "B", "0"], [4]]]
    assert places(grid, differing=True) == [1]
    header = csv_chunk(grid, grid.order(), 0)[0].splitlines()[0]
    assert header.endswith("copied.copied,copied.score,upper.upper,upper.score,copied.state,copied.error,upper.state,upper.error")


def test_a_measuring_tells_its_scores_while_rows_end(session, monkeypatch):
    heard: list[measuring.Measuring] = []
    seen: list[tuple[int, float]] = []
    monkeypatch.setattr(measuring, "on_measuring", heard.append)

    def judge(value: float, expected: float) -> bool:
        scored = heard[0].parts[0].scores
        seen.append((len(scored), sum(scored)))
        return value == expected

    table = [{"n": n, "label": n / 2 if n % 4 else -1} for n in range(40)]
    measured = P.evaluate(half, table, "label", judge)
    assert [scored for scored, _ in seen] == list(range(40)), "each row once, in order"
    assert heard[0].is_over
    assert measured.scores == tuple(float(bool(n % 4)) for n in range(40))
    assert Grid(heard[0]).scores() == [("half", 40, 0.75, measured.interval)]
    P.compare([half, half], table, "label")
    assert [len(each.parts) for each in heard] == [1, 2], "a comparison is told of once"


def test_a_measuring_that_is_over_keeps_the_scores_of_a_judge_in_the_graph(session, monkeypatch):
    heard: list[measuring.Measuring] = []
    monkeypatch.setattr(measuring, "on_measuring", heard.append)
    judge = P.native_function(lambda value, expected: value == expected, name="same")
    measured = P.evaluate(half, [{"n": n, "label": n / 2 if n % 4 else -1} for n in range(8)], "label", judge)
    assert Grid(heard[0]).scores() == [("half", 8, 0.75, measured.interval)]
    words = still_bundle(heard[0], None)["text/plain"]
    assert "0.750" in words
    assert "so far" not in words


def test_a_judge_that_raises_ends_the_rows(session):
    def judge(value: object, expected: object) -> bool:
        raise LookupError("no such thing")

    with pytest.raises(LookupError):
        P.evaluate(half, [{"n": 1, "label": 1}], "label", judge)


def test_all_of_a_comparison_is_cancelled(session, monkeypatch):
    """Also the functions that have not begun, and one that judges, however it is said."""
    heard: list[measuring.Measuring] = []
    monkeypatch.setattr(measuring, "on_measuring", heard.append)
    table = [{"n": n, "label": n} for n in range(3)]
    begun = []

    def cancels(n: int) -> int:
        begun.append(n)
        while len(heard) < announced:  # rows run before their measuring is told of
            time.sleep(0.001)
        if n == 0:
            how()
        return n

    first = P.native_function(cancels, name="first")
    second = P.native_function(lambda n: begun.append("second"), name="second")
    ways = [lambda: Grid(heard[-1]).cancel(), session.cancel]
    for announced, how in enumerate(ways, 1):  # noqa: B007 - `cancels` does it
        with pytest.raises(P.CallCancelledError, match="'second' was not measured, since all was cancelled"):
            P.compare([first, second], table, "label")
    judge = P.native_function(lambda value, expected: begun.append("judge"), name="judge")
    announced = 3
    with pytest.raises(P.CallCancelledError, match="'judge' was not measured"):
        P.evaluate(first, table, "label", judge)
    assert not {"second", "judge"} & set(begun)
    announced, how = 0, lambda: None
    assert P.compare([first, half], table, "label").evaluations["first"].score == 1.0, "the next is not"


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        ([1, 2], "int"), ([1, 2.5], "float"), ([np.int64(1), np.float32(2)], "float"), ([Decimal(1), None], "float"),
        ([True, False], "bool"), ([np.bool_(True)], "any"), ([1j], "any"), (["1"], "text"), ([None], "any"),
    ],
)  # fmt: skip
def test_numbers_of_any_library_are_numbers(session, cells, kind):
    rows = P.native_function(lambda n: n, name="same").map([{"n": cell} for cell in cells], on_error="keep")
    rows.get()
    assert Grid(rows).columns()[0].kind == kind


def test_decimals_are_sorted_by_size(session):
    cells = [Decimal(10), 9.5, Decimal("NaN"), np.float32(2), Decimal(-1)]
    assert places(Grid(halves(cells)), sort="in:n") == [4, 3, 1, 0, 2]


# What a page is told


class Page:
    """In place of the widget: what was sent to it."""

    comm = SimpleNamespace()

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.graph: dict[str, Any] = {}

    def send(self, message: dict[str, Any]) -> None:
        self.sent.append(message)


def shown(session: P.Session, source: Any) -> tuple[GridView, Page]:
    view = GridView(source, session, FrontEnd(None), lambda question: question[0].answer(question[1]), still_bundle)
    page = Page()
    view._widget = page
    view.answer({"type": "window", "start": 0, "count": 10})
    return view, page


def test_a_page_is_told_of_rows_in_sight_alone(session):
    rows = half.map([{"n": n} for n in range(1000)])
    rows.get()
    view, page = shown(session, rows)
    assert set(page.sent[-1]["rows"]) == set(range(10))
    view.answer({"type": "window", "start": 500, "count": 1_000_000})
    assert set(page.sent[-1]["rows"]) == set(range(500, 500 + MAX_WINDOW))
    before = len(page.sent)

    view._push()
    assert len(page.sent) == before, "nothing is said twice"
    view.answer({"type": "window", "start": -5, "count": -1})
    assert page.sent[-1]["rows"] == {}


def test_an_idle_sorted_table_is_not_looked_at_each_time(session, monkeypatch):
    view, _ = shown(session, halves([3, 1, 2]))
    view.answer({"type": "query", "sort": "in:n"})
    monkeypatch.setattr(view, "update_still", lambda *_, **__: False)  # it has no still output here
    monkeypatch.setattr(type(view.grid), "is_settled", False)  # as if rows were still to come
    looked: list[bool] = []
    push = view._push
    monkeypatch.setattr(view, "_push", lambda: (looked.append(True), push())[1])
    clock = SimpleNamespace(monotonic=lambda: 1000.0)
    monkeypatch.setattr("parrot_nb.notebook.grid.view.time", clock)
    view._pushed_s = 0.0
    for _ in range(5):
        view.update(GraphState(), in_cell=False)
    assert len(looked) == 1, "the others came too soon, though nothing was sent"


def test_an_order_computes_no_interval(session, monkeypatch):
    heard: list[measuring.Measuring] = []
    monkeypatch.setattr(measuring, "on_measuring", heard.append)
    P.evaluate(half, [{"n": n, "label": n / 2} for n in range(5)], "label")
    grid = Grid(heard[0])
    monkeypatch.setattr(Grid, "scores", lambda _: pytest.fail("an interval is dear"))
    assert places(grid, sort="in:n", descending=True) == [4, 3, 2, 1, 0]


def test_a_result_sends_the_rows_in_sight_again(session, monkeypatch):
    heard: list[measuring.Measuring] = []
    monkeypatch.setattr(measuring, "on_measuring", heard.append)
    measured = P.evaluate(half, [{"n": n, "label": n / 2} for n in range(30)], "label")
    view, page = shown(session, heard[0])
    view.answer({"type": "query", "sort": "in:n", "descending": True})
    before = page.sent[-1]
    view.become(measured)
    view._push()
    after = page.sent[-1]
    assert after["version"] > before["version"], "a version never comes back with other rows"
    assert after["rows"] == before["rows"]
    assert set(after["rows"]) == set(range(10)), "the page has cleared them"


def test_nobody_waits_for_the_order_of_a_long_table(session, monkeypatch):
    """The order before stays until it is found; then the page gets all rows in sight."""
    monkeypatch.setattr("parrot_nb.notebook.grid.grid.AT_ONCE_ROWS", 20)
    view, page = shown(session, halves(list(range(30))))
    go, ordered = threading.Event(), Grid._ordered
    monkeypatch.setattr(Grid, "_ordered", lambda grid, query: (go.wait(30), ordered(grid, query))[1])
    before = page.sent[-1]
    view.answer({"type": "query", "sort": "in:n", "descending": True})
    assert page.sent[-1]["version"] == before["version"]
    assert page.sent[-1]["rows"] == before["rows"]
    assert view.due
    view.answer({"type": "query", "sort": "in:n", "descending": True, "text": "1"})  # before that was found
    go.set()
    while view.grid.due:
        view._push()
    after = page.sent[-1]
    assert after["version"] == before["version"] + 1
    assert set(after["rows"]) == set(range(10))
    wanted = [n for n in reversed(range(30)) if "1" in f"{n} {n / 2}"]
    assert [row[0] for row in after["rows"].values()] == wanted[:10]
    assert after["matching"] == len(wanted)


def test_a_page_asks_for_what_makes_sense(session):
    view, page = shown(session, halves([1, "x"]))
    view.heard({"type": "details", "row": 1, "side": 0})
    assert page.sent[-1]["state"] == "failed"
    assert "TypeError" in page.sent[-1]["error"][0] or "NativeFunctionError" in page.sent[-1]["error"][0]
    before = len(page.sent)
    for strange in ({"row": 2, "side": 0}, {"row": -1, "side": 0}, {"row": 0, "side": 3}, {"row": "0", "side": 0}):
        view.heard({"type": "details", **strange})
    view.heard({"type": "cancel", "row": 0, "side": 9})
    view.heard({"type": "no such thing"})
    assert len(page.sent) == before
    assert query_of({"sort": 3, "states": "failed", "text": None, "failed_first": "yes"}) == Query()


def test_the_still_table_shows_words(session):
    hostile = P.native_function(lambda text: text, name="<b>name</b>")
    rows = hostile.map([{"text": "<img src=x onerror=1>"}] * 12)
    rows.get()
    bundle = still_bundle(rows, "mark")
    assert 'data-parrot-view="mark"' in bundle["text/html"]
    assert "<img" not in bundle["text/html"]
    assert "<b>" not in bundle["text/html"]
    assert "the first 10 are shown" in bundle["text/plain"]
    measured = P.evaluate(half, [{"n": 1, "label": 0.5}], "label")
    bundle = still_bundle(measured)
    assert bundle["text/plain"].startswith(repr(measured))
    assert "0.5" in bundle["text/html"]


def test_a_row_is_told_as_a_call_is(session):
    f = P.SemanticFunction("Say {{input:x}}: {{output:y, max_tokens=3, ignore_eos=True}}!", name="say")
    rows = f.map([{"x": "a word"}])
    rows.get()
    view, page = shown(session, rows)
    view.answer({"type": "details", "row": 0, "side": 0})
    told = page.sent[-1]
    assert [segment["text"] for segment in told["prompt"]] == ["Say ", "a word", ": ", rows[0].value, "!"]
    assert told["tokens"]["decoded"] == 3
    assert {phase for phase, _ in told["seconds"]} <= {"queued", "prefill", "decode"}


class HasAnyName:
    """A class whose attributes are code of the user's that raises."""

    def __getattr__(self, name: str):
        raise KeyError(name)

    def __str__(self) -> str:
        return "any"


def test_an_object_of_the_users_is_sorted_by_its_words():
    from parrot_nb.notebook.grid.cells import sort_key

    assert sort_key(HasAnyName())[0] == 1


def test_scores_are_told_of_though_all_rows_have_ended(session):
    """A judge may take longer than the rows: the session's events tell nothing of it."""
    from parrot_nb.tables import measuring

    told = []

    def heard(measured):
        measured.on_scored = lambda: told.append(len(measured.parts[0].scores))

    before, measuring.on_measuring = measuring.on_measuring, heard
    try:
        same = P.native_function(lambda n: n, name="same")
        P.evaluate(same, [{"n": n, "label": n} for n in range(5)], "label", metric=lambda value, expected: value == expected)
    finally:
        measuring.on_measuring = before
    assert told == [1, 2, 3, 4, 5]
