"""Grammars as types: texts that a context-free grammar allows."""

from __future__ import annotations

import re
from dataclasses import dataclass

from parrot_nb.errors import ArgumentError

MAX_CHARS = 200_000
# Parts of a grammar that are no rules: comments, strings and regular expressions.
_QUOTED = re.compile(r"""//[^\n]*|"(?:[^"\\\n]|\\.)*"|/(?:[^/\\\n]|\\.)+/""")
_TOKEN = re.compile(r"<[^>\s]*>")


@dataclass(frozen=True, slots=True)
class Grammar:
    """The type of an output whose text a grammar allows; made by `grammar`.

    Attributes:
        source: in the dialect of Lark that `llguidance` reads; the text is what its rule `start` allows.
    """

    source: str


def grammar(source: str) -> Grammar:
    """The type of an output whose text a grammar allows, as in `{{output:sum: Sum}}` after `Sum = P.grammar("...")`.

    Args:
        source: in the dialect of Lark that `llguidance` reads; the text is what its rule `start` allows.

    Raises:
        ArgumentError: it is no such grammar, is too large, or names tokens of a model.
    """
    if not isinstance(source, str) or not source.strip():
        raise ArgumentError('P.grammar() takes the text of a grammar, as in P.grammar(\'start: "yes" | "no"\').')
    if len(source) > MAX_CHARS:
        raise ArgumentError(f"This grammar is too large ({len(source)} characters, at most {MAX_CHARS}): make it smaller.")
    if (token := _TOKEN.search(_QUOTED.sub(" ", source))) is not None:
        raise ArgumentError(f"A grammar is of texts, and {token[0]} names a token of a model: write its text in quotes.")
    if problem := problem_of(source):
        raise ArgumentError(f"This grammar cannot be followed ({problem}): see the syntax of Lark in llguidance.")
    return Grammar(source)


def problem_of(source: str) -> str | None:
    """Why no engine can follow a grammar, in one line; None where it can."""
    from llguidance import LLMatcher

    told = LLMatcher.validate_grammar(LLMatcher.grammar_from_lark(source))
    lines = [line.strip() for line in told.split("\n") if line.strip()]
    return lines[0].rstrip(".")[:200] if lines else None
