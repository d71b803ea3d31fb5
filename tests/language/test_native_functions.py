"""Native functions: any Python value by reference, variables by value once they are there."""

from __future__ import annotations

import functools
import inspect

import pytest

import parrot_nb as P
from parrot_nb.language.nodes import Span

WAIT_S = 30


def test_objects_pass_by_reference_and_variables_by_value(host):
    seen = []

    @P.native_function
    def keep(*things):
        """What it keeps."""
        seen.extend(things)
        return len(things)

    table, nothing = object(), None
    text = P.SemanticFunction("{{output:y}}")()
    row = P.VariableList([text, P.variable("n", 3)])
    assert keep(table, nothing, text, row, [row], float("nan")).get(timeout=WAIT_S) == 6
    assert seen[0] is table
    assert seen[1:4] == [None, "[]", ["[]", 3]]
    assert seen[4] == [row], "inside of other objects nothing is looked for"
    assert keep.__doc__ == "What it keeps."


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [
        ((1,), {}),
        ((1, 2), {}),
        ((1, 2, 3, 4), {}),
        ((1,), {"k": 5}),
        ((1,), {"b": 2, "z": 9, "y": 8}),
        ((1, 2, 3), {"k": 5, "args": 1, "kwargs": 2, "a": 7}),
        (tuple(range(15)), {"z[0]": "odd", "rest[1]": "odder"}),
    ],
)
def test_arguments_arrive_as_they_were_given(args, kwargs, host):
    def echo(a, /, b=2, *rest, k=3, **more):
        return a, b, rest, k, list(more.items())

    native = P.native_function(echo)
    assert native(*args, **kwargs).get(timeout=WAIT_S) == echo(*args, **kwargs)
    given = [P.variable("v", arg) for arg in args], {key: P.variable("v", value) for key, value in kwargs.items()}
    assert native(*given[0], **given[1]).get(timeout=WAIT_S) == echo(*args, **kwargs)


def test_only_text_has_spans(host):
    P.native_function(lambda a, b: None)("text", 5)
    a, b = host.calls[0].inputs.values()
    assert (a.spans, b.spans) == ((Span("text"),), None)


def test_names_and_kinds():
    async def later(): ...

    class Callable:
        async def __call__(self, x): ...

    assert P.native_function(len).name == "len"
    assert P.native_function(name="size")(len).name == "size"
    assert P.native_function(lambda: 1).name == "native"
    assert P.native_function(later).is_async
    assert P.native_function(functools.partial(later)).is_async
    assert P.native_function(Callable()).is_async
    assert not P.native_function(len).is_async
    assert P.native_function(name="two words")(len).output_names == ("result",)
    assert repr(P.native_function(test_names_and_kinds)) == "<native function test_names_and_kinds()>"
    assert str(inspect.signature(P.native_function(lambda a, b=1: a))) == "(a, b=1)"


def test_the_output_is_named_after_the_function(host):
    assert P.native_function(len)("abc").name == "len"
    assert host.calls[0].kind == "native"


def test_builtins_without_signature_work(host):
    assert P.native_function(max)(P.variable("v", 3), 5).get(timeout=WAIT_S) == 5


def generator():
    yield 1


async def async_generator():
    yield 1


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (generator, "'generator' is a generator"),
        (async_generator, "is a generator"),
        (3, "callable, not int"),
        ("f", "callable, not str"),
    ],
)
def test_what_cannot_be_native(wrong, message):
    with pytest.raises(P.ArgumentError, match=message):
        P.native_function(wrong)


def test_wrong_arguments(host):
    native = P.native_function(lambda x: x, name="one")
    with pytest.raises(P.ArgumentError, match=r"one\(x\).*'x'"):
        native()
    with pytest.raises(P.ArgumentError, match="too many"):
        native(1, 2)
    assert not host.calls


def test_map(host):
    add = P.native_function(lambda a, b: a + b, name="add")
    assert add.map([1, 2], b=10).get(timeout=WAIT_S) == [11, 12]
    assert add.map(P.VariableList([P.variable("v", 1)]), [2]).get(timeout=WAIT_S) == [3]
    with pytest.raises(P.ArgumentError, match=r"add\.map\(\)"):
        add.map(1, 2)
    assert add.map([], []).get() == []
