"""Maps over tables: which columns go where, what is kept of each row, and how rows enter."""

from __future__ import annotations

import datetime as dt
import gc
import threading
import weakref
from collections import deque

import pandas as pd
import polars as pl
import pytest
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P

TEXTS = ["red", "green", "blue"]
LIBRARIES = {"pandas": pd.DataFrame, "polars": pl.DataFrame, "dicts": lambda columns: pl.DataFrame(columns).to_dicts()}


@pytest.fixture(params=LIBRARIES)
def table_of(request):
    """Makes a table of columns."""
    return LIBRARIES[request.param]


def generated(texts: list[str]) -> list[str]:
    return [text_of(f"Say {text}: ") for text in texts]


def say(**options) -> P.SemanticFunction:
    return f("Say {{input:text}}: {{output:said}}", **options)


# Which column goes where


def test_columns_go_to_parameters_by_name(session, table_of):
    rows = say().map(table_of({"n": [1, 2, 3], "text": TEXTS}))
    assert rows.get(timeout=WAIT_S) == generated(TEXTS)


def test_a_column_of_another_name_and_what_is_the_same_for_all(session, table_of):
    both = f("{{input:place}} {{input:text}}: {{output:said}}")
    rows = both.map(table_of({"word": TEXTS}), text="word", place=P.variable(value="Rome"))
    assert rows.get(timeout=WAIT_S) == [text_of(f"Rome {text}: ") for text in TEXTS]


@pytest.mark.parametrize("inputs", [True, False])
def test_new_columns_do_not_hide_each_other(session, table_of, inputs):
    rows = f("Say {{input:text}}: {{output:error}}").map(table_of({"text": TEXTS}))
    rows.get(timeout=WAIT_S)
    with pytest.raises(P.ArgumentError, match=r"^Two new columns would be called 'error': give that output"):
        rows.to_dicts(inputs=inputs)


def test_an_iterable_of_dicts_is_drawn_from_as_rows_enter(session):
    drawn = deque()

    def dicts():
        for n in range(300):
            drawn.append(n)
            yield {"text": f"{n}"}

    rows = say().map(dicts())
    assert len(drawn) < 100, "a window, not all"
    with pytest.raises(P.UsageError, match="get"):
        len(rows)
    assert rows.get(timeout=WAIT_S) == generated([f"{n}" for n in range(300)])
    assert len(rows) == 300


class DataSet:
    """As those of `datasets` are: knows its columns and its shape, and is read by dicts."""

    column_names = ("text",)
    shape = (3, 1)

    def __iter__(self):
        return ({"text": text} for text in TEXTS)


def test_a_data_set_is_a_table(session):
    assert say().map(DataSet()).get(timeout=WAIT_S) == generated(TEXTS)


def test_an_iterator_of_something_else_loses_no_item(session):
    assert say().map(iter(TEXTS)).get(timeout=WAIT_S) == generated(TEXTS)


def test_dicts_given_by_name_are_values(session):
    keys = P.native_function(lambda record: [*record], name="keys")
    assert keys.map(record=[{"a": 1}, {}]).get(timeout=WAIT_S) == [["a"], []]


def test_several_outputs_are_a_namedtuple_per_row(session, table_of):
    two = f("{{input:text}} {{output:first}} and {{output:second}}")
    rows = two.map(table_of({"text": ["a", "b"]}))
    values = rows.get(timeout=WAIT_S)
    assert [value._fields for value in values] == [("first", "second")] * 2
    assert [value.first for value in values] == [text_of("a "), text_of("b ")]


def test_native_functions_take_columns_too(session, table_of):
    add = P.native_function(lambda left, right=10: left + right, name="add")
    assert add.map(table_of({"left": [1, 2]})).get(timeout=WAIT_S) == [11, 12]
    assert add.map(table_of({"left": [1, 2], "right": [3, 4]})).get(timeout=WAIT_S) == [4, 6]
    size = P.native_function(len)
    assert size.map(table_of({"text": TEXTS}), obj="text").get(timeout=WAIT_S) == [3, 5, 4]


