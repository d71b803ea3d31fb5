"""The Pygments lexer of prompts: every character is kept, and parts are what the template's own parser says."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbconvert.filters.highlight import Highlight2HTML
from pygments.lexers import get_lexer_by_name
from pygments.token import Escape, Keyword, Name, Number, String, Token

import parrot_nb as P
from parrot_nb.notebook.lexer import SemanticLexer

CELL = """%%semantic judge(text, n) -> label --max-tokens 20 --stop "x y"  # why
Read {{input:text, fit="middle"}}, \\{{literal}} and {{{n}}}:
{{output:label: "high" | "low", max_tokens=5}} {{retry}}It said {{attempt}}.{{/retry}} {{ output : day : /\\d{4}-\\d\\d/ }}
"""
PIECES = st.lists(
    st.sampled_from(
        [*"{}\\\"'/,:=[]| \n", "{{", "}}", "input:", "output:", "x", "int", "retry", "%%semantic f", "--a", "->", "3.5", "é"]
    ),
    max_size=30,
)


def lexed(source: str) -> list[tuple[object, str]]:
    return [(kind, text) for kind, text in SemanticLexer(stripnl=False, ensurenl=False).get_tokens(source) if text]


@settings(max_examples=300, deadline=None)
@given(PIECES)
def test_no_character_is_lost_and_none_is_an_error(pieces):
    source = "".join(pieces)
    found = lexed(source)
    assert "".join(text for _, text in found) == source
    assert Token.Error not in {kind for kind, _ in found}


def test_each_part_has_its_colour():
    found = lexed(CELL)
    for part in [
        (Keyword.Namespace, "%%semantic"), (Name.Function, "judge"), (Name.Attribute, "--max-tokens"), (Number, "20"),
        (Keyword, "input"), (Name.Variable, "text"), (Name.Attribute, "fit"), (String, '"middle"'), (Escape, "\\{{"),
        (Name.Variable, "n"), (String, '"high"'), (Keyword, "retry"), (Keyword, "attempt"), (String.Regex, "/\\d{4}-\\d\\d/"),
    ]:  # fmt: skip
        assert part in found, part


@pytest.mark.parametrize(
    "prompt",
    [
        "Say {{input:x}}: {{output:y}}",
        'A {{{a}}} {{ output : b : "c" | "d" , stop=["}}", "\\n"] }}',
        "\\{{no}} {{output:n: int[0..10], max_tokens=3}}",
        "{{input:long, fit='end'}} {{output:items: list[str][1..3]}}",
    ],
)
def test_variables_are_those_of_the_template(prompt):
    template = P.SemanticFunction(prompt).template
    named = [segment.name for segment in template.segments if hasattr(segment, "name")]
    assert [text for kind, text in lexed(prompt) if kind is Name.Variable] == named


def test_tools_find_it_by_its_name():
    assert isinstance(get_lexer_by_name("semantic"), SemanticLexer)
    html = Highlight2HTML(pygments_lexer="ipython3")(CELL, metadata={"magics_language": "semantic"})
    assert '<span class="kn">%%semantic</span>' in html
