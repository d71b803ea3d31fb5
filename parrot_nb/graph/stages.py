"""Task groups: the parallel calls of one stage, whose joint completion matters (paper, section 5.2).

Walking from what was read back to its sources, a call's *stage* is the number of model calls on the longest way between
it and the reader. Calls of one stage that feed the same consumer, or the same group of consumers, are a task group, and so
are groups that overlap: what reads them waits for the last of them, so they are worth most side by side. Native functions
and joins run no model; what is read through one counts as read by its readers.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.nodes import FINAL_STATES, TaskGroup

_Feeders = dict[int, int]  # by stage: one of the model calls of it; the others are in a group with that one


def stages(nodes: Iterable[ValueRecord]) -> dict[CallRecord, int]:
    """The unfinished calls that these variables depend on, with their stages; consumers come before producers."""
    found: dict[int, CallRecord] = {}
    frontier = [node.producer for node in nodes]
    while frontier:
        call = frontier.pop()
        if call is None or call.id in found or call.state in FINAL_STATES:
            continue
        found[call.id] = call
        frontier.extend(node.producer for node in call.inputs.values())
    stage = dict.fromkeys(sorted(found.values(), key=lambda call: call.id, reverse=True), 0)  # ids are topological
    for call in stage:
        below = stage[call] + (call.kind == "semantic")
        for node in call.inputs.values():
            if node.producer is not None and node.producer.id in found:
                stage[node.producer] = max(stage[node.producer], below)
    return stage


def task_groups(readers: Sequence[Sequence[ValueRecord]]) -> list[TaskGroup]:
    """The task groups among the unfinished calls behind what is read, the nearest to the readers first.

    Takes time in proportion to the calls and the variables they read.

    Args:
        readers: for each reader, the variables that it reads together.
    """
    stage = stages(node for read in readers for node in read)
    leader: dict[int, int] = {}

    def find(call_id: int) -> int:
        while (above := leader.get(call_id, call_id)) != call_id:
            leader[call_id] = leader.get(above, above)
            call_id = above
        return call_id

    feeders: dict[int, _Feeders] = {}  # of calls that run no model

    def read_together(read: Iterable[ValueRecord]) -> _Feeders:
        """Unite, stage by stage, the model calls behind variables that have a reader in common."""
        together: _Feeders = {}
        for node in read:
            producer = node.producer
            if producer is None or producer not in stage:
                continue
            behind = {stage[producer]: producer.id} if producer.kind == "semantic" else feeders[producer.id]
            for i_stage, call_id in behind.items():
                if i_stage in together:
                    a, b = find(together[i_stage]), find(call_id)
                    leader[max(a, b)] = min(a, b)
                else:
                    together[i_stage] = call_id
        return together

    for call in reversed(stage):
        if call.kind != "semantic":
            feeders[call.id] = read_together(call.inputs.values())
    for read in readers:
        read_together(read)

    by_stage: defaultdict[int, list[CallRecord]] = defaultdict(list)
    for call in reversed(stage):
        if call.kind == "semantic":
            by_stage[stage[call]].append(call)
    groups = []
    for i_stage in sorted(by_stage):  # all that read a stage, and so unite its calls, are of the stages before it
        members: defaultdict[int, list[CallRecord]] = defaultdict(list)
        for call in by_stage[i_stage]:
            members[find(call.id)].append(call)
        for first, calls in members.items():
            read_together(node for call in calls for node in call.inputs.values())
            if len(calls) > 1:
                groups.append(TaskGroup(first, i_stage, tuple(call.id for call in calls)))
    return groups