def test_an_empty_table_has_no_rows(session):
    for empty in (pd.DataFrame({"text": []}), pl.DataFrame({"text": []})):
        rows = say().map(empty)
        assert (rows.get(), len(rows), rows.done(), bool(rows)) == ([], 0, True, False)
        assert list(rows.to_frame().columns) == ["text", "said", "error"]


REFUSED = {
    "no such column": (lambda: say().map(pd.DataFrame({"word": TEXTS})), r"no column 'text' \(it has 'word'\).*text='column'"),
    "no such column named": (lambda: say().map(pl.DataFrame({"word": TEXTS}), text="wrd"), "no column 'wrd' for 'text'"),
    "no such column of dicts": (lambda: say().map([{"word": 1}]), r"text=\[\.\.\.\]"),
    "a column twice": (lambda: say().map(pd.DataFrame([["a", "b"]], columns=["text", "text"])), "'text' twice"),
    "a lazy frame": (lambda: say().map(pl.LazyFrame({"text": TEXTS})), r"collect\(\)"),
    "a list beside it": (lambda: f("{{input:a}}{{input:b}}{{output:c}}").map(pd.DataFrame({"a": TEXTS}), b=TEXTS), "as a column"),
    "something beside it": (lambda: say().map(pd.DataFrame({"text": TEXTS}), "text"), "nothing else by position"),
    "no such parameter": (lambda: say().map(pd.DataFrame({"text": TEXTS}), word="text"), "no parameter 'word'"),
    "rows of a map": (lambda: say().map(say().map(pl.DataFrame({"text": []}))), r"to_frame\(\)"),
    "names that are no texts": (lambda: say().map(pd.DataFrame([["a"]])), "none with a text as its name"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_mapped_is_refused_at_once(session, case):
    attempt, remedy = REFUSED[case]
    with pytest.raises(P.ArgumentError, match=remedy):
        attempt()
    assert not session.calls()


def test_on_error_is_checked_and_gives_way_to_a_parameter_of_that_name(session):
    with pytest.raises(P.OptionError, match="'keep' or 'raise', not 'ignore'"):
        say().map(pd.DataFrame({"text": TEXTS}), on_error="ignore")
    own = f("{{input:on_error}}: {{output:said}}")
    assert own.map(pd.DataFrame({"what": ["x"]}), on_error="what").get(timeout=WAIT_S) == [text_of("x: ")]


# Rows that fail

BAD_CELLS = {
    "None": None, "NaN": float("nan"), "NaT": pd.NaT, "NA": pd.NA, "bytes": b"x", "an object": object(), "a half character": "\ud800",
    "too long": "x" * 100_001,
}  # fmt: skip


@pytest.mark.parametrize("case", BAD_CELLS)
def test_a_bad_cell_fails_its_row_alone(session, case):
    frame = pd.DataFrame({"text": pd.Series(["red", BAD_CELLS[case], "blue"], dtype=object)})
    rows = say().map(frame)
    assert rows.get(timeout=WAIT_S) == [text_of("Say red: "), None, text_of("Say blue: ")]
    (failed,) = rows.failed
    assert (failed.position, failed.state) == (1, "failed")
    assert isinstance(failed.error, P.ParrotError)


def test_cells_of_every_kind_that_has_a_text(session):
    cells = [3, 2.5, True, dt.date(2026, 3, 1), pd.Timestamp("2026-03-01 09:05"), ["a", "b"], {"k": 1}]
    texts = ["3", "2.5", "True", "2026-03-01", "2026-03-01T09:05:00", "['a', 'b']", "{'k': 1}"]
    rows = say().map(pd.DataFrame({"text": pd.Series(cells, dtype=object)}))
    assert rows.get(timeout=WAIT_S) == generated(texts)
    categories = pd.DataFrame({"text": pd.Categorical(["red", None, "blue"])})
    assert say().map(categories).get(timeout=WAIT_S) == [text_of("Say red: "), None, text_of("Say blue: ")]
    lists = pl.DataFrame({"text": [["a", "b"], [], None]})
    assert say().map(lists).get(timeout=WAIT_S) == [*generated(["['a', 'b']", "[]"]), None]


def test_dicts_that_lack_a_key_or_are_none(session):
    rows = say().map([{"text": "red"}, {"word": "x"}, "blue", None])
    assert rows.get(timeout=WAIT_S) == [text_of("Say red: "), None, None, None]
    errors = [str(row.error) for row in rows.failed]
    assert ["has no 'text'" in errors[0], "type str" in errors[1], "type NoneType" in errors[2]] == [True] * 3


def test_an_iterable_that_raises_ends_with_that_row(session):
    def dicts():
        yield {"text": "red"}
        raise OSError("the disk is gone")

    rows = say().map(dicts())
    assert rows.get(timeout=WAIT_S) == [text_of("Say red: "), None]
    assert "ended at row 1 with an error (OSError: the disk is gone)" in str(rows.failed[0].error)


def test_calls_that_fail_are_kept_and_run_again(session):
    fails = {"b", "d"}

    def shout(text: str) -> str:
        if text in fails:
            raise RuntimeError("no")
        return text.upper()

    rows = P.native_function(shout).map(pd.DataFrame({"text": list("abcde")}))
    assert rows.get(timeout=WAIT_S) == ["A", None, "C", None, "E"]
    assert [row.position for row in rows.failed] == [1, 3]
    assert repr(rows) == "<5 rows of shout: 3 done, 2 failed>"
    fails.remove("b")
    assert rows.retry().get(timeout=WAIT_S) == ["A", "B", "C", None, "E"]
    with pytest.raises(P.ArgumentError, match="without any"):
        rows.retry(max_tokens=5)


def test_rows_run_again_with_other_options(session):
    rows = say().map([{"text": "FAIL"}, {"text": "red"}])
    assert rows.get(timeout=WAIT_S) == [None, text_of("Say red: ")]
    assert rows.retry(max_tokens=2).get(timeout=WAIT_S)[1] == text_of("Say red: "), "rows that are done stay"
    assert session.calls()[-1].options.max_tokens == 2


def test_raise_ends_the_map_at_the_first_error(session):
    made = []

    def shout(text: int) -> int:
        made.append(text)
        if text == 3:
            raise ValueError("three")
        return text

    rows = P.native_function(shout).map(pd.DataFrame({"text": range(2_000)}), on_error="raise")
    with pytest.raises(P.NativeFunctionError, match="three") as caught:
        rows.get(timeout=WAIT_S)
    assert caught.value.__notes__ == ["Row 3 of shout.map()."]
    assert len(made) < 2_000
    assert rows.counts["cancelled"] > 1_000
    with pytest.raises(P.NativeFunctionError):
        rows.to_frame()


# As data frames


def test_a_frame_keeps_its_index_and_its_columns(session):
    index = pd.MultiIndex.from_tuples([("a", 1), ("a", 1), ("b", 2)], names=["k", "n"])
    frame = pd.DataFrame({"text": pd.Series(["red", None, "blue"], index=index, dtype=object), "n": [1, 2, 3]}, index=index)
    rows = say().map(frame)
    frame["late"] = 0
    wide = rows.to_frame(usage=True)
    assert wide.index.equals(index)
    assert list(wide.columns)[:4] == ["text", "n", "said", "error"]
    assert wide["error"].isna().tolist() == [True, False, True]
    assert wide["error"].iloc[1].startswith("InputValueError: argument 'text' of f() is None")
    assert wide["decoded_tokens"].tolist() == [len(text_of("Say red: ")), 0, len(text_of("Say blue: "))]
    narrow = rows.to_frame(inputs=False)
    assert list(narrow.columns) == ["said", "error"]
    assert narrow.index.equals(index)
    assert list(frame.columns) == ["text", "n", "late"], "the table itself stays as it is"


def test_a_polars_frame_stays_one(session):
    rows = say().map(pl.DataFrame({"text": ["red", None]}))
    assert rows.to_frame().to_dicts() == [
        {"text": "red", "said": text_of("Say red: "), "error": None},
        {"text": None, "said": None, "error": f"InputValueError: {rows.failed[0].error}"},
    ]
    assert rows.to_frame().schema["error"] == pl.String


def test_dicts_become_dicts_or_a_frame_of_whichever_library(session):
    rows = say().map([{"text": "red", "n": 1}, {"text": "blue"}])
    said = generated(["red", "blue"])
    assert rows.to_dicts() == [
        {"text": "red", "n": 1, "said": said[0], "error": None},
        {"text": "blue", "said": said[1], "error": None},
    ]
    assert rows.to_frame(backend="pandas")["said"].tolist() == said
    assert rows.to_frame(backend="polars")["said"].to_list() == said
    with pytest.raises(P.ArgumentError, match="'pandas', 'polars'"):
        rows.to_frame(backend="excel")


def test_a_column_that_is_there_already_is_refused_with_the_remedy(session):
    rows = say().map(pd.DataFrame({"text": ["red"], "error": [0]}))
    with pytest.raises(P.ArgumentError, match=r"'error' of its own.*to_frame\(prefix='new_'\)"):
        rows.to_frame()
    assert list(rows.to_frame(prefix="new_").columns) == ["text", "error", "new_said", "new_error"]


# How rows enter


def test_rows_enter_a_window_at_a_time(session, engines):
    rows = say().map([{"text": f"HANG {n}"} for n in range(500)])
    rows._feed.read(None)
    until(lambda: engines and engines[0].num_opened >= 8, "the first rows running")
    assert len(session.calls()) < 50
    session._connection.started()._loop.post(engines[0].release.set)
    assert rows.get(timeout=WAIT_S) == generated([f"HANG {n}" for n in range(500)])


def test_a_map_goes_on_though_nobody_waits(session):
    rows = say().map([{"text": f"{n}"} for n in range(300)])
    f("Else {{output:y}}")().get(timeout=WAIT_S)  # as the end of a cell does, it sends on what was called
    until(rows.done, "the whole map")
    assert rows.get() == generated([f"{n}" for n in range(300)])


def test_what_nobody_holds_does_not_go_on(session):
    rows = say().map([{"text": f"HANG {n}"} for n in range(300)])
    feed = weakref.ref(rows._feed)
    threads = [thread for thread in threading.enumerate() if thread.name == "parrot-rows"]
    assert threads
    del rows
    gc.collect()
    assert feed() is None
    until(lambda: not any(thread.is_alive() for thread in threads), "the end of its thread")


def test_rows_that_have_ended_hold_no_call(session):
    rows = say().map([{"text": f"{n}"} for n in range(40)])
    calls = [weakref.ref(call) for call in session.calls()]
    rows.get(timeout=WAIT_S)
    session.reset()
    gc.collect()
    assert not any(call() for call in calls)
    assert rows.get() == generated([f"{n}" for n in range(40)])


def test_rows_are_read_one_by_one_as_they_come(session):
    rows = say().map({"text": f"{n}"} for n in range(60))
    seen = [(row.position, row.value, row.inputs) for row in rows]
    assert seen == [(n, text_of(f"Say {n}: "), {"text": f"{n}"}) for n in range(60)]


async def both(rows: P.Rows) -> list:
    return await rows


def test_rows_can_be_awaited(session):
    import asyncio

    assert asyncio.run(both(say().map([{"text": text} for text in TEXTS]))) == generated(TEXTS)


def test_a_wait_has_an_end_and_the_map_goes_on(session, engines):
    rows = say().map([{"text": "red"}, {"text": "HANG"}])
    with pytest.raises(P.GetTimeoutError, match=r"f\.map\(\).*after 0\.2 s"):
        rows.get(timeout=0.2)
    with pytest.raises(P.OptionError):
        rows.get(timeout=-1)
    session._connection.started()._loop.post(engines[0].release.set)
    assert rows.get(timeout=WAIT_S) == generated(["red", "HANG"])


def test_what_is_cancelled_can_be_run_after_all(session, engines):
    rows = say().map({"text": f"HANG {n}"} for n in range(100))
    rows._feed.read(None)
    rows.cancel()
    until(rows.done, "the end of all rows")
    assert set(rows.counts) == {"cancelled"}
    assert rows.get() == [None] * len(rows)
    rows.retry()
    until(lambda: engines, "an engine")
    session._connection.started()._loop.post(engines[0].release.set)
    assert rows.get(timeout=WAIT_S) == generated([f"HANG {n}" for n in range(100)])


CANCELS = {
    "all calls": lambda session: session.cancel(),
    "a reset": lambda session: session.reset(),
    "all calls of a graph": lambda session: session.cancel([node for node in session.variables() if node.producer is not None]),
}


@pytest.mark.parametrize("how", CANCELS)
def test_what_cancels_its_calls_ends_the_map(session, how):
    rows = say().map([{"text": f"HANG {n}"} for n in range(1_000)])
    rows._feed.read(None)
    CANCELS[how](session)
    until(rows.done, "the end of all rows")
    assert rows.counts == {"cancelled": 1_000}


def test_one_row_that_is_cancelled_leaves_the_others(session):
    rows = say().map([{"text": f"{n}"} for n in range(100)] + [{"text": "HANG"}] * 3)
    rows._feed.read(None)
    until(lambda: rows.counts.get("done") == 100, "the rows before")
    session.cancel([rows._feed.waited_for(100)[0]])
    until(lambda: rows.counts.get("cancelled") == 1, "the one")
    assert not rows.done()
    rows.cancel()


def test_a_session_that_closes_keeps_rows_from_being_drawn(session):
    drawn = deque()

    def endless():
        while True:
            drawn.append(1)
            yield {"text": "HANG"}

    rows = say().map(endless())
    session.close()
    with pytest.raises(P.SessionError, match="closed"):
        rows._feed.read(None)
        rows._feed.advance()
    assert len(drawn) < 100


def test_an_endless_table_of_rows_that_cannot_be_used_gives_others_their_turn(session):
    def endless():
        while True:
            yield {"text": None}

    rows = say().map(endless())  # returns
    until(lambda: rows.counts.get("failed", 0) > 40, "some rows")
    rows.cancel()
    until(rows.done, "the end")


def test_an_interrupt_cancels_the_map(session, engines, monkeypatch):
    rows = say().map([{"text": f"HANG {n}"} for n in range(100)])

    def interrupted(nodes, timeout_s):
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "wait", interrupted)
    with pytest.raises(KeyboardInterrupt):
        rows.get()
    monkeypatch.undo()
    until(rows.done, "the end of all rows")
    assert rows.counts == {"cancelled": 100}


def test_a_closed_session_is_said_and_what_is_done_stays(session):
    rows = say().map([{"text": text} for text in TEXTS])
    assert rows.get(timeout=WAIT_S) == generated(TEXTS)
    late = say().map([{"text": "late"}])
    session.close()
    assert rows.get() == generated(TEXTS)
    assert isinstance(late.failed[0].error, P.CallCancelledError)


def test_rows_stay_where_they_are(session):
    import copy

    with pytest.raises(P.UsageError, match="to_frame"):
        copy.copy(say().map([{"text": "red"}]))
    with pytest.raises(P.UsageError, match="to_frame"):
        say().map([{"text": "red"}])["text"]
