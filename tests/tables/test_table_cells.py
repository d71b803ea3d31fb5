"""Cells of unusual size and kind, and columns with unusual names."""

from __future__ import annotations

import datetime as dt

import pandas as pd
from shorthand import WAIT_S, f, text_of

import parrot_nb as P
from parrot_nb.notebook.tables import still_bundle


def say(**options) -> P.SemanticFunction:
    return f("Say {{input:text}}: {{output:said}}", **options)


def generated(texts: list[str]) -> list[str]:
    return [text_of(f"Say {text}: ") for text in texts]


def test_a_cell_of_ten_megabytes_fails_its_row_alone_and_is_shown_short(session):
    huge = "word " * 2_000_000
    frame = pd.DataFrame({"text": ["red", huge]})
    rows = say().map(frame)
    assert rows.get(timeout=WAIT_S) == [text_of("Say red: "), None]
    assert isinstance(rows.failed[0].error, P.ContextLengthError)
    assert len(str(rows.failed[0].error)) < 500
    assert len(still_bundle(rows)["text/html"]) < 20_000
    assert rows.to_frame()["text"].tolist() == ["red", huge]
    assert P.native_function(len).map(frame, obj="text").get(timeout=WAIT_S) == [3, len(huge)]


def test_columns_named_like_options_are_columns(session):
    names = ["text", "on_error", "expected", "metric", "output", "tolerance", "confidence", "max_tokens", "name", "perf", "usage"]
    frame = pd.DataFrame({name: ["red", "blue"] for name in names})
    assert say().map(frame).get(timeout=WAIT_S) == generated(["red", "blue"])
    assert list(say().map(frame).to_frame().columns) == [*names, "said", "error"]
    measured = P.evaluate(P.native_function(lambda metric: metric, name="same"), frame, "expected")
    assert measured.score == 1.0
    tuned = P.tune(
        f("{{input:metric}}: {{output:confidence}}"),
        pd.concat([frame] + [frame.assign(metric=str(i)) for i in range(9)]),
        "expected",
        variants=["Say."],
    )
    assert len(tuned.trials) == 2


def test_mixed_kinds_in_one_column_are_rows_of_their_own(session):
    mixed = [1, "a", 2.5, None, True, float("nan"), dt.date(2026, 3, 1), b"x"]
    rows = say().map(pd.DataFrame({"text": pd.Series(mixed, dtype=object)}))
    assert [value is None for value in rows.get(timeout=WAIT_S)] == [False, False, False, True, False, True, False, True]
    same = P.native_function(lambda text: text, name="same").map(pd.DataFrame({"text": pd.Series([1, "a", 2.5], dtype=object)}))
    assert same.to_frame()["same"].tolist() == [1, "a", 2.5]
