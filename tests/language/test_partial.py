"""JSON that is still being written: every beginning gives a part of the value, and the whole of it all."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_nb.language.partial import MAX_DEPTH, partial_json

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)


def is_part(part: Any, whole: Any) -> bool:
    if isinstance(whole, dict):
        keys = list(whole)[: len(part)]
        return list(part) == keys and all(is_part(part[key], whole[key]) for key in keys)
    if isinstance(whole, list):
        return len(part) <= len(whole) and all(map(is_part, part, whole))
    if isinstance(whole, str):
        return whole.startswith(part)
    return type(part) is type(whole) and part == whole


@given(
    st.dictionaries(st.text(max_size=4), VALUES, max_size=4) | st.lists(VALUES, max_size=4),
    st.sampled_from([None, 2]),
    st.booleans(),
)
def test_every_beginning_gives_a_part_and_the_whole_all(value, indent, escaped):
    text = json.dumps(value, indent=indent, ensure_ascii=escaped)
    before: Any = type(value)()
    for end in range(1, len(text) + 1):
        part = partial_json(text[:end])
        assert is_part(part, value)
        assert is_part(before, part)  # nothing is taken back
        before = part
    assert before == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("", None),
        ("12", None),
        ("tru", None),
        ('"ab', "ab"),
        ('"a\\', "a"),
        ('"a\\u00', "a"),
        ('"\\ud83e\\udd9c', "🦜"),
        ('"\\ud83e', ""),
        ('{"a": 1', {}),
        ('{"a": 1,', {"a": 1}),
        ('{"a": {"b": [1, "c', {"a": {"b": [1, "c"]}}),
        ('{"a": nul', {}),
        ("[-", []),
        ("not JSON", None),
        ("{not", {}),
        ("[?, 1]", []),
    ],
)
def test_what_is_certain(text, value):
    assert partial_json(text) == value


def test_what_is_nested_deeply_costs_no_stack():
    assert partial_json("[" * 100_000) is not None
    value, depth = partial_json("[" * 1000), 0
    while value:
        (value,) = value
        depth += 1
    assert depth < MAX_DEPTH + 1
