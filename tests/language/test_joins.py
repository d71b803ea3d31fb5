"""Texts made of several variables: what they read, which token ids survive, and what enters the graph."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.language.nodes import Span

WAIT_S = 30


@pytest.fixture
def echo(host) -> P.SemanticFunction:
    return P.SemanticFunction("{{input:x}}{{output:y}}", name="echo")


def ids(text: str) -> Span:
    return Span(text, tuple(text.encode()), "echo")


def test_a_chain_of_plus_is_one_call(echo, host):
    joined = "<" + echo("a") + "|" + echo("b") + ">"
    assert [call.kind for call in host.calls] == ["semantic", "semantic"], "a join waits until it is used"
    assert joined.get(timeout=WAIT_S) == "<[a]|[b]>"
    assert [call.kind for call in host.calls] == ["semantic", "semantic", "join"]
    assert joined.node.spans == (Span("<"), ids("[a]"), Span("|"), ids("[b]"), Span(">"))
    assert joined.producer.name == "+"


def test_neighbouring_texts_are_one_span(host):
    plain = P.variable("p", "b")
    joined = "a" + plain + "c" + ("d" + plain) + "" + plain
    assert joined.get(timeout=WAIT_S) == "abcdbb"
    assert joined.node.spans == (Span("abcdbb"),)


def test_a_join_used_twice_and_read_itself(echo, host):
    base = "a" + echo("x")
    left, right = base + "l", base + "r"
    both = left + right
    assert both.get(timeout=WAIT_S) == "a[x]la[x]r"
    assert base.get(timeout=WAIT_S) == "a[x]"
    assert right.get(timeout=WAIT_S) == "a[x]r"
    assert [call.kind for call in host.calls] == ["semantic", "join", "join", "join"]


def test_a_join_is_submitted_before_what_reads_it(echo, host):
    outer = echo("(" + echo("a") + ")")
    assert outer.get(timeout=WAIT_S) == "[([a])]"
    assert [call.name for call in host.calls] == ["echo", "+", "echo"]


@pytest.mark.parametrize(
    ("items", "sep", "text"),
    [
        (["a", 1, 2.5, [True]], "\n", "a\n1\n2.5\n[True]"),
        (["a", "b"], "", "ab"),
        (["a"], ", ", "a"),
        ([], ", ", ""),
        ([P.variable("v", {"k": 1}), "{{input:x}}"], " {{output:y}} ", "{'k': 1} {{output:y}} {{input:x}}"),
        ((c for c in "xyz"), "-", "x-y-z"),
    ],
)
def test_join(items, sep, text, host):
    assert P.join(items, sep).get(timeout=WAIT_S) == text


def test_join_of_calls_keeps_their_ids(echo):
    joined = P.join(echo.map(["a", "b"]), " | ")
    assert joined.get(timeout=WAIT_S) == "[a] | [b]"
    assert joined.node.spans == (ids("[a]"), Span(" | "), ids("[b]"))


def test_the_separator_of_a_list_is_a_newline(echo):
    row = echo.map(["a", "b"])
    assert echo(row).get(timeout=WAIT_S) == "[[a]\n[b]]"
    assert ("> " + row).get(timeout=WAIT_S) == "> [a]\n[b]"
    assert (row + P.variable("v", "!")).get(timeout=WAIT_S) == "[a]\n[b]!"
    assert P.join([row, "end"], " ").get(timeout=WAIT_S) == "[a]\n[b] end"
    assert echo(row[:0]).get(timeout=WAIT_S) == "[]"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (lambda: P.join("text"), "put a single one into brackets"),
        (lambda: P.join(P.variable("v")), "put a single one into brackets"),
        (lambda: P.join(3), "not int"),
        (lambda: P.join(["a"], 3), "separator must be a string"),
    ],
)
def test_wrong_uses_of_join(wrong, message):
    with pytest.raises(P.UsageError, match=message):
        wrong()


@pytest.mark.parametrize("part", [None, b"x", float("nan"), "\ud800"])
def test_parts_without_text_are_refused(part):
    with pytest.raises(P.InputValueError, match="a part of 'join'"):
        P.join(["a", part])


def test_a_value_without_text_fails_the_join_that_reads_it(host):
    with pytest.raises(P.InputValueError, match="type object"):
        ("a" + P.native_function(object)()).get(timeout=WAIT_S)


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_chain_of_fifty_thousand(echo, host, side):
    joined = echo("x")
    for i in range(50_000):
        joined = joined + str(i % 10) if side == "left" else str(i % 10) + joined
    digits = "0123456789" * 5000
    assert echo(joined).get(timeout=WAIT_S) == ("[[x]" + digits + "]" if side == "left" else "[" + digits[::-1] + "[x]]")
    assert len(host.calls) < 2000


def test_doubling_does_not_walk_every_path(host):
    joined = P.variable("v", "")
    for _ in range(200):
        joined = joined + joined
    joined.cancel()  # submits 2**200 paths' worth of joins, each once
    assert len(host.calls) < 400


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tree=st.recursive(st.text("ab{}\\"), lambda parts: st.tuples(parts, parts)))
def test_any_tree_of_plus_reads_as_its_leaves(tree, host):
    def built(node):
        return P.variable("leaf", node) if isinstance(node, str) else built(node[0]) + built(node[1])

    def text(node):
        return node if isinstance(node, str) else text(node[0]) + text(node[1])

    joined = built(tree)
    assert joined.get(timeout=WAIT_S) == text(tree)
    assert "".join(span.text for span in joined.node.spans) == text(tree)
