"""The search for functions that wait for themselves, against a plain walk over random graphs."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.options import Options
from parrot_nb.session.circles import Refusals, Waits, circles, needs

GRAPHS = st.lists(
    st.tuples(
        st.sampled_from(["native", "join", "first"]),
        st.lists(st.integers(0, 30), max_size=4),
        st.sampled_from(["open"] * 4 + ["done", "failed"]),
    ),
    min_size=1,
    max_size=14,
)
WAITS = st.lists(st.tuples(st.integers(1, 14), st.integers(0, 14)), max_size=5)
REFUSALS = st.sets(st.tuples(st.integers(1, 14), st.integers(0, 14)), max_size=8)


def _calls(graph: list[Any], pairs: list[Any], refusals: set[Any]) -> tuple[list[Call], Waits, Refusals]:
    """Calls without a session, what their functions wait for, and what conditions refused."""
    calls = [_call("native", [])]
    for kind, sources, state in graph:
        calls.append(call := _call(kind, [calls[i % len(calls)].outputs[0] for i in sources]))
        if state == "done":
            call.outputs[0].resolve("x", spans=None)
        elif state == "failed":
            call.outputs[0].fail(ValueError())
    waits: Waits = {}
    for waiter, node in ((calls[i], calls[j].outputs[0]) for i, j in pairs if max(i, j) < len(calls)):
        waits[waiter.id] = (*waits.get(waiter.id, ()), node)
    refused: Refusals = weakref.WeakKeyDictionary()
    for chooser, value in ((calls[i], calls[j].outputs[0]) for i, j in refusals if max(i, j) < len(calls)):
        if chooser.kind == "first" and value.state == "done":
            refused.setdefault(chooser.outputs[0], set()).add(value.id)
    return calls, waits, refused


def _come(calls: list[Call], waits: Waits, refused: Refusals) -> set[int]:
    """The outputs that can have a value, in rounds over these calls until nothing changes."""
    comes = {call.outputs[0].id: call.outputs[0].final for call in calls}
    for _ in calls:
        for call in calls:
            (node,), inputs = call.outputs, list(call.inputs.values())
            live = [source for source in inputs if source.error is None and source.id not in refused.get(node, ())]
            come = [comes.get(source.id, source.final) for source in (live if call.kind == "first" else inputs)]
            enough = any(come) or not live if call.kind == "first" else all(come)
            waited = (comes.get(source.id, source.final) for source in waits.get(call.id, ()))
            comes[node.id] |= enough and all(waited)
    return {node for node, can_come in comes.items() if can_come}


@settings(max_examples=150, deadline=None)
@given(graph=GRAPHS, pairs=WAITS, refusals=REFUSALS)
def test_the_search_finds_what_a_plain_walk_finds(graph, pairs, refusals):
    """Functions wait for any variable, also of a later call."""
    calls, waits, refused = _calls(graph, pairs, refusals)
    come = _come(calls[1:], waits, refused)
    leads_back = {calls[0].outputs[0].id}
    for _ in calls:
        for call in calls[1:]:
            sources = {source.id for source in (*call.inputs.values(), *waits.get(call.id, ()))}
            if not call.outputs[0].final and sources & leads_back:
                leads_back.add(call.outputs[0].id)
    for call in calls:
        (node,) = call.outputs
        blocked = node.id in leads_back and node.id not in come
        assert needs([node], calls[0], waits, refused) is (node if blocked else None)


@settings(max_examples=300, deadline=None)
@given(graph=GRAPHS, pairs=st.lists(st.tuples(st.integers(0, 14), st.integers(0, 14)), max_size=10), refusals=REFUSALS)
def test_all_circles_are_found_at_once(graph, pairs, refusals):
    calls, waits, refused = _calls(graph, pairs, refusals)
    come = _come(calls, waits, refused)
    behind: dict[int, set[int]] = {}  # by output that cannot come, those that it waits for, directly or not
    for call in calls:
        (node,), inputs = call.outputs, list(call.inputs.values())
        there = [source for source in inputs if source.final and source.error is None and source.id not in refused.get(node, ())]
        chosen = inputs if call.kind != "first" or not there else []
        if node.id not in come:
            behind[node.id] = {
                source.id for source in (*chosen, *waits.get(call.id, ())) if not source.final and source.id not in come
            }
    for _ in calls:
        for node_id, sources in behind.items():
            behind[node_id] = sources.union(*(behind[source] for source in sources))
    expected = []
    waiting = [call for call in calls if call.id in waits and not call.outputs[0].final]
    for call in waiting:
        (own,) = call.outputs
        back = (node for node in waits[call.id] if own.id in behind.get(node.id, ()) or (node is own and own.id in behind))
        if own.id in behind and (node := next(back, None)) is not None:
            expected.append((call, node))
    assert circles(waiting, waits, refused) == expected


class CountedWaits(dict[int, tuple[VariableNode, ...]]):
    """What functions wait for, and how often somebody asked."""

    num_asked = 0

    def get(self, key: int, default: Any = None) -> Any:
        self.num_asked += 1
        return super().get(key, default)


@pytest.mark.parametrize("closes", [False, True], ids=["another still comes", "all closed"])
def test_a_search_for_the_circles_of_many_functions_looks_at_each_call_once_or_twice(closes):
    """Each may choose between itself, the one before and what all share, so that each has all before it behind it."""
    shared = _call("native", [])
    if closes:
        shared.outputs[0].fail(ValueError())
    waits, functions = CountedWaits(), [_call("native", []) for _ in range(1_000)]
    for before, function in zip([shared, *functions], functions, strict=False):
        waits[function.id] = _call("first", [function.outputs[0], before.outputs[0], shared.outputs[0]]).outputs
    found = circles(functions, waits, weakref.WeakKeyDictionary())
    assert len(found) == (len(functions) if closes else 0)
    assert waits.num_asked <= 3 * len(functions) + 1


def _call(kind: str, nodes: list[VariableNode]) -> Call:
    return Call(P.NativeFunction(lambda: None), kind, {str(i): node for i, node in enumerate(nodes)}, ("y",), Options())
