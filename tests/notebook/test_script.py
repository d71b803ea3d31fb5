"""Prompts and calls as source text: exact for any text, and the same results when run."""

from __future__ import annotations

import inspect
from typing import TypedDict

import pytest
from hypothesis import given, reject, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.language import Options, Template
from parrot_nb.notebook.script import script_of
from parrot_nb.notebook.sources import Names, long_text, semantic_source

texts = st.text(st.sampled_from("ab \n\t\r\\\"'é漢{}#%"), max_size=40)


@st.composite
def functions(draw) -> P.SemanticFunction:
    def plain() -> str:
        return draw(texts).replace("{{", "{ {")

    inputs = draw(st.sampled_from([(), ("task",), ("task", "tone")]))
    parts = [plain() + f"{{{{input:{name}}}}}" for name in inputs]
    source = "".join(parts) + plain() + "{{output:text}}" + plain()
    options = draw(st.sampled_from([{}, {"max_tokens": 5}, {"temperature": 0.5, "seed": 3, "stop": ["\n", '"']}]))
    try:
        return P.SemanticFunction(source, name=draw(st.sampled_from(["write", "write_2"]))).options(**options)
    except P.TemplateError:  # such as \\{{ before the only output
        reject()


@settings(max_examples=300, deadline=None)
@given(functions(), st.sampled_from(["write", "other"]))
def test_a_prompt_is_written_to_the_byte(function, name):
    scope = {"P": P, "inspect": inspect}
    exec(semantic_source(function, name, function.settings), scope)
    again = scope[name]
    assert again.template.source == function.template.source
    assert again.template.segments == function.template.segments
    assert (again.signature, again.output_names, again.name) == (function.signature, function.output_names, function.name)
    assert again.settings == function.settings


@given(texts)
def test_a_long_text_is_exact(text):
    scope: dict = {}
    exec(long_text("TEXT", text), scope)
    assert scope["TEXT"] == text


@given(st.lists(st.sampled_from(["a", "a b", "print", "class", "P", "a_2", "1x"]), max_size=12))
def test_names_are_taken_once(wanted):
    names = Names()
    taken = [names.take(name) for name in wanted]
    assert len(set(taken)) == len(taken)
    assert all(name.isidentifier() and name not in ("print", "class", "P") for name in taken)


def add(text: str, *more: str, mark: str = "!") -> str:
    return text + "".join(more) + mark


@settings(max_examples=15, deadline=None)
@given(st.data())
def test_calls_run_again_to_the_same_values(data):
    """Random chains of native calls and joins: the script's text, run here, gives what they gave."""
    shout = P.native_function(add, name="shout")
    with P.Session() as session:
        made: list = [P.variable("start", data.draw(texts))]
        for _ in range(data.draw(st.integers(1, 8))):
            one, two = (made[data.draw(st.integers(0, len(made) - 1))] for _ in range(2))
            kind = data.draw(st.sampled_from(["call", "plus", "join", "map"]))
            if kind == "call":
                made.append(shout(one, data.draw(texts), two, mark=data.draw(st.sampled_from(["?", "!"]))))
            elif kind == "plus":
                made.append("<" + one + data.draw(texts) + two + ">")
            elif kind == "join":
                made.append(P.join([one, data.draw(texts), two], data.draw(st.sampled_from(["", "\n", ", "]))))
            else:
                made += list(P.native_function(str.upper, name="upper").map([one, two, data.draw(texts)]))
        made.append(shout(made[-1]))
        values = [variable.get() for variable in made]
        names = {variable.node.id: f"v{i}" for i, variable in enumerate(made) if variable.node.producer is not None}
        text = script_of(session.calls(), names, {}, {}, version=None)
    printed: dict[str, str] = {}
    scope: dict = {"print": lambda line: printed.update([line.split(": ", 1)])}
    exec(text, scope)
    for i, value in enumerate(values):
        if f"v{i}" in printed:
            assert printed[f"v{i}"] == value, text
    assert f"v{len(made) - 1}" in printed, text


def test_nothing_to_write_is_said():
    with pytest.raises(P.TraceError, match="no call"):
        script_of([], {}, {}, {}, version=None)


class Item(TypedDict):
    name: str


@pytest.mark.parametrize(
    ("function", "told"),
    [
        (P.SemanticFunction("{{output:x: Item}}"), "has types that a script cannot take over"),
        (P.SemanticFunction(Template.parse("{{output:x}}").typed(Template.parse("{{output:x: int}}").types)), "has types that"),
        (P.SemanticFunction("{{output:x}}", check=len), "checks 'x', which a script cannot take over"),
    ],
    ids=["a class", "in the signature", "a check"],
)
def test_types_and_checks_of_the_notebook_are_refused(function, told):
    plain = P.SemanticFunction("{{output:x}}")
    for functions_called in ([function], [plain, plain.options(seed=1), function], [function, plain]):
        with pytest.raises(P.TraceError, match=told):
            script_of([f.make_call((), {}) for f in functions_called], {}, {}, {}, version=None)


def test_each_call_is_asked_for_its_check_and_its_types():
    """Functions of one name, text and signature can still have other types and checks."""
    written = P.SemanticFunction("{{output:x: Kind}}", name="f", namespace={"Kind": int})
    other = P.SemanticFunction("{{output:x: int}}", name="f", namespace={"int": float})
    plain = P.SemanticFunction("{{output:x: int}}", name="f")
    for functions_called, told in (
        ([written], "types"),
        ([plain, other], "types"),
        ([plain, plain.options(check=bool)], "checks"),
    ):
        with pytest.raises(P.TraceError, match=told):
            script_of([f.make_call((), {}) for f in functions_called], {}, {}, {}, version=None)


def test_each_call_has_its_own_options(monkeypatch):
    plain = P.SemanticFunction("{{output:x}}", name="say").options(max_tokens=2)
    functions_called = [plain.options(seed=3), plain, plain.options(seed=4, max_tokens=5)]
    text = script_of([f.make_call((), {}) for f in functions_called], {}, {}, {}, version=None)
    made: list[Options] = []
    monkeypatch.setattr(P.SemanticFunction, "__call__", lambda f: made.append(f.settings) or P.variable(value="a"))
    exec(text, {"print": lambda line: None})
    assert made == [f.settings for f in functions_called], text


def test_types_that_say_all_themselves_are_kept():
    function = P.SemanticFunction('{{input:a}} {{output:x: list["a" | "b"][1..2]}}', name="f")
    text = semantic_source(function, "f", Options())
    names: dict[str, object] = {"P": P}
    exec(text, names)
    assert names["f"].template.segments == function.template.segments
