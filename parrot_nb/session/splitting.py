"""Long texts in pieces for maps, counted by the model's own tokenizer."""

from __future__ import annotations

from parrot_nb.errors import ArgumentError
from parrot_nb.runtime import messages
from parrot_nb.session.sessions import current_session


def split(text: str, *, tokens: int, overlap: int = 0, model: str | None = None) -> list[str]:
    """Cut a text into pieces of at most `tokens` tokens, which end at paragraphs, sentences or words where that can be. Loads the
    model if need be and runs nothing.

    Args:
        text: to cut.
        tokens: the most tokens of a piece.
        overlap: about so many last tokens of a piece begin the next one too, less than half of `tokens`; without any, the pieces
            in a row are the text.
        model: whose tokenizer counts; the session's when None.

    Raises:
        ArgumentError: no text, or numbers that do not go together.
        ModelError: the model cannot be had.
    """
    if not isinstance(text, str):
        raise ArgumentError(f"P.split() takes a text, not {type(text).__name__}: give it a string, as from get().")
    for name, value, least in (("tokens", tokens, 1), ("overlap", overlap, 0)):
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise ArgumentError(f"{name} of P.split() must be a whole number, at least {least}, not {value!r}.")
    if 2 * overlap >= tokens and overlap:
        raise ArgumentError(f"An overlap of {overlap} tokens is too much for pieces of {tokens}: make it less than half of that.")
    return list(current_session().ask(messages.Split(text, tokens, overlap, model)).texts)
