"""The graph's primitives, against plain brute force on random DAGs."""

from __future__ import annotations

import pytest
from by_hand import made, plain, value
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.graph import Graph, chains, deduce_objectives, first_inputs, prefix_hash, prefix_hashes
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language import LATENCY, THROUGHPUT, Template


def call_of(template: str, **nodes: ValueRecord) -> CallRecord:
    return made(template, nodes)


@st.composite
def dags(draw) -> list[CallRecord]:
    nodes = [plain("a"), plain("b")]
    calls = []
    for _ in range(draw(st.integers(1, 15))):
        sources = draw(st.lists(st.sampled_from(nodes), min_size=1, max_size=3))
        names = {f"i{k}": node for k, node in enumerate(sources)}
        template = " ".join(f"{{{{input:{name}}}}}" for name in names) + " {{output:o}}"
        calls.append(call_of(template, **names))
        nodes.append(calls[-1].outputs[0])
    return calls


def depends_on(call: CallRecord, other: CallRecord) -> bool:
    return call is other or any(n.producer is not None and depends_on(n.producer, other) for n in call.inputs.values())


@settings(deadline=None)
@given(dags(), st.data())
def test_ancestors_and_topological_order(calls, data):
    graph = Graph()
    for call in calls:
        graph.add(call)
    assert graph.calls == tuple(calls)
    positions = {call.id: i for i, call in enumerate(graph.calls)}
    assert all(positions[n.producer.id] < positions[c.id] for c in calls for n in c.inputs.values() if n.producer)
    target = data.draw(st.sampled_from(calls))
    found = [call.id for call in graph.ancestors(target.outputs)]
    assert len(found) == len(set(found))
    assert set(found) == {call.id for call in calls if depends_on(target, call)}


@settings(deadline=None)
@given(dags(), st.data())
def test_objectives_are_the_strictest_of_what_is_downstream(calls, data):
    """Brute force: LATENCY where a call that something latency-annotated depends on, else THROUGHPUT where annotated."""
    annotated = data.draw(st.lists(st.tuples(st.sampled_from(calls), st.sampled_from([LATENCY, THROUGHPUT])), max_size=5))
    for call, objective in annotated:
        for changed in deduce_objectives(call.outputs, objective):
            changed.objective = objective
    for call in calls:
        wanted = {objective for reader, objective in annotated if depends_on(reader, call)}
        expected = LATENCY if LATENCY in wanted else THROUGHPUT if wanted else None
        assert call.objective is expected


@settings(deadline=None)
@given(dags(), st.data())
def test_what_only_one_reader_needs(calls, data):
    graph = Graph()
    for call in calls:
        graph.add(call)
    target = data.draw(st.sampled_from(calls))
    chosen = {call.id for call in graph.only_needed_by(target.outputs)}
    for call in calls:  # brute force, by the definition
        readers = [c for c in calls if any(n in call.outputs for n in c.inputs.values())]
        own = call is target or (bool(readers) and depends_on(target, call) and all(r.id in chosen for r in readers))
        assert (call.id in chosen) == own


def test_primitives_of_the_paper():
    graph = Graph()
    task = plain("snake")
    first = call_of("Write {{input:task}}: {{output:code}}", task=task)
    code = first.outputs[0]
    second = call_of("Test {{input:code}}: {{output:test}}", code=code)
    assert graph.add(first) == [task]
    assert graph.add(second) == []
    assert graph.producer(code) is first
    assert graph.consumers(code) == (second,)
    assert graph.producer(task) is None
    assert graph.objective(code) is None
    first.objective = LATENCY
    assert graph.objective(code) is LATENCY
    assert graph.prefix_hash(task) is None
    assert graph.prefix_hash(code) == prefix_hash(code) is not None


def test_a_call_is_added_once_and_after_what_it_reads():
    graph = Graph()
    first = call_of("A {{output:a}}")
    second = call_of("B {{input:a}} {{output:b}}", a=first.outputs[0])
    with pytest.raises(AssertionError):
        graph.add(second)
    graph.add(first)
    with pytest.raises(AssertionError):
        graph.add(first)


def test_chains_are_cut_after_each_output():
    cut = chains(Template.parse("a {{input:x}} {{output:y}} b {{input:y}}{{output:z}} tail").segments)
    assert [chain.output.name for chain in cut] == ["y", "z"]
    assert [len(chain.fills) for chain in cut] == [3, 2]


def test_only_the_first_chain_must_be_there_to_start():
    x, late = plain("x"), value("late")
    call = call_of("a {{input:x}} {{input:x}} {{output:y}} {{input:late}} {{output:z}}", x=x, late=late)
    assert first_inputs(call) == (x,)


def test_prefix_hashes_agree_exactly_as_far_as_prompts_do():
    shared, own = plain("shared"), plain("own")
    a = call_of("System. {{input:s}} then {{input:o}} {{output:y}}", s=shared, o=own)
    b = call_of("System. {{input:s}} then {{input:o}} {{output:y}}", s=plain("shared"), o=plain("other"))
    same = [x == y for x, y in zip(prefix_hashes(a), prefix_hashes(b), strict=True)]
    assert same == [True, True, True, False, False, False]
    pending = value("pending")
    c, d = (call_of("S {{input:p}} {{output:y}}", p=node) for node in (pending, pending))
    e = call_of("S {{input:p}} {{output:y}}", p=value("pending"))
    assert prefix_hashes(c)[:3] == prefix_hashes(d)[:3]
    assert prefix_hashes(c)[1] != prefix_hashes(e)[1]
    assert prefix_hash(c.outputs[0]) == prefix_hashes(c)[2]


def test_a_deep_graph_needs_no_stack():
    graph = Graph()
    node = plain("x")
    for _ in range(20_000):
        call = call_of("{{input:x}} {{output:y}}", x=node)
        graph.add(call)
        (node,) = call.outputs
    assert sum(1 for _ in graph.ancestors([node])) == 20_000
    assert len(deduce_objectives([node], LATENCY)) == 20_000
    assert len(graph.only_needed_by([node])) == 20_000
