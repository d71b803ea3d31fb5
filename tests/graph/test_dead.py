"""Dead work, against a brute-force reading of the rule on random DAGs."""

from __future__ import annotations

from by_hand import made, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.graph import dead_calls
from parrot_nb.graph.records import CallRecord
from parrot_nb.language.nodes import FINAL_STATES


@st.composite
def dags(draw) -> list[CallRecord]:
    """Calls, of whose outputs some are held."""
    nodes, calls = [plain()], []
    for _ in range(draw(st.integers(1, 14))):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        kind = draw(st.sampled_from(["semantic", "semantic", "semantic", "join", "first", "native"]))
        inputs = {f"i{k}": node for k, node in enumerate(sources)}
        template = " ".join(f"{{{{input:{name}}}}}" for name in inputs) + " {{output:o}} {{output:p}}"
        call = made(template, inputs, kind=kind)
        if all(node.producer is None or node.producer.state == "done" for node in sources):
            call.state = draw(st.sampled_from(["pending", "running", "done"]))
        if draw(st.sampled_from([True, False, False, False])):
            draw(st.sampled_from(call.outputs)).reachable = True
        calls.append(call)
        nodes += call.outputs
    return calls


def alive(call: CallRecord) -> bool:
    return call.state not in FINAL_STATES and (
        call.kind == "native" or any(o.reachable or any(alive(reader) for reader in o.consumers) for o in call.outputs)
    )


@settings(max_examples=300, deadline=None)
@given(dags())
def test_dead_is_what_is_unfinished_and_not_alive(dag):
    calls = dag
    found = dead_calls(node for call in calls for node in call.outputs)
    assert {call.id for call in found} == {c.id for c in calls if c.state not in FINAL_STATES and not alive(c)}
    assert [call.id for call in found] == sorted((call.id for call in found), reverse=True)


@settings(max_examples=100, deadline=None)
@given(dags(), st.data())
def test_only_what_is_behind_the_lost_variables_is_looked_at(dag, data):
    calls = dag
    lost = data.draw(st.sampled_from(calls))
    behind: set[int] = set()
    frontier = [lost]
    while frontier:
        call = frontier.pop()
        behind.add(call.id)
        frontier += [node.producer for node in call.inputs.values() if node.producer is not None]
    assert {call.id for call in dead_calls(lost.outputs)} <= behind


def test_a_chain_deeper_than_the_stack():
    node = plain()
    calls = []
    for _ in range(20_000):
        call = made("{{input:x}} {{output:y}}", {"x": node})
        calls.append(call)
        (node,) = call.outputs
    assert len(dead_calls([node])) == 20_000
    node.reachable = True
    assert dead_calls([node]) == []


def test_one_variable_and_many_readers_takes_one_look_each():
    first = made("{{output:y}}", {})
    readers = []
    for _ in range(20_000):
        call = made("{{input:x}} {{output:y}}", {"x": first.outputs[0]})
        readers.append(call)
    assert len(dead_calls([reader.outputs[0] for reader in readers])) == 20_001
