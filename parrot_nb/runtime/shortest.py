"""Whether a value fits into `max_tokens` at all, by the tokenizer that will write it."""

from __future__ import annotations

import json

from parrot_nb.engine.codec import Codec
from parrot_nb.language.types import OutputType


def too_long(form: OutputType, max_tokens: int, codec: Codec) -> tuple[str, int] | None:
    """Return a shortest text of a type and its number of tokens where that exceeds `max_tokens`; None where a value fits.

    Of choices, one with more characters may have fewer tokens, so that all are counted before any is called too long.
    """
    text, num_tokens = form.least, len(codec.encode(form.least))
    if num_tokens > max_tokens and form.kind == "choices":
        counted = [(len(codec.encode(choice)), choice) for choice in json.loads(form.body)]
        num_tokens, text = min(counted)
    return (text, num_tokens) if num_tokens > max_tokens else None
