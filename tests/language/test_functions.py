"""Semantic functions: signatures, calls, options, maps."""

from __future__ import annotations

import inspect
import itertools

import numpy as np
import pandas as pd
import pytest

import parrot_nb as P
from parrot_nb.language import Options, Template, parse_line
from parrot_nb.language.nodes import Span

WAIT_S = 30


def make(source: str, name: str = "f", **settings) -> P.SemanticFunction:
    return P.SemanticFunction(source, name=name, **settings)


def of_cell(line: str, body: str) -> P.SemanticFunction:
    parsed = parse_line(line)
    return P.SemanticFunction(
        body, name=parsed.name, parameters=parsed.parameters, outputs=parsed.outputs, options=parsed.options
    )


def test_the_signature_is_inferred_from_the_body(host):
    f = make("{{input:b}} {{input:a}} {{output:y}}")
    assert str(f.signature) == str(inspect.signature(f)) == "(b, a)"
    assert (f.name, f.__name__, f.output_names) == ("f", "f", ("y",))
    assert f.__doc__ == "f(b, a) -> y\n\n{{input:b}} {{input:a}} {{output:y}}"
    assert repr(f) == "<semantic function f(b, a) -> y>"
    assert f("1", a="2").get(timeout=WAIT_S) == "[1 2 ]"


def test_a_cell_makes_a_function(host):
    f = of_cell("f(a, tone='dry') -> y, z --seed 3 --chat off", "{{a}} {{tone}} {{z, max_tokens=5}}{{y}}")
    assert str(f.signature) == "(a, tone='dry')"
    assert f.settings == Options(seed=3, chat=False)
    result = f("A")
    assert type(result).__name__ == "f_outputs"
    assert result._fields == ("y", "z")
    assert result.z.get(timeout=WAIT_S) == "[A dry ]"
    y, z = result
    assert (y.get(timeout=WAIT_S), z.name) == ("[A dry [A dry ]]", "z")


def test_a_call_is_made_at_once_and_runs_nothing(host):
    f = make("{{input:x}}{{output:y}}", options=Options(seed=1))
    variable = f(5)
    (call,) = host.calls
    assert (call.function, call.kind, call.options, variable.state) == (f, "semantic", Options(seed=1), "pending")
    node = call.inputs["x"]
    assert (node.name, node.value, node.spans, node.producer) == ("x", 5, (Span("5"),), None)
    assert not host.reads


def test_a_variable_may_be_several_arguments(host):
    f = make("{{input:a}}+{{input:b}}{{output:y}}")
    x = P.variable("x", "v")
    assert f(x, x).get(timeout=WAIT_S) == "[v+v]"
    assert x.consumers == (host.calls[0],)


def test_values_are_never_scanned(host):
    evil = "{{output:z}} \\{{ {{input:x}}"
    assert make("{{input:x}}{{output:y}}")(evil).get(timeout=WAIT_S) == f"[{evil}]"


@pytest.mark.parametrize(
    ("args", "kwargs", "message"),
    [
        ((), {}, r"f\(x, y=1\).*'x'"),
        (("a", "b", "c"), {}, "too many"),
        (("a",), {"x": "b"}, "'x'"),
        (("a",), {"z": "b"}, "'z'"),
        (((P.variable("v"), P.variable("w")),), {}, "argument 'x' of f.. is a tuple of variables"),
    ],
)
def test_wrong_arguments(args, kwargs, message, host):
    f = of_cell("f(x, y=1) -> z", "{{x}}{{y}}{{z}}")
    with pytest.raises(P.ArgumentError, match=message):
        f(*args, **kwargs)
    assert not host.calls


@pytest.mark.parametrize("value", [None, float("nan"), b"x", pd.DataFrame(), "\ud800"])
def test_a_value_without_text_is_refused_by_name(value, host):
    with pytest.raises(P.InputValueError, match=r"argument 'x' of f\(\)"):
        make("{{input:x}}{{output:y}}")(value)
    assert not host.calls


def test_any_name_can_be_an_input(host):
    f = make("{{input:self}}{{input:args}}{{input:name}}{{input:function}}{{output:cls}}")
    values = {"self": 1, "args": 2, "name": 3, "function": 4}
    assert f(**values).get(timeout=WAIT_S) == "[1234]"
    assert f.map(**{**values, "self": ["a"]}).get(timeout=WAIT_S) == ["[a234]"]
    assert f.render(**values)[0].text == "1"
    echo = P.native_function(lambda self, **rest: f"{self}{rest['host']}")
    assert echo(self="a", host="b").get(timeout=WAIT_S) == "ab"


