"""What is deduced when variables are read is a function of the records, which changes none of them."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from test_stages import dags

from parrot_nb.graph import Cost, Reading, critical_paths, stages, task_groups
from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.runtime.analysis import deduce


def cost(call: CallRecord) -> Cost:
    return Cost(0.5, 1.0 + call.id % 3)


def state(records: list[CallRecord]) -> list[tuple]:
    """All fields of all calls and of their variables, by the identity of what they hold."""
    found = []
    for record in [*records, *(node for call in records for node in (*call.inputs.values(), *call.outputs))]:
        names = {name for kind in type(record).__mro__ for name in getattr(kind, "__slots__", ())} | set(
            getattr(record, "__dict__", ())
        )
        values = ((name, getattr(record, name, None)) for name in sorted(names) if not name.startswith("__"))
        found.append(
            tuple((name, id(value), repr(value) if isinstance(value, (list, dict, set)) else "") for name, value in values)
        )
    return found


@given(data=st.data())
@settings(deadline=None, max_examples=60)
def test_deducing_changes_nothing_and_says_what_its_parts_say(data):
    calls = data.draw(dags())
    read = data.draw(st.lists(st.sampled_from(calls), min_size=1, max_size=3, unique=True))
    readings = [Reading((call.outputs[0],), 1.0, None, data.draw(st.booleans())) for call in read]
    before = state(calls)
    deduced = deduce(readings, cost)
    assert state(calls) == before
    nodes: list[ValueRecord] = [call.outputs[0] for call in read]
    order = stages(nodes)
    assert list(deduced.calls) == list(reversed(order))
    assert deduced.paths == critical_paths(order, readings, cost)
    assert list(deduced.groups) == task_groups([reading.nodes for reading in readings if reading.waits])
