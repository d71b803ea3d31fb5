"""What plain values look like in a prompt, and which are refused."""

from __future__ import annotations

import datetime as dt
import decimal
import enum
import fractions
import pathlib
import uuid

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_nb.errors import InputValueError
from parrot_nb.language.text import to_text


class Number(enum.IntEnum):
    ONE = 1


class Level(enum.Enum):
    LOW = enum.auto()
    HIGH = "the highest"


class Word(enum.StrEnum):
    YES = "yes"


class Access(enum.Flag):
    READ = enum.auto()
    WRITE = enum.auto()


class Table(dict):
    def __repr__(self) -> str:
        return "an object of mine"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        ("a {{input:x}} \\{{ \x00\r\n", "a {{input:x}} \\{{ \x00\r\n"),
        ("", ""),
        (0, "0"),
        (-7, "-7"),
        (1.5, "1.5"),
        (True, "True"),
        ([], "[]"),
        ([1, "a", [2.5, {"k": False}]], "[1, 'a', [2.5, {'k': False}]]"),
        ({"a": "é"}, "{'a': 'é'}"),
        (np.float64(1.5), "1.5"),
        (np.int32(3), "3"),
        (np.str_("t"), "t"),
        (np.bool_(True), "True"),
        (np.array(4), "4"),
        ([np.float64(1.5), {np.int64(1): np.bool_(False)}], "[1.5, {1: False}]"),
        (Number.ONE, "1"),
        ([Number.ONE], "[1]"),
        (Table(a=1), "{'a': 1}"),
        ((1, "a"), "(1, 'a')"),
        ((1,), "(1,)"),
        ((), "()"),
        ([(1, (2.5, True))], "[(1, (2.5, True))]"),
        ({3, 1, 2.5, 20}, "{1, 2.5, 3, 20}"),
        (frozenset("cab"), "{'a', 'b', 'c'}"),
        ({"b", 2, "a", (1, 2), decimal.Decimal("1.5"), fractions.Fraction(7, 4)}, "{1.5, 2, 'a', 'b', (1, 2), 7/4}"),
        ({decimal.Decimal("1E+999999999"), 1e300, 5}, "{5, 1e+300, 1E+999999999}"),
        (decimal.Decimal("1E+5000"), "1E+5000"),
        ({"it's", "a"}, """{'a', "it's"}"""),
        ({np.int64(3), 2}, "{2, 3}"),
        (set(), "set()"),
        ({"k": {2, 1}}, "{'k': {1, 2}}"),
        (dt.date(2026, 3, 1), "2026-03-01"),
        (dt.datetime(2026, 3, 1, 9, 5, tzinfo=dt.UTC), "2026-03-01T09:05:00+00:00"),
        (dt.time(9, 5), "09:05:00"),
        (dt.timedelta(days=1, hours=2), "1 day, 2:00:00"),
        ([dt.date(2026, 3, 1)], "['2026-03-01']"),
        (pd.Timestamp("2026-03-01 09:05"), "2026-03-01T09:05:00"),
        (np.datetime64("2026-03-01"), "2026-03-01"),
        (np.datetime64("2026-03-01T00:00:00.000000001", "ns"), "2026-03-01T00:00:00.000000001"),
        (decimal.Decimal("1.50"), "1.50"),
        ([decimal.Decimal("1.50"), fractions.Fraction(1, 3)], "[1.50, 1/3]"),
        (pathlib.PurePosixPath("a/b.txt"), "a/b.txt"),
        ([pathlib.PurePosixPath("a")], "['a']"),
        (uuid.UUID(int=1), "00000000-0000-0000-0000-000000000001"),
        (Level.LOW, "LOW"),
        (Level.HIGH, "the highest"),
        ([Level.LOW, Level.HIGH], "['LOW', 'the highest']"),
        (Word.YES, "yes"),
        (Access.READ, "READ"),
        (Access.READ | Access.WRITE, "READ|WRITE"),
        ({pathlib.PurePosixPath("a"): 1, "a": 2}, "{'a': 1, 'a': 2}"),
    ],
)
def test_the_text_of(value, text):
    assert to_text(value, "x") == text


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (None, "argument is None: give a value"),
        (float("nan"), "argument is nan"),
        (float("inf"), "argument is inf"),
        (np.float32("nan"), "argument is nan"),
        (b"bytes", "type bytes: decode it"),
        (bytearray(b"x"), "type bytearray: decode it"),
        (pd.DataFrame({"a": [1]}), "type DataFrame: choose its text"),
        (pd.Series([1]), r"type Series: use \.map\(\.\.\.\) of the function"),
        (pd.NA, "NAType"),
        (pd.NaT, "type NaTType: replace what is missing"),
        (np.datetime64("NaT"), "type datetime64: replace what is missing"),
        (decimal.Decimal("NaN"), "argument is NaN"),
        (decimal.Decimal("sNaN"), "argument is sNaN"),
        (decimal.Decimal("-Infinity"), "argument is -Infinity"),
        (range(3), r"type range: turn it into a list"),
        ({}.keys(), r"type dict_keys: turn it into a list"),
        (np.array([1]), r"\.tolist\(\)"),
        (1j, "complex"),
        (object(), "object"),
        (int, "type"),
        ([1, None], r"holds None at \[1\]: give a value"),
        ({"a": [float("-inf")]}, r"holds -inf at \['a'\]\[0\]"),
        ({b"a": 1}, "holds a value of type bytes as a key"),
        ([{"name": "Ann"}, {"name": None}], r"holds None at \[1\]\['name'\]"),
        ((1, {None}), r"holds None at \[1\] in a set"),
        ({1: (b"",)}, r"holds a value of type bytes at \[1\]\[0\]: decode it"),
        ({"k" * 99: None}, r"at \['k{38}…\]"),
        pytest.param(10**5000, "too many digits", id="huge"),
        ([10**5000], "too many digits"),
        ("a\ud800", "position 1"),
        (pathlib.PurePosixPath("\udcff"), "position 0"),
    ],
)
def test_what_has_no_one_obvious_text_is_refused_with_the_remedy(value, message):
    with pytest.raises(InputValueError, match=f"^argument.*{message.removeprefix('argument')}"):
        to_text(value, "argument")


def test_containers_that_contain_themselves_or_are_deep():
    around: list = [1]
    around.append(around)
    assert to_text(around, "x") == "[1, [...]]"
    shared = ["s"]
    assert to_text([shared, shared], "x") == "[['s'], ['s']]"
    table: dict = {}
    table["itself"] = (table,)
    assert to_text(table, "x") == str(table)
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(InputValueError, match="nested too deeply"):
        to_text(deep, "x")
    while deep:  # take it apart here: freeing it at once would recurse as well
        deep = deep[0]


@given(
    st.recursive(
        st.text() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x) | st.tuples(x, x) | st.tuples(x),
    )
)
def test_plain_values_read_as_python_writes_them(value):
    assert to_text(value, "x") == str(value)


@given(st.sets(st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False)))
def test_a_set_reads_the_same_however_it_was_made(items):
    again = set()
    for item in sorted(items, key=repr, reverse=True):
        again.add(item)
    assert to_text(items, "x") == to_text(again, "x") == to_text(frozenset(items), "x")
    numbers = [item for item in items if not isinstance(item, str)]
    assert to_text(set(numbers), "x") == (f"{{{', '.join(map(str, sorted(numbers)))}}}" if numbers else "set()")
