"""`P.as_text`: what an object says of itself, and what comes of objects that say nothing, or something strange."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

import parrot_nb as P


def saying(method: str, said: Any) -> Any:
    """An object whose method gives that, or raises it."""

    def says(self: Any) -> Any:
        if isinstance(said, BaseException):
            raise said
        return said

    return type("Thing", (), {method: says})()


class Slow:
    async def _ai_repr_(self, **kwargs: Any) -> dict[str, str]:
        await asyncio.sleep(0)
        return {"text/plain": "plain", "text/markdown": "# Slow"}

    def _repr_markdown_(self) -> str:
        return "not this"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (saying("_ai_repr_", "said"), "said"),
        (saying("_ai_repr_", {"image/png": b"", "text/plain": "plain"}), "plain"),
        (saying("_repr_markdown_", "**bold**"), "**bold**"),
        (saying("_repr_markdown_", ("**bold**", {"isolated": True})), "**bold**"),
        (Slow(), "# Slow"),
        ("itself", "itself"),
        ([1, "a"], "[1, 'a']"),
    ],
)
def test_an_object_says_what_stands_for_it(value, text):
    assert P.as_text(value) == text


def test_it_may_be_awaited_while_a_loop_runs():
    async def inside() -> str:
        return P.as_text(Slow())

    assert asyncio.run(inside()) == "# Slow"


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (saying("_ai_repr_", KeyError("no")), "_ai_repr_ of Thing raised KeyError: turn it into a string yourself"),
        (saying("_repr_markdown_", "\ud800"), "what _repr_markdown_ of Thing gives holds half a character"),
        (saying("_ai_repr_", {"image/png": b""}), "as_text\\(\\)"),
        (saying("_repr_markdown_", None), "as_text\\(\\)"),
        (object(), "as_text\\(\\)"),
        (None, "as_text\\(\\)"),
    ],
)
def test_what_says_nothing_is_refused_in_a_sentence(value, told):
    with pytest.raises(P.InputValueError, match=told):
        P.as_text(value)


def test_no_prompt_takes_it_by_itself():
    ask = P.SemanticFunction("Look: {{input:thing}} {{output:y}}")
    with pytest.raises(P.InputValueError):
        ask(saying("_ai_repr_", "said"))


def test_an_awaitable_that_is_cancelled_is_told():
    class Cancelled:
        async def _ai_repr_(self) -> str:
            raise asyncio.CancelledError

    with pytest.raises(P.InputValueError, match="_ai_repr_ of Cancelled raised RuntimeError"):
        P.as_text(Cancelled())
