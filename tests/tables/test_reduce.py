"""Reductions: which items a call reads, and trees that fit a context."""

from __future__ import annotations

import pytest
from shorthand import WAIT_S, f, text_of

import parrot_nb as P


def joined(items: list[str]) -> str:
    return f"({' '.join(items)})"


bracket = P.native_function(joined, name="bracket")


@pytest.mark.parametrize(
    ("count", "fanin", "expected"),
    [
        (1, 8, "(0)"),
        (3, 8, "(0 1 2)"),
        (3, 2, "((0 1) 2)"),
        (4, 2, "((0 1) (2 3))"),
        (9, 8, "((0 1 2 3 4) (5 6 7 8))"),
        (9, 3, "((0 1 2) (3 4 5) (6 7 8))"),
        (5, 2, "(((0 1) (2 3)) 4)"),
    ],
)
def test_a_tree_reads_items_in_order(session, count, fanin, expected):
    items = [str(n) for n in range(count)]
    assert P.reduce(bracket, items, fanin=fanin).get(timeout=WAIT_S) == expected
    variables = [P.variable(value=item) for item in items]
    assert P.reduce(bracket, iter(variables), fanin=fanin).get(timeout=WAIT_S) == expected


def test_prompts_read_lines_of_text_and_constants_are_the_same_for_all(session):
    merge = f("{{input:how}}:\n{{input:parts}}\n= {{output:whole}}")
    first = text_of("short:\na\nb\n= ")
    second = text_of("short:\nc\nd\n= ")
    root = P.reduce(merge, ["a", "b", "c", "d"], fanin=2, how="short")
    assert root.get(timeout=WAIT_S) == text_of(f"short:\n{first}\n{second}\n= ")


def test_a_map_and_its_reduction_run_as_one_graph(session):
    said = f("Say {{input:x}}: {{output:y}}").map(["a", "b", "c"])
    merged = P.reduce(f("Of {{input:parts}} {{output:whole}}"), said, fanin=4)
    texts = "\n".join(text_of(f"Say {x}: ") for x in "abc")
    assert merged.get(timeout=WAIT_S) == text_of(f"Of {texts} ")


@pytest.mark.parametrize(
    ("sizes", "calls"),
    [
        ([10, 10, 10], 1),
        ([40_000, 40_000, 40_000, 10], 3),  # two, two, and what these wrote
        ([90_000, 10], 1),
    ],
)
def test_a_tree_respects_the_context(session, sizes, calls):
    """The model has room for 100,000 tokens, one for each byte."""
    merge = f("{{input:parts}} {{output:whole}}", max_tokens=100)
    P.reduce(merge, ["x" * size for size in sizes], fanin=None).get(timeout=WAIT_S)
    assert len([call for call in session.calls() if call.kind == "semantic"]) == calls


def test_what_is_still_to_come_counts_with_all_it_may_write(session):
    write = f("{{input:x}} {{output:y}}", max_tokens=40_000)
    merge = f("{{input:parts}} {{output:whole}}", max_tokens=5)
    parts = write.map(["a", "b", "c", "d"])
    P.reduce(merge, parts, fanin=None)
    assert len([call for call in session.calls() if call.name == "f" and call.options.max_tokens == 5]) == 3


REFUSED = {
    "no items": (lambda: P.reduce(bracket, []), "no items"),
    "one text": (lambda: P.reduce(bracket, "abc"), "brackets"),
    "rows of a map": (lambda: P.reduce(bracket, bracket.map([{"items": ["a"]}])), r"get\(\)"),
    "no number": (lambda: P.reduce(bracket, ["a"], fanin=1), "at least 2"),
    "a bool": (lambda: P.reduce(bracket, ["a"], fanin=True), "at least 2"),
    "a plain function": (lambda: P.reduce(joined, ["a"]), "decorate it"),
    "two outputs": (lambda: P.reduce(f("{{input:x}}{{output:a}} {{output:b}}"), ["a"]), "one output"),
    "no such parameter": (lambda: P.reduce(bracket, ["a"], how=1), "no parameter 'how'"),
    "no parameter left": (lambda: P.reduce(bracket, ["a"], items=1), "fewer constants"),
    "no context": (lambda: P.reduce(bracket, ["a"], fanin=None), "no context to fill"),
    "unknown length": (lambda: P.reduce(f("{{input:x}}{{output:a}}"), [bracket(["a"])] * 2, fanin=None), "give fanin"),
    "too long": (lambda: P.reduce(f("{{input:x}}{{output:a}}"), ["x" * 60_000] * 2, fanin=None), "No two items fit"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_cannot_be_reduced_is_refused(session, case):
    attempt, remedy = REFUSED[case]
    with pytest.raises(P.ArgumentError, match=remedy):
        attempt()
