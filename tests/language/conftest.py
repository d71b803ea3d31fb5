from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent import futures
from typing import Any

import pytest
from hypothesis import settings

from parrot_nb.errors import CallCancelledError, GetTimeoutError
from parrot_nb.graph.records import new_call
from parrot_nb.language.calls import Call
from parrot_nb.language.host import RenderedSegment, entered_host
from parrot_nb.language.joins import Concatenation
from parrot_nb.language.nodes import Objective, Span, VariableNode
from parrot_nb.language.template import Constant, Input
from parrot_nb.runtime.joining import joined
from parrot_nb.runtime.runtime import record_of
from parrot_nb.session.outgoing import given

# A property that is slow on a busy machine is no failure; what may not grow quadratically has a time limit of its own.
settings.register_profile("patient", deadline=None)
settings.load_profile("patient")


class EchoHost:
    """A host whose model writes the prompt so far in brackets: what a call read is what its output says.

    Each read evaluates, in a thread of its own, what the wanted variables depend on; a variable nobody has set is waited
    for. `calls` are the submitted ones in order, `reads` what was asked for, `given_up` whose await was cancelled.
    """

    def __init__(self) -> None:
        self.calls: list[Call] = []
        self.reads: list[tuple[tuple[str, ...], Objective | None]] = []
        self.given_up: list[VariableNode] = []
        self._claiming = threading.Lock()
        self._claimed: set[int] = set()

    def submit(self, calls: Sequence[Call]) -> None:
        assert calls, "there is something to submit"
        for call in calls:
            assert not call.submitted, "a call is submitted once"
            for node in call.inputs.values():
                assert node.producer is None or node.producer.submitted, "what a call reads is submitted before it"
            call.link()
            self.calls.append(call)

    def read(self, nodes: Sequence[VariableNode], objective: Objective | None) -> None:
        self.reads.append((tuple(node.name for node in nodes), objective))
        threading.Thread(target=self._run, args=(self._needed(nodes),), daemon=True).start()

    def wait(self, nodes: Sequence[VariableNode], timeout_s: float | None) -> None:
        _, pending = futures.wait([node.future for node in nodes], timeout_s)
        if pending:
            raise GetTimeoutError(f"{len(pending)} variables have no value after {timeout_s} s.")

    def interrupted(self, nodes: Sequence[VariableNode]) -> None:
        self.given_up.extend(nodes)

    def cancel(self, nodes: Sequence[VariableNode]) -> None:
        for node in nodes:
            assert node.producer is not None
            assert node.producer.submitted
            node.fail(CallCancelledError(f"'{node.name}' was cancelled."))

    def render(self, function, inputs: Mapping) -> tuple[RenderedSegment, ...]:
        rendered = []
        for segment in function.template.segments:
            if isinstance(segment, Constant):
                rendered.append(RenderedSegment("constant", None, segment.text, ()))
            elif isinstance(segment, Input) and segment.name in inputs:
                rendered.append(RenderedSegment("input", segment.name, inputs[segment.name].text, ()))
        return tuple(rendered)

    def describe(self, call: Call) -> Any:
        raise AssertionError(f"nothing here asks what was deduced of {call}")

    def _needed(self, nodes: Sequence[VariableNode]) -> list[Call]:
        found: dict[int, Call] = {}
        pending = list(nodes)
        while pending:
            call = pending.pop().producer
            if call is not None and call.id not in found:
                found[call.id] = call
                pending.extend(call.inputs.values())
        order = {call.id: i for i, call in enumerate(self.calls)}
        return sorted(found.values(), key=lambda call: order[call.id])

    def _run(self, calls: list[Call]) -> None:
        for call in calls:
            with self._claiming:
                if call.id in self._claimed:
                    continue
                self._claimed.add(call.id)
            try:
                for node in call.inputs.values():
                    node.future.result()
                self._evaluate(call)
            except Exception as error:
                for node in call.outputs:
                    node.fail(error)

    def _evaluate(self, call: Call) -> None:
        if call.kind == "semantic":
            self._write(call)
        elif call.kind == "join":
            self._join(call)
        else:
            args, kwargs = call.function.bind({name: node.value for name, node in call.inputs.items()})
            value = call.function.function(*args, **kwargs)
            call.outputs[0].resolve(value, spans=(Span(value),) if isinstance(value, str) else None)

    def _join(self, call: Call) -> None:
        """As the runtime joins, from the same data about the inputs."""
        if not isinstance(call.function, Concatenation):
            call.outputs[0].resolve([node.value for node in call.inputs.values()])
            return
        inputs = {name: record_of(given(node, needs_text=True)) for name, node in call.inputs.items()}
        spans = joined(new_call(call.name, call.kind, inputs, call.output_names, call.options, parts=call.function.parts))
        assert spans is not None
        call.outputs[0].resolve("".join(span.text for span in spans), spans=spans)

    def _write(self, call: Call) -> None:
        nodes = {**call.inputs, **dict(zip(call.output_names, call.outputs, strict=True))}
        prompt = ""
        for segment in call.function.template.segments:
            if isinstance(segment, Constant):
                prompt += segment.text
            elif isinstance(segment, Input):
                prompt += nodes[segment.name].text
            else:
                node = nodes[segment.name]
                node.begin()
                pieces = ["[", prompt, "]"] if prompt else ["[]"]
                for piece in pieces:
                    node.append(piece)
                text = "".join(pieces)
                ids = tuple(text.encode())
                node.resolve(text, spans=(Span(text, ids, "echo"),), finish="stop")
                prompt += text


@pytest.fixture
def host() -> Iterator[EchoHost]:
    echo = EchoHost()
    token = entered_host.set(echo)
    yield echo
    entered_host.reset(token)
