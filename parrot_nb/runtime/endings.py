"""What is said of a call when it ends."""

from __future__ import annotations

from parrot_nb.engine.protocol import GenerationEnd
from parrot_nb.errors import CallError, UpstreamError
from parrot_nb.language.nodes import Call, Usage, VariableNode


def usage_of(end: GenerationEnd, *, from_memo: bool) -> Usage:
    """What a generation took."""
    tokens = end.prefilled_tokens, end.reused_tokens, end.decoded_tokens
    return Usage(*tokens, end.queued_s, end.prefill_s, end.decode_s, from_memo, end.guessed_tokens)


def note_of_inputs(call: Call) -> str | None:
    """What must be said beside a value that is made of others."""
    return next((node.note for node in call.inputs.values() if node.note is not None), None)


def upstream_error(call: Call, node: VariableNode) -> UpstreamError:
    """What a call fails with when a variable that it reads has no value; the cause is the first error of the chain."""
    error = node.error
    first = error.__cause__ if isinstance(error, UpstreamError) and error.__cause__ is not None else error
    source = node.producer.name if node.producer is not None else node.name
    upstream = UpstreamError(f"'{call.name}' did not run: '{node.name}', which it reads from '{source}', has no value ({first}).")
    upstream.__cause__ = first
    return upstream


def none_acceptable(call: Call) -> CallError:
    """What `P.first` fails with."""
    sources = list(call.inputs.values())
    refused = sum(node.state == "done" for node in sources)
    if not refused:
        return upstream_error(call, next(node for node in sources if node.error is not None))
    failed = len(sources) - refused
    told = f"None of the {len(sources)} values of P.first was acceptable: {refused} refused by its condition"
    return CallError(f"{told}, {failed} without value." if failed else f"{told}.")
