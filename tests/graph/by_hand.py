"""Records of calls and variables, made by hand."""

from __future__ import annotations

import itertools
from collections.abc import Mapping

from parrot_nb.graph.records import CallRecord, Prompt, ValueRecord, new_call
from parrot_nb.language import Template
from parrot_nb.language.nodes import CallKind, Span
from parrot_nb.language.options import Options

_ids = itertools.count(10**9)  # apart from those of `new_call`


def value(name: str) -> ValueRecord:
    """A variable that nothing writes, without value."""
    return ValueRecord(next(_ids), name)


def plain(text: str = "text") -> ValueRecord:
    """A variable that nothing writes, with a value."""
    node = value("plain")
    node.resolve((Span(text),))
    return node


def made(template: str, inputs: Mapping[str, ValueRecord], *, kind: CallKind = "semantic", name: str = "f") -> CallRecord:
    """A call with the outputs of a template, linked to what it reads."""
    parsed = Template.parse(template)
    prompt = Prompt(parsed.segments) if kind == "semantic" else Prompt(())
    call = new_call(name, kind, inputs, parsed.outputs, Options(), prompt=prompt)
    call.link()
    for node in call.outputs:
        node.reachable = False  # nobody holds it, unless a test says so
    return call
