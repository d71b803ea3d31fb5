"""Task groups by the paper's rule, against a brute-force reading of it on random DAGs."""

from __future__ import annotations

from itertools import combinations, permutations

import pytest
from by_hand import made, plain
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb import UsageError, explain
from parrot_nb.graph import stages, task_groups
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language import LATENCY, SemanticFunction, SemanticVariable, variable
from parrot_nb.language.nodes import TaskGroup


def a_call(sources: list[ValueRecord], kind: str = "semantic") -> CallRecord:
    nodes = {f"i{k}": node for k, node in enumerate(sources)}
    template = " ".join(f"{{{{input:{name}}}}}" for name in nodes) + " {{output:o}}"
    return made(template, nodes, kind=kind, name=kind)


@st.composite
def dags(draw) -> list[CallRecord]:
    nodes, calls = [plain()], []
    for _ in range(draw(st.integers(1, 12))):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3, unique=True))
        call = a_call(sources, draw(st.sampled_from(["semantic", "semantic", "semantic", "join", "native"])))
        if all(n.producer is None or n.producer.state == "done" for n in sources):
            call.state = draw(st.sampled_from(["pending", "running", "done"]))
        calls.append(call)
        nodes.append(call.outputs[0])
    return calls


def producers(call: CallRecord) -> list[CallRecord]:
    return [n.producer for n in call.inputs.values() if n.producer is not None and n.producer.state != "done"]


def longest(call: CallRecord, targets: list[CallRecord]) -> int | None:
    """Model calls on the longest way from a call to a target, the call itself not counted; None without a way."""
    here = [0] if call in targets else []
    readers = [reader for reader in call.outputs[0].consumers if reader.state != "done"]
    ways = [rest + (reader.kind == "semantic") for reader in readers if (rest := longest(reader, targets)) is not None]
    return max(here + ways, default=None)


def feeders(call: CallRecord) -> set[CallRecord]:
    """Model calls read by a call, directly or through calls that run no model."""
    found = set()
    for producer in producers(call):
        found |= {producer} if producer.kind == "semantic" else feeders(producer)
    return found


@settings(deadline=None, max_examples=300)
@given(dags(), st.data())
def test_groups_are_those_of_the_rule(calls, data):
    readers = data.draw(st.lists(st.lists(st.sampled_from(calls), min_size=1, max_size=4, unique=True), min_size=1, max_size=2))
    targets = [call for read in readers for call in read if call.state != "done"]
    stage = {call: d for call in calls if call.state != "done" and (d := longest(call, targets)) is not None}
    nodes = [[call.outputs[0] for call in read] for read in readers]
    assert stages(node for read in nodes for node in read) == stage

    component = {call.id: {call.id} for call in stage if call.kind == "semantic"}
    by_id = {call.id: call for call in calls}

    def unite(fed):
        for a, b in combinations(fed, 2):
            if stage[a] == stage[b] and component[a.id] is not component[b.id]:
                union = component[a.id] | component[b.id]
                for call_id in union:
                    component[call_id] = union

    for read in readers:
        unfinished = [call for call in read if call.state != "done"]
        unite({f for call in unfinished for f in ({call} if call.kind == "semantic" else feeders(call))})
    for _ in range(len(calls)):  # until nothing changes, whatever the order
        for ids in list(component.values()):
            unite({fed for call_id in ids for fed in feeders(by_id[call_id])})
    expected = {tuple(sorted(ids)) for ids in component.values() if len(ids) > 1}
    groups = task_groups(nodes)
    assert {group.call_ids for group in groups} == expected
    assert [group.stage for group in groups] == sorted(group.stage for group in groups)
    for group in groups:
        assert group.id == group.call_ids[0]
        assert {stage[by_id[call_id]] for call_id in group.call_ids} == {group.stage}
        assert not any(depends_on(by_id[a], by_id[b]) for a, b in permutations(group.call_ids, 2)), "members are parallel"


def depends_on(a: CallRecord, b: CallRecord) -> bool:
    return any(producer is b or depends_on(producer, b) for producer in producers(a))


def test_map_reduce_and_multi_agent():
    parts = [a_call([plain()]) for _ in range(5)]
    joined = a_call([call.outputs[0] for call in parts], "join")
    reduce = a_call([joined.outputs[0]])
    (group,) = task_groups([reduce.outputs])
    assert (group.call_ids, group.stage) == (tuple(call.id for call in parts), 1)

    coders = [a_call([plain()]) for _ in range(3)]
    program = a_call([call.outputs[0] for call in coders], "join")
    reviewers = [a_call([program.outputs[0]]) for _ in coders]
    revisers = [a_call([c.outputs[0], r.outputs[0]]) for c, r in zip(coders, reviewers, strict=True)]
    groups = task_groups([[call.outputs[0] for call in revisers]])
    assert [group.call_ids for group in groups] == [tuple(c.id for c in stage) for stage in (revisers, reviewers, coders)]
    assert task_groups([[call.outputs[0]] for call in parts]) == [], "read apart, they are no group"


def test_large_graphs_take_little_time_and_no_stack():
    node = plain()
    for _ in range(5_000):
        node = a_call([node]).outputs[0]
    assert task_groups([[node]]) == []
    many = [a_call([plain()]) for _ in range(5_000)]
    joined = a_call([call.outputs[0] for call in many], "join")
    readers = [a_call([joined.outputs[0]]) for _ in range(5_000)]
    wide = task_groups([[call.outputs[0] for call in readers]])
    assert [len(group.call_ids) for group in wide] == [5_000, 5_000]


def test_an_explanation_says_why():
    step, both = (
        SemanticFunction("{{input:x}} {{output:o}}", name="step"),
        SemanticFunction("{{input:x}}{{input:y}} {{output:o}}"),
    )
    calls = [step.make_call(("text",), {}) for _ in range(2)]
    last = both.make_call(tuple(SemanticVariable.of(call.outputs[0], None) for call in calls), {})
    last.outputs[0].objective = LATENCY
    for call in (*calls, last):
        call.link()
        call.progress.objective = LATENCY
    for call in calls:
        call.progress.group = TaskGroup(calls[0].id, 1, tuple(call.id for call in calls))
    told = explain(SemanticVariable.of(calls[0].outputs[0], None))
    assert f"Objective: LATENCY; 'o' of {last.name} (call {last.id}) was read as such and depends on it." in told
    assert "one of 2 parallel calls, 1 model call before" in told
    assert "it was read as such" in explain(SemanticVariable.of(last.outputs[0], None))
    assert "no call writes it" in explain(variable("x", value="given"))
    assert repr(told) == str(told)
    with pytest.raises(UsageError, match=r"P\.explain takes a variable, not str"):
        explain("text")
