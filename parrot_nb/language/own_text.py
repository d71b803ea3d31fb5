"""The text by which an object shows itself to a model, for whoever asks for it."""

from __future__ import annotations

import asyncio
import inspect
import threading
from collections.abc import Mapping
from typing import Any

from parrot_nb.errors import InputValueError
from parrot_nb.language.text import checked_characters, to_text

KINDS = ("text/markdown", "text/plain")  # of what an object says, best first


def as_text(value: Any, /) -> str:
    """Return the text by which an object shows itself to a model, to be given to a prompt.

    That is what its `_ai_repr_` gives (the ecosystem's proposal: a text or texts by mime type, at once or to be awaited), else what
    its `_repr_markdown_` gives, else the text of a plain value. No prompt takes it by itself: an object's words are not its value.

    Raises:
        InputValueError: the object has none, or fails to say it.
    """
    kind = type(value)
    for method in ("_ai_repr_", "_repr_markdown_"):
        if callable(getattr(kind, method, None)):
            try:
                said = getattr(value, method)()
                said = _text_in(_awaited(said) if inspect.isawaitable(said) else said)
            except Exception as error:
                told = f"as_text(): {method} of {kind.__name__} raised {type(error).__name__}: turn it into a string yourself."
                raise InputValueError(told) from error
            if said is not None:
                return checked_characters(said, f"what {method} of {kind.__name__} gives")
    return to_text(value, "as_text()")


def _text_in(said: Any) -> str | None:
    """The text in what an object says; None where it says none."""
    if isinstance(said, tuple) and said:  # with metadata beside it, as display methods may
        said = said[0]
    if isinstance(said, Mapping):
        said = next((said[kind] for kind in KINDS if isinstance(said.get(kind), str)), None)
    return str.__str__(said) if isinstance(said, str) else None


def _awaited(said: Any) -> Any:
    """The result of an awaitable, found on a loop of its own: that of the caller may be running."""
    found: list[Any] = []

    async def wait() -> Any:
        return await said

    def run() -> None:
        try:
            found.extend((asyncio.run(wait()), None))
        except BaseException as error:
            found.extend((None, error))

    thread = threading.Thread(target=run, name="parrot-as-text", daemon=True)
    thread.start()
    thread.join()
    value, error = found
    if error is not None:
        raise error if isinstance(error, Exception) else RuntimeError(type(error).__name__) from error
    return value
