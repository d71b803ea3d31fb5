"""Outputs with a type as columns of that type."""

from __future__ import annotations

import enum
import subprocess
import sys
from dataclasses import dataclass
from typing import Literal

import pandas as pd
import polars as pl
import pytest

import parrot_nb as P

WAIT_S = 60


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


@dataclass
class Task:
    who: str
    days: int


def judge(text: str, kind: str) -> object:
    if text == "fail":
        raise ValueError("bad row")
    return {"int": 3, "bool": True, "float": 2.5, "text": "x", "task": Task("Anna", 2), "dict": {"a": 1}, "list": [1, 2]}[kind]


NATIVE = {"int": ("int64", "Int64"), "bool": ("bool", "boolean"), "float": ("float64", "float64"), "list": ("object", "object")}


@pytest.mark.parametrize("kind", NATIVE)
@pytest.mark.parametrize("gaps", [False, True])
def test_values_of_native_functions_keep_their_kind_beside_gaps(session, kind, gaps):
    frame = pd.DataFrame({"text": ["a", "fail" if gaps else "b", "c"], "kind": kind})
    column = P.native_function(judge).map(frame).to_frame()["judge"]
    assert str(column.dtype) == NATIVE[kind][gaps]
    assert column.isna().tolist() == [False, gaps, False]
    assert column.iloc[2] == judge("c", kind)


def test_fields_become_columns_when_asked_for(session):
    rows = P.native_function(judge).map(
        [{"text": "a", "kind": "task"}, {"text": "fail", "kind": "task"}, {"text": "c", "kind": "dict"}]
    )
    flat = rows.to_dicts(flatten=True, inputs=False)
    assert [(row["judge.who"], row["judge.days"], row["judge.a"]) for row in flat] == [
        ("Anna", 2, None),
        (None,) * 3,
        (None, None, 1),
    ]
    assert rows.to_dicts()[0]["judge"] == Task("Anna", 2)
    polars = P.native_function(judge).map(pl.DataFrame({"text": ["a"], "kind": ["task"]})).to_frame()
    assert polars["judge"].to_list() == [{"who": "Anna", "days": 2}]


def answered(output: str, table: object, tiny: P.Session) -> P.Rows:
    with tiny:
        rows = P.SemanticFunction("Text: {{input:text}} Answer: " + output, namespace=globals()).map(table)
        rows.get(timeout=WAIT_S)
    return rows


@pytest.fixture(scope="module")
def tiny():
    with P.Session(max_tokens=24) as opened, opened:
        yield opened


TYPED = {
    "{{output:n: int[0..9]}}": ("Int64", pl.Int64),
    "{{output:n: bool}}": ("boolean", pl.Boolean),
    '{{output:n: "high" | "low"}}': ("category", pl.Enum(["high", "low"])),
    "{{output:n: Mood}}": ("category", pl.Enum(["good", "bad"])),
    "{{output:n: Literal[1, 2]}}": ("Int64", pl.Int64),
    "{{output:n}}": ("str", pl.String),
}


@pytest.mark.parametrize("output", TYPED)
def test_typed_outputs_are_columns_of_their_type(tiny, output):
    in_pandas, in_polars = TYPED[output]
    rows = answered(output, pd.DataFrame({"text": ["one", None]}, dtype=object), tiny)
    column = rows.to_frame()["n"]
    assert str(column.dtype) in {in_pandas, "object" if in_pandas == "str" else in_pandas}
    assert column.isna().tolist() == [False, True]
    rows = answered(output, pl.DataFrame({"text": ["one", None]}), tiny)
    assert rows.to_frame().schema["n"] == in_polars


def test_all_rows_failed_and_the_column_has_its_type_still(tiny):
    rows = answered("{{output:n: Task}}", pd.DataFrame({"text": [None, None]}, dtype=object), tiny)
    assert list(rows.to_frame(flatten=True, inputs=False).columns) == ["n.who", "n.days", "error"]
    rows = answered("{{output:n: int}}", pl.DataFrame({"text": [None]}, schema={"text": pl.String}), tiny)
    assert rows.to_frame().schema["n"] == pl.Int64


def test_no_library_is_loaded_for_dicts():
    program = (
        "import sys, parrot_nb as P\n"
        "double = P.native_function(lambda n: 2 * n, name='double')\n"
        "with P.Session(isolate=False):\n"
        "    rows = double.map([{'n': 1}, {'n': 2}])\n"
        "    print(rows.to_dicts())\n"
        "    try: rows.to_frame()\n"
        "    except P.ArgumentError as error: print(error)\n"
        "print(sorted({'pandas', 'polars', 'pyarrow'} & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    values, error, loaded = done.stdout.splitlines()
    assert values == "[{'n': 1, 'double': 2, 'error': None}, {'n': 2, 'double': 4, 'error': None}]"
    assert "backend='pandas'" in error
    assert loaded == "[]"


assert Literal  # named in a placeholder above
