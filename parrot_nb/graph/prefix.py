"""Prefix hashes: one hash at every segment boundary of a prompt, each covering all before it (paper, section 5.3).

Two calls whose hashes agree at a boundary will be given the same text up to there, so their contexts can share KV. Of plain
text the last token or two may differ, since neighbouring texts are tokenized as one (`parrot_nb.runtime.stretches`).
A variable without a value yet counts by its identity: calls that read the same pending variable still match.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator

from parrot_nb.graph.records import CallRecord, ValueRecord
from parrot_nb.language.calls import Call
from parrot_nb.language.nodes import VariableNode
from parrot_nb.language.template import Constant, Output


def prefix_hashes(call: CallRecord | Call) -> tuple[str, ...]:
    """The hash after each segment of a semantic call's template, in order; empty for other kinds of call."""
    return tuple(digest for _, digest in _boundaries(call))


def prefix_hash(node: ValueRecord | VariableNode) -> str | None:
    """The hash of all that stands before a variable in the prompt that produces it; None where no prompt does."""
    if node.producer is None or node.producer.kind != "semantic":
        return None
    before = _start(node.producer)
    for name, digest in _boundaries(node.producer):
        if name == node.name:
            return before
        before = digest
    return None


def _start(call: CallRecord | Call) -> str:
    options = call.options
    return hashlib.blake2b(repr((options.model, options.chat, options.system)).encode(), digest_size=16).hexdigest()


def _boundaries(call: CallRecord | Call) -> Iterator[tuple[str | None, str]]:
    """(name of the output that the segment is, or None; hash up to and including the segment)."""
    if call.kind != "semantic":
        return
    digest = _start(call)
    outputs: dict[str, ValueRecord | VariableNode] = {node.name: node for node in call.outputs}
    for segment in call.segments:
        match segment:
            case Constant(text=text):
                content = f"constant:{text}"
            case _:
                node: ValueRecord | VariableNode = outputs[segment.name] if segment.name in outputs else call.inputs[segment.name]
                content = f"value:{node.text}" if node.state == "done" and node.spans is not None else f"variable:{node.id}"
        digest = hashlib.blake2b(f"{digest}|{content}".encode(), digest_size=16).hexdigest()
        yield (segment.name if isinstance(segment, Output) else None), digest
