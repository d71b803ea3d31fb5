"""The prompt of an output that is written again, with what is said of the attempts that were refused."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence

from parrot_nb.engine.codec import Codec
from parrot_nb.engine.protocol import GenerationEnd
from parrot_nb.graph.records import ValueRecord
from parrot_nb.runtime import prompt
from parrot_nb.runtime.stretches import PromptWriter, Seam

Attempts = Sequence[tuple[str, str]]  # what was written, and why it would not do


async def told_why(
    operations: Sequence[prompt.Operation],
    output: prompt.Generate,
    nodes: Mapping[str, ValueRecord],
    codec: Codec,
    attempts: Attempts,
    thought: GenerationEnd | None = None,
) -> Seam:
    """The whole prompt before an output, once more; what was thought before that output is kept.

    Args:
        operations: of the prompt.
        output: one of them.
        nodes: inputs and outputs by the names that operations have for them; those before the output have values.
        codec: the tokenizer.
        attempts: at that output.
        thought: what the model thought before it.
    """

    def written() -> Seam:
        writer = PromptWriter(codec)
        for operation in operations[: operations.index(output)]:
            match operation:
                case prompt.Feedback(name) if name == output.name:
                    _tell(operation, attempts, nodes, writer)
                case prompt.Think(name) if name == output.name:
                    assert thought is not None, "it was thought about"
                    _think(operation, thought, writer)
                case prompt.FillText(kind="begin", name=name) if name == output.name:
                    prompt.add(operation, writer)
                case _:
                    prompt.add_past([operation], nodes, writer)
        return writer.end(heals=output.heals)

    return await asyncio.to_thread(written)  # a long prompt would hold up everybody's tokens


def _tell(feedback: prompt.Feedback, attempts: Attempts, nodes: Mapping[str, ValueRecord], writer: PromptWriter) -> None:
    for text, reason in attempts:
        writer.add_text(feedback.retry.told(text, reason.rstrip(".")))
        prompt.add_past(feedback.again, nodes, writer)


def _think(think: prompt.Think, thought: GenerationEnd, writer: PromptWriter) -> None:
    for mark in think.opens:
        prompt.add(mark, writer)
    writer.add_ids(thought.context_ids)
    for mark in think.closes(cut=thought.finish == "length"):
        prompt.add(mark, writer)