@pytest.mark.parametrize(
    ("line", "body", "position", "message"),
    [
        ("f(x)", "{{x}}", (1, 1), "no output"),
        ("f(x) -> y", "{{y}}", (1, 1), "does not use the parameter 'x'"),
        ("f() -> y", "a\n {{b}}{{y}}", (2, 2), "uses 'b', which is no parameter"),
        ("f -> y", "{{output:z}}", (1, 1), "has the output 'y', the prompt does not"),
        ("f -> y", "{{y}}\n{{output:z}}", (2, 1), "has the output 'z', the signature does not"),
        ("f(x, y) -> y", "{{x}}{{y}}", (1, 1), "'y' is an output"),
        ("f", "{{output:_a}}\n{{output:b}}", (1, 1), "begin with _"),
    ],
)
def test_signature_and_body_must_agree(line, body, position, message):
    with pytest.raises(P.TemplateError, match=message) as caught:
        of_cell(line, body)
    assert (caught.value.line, caught.value.column) == position
    assert caught.value.text == body.split("\n")[position[0] - 1]


def test_odd_names_of_outputs_and_functions(host):
    result = make("{{output:count}}{{output:index}}", name="not a name")()
    assert result.index.get(timeout=WAIT_S) == "[[]]"
    assert make("{{output:_}}")().name == "_"


def test_a_check_is_replaced_and_taken_away():
    f = make("{{output:y}} {{output:z, check=ok}}", check=bool, namespace={"ok": str.isupper})
    assert f.checked == f.options(seed=1).checked == ("y", "z")
    assert f.options(check=len).check_of("y") is len
    assert f.options(check=None).checked == ("z",), "what a placeholder says stays"


def test_options_make_a_checked_copy():
    f = make("{{output:y, seed=9}}", options=Options(temperature=0.5, max_tokens=7))
    g = f.options(temperature=0, stop="\n")
    assert f.settings == Options(temperature=0.5, max_tokens=7)
    assert g.settings == Options(temperature=0.0, max_tokens=7, stop=("\n",))
    assert (g.template, g.name, g.signature) == (f.template, f.name, f.signature)
    assert g.template.segments[0].options.over(g.settings).seed == 9
    for wrong in (
        {"tokens": 1},
        {"temperature": -1},
        {"temperature": float("nan")},
        {"max_tokens": 0},
        {"stop": ""},
        {"max_tokens": True},
    ):
        with pytest.raises(P.OptionError, match=next(iter(wrong))):
            f.options(**wrong)


def test_the_call_carries_the_options_of_its_function(host):
    f = make("{{output:y}}")
    f.options(seed=7)()
    assert host.calls[0].options == Options(seed=7)


ROWS = {
    "list": ["a", "b"],
    "tuple": ("a", "b"),
    "generator": (c for c in "ab"),
    "dict keys": {"a": 1, "b": 2}.keys(),
    "array": np.array(["a", "b"]),
    "series": pd.Series(["a", "b"], index=[7, 8]),
    "variables": P.VariableList([P.variable("v", "a"), P.variable("v", "b")]),
    "mixed": ["a", P.variable("v", "b")],
}


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_map_goes_over(row, host):
    result = make("{{input:x}}{{output:y}}").map(row)
    assert isinstance(result, P.VariableList)
    assert result.get(timeout=WAIT_S) == ["[a]", "[b]"]


def test_map_goes_in_step_and_holds_the_rest(host):
    f = make("{{input:a}}{{input:b}}{{input:c}}{{output:y}}")
    held = P.variable("held", "H")
    assert f.map([1, 2], b="text", c=held).get(timeout=WAIT_S) == ["[1textH]", "[2textH]"]
    assert f.map(range(2), b=np.array([3, 4]), c={"k": 1}).get(timeout=WAIT_S) == ["[03{'k': 1}]", "[14{'k': 1}]"]
    assert f.map("x", np.float64(2), ["y"]).get(timeout=WAIT_S) == ["[x2.0y]"]
    assert [call.inputs["c"] for call in host.calls[:2]] == [held.node, held.node]


def test_map_of_several_outputs_and_of_nothing(host):
    f = make("{{input:x}}{{output:a}}{{output:b}}")
    result = f.map(["p", "q"])
    assert result.a.get(timeout=WAIT_S) == ["[p]", "[q]"]
    assert result.b.get(timeout=WAIT_S) == ["[p[p]]", "[q[q]]"]
    empty = f.map([])
    assert (len(empty.a), empty.b.get()) == (0, [])
    assert make("{{input:x}}{{output:y}}").map(x=[]).get() == []


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("a", "b"), "at least one list"),
        ((P.variable("v"), 3), "at least one list"),
        ((["a"], ["b", "c"]), r"different lengths \(1, 2\)"),
        (([], ["b"]), r"different lengths \(0, 1\)"),
        ((["a"],), "'b'"),
        ((pd.DataFrame({"a": [1]}), "b"), "one table and nothing else"),
        ((np.zeros((2, 2)), "b"), "at least one list"),
    ],
)
def test_wrong_maps(args, message, host):
    with pytest.raises(P.ArgumentError, match=message):
        make("{{input:a}}{{input:b}}{{output:y}}").map(*args)
    assert not host.calls


def test_a_map_with_one_bad_item_submits_nothing(host):
    with pytest.raises(P.InputValueError, match=r"^\w+\.map\(\), item 1: argument 'x' of \w+\(\) is None"):
        make("{{input:x}}{{output:y}}").map(["fine", None])
    assert not host.calls


