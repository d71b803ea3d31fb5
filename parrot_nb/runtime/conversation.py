"""A prompt as the turns of a conversation: what a store keeps beside a text, so that people can read where it comes from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from parrot_nb.graph.records import ValueRecord
from parrot_nb.runtime.prompt import FillIds, FillText, FillVariable, Generate, Operation

Turns = tuple[tuple[str, str], ...]  # role and content


def conversation(operations: Sequence[Operation], nodes: Mapping[str, ValueRecord], system: str | None, output: str) -> Turns:
    """Return the turns before an output: "system", "user" and "assistant", by role and content.

    A raw prompt is one turn of the user's, with earlier outputs in it. Text that the output begins with is a last turn of the
    assistant's. Control tokens are left out.

    Args:
        operations: of the call.
        nodes: its inputs and outputs, by name.
        system: the system text, if there is one.
        output: name of the output.
    """
    is_chat = any(isinstance(operation, FillText) and operation.kind == "frame" for operation in operations) or any(
        isinstance(operation, FillIds) and operation.segment is None and not operation.opens for operation in operations
    )
    turns: list[tuple[str, str]] = [("system", system)] if system is not None and is_chat else []
    content, begin = "", ""
    for operation in operations:
        match operation:
            case FillVariable(name):
                content += nodes[name].text if nodes[name].spans is not None else nodes[name].written or ""
            case FillText(text, "constant"):
                content += text
            case FillText(text, "begin"):
                begin = text
            case Generate(name) if name == output:
                turns.append(("user", content))
                break
            case Generate(name) if is_chat:
                turns += [("user", content), ("assistant", nodes[name].text)]
                content = begin = ""
            case Generate(name):
                content += nodes[name].text
                begin = ""
            case _:
                pass
    return (*turns, ("assistant", begin)) if begin else tuple(turns)
