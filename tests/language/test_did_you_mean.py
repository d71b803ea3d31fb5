"""Mistakes that are near to something right: the error says what."""

from __future__ import annotations

import pandas as pd
import pytest

import parrot_nb as P


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("{{inptu:x}} {{output:y}}", "{{input:...}}"),
        ("{{ouput:y}}", "{{output:...}}"),
        ("{{Input:x}} {{output:y}}", "{{input:...}}"),
    ],
)
def test_a_role_that_is_misspelt(text, meant):
    with pytest.raises(P.TemplateError, match="did you mean") as caught:
        P.SemanticFunction(text)
    assert meant in str(caught.value)


def test_a_name_that_is_no_role_may_have_a_type():
    assert P.SemanticFunction("{{number: int}}", outputs=["number"]).output_names == ("number",)


summarize = P.SemanticFunction("Summarise {{input:text}}: {{output:summary}}", name="summarize")


def test_an_option_among_the_arguments():
    for call in (lambda: summarize("a", temperature=0.5), lambda: summarize.map(["a"], temperature=0.5)):
        with pytest.raises(P.ArgumentError, match=r"write summarize\.options\(temperature=\.\.\.\)"):
            call()


def test_a_parameter_that_is_misspelt():
    with pytest.raises(P.ArgumentError, match="Did you mean 'text'"):
        summarize(txet="a")


def test_a_column_of_texts():
    with pytest.raises(P.InputValueError, match=r"\.map\(\.\.\.\)"):
        summarize(pd.Series(["a", "b"]))


def test_a_variable_is_named_as_it_is_and_by_no_name_that_the_notebook_lacks():
    one = P.variable("summary", "a")
    for use in (lambda: bool(one), lambda: list(one), lambda: f"{one}"):
        with pytest.raises(P.UsageError, match=r"its get\(\)") as caught:
            use()
        assert "summary.get" not in str(caught.value)
