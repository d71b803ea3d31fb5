"""What the attacks on a session have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from hash_engine import HashEngine
from shorthand import WAIT_S, f, text_of, until

import parrot_nb as P


def hash_session(**settings: Any) -> P.Session:
    """On a fresh engine of hashes, in a thread."""
    settings = {"loader": lambda model, on_step: HashEngine(model), "model": "hash", "max_tokens": 12} | settings
    return P.Session(**settings)


def assert_usable(s: P.Session) -> None:
    """Functions of each kind and the model answer, and no page is owned."""
    assert native(lambda: "plain")().get(timeout=WAIT_S) == "plain"
    assert native(lambda: "async", "async")().get(timeout=WAIT_S) == "async"
    model = f("Say {{output:y}}", max_tokens=4, fresh=True)()
    text = model.get(timeout=WAIT_S)
    assert text == text_of("Say ", 4) if s.loader is not None else model.finish in ("stop", "length")
    until(lambda: all(load.owned_pages == 0 for load in s.loads().values()), "freeing all pages")


def native(body: Callable[..., Any], kind: str = "plain") -> P.NativeFunction:
    """A function as a native one, plain or async."""

    async def coroutine(*args: Any) -> Any:
        await asyncio.sleep(0)
        return body(*args)

    return P.NativeFunction(coroutine if kind == "async" else body, name="attack")


def outcome_of(variable: P.SemanticVariable) -> Any:
    """Its value, or its error."""
    try:
        return variable.get(timeout=WAIT_S)
    except P.GetTimeoutError:
        raise
    except P.ParrotError as error:
        return error


def raiser(make: Callable[[], BaseException]) -> Callable[..., Any]:
    def raises(*_: Any) -> Any:
        raise make()

    return raises
