"""A prompt cut after each of its outputs: the paper's chains `Fill ... Fill Gen`, the unit of scheduling."""

from __future__ import annotations

from dataclasses import dataclass

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.template import Constant, Input, Output, Segment


@dataclass(frozen=True, slots=True)
class Chain:
    """Segments to fill, and the one output then generated. Text after a prompt's last output belongs to no chain: nothing
    is generated after it."""

    fills: tuple[Constant | Input, ...]
    output: Output


def chains(segments: tuple[Segment, ...]) -> tuple[Chain, ...]:
    """The chains of a template."""
    found: list[Chain] = []
    fills: list[Constant | Input] = []
    for segment in segments:
        if isinstance(segment, Output):
            found.append(Chain(tuple(fills), segment))
            fills = []
        else:
            fills.append(segment)
    return tuple(found)


def first_inputs(call: CallRecord) -> tuple[ValueRecord, ...]:
    """The variables that must have values before a call can start, each once.

    For a prompt these are the inputs of its first chain: what stands after the first output may come later. For a
    native function or a join these are all inputs, for a choice of the first that comes none.
    """
    if call.kind == "first":
        return ()
    if call.kind != "semantic":
        nodes = list(call.inputs.values())
    else:
        first = chains(call.segments)[0]
        nodes = [call.inputs[segment.name] for segment in first.fills if isinstance(segment, Input)]
    return tuple({node.id: node for node in nodes}.values())
