"""Random applications against a brute-force interpreter that runs one call after the other."""

from __future__ import annotations

from dataclasses import dataclass

from hash_engine import expected_text
from hypothesis import given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.runtime import events

WAIT_S = 60


@dataclass(frozen=True)
class Step:
    """One call of a random application; `sources` index earlier results."""

    kind: str
    sources: tuple[int, ...]
    text: str
    num_outputs: int


@st.composite
def applications(draw) -> list[Step]:
    steps: list[Step] = []
    num_results = 2  # two plain values to start from
    for _ in range(draw(st.integers(1, 12))):
        kind = draw(st.sampled_from(["semantic", "semantic", "native", "join", "map"]))
        sources = tuple(draw(st.lists(st.integers(0, num_results - 1), min_size=1, max_size=3)))
        text = draw(st.text("abcXY{}\\ \n", max_size=6).filter(lambda t: "{{" not in t and not t.endswith(("{", "\\"))))
        num_outputs = draw(st.integers(1, 3)) if kind == "semantic" else 1
        steps.append(Step(kind, sources, text, num_outputs))
        num_results += num_outputs
    return steps


def template_of(step: Step) -> str:
    inputs = step.text.join(f"{{{{input:i{k}}}}}" for k in range(len(step.sources)))
    return inputs + "".join(f" {step.text} {{{{output:o{k}, max_tokens={k + 2}}}}}" for k in range(step.num_outputs))


def shout(*values: str) -> str:
    return "/".join(values).upper()


def interpreted(steps: list[Step]) -> list[str]:
    results = ["seed one", "seed two"]
    for step in steps:
        values = [results[i] for i in step.sources]
        if step.kind == "semantic":
            prompt = step.text.join(values)
            for k in range(step.num_outputs):
                prompt += f" {step.text} "
                text, _ = expected_text(prompt.encode(), k + 2)
                prompt += text
                results.append(text)
        elif step.kind == "native":
            results.append(shout(*values))
        elif step.kind == "join":
            results.append(step.text.join(values))
        else:
            results.append("\n".join(expected_text(f"m {v} ".encode(), 3)[0] for v in values))
    return results


def built(steps: list[Step]) -> list[P.SemanticVariable]:
    native = P.native_function(shout)
    mapped = P.SemanticFunction("m {{input:x}} {{output:y, max_tokens=3}}", name="m")
    results = [P.variable("seed one", value="seed one"), P.variable("seed two", value="seed two")]
    for step in steps:
        sources = [results[i] for i in step.sources]
        if step.kind == "semantic":
            made = P.SemanticFunction(template_of(step), name="s")(*sources)
            results += [made] if step.num_outputs == 1 else list(made)
        elif step.kind == "native":
            results.append(native(*sources))
        elif step.kind == "join":
            results.append(P.join(sources, step.text))
        else:
            results.append(P.join(mapped.map(sources)))
    return results


@settings(max_examples=60, deadline=None)
@given(applications(), st.booleans(), st.integers(0, 10**6))
def test_any_application_computes_what_the_interpreter_does(make_session, steps, eager, reader):
    expected = interpreted(steps)
    with make_session(eager=eager) as session:
        results = built(steps)
        order = sorted(range(len(results)), key=lambda i: (i * 7919 + reader) % 101)
        assert {i: results[i].get(timeout=WAIT_S) for i in order} == dict(enumerate(expected))
        session.reset()
        assert all(not engine.contexts for engine in session.engines.values())


@settings(max_examples=40, deadline=None)
@given(applications())
def test_the_event_log_tells_the_whole_truth(make_session, steps):
    with make_session() as session:
        results = built(steps)
        values = [r.get(timeout=WAIT_S) for r in results]
        states: dict[int, list[str]] = {}
        texts: dict[int, str] = {}
        streamed: dict[int, str] = {}
        calls: dict[int, list[str]] = {}
        last_s = 0.0
        for event in session.events.since(0):
            match event:
                case events.CallAdded(call_id=call):
                    assert call not in calls
                    calls[call] = []
                case events.CallChanged(call_id=call, state=state):
                    if not calls[call] or calls[call][-1] != state:
                        calls[call].append(state)
                case events.VariableAdded(variable_id=variable):
                    assert variable not in states
                    states[variable] = []
                case events.TextAppended(variable_id=variable, text=text):
                    streamed[variable] = streamed.get(variable, "") + text
                case events.VariableChanged(variable_id=variable, state=state, text=text):
                    states[variable].append(state)
                    texts[variable] = text or ""
            if not isinstance(event, events.StepRan):
                assert event.time_s >= last_s
                last_s = event.time_s
        for result, value in zip(results, values, strict=True):
            if result.node.id in states:  # a plain value that nothing read was never part of the graph
                assert states[result.node.id][-1] == "done"
                assert texts[result.node.id] == value
                if result.producer is not None and result.producer.kind == "semantic":
                    assert streamed.get(result.node.id, "") == value
        order = ["pending", "running", "done"]
        for seen in calls.values():
            if seen:
                assert seen == sorted(set(seen), key=order.index)
