"""Dead work, against a brute-force reading of the rule on random DAGs."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.graph import dead_calls
from parrot_nb.language import SemanticFunction
from parrot_nb.language.nodes import FINAL_STATES, Call, Span, VariableNode
from parrot_nb.language.options import Options


def plain() -> VariableNode:
    node = VariableNode("plain")
    node.resolve("text", spans=(Span("text"),))
    return node


@st.composite
def dags(draw) -> tuple[list[Call], list[object]]:
    """Calls, and what holds some of their outputs."""
    nodes, calls, holds = [plain()], [], []
    for _ in range(draw(st.integers(1, 14))):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        kind = draw(st.sampled_from(["semantic", "semantic", "semantic", "join", "first", "native"]))
        inputs = {f"i{k}": node for k, node in enumerate(sources)}
        template = " ".join(f"{{{{input:{name}}}}}" for name in inputs) + " {{output:o}} {{output:p}}"
        call = Call(SemanticFunction(template, name=kind), kind, inputs, ("o", "p"), Options())
        call.link()
        if all(node.producer is None or node.producer.state == "done" for node in sources):
            call.state = draw(st.sampled_from(["pending", "running", "done"]))
        if draw(st.sampled_from([True, False, False, False])):
            holds.append(draw(st.sampled_from(call.outputs)).reach())
        calls.append(call)
        nodes += call.outputs
    return calls, holds


def alive(call: Call) -> bool:
    return call.state not in FINAL_STATES and (
        call.kind == "native" or any(o.reachable or any(alive(reader) for reader in o.consumers) for o in call.outputs)
    )


@settings(max_examples=300, deadline=None)
@given(dags())
def test_dead_is_what_is_unfinished_and_not_alive(dag):
    calls, holds = dag
    found = dead_calls(node for call in calls for node in call.outputs)
    assert {call.id for call in found} == {c.id for c in calls if c.state not in FINAL_STATES and not alive(c)}
    assert [call.id for call in found] == sorted((call.id for call in found), reverse=True)
    assert holds is not None  # they lived until here


@settings(max_examples=100, deadline=None)
@given(dags(), st.data())
def test_only_what_is_behind_the_lost_variables_is_looked_at(dag, data):
    calls, holds = dag
    lost = data.draw(st.sampled_from(calls))
    behind: set[int] = set()
    frontier = [lost]
    while frontier:
        call = frontier.pop()
        behind.add(call.id)
        frontier += [node.producer for node in call.inputs.values() if node.producer is not None]
    assert {call.id for call in dead_calls(lost.outputs)} <= behind
    assert holds is not None


def test_a_chain_deeper_than_the_stack():
    node = plain()
    calls = []
    for _ in range(20_000):
        call = Call(SemanticFunction("{{input:x}} {{output:y}}"), "semantic", {"x": node}, ("y",), Options())
        call.link()
        calls.append(call)
        (node,) = call.outputs
    assert len(dead_calls([node])) == 20_000
    hold = node.reach()
    assert dead_calls([node]) == []
    del hold


def test_one_variable_and_many_readers_takes_one_look_each():
    first = Call(SemanticFunction("{{output:y}}"), "semantic", {}, ("y",), Options())
    readers = []
    for _ in range(20_000):
        call = Call(SemanticFunction("{{input:x}} {{output:y}}"), "semantic", {"x": first.outputs[0]}, ("y",), Options())
        call.link()
        readers.append(call)
    assert len(dead_calls([reader.outputs[0] for reader in readers])) == 20_001
