"""Text made of several values: what a join's output is."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from parrot_nb.graph.records import CallRecord
from parrot_nb.language.nodes import Span

SHOWN_CHARS = 10_000


def joined(call: CallRecord) -> tuple[Span, ...] | None:
    """The text of a join in spans, so that token ids which a model wrote survive; None where it is a list of values.

    Raises:
        InputValueError: an input has no text.
    """
    if call.parts is None:
        return None
    nodes = iter(call.inputs.values())
    spans: list[Span] = []
    for part in call.parts:
        spans += next(nodes).as_spans() if part is None else (Span(part),)
    return tuple(_merged(spans))


def listed(call: CallRecord) -> str:
    """A list of values in words, as Python would write it, as far as anybody reads."""
    items = [repr(node.text) if node.spans is not None else node.shown for node in call.inputs.values()]
    return f"[{', '.join(items)}]"[:SHOWN_CHARS]


def _merged(spans: Sequence[Span]) -> Iterator[Span]:
    """Neighbours without token ids as one span, so that their text is tokenized as a whole."""
    for has_ids, group in itertools.groupby(spans, key=lambda span: span.token_ids is not None):
        if has_ids:
            yield from group
        elif text := "".join(span.text for span in group):
            yield Span(text)
