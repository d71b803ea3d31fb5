"""The most specific option wins: the placeholder's, then the function's copy, then the function's, then the session's."""

from __future__ import annotations

import pytest
from hash_engine import expected_text

import parrot_nb as P
from parrot_nb.language import Options

WAIT_S = 30
SESSION_MAX_TOKENS = 12  # of the `session` fixture


def prompt_that_runs_on() -> str:
    """A prompt after which the test engine writes past every limit used here, so that the limit shows in the length."""
    return next(p for i in range(1000) if expected_text((p := f"p{i}").encode(), SESSION_MAX_TOKENS)[1] == "length")


@pytest.mark.parametrize(
    ("placeholder", "copy", "function", "length"),
    [
        (None, None, None, SESSION_MAX_TOKENS),
        (None, None, 9, 9),
        (None, 7, 9, 7),
        (5, 7, 9, 5),
        (5, None, None, 5),
        (5, None, 9, 5),
        (None, 7, None, 7),
    ],
)
def test_the_most_specific_limit_wins(placeholder, copy, function, length, session):
    said = "" if placeholder is None else f", max_tokens={placeholder}"
    f = P.SemanticFunction(
        f"{prompt_that_runs_on()}{{{{output:y{said}}}}}",
        name="f",
        options=None if function is None else Options(max_tokens=function),
    )
    variable = (f if copy is None else f.options(max_tokens=copy))()
    assert len(variable.get(timeout=WAIT_S)) == length
    assert (variable.finish, variable.usage.decoded_tokens) == ("length", length)


def test_each_output_keeps_its_own_limit(session):
    f = P.SemanticFunction(prompt_that_runs_on() + "{{output:a, max_tokens=3}}|{{output:b}}", options=Options(max_tokens=2))
    a, b = f()
    prompt = prompt_that_runs_on()
    first = expected_text(prompt.encode(), 3)[0]
    assert a.get(timeout=WAIT_S) == first
    assert b.get(timeout=WAIT_S) == expected_text(f"{prompt}{first}|".encode(), 2)[0]
