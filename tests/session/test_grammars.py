"""Outputs whose texts a grammar allows, in a runtime apart and in a thread."""

from __future__ import annotations

import ast
import copy
import pickle

import pytest

import parrot_nb as P

SUM = P.grammar('start: term (("+" | "-") term){0,3}\nterm: /[0-9]{1,2}/ | "(" term "+" term ")"')


@pytest.mark.parametrize(
    "how", [{}, {"begin": "(1+"}, {"heal": False}, {"chat": False}], ids=["plain", "begun", "unhealed", "raw"]
)
def test_a_text_obeys_its_grammar_whatever_the_model_says(session, how):
    ask = P.SemanticFunction("A sum: {{output:sum: SUM, max_tokens=60, temperature=1.5}}", namespace={"SUM": SUM}).options(**how)
    for seed in range(4):
        try:
            value = ask.options(seed=seed)().get()
        except P.TruncatedError:
            continue
        assert value.startswith(how.get("begin", ""))
        assert set(value) <= set("0123456789+-()")
        ast.parse(value.replace("0", "1"), mode="eval")  # Python has no numbers such as 07


def test_a_signature_may_name_a_grammar(session):
    @P.semantic_function
    def word(x) -> P.grammar('start: "ja" | "nein"'):
        """Well, {{input:x}}: {{output:word}}"""

    assert word("so").get() in ("ja", "nein")


def test_a_grammar_is_data():
    assert pickle.loads(pickle.dumps(SUM)) == copy.deepcopy(SUM) == SUM


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("start: nothing", 'unknown name: "nothing"'),
        ('x: "a"', "no start rule"),
        ("start: <[5]>", r"<\[5\]> names a token of a model"),
        ('start: "a" <|end|>', r"<|end|> names a token"),
        ("", "takes the text of a grammar"),
        (3, "takes the text of a grammar"),
        ('start: "' + "a" * 200_000 + '"', "too large"),
    ],
)
def test_what_is_no_grammar_is_refused(source, message):
    with pytest.raises(P.ArgumentError, match=message):
        P.grammar(source)


def test_quotes_and_comments_may_hold_what_looks_like_a_token():
    P.grammar('start: "<a>" /<b>/ // <c>\n')


def test_a_grammar_is_of_a_whole_output():
    with pytest.raises(P.TemplateError, match="not a part of another type"):
        P.SemanticFunction("{{output:x: list[SUM]}}", namespace={"SUM": SUM})
