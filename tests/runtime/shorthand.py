"""What the tests on the hash engine say again and again."""

from __future__ import annotations

import time
from collections.abc import Callable

from hash_engine import expected_text

import parrot_nb as P

WAIT_S = 30


def f(template: str, **options) -> P.SemanticFunction:
    """A prompt as a function."""
    return P.SemanticFunction(template, name="f", options=P.language.Options.checked(**options))


def text_of(prompt: str, max_tokens: int = 12) -> str:
    """What the hash engine writes after a prompt."""
    return expected_text(prompt.encode(), max_tokens)[0]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.005)