def test_an_item_without_text_beside_variables_is_named(host):
    with pytest.raises(P.InputValueError, match=r"^item 2 of argument 'x' of \w+\(\) holds nan at \['a'\]"):
        make("{{input:x}}{{output:y}}")([P.variable("v"), "fine", {"a": float("nan")}])
    with pytest.raises(P.InputValueError, match=r"holds a value of type SemanticVariable at \[1\]: give it as an argument"):
        make("{{input:x}}{{output:y}}")(("a", P.variable("v")))
    assert not host.calls


def test_a_table_is_no_constant_either(host):
    with pytest.raises(P.InputValueError, match="DataFrame"):
        make("{{input:a}}{{input:b}}{{output:y}}").map(["a"], pd.DataFrame({"a": [1]}))


def test_render_runs_nothing(host):
    f = make("A {{input:x}}{{output:y}}")
    assert [(s.kind, s.text) for s in f.render("v")] == [("constant", "A "), ("input", "v")]
    assert [(s.kind, s.text) for s in f.render(x=P.variable())] == [("constant", "A "), ("input", "")]
    assert not host.calls
    with pytest.raises(P.ArgumentError):
        f.render()


def test_the_papers_spelling(host):
    @P.SemanticFunction
    def write_code(task: P.SemanticVariable):
        """You are an expert.

            Write python code of {{input:task}}.
        Code: {{output:code}}
        """

    assert isinstance(write_code, P.SemanticFunction)
    assert write_code.template.source == "You are an expert.\n\n    Write python code of {{input:task}}.\nCode: {{output:code}}"
    assert write_code.name == "write_code"
    task = P.SemanticVariable("a snake game")
    assert write_code(task).get(perf=P.LATENCY, timeout=WAIT_S).startswith("[You are an expert.")


def test_the_decorator_with_options_and_defaults(host):
    @P.semantic_function(temperature=0.5, max_tokens=9)
    def f(b, a="A", *, c="C"):
        """{{a}}{{b}}{{c}}{{output:y}}"""

    @P.semantic_function
    def g():
        """{{output:y}}"""

    assert f.settings == Options(temperature=0.5, max_tokens=9)
    assert g.settings == Options()
    assert str(f.signature) == "(b, a='A', *, c='C')"
    assert f("B", c="D").get(timeout=WAIT_S) == "[ABD]"
    with pytest.raises(P.OptionError):
        P.semantic_function(tokens=1)


def decorated_bad():
    def no_docstring(x): ...

    async def asynchronous(x):
        """{{x}}{{output:y}}"""

    def extra(x, z):
        """{{x}}{{output:y}}"""

    def missing():
        """{{x}}{{output:y}}"""

    def star(*x):
        """{{x}}{{output:y}}"""

    def stars(x, **z):
        """{{x}}{{output:y}}"""

    def malformed(x):
        """a

        {{x}} {{output:y"""

    def no_output(x):
        """{{x}}"""

    class Holder:
        def method(self, x):
            """{{x}}{{output:y}}"""

    return [
        (no_docstring, "no docstring"),
        (asynchronous, "async"),
        (extra, "'z'"),
        (missing, "'x'"),
        (star, r"'\*x'"),
        (stars, r"'\*z'"),
        (malformed, "never closed"),
        (no_output, "no output"),
        (Holder.method, "method"),
        (Holder, "not a plain function"),
        (len, "not a plain function"),
    ]


@pytest.mark.parametrize(("function", "message"), decorated_bad(), ids=lambda v: getattr(v, "__name__", None))
def test_what_cannot_be_decorated(function, message):
    for decorate in (P.SemanticFunction, P.semantic_function, P.semantic_function(seed=1)):
        with pytest.raises(P.TemplateError, match=message):
            decorate(function)


def test_a_mistake_in_a_docstring_is_pointed_at():
    with pytest.raises(P.TemplateError) as caught:
        P.SemanticFunction(dict(decorated_bad_by_name())["malformed"])
    assert (caught.value.line, caught.value.column, caught.value.filename) == (3, 7, "<docstring of malformed>")


def decorated_bad_by_name():
    return [(function.__name__, function) for function, _ in decorated_bad()]


def test_a_parsed_template_serves_as_well(host):
    template = Template.parse("{{input:x}}{{y}}", outputs=["y"])
    assert P.SemanticFunction(template, name="g", outputs=["y"])("a").get(timeout=WAIT_S) == "[a]"


def test_many_calls_of_several_outputs_share_their_type(host):
    f = make("{{output:a}}{{output:b}}")
    assert len({type(f()) for _ in itertools.repeat(None, 3)}) == 1


def test_calls_keep_the_function_they_were_made_with(host):
    f = make("one {{input:x}}{{output:y}}")
    first = f("a")
    f = make("two {{input:x}}{{output:y}}")
    assert (first.get(timeout=WAIT_S), f("a").get(timeout=WAIT_S)) == ("[one a]", "[two a]")
