"""What plain values look like in a prompt, and which are refused."""

from __future__ import annotations

import decimal
import enum

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_nb.errors import InputValueError
from parrot_nb.language.text import to_text


class Number(enum.IntEnum):
    ONE = 1


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
        (pd.Series([1]), "type Series: choose its text"),
        (pd.NA, "NAType"),
        (pd.Timestamp(0), "Timestamp"),
        (np.array([1]), r"\.tolist\(\)"),
        ((1, 2), r"type tuple: turn it into a list"),
        ({1}, r"type set: turn it into a list"),
        (decimal.Decimal(1), r"str\(\.\.\.\)"),
        (1j, "complex"),
        (object(), "object"),
        (int, "type"),
        ([1, None], "holds None"),
        ({"a": [float("-inf")]}, "holds -inf"),
        ({b"a": 1}, "holds a value of type bytes"),
        pytest.param(10**5000, "too many digits", id="huge"),
        ([10**5000], "too many digits"),
        ("a\ud800", "position 1"),
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
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_plain_values_read_as_python_writes_them(value):
    assert to_text(value, "x") == str(value)
