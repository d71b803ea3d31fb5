"""Errors and data survive copies and pickles, handles refuse them; no public class is left out."""

from __future__ import annotations

import copy
import importlib
import inspect
import pickle
import subprocess
import sys
from dataclasses import dataclass, fields, is_dataclass

import pytest

import parrot_nb as P
from parrot_nb import engine, graph, language, record
from parrot_nb.engine.loads import LoadProgress, LoadStoppedError
from parrot_nb.language.calls import Call
from parrot_nb.language.handles import Handle
from parrot_nb.language.host import RenderedSegment
from parrot_nb.language.nodes import Span, TaskGroup, Usage, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.record import Timeline

WAYS = {"pickle": lambda found: pickle.loads(pickle.dumps(found)), "copy": copy.copy, "deepcopy": copy.deepcopy}
every_way = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS.keys())

DATA = [
    *P.language.Template.parse("a {{input:x}} {{output:y}}").segments,
    P.LATENCY,
    P.THROUGHPUT,
    P.latency(ttft=0.5),
    P.TokenLogprob("a", -0.5, (("b", -1.0),)),
    Usage(prefilled_tokens=3, decode_s=0.5),
    Options.checked(temperature=0.5, stop=["a"], system="b"),
    RenderedSegment("input", "x", "text", (1, 2)),
    Span("text", (1, 2), "codec"),
    TaskGroup(1, 2, (3, 4)),
    graph.Cost(0.5, 1.5),
    Timeline((), {}, ()),
    LoadProgress("reading", 1, 2, 3, 4, 0.5),
    graph.Explanation("why"),
    language.Template.parse("a {{input:x}} b {{output:y, max_tokens=3}}"),
    language.parse_line("f(x) -> y --seed 3"),
    language.grammar('start: "a"'),
    engine.Sampling(3, seed=1),
    engine.StepRecord(0.0, 0.1, 2, 3, 1, 1, 9),
    engine.GenerationEnd("stop", (1,), 3, 0, 1, 0.0, 0.1, 0.2),
]
HANDLES = [
    P.variable(value="a"),
    P.SemanticVariable(),
    P.Vote(),
    P.VariableList([P.variable(value="a")]),
    P.variable(value="a").markdown,
    VariableNode("a"),
    Call(None, "semantic", {}, ("a",), Options()),
    P.Session(model="none"),
    P.Rows(None, None, None, None, "keep"),
]
# Functions are as Python's: their copies work, and pickle takes those it can find again by name.
FUNCTIONS = {P.SemanticFunction, P.NativeFunction}
# What runs or watches a session, and protocols: nothing of theirs is handed to users as a value.
INSIDE = {
    engine.Codec, engine.Engine, graph.Applications, graph.Graph, record.ProgressLine, record.Replay, record.TimelineFold,
}  # fmt: skip


def errors(root: type[P.ParrotError] = P.ParrotError) -> list[type[P.ParrotError]]:
    ours = [kind for kind in root.__subclasses__() if kind.__module__.startswith("parrot_nb")]
    return [root, *(below for kind in ours for below in errors(kind))]


ERRORS = sorted(set(errors()), key=lambda kind: kind.__name__)


def made(kind: type[P.ParrotError]) -> P.ParrotError:
    """An error with all that one can have."""
    error = kind("Something is wrong: mend it.")
    for name, value in {"line": 3, "column": 4, "stalled": True}.items():
        if hasattr(error, name):
            setattr(error, name, value)
    error.add_note("said later")
    return error


class UnpicklableError(Exception):
    def __init__(self, one, two):
        super().__init__(f"{one} {two}")


@every_way
@pytest.mark.parametrize("kind", ERRORS, ids=lambda kind: kind.__name__)
def test_an_error_survives(kind, way):
    error = made(kind)
    error.__cause__ = ZeroDivisionError("first")
    found = way(error)
    assert found is not error
    assert (type(found), str(found), found.args, vars(found)) == (kind, str(error), error.args, vars(error))
    assert (type(found.__cause__), str(found.__cause__)) == (ZeroDivisionError, "first")
    assert found.__suppress_context__


@every_way
def test_a_malformed_prompt_is_still_pointed_at(way):
    with pytest.raises(P.TemplateError) as caught:
        language.Template.parse("a\nb {{output:x, nothing=1}}")
    found = way(caught.value)
    assert (found.caret(), found.lineno, found.offset, found.msg, found.filename) == (
        caught.value.caret(),
        caught.value.lineno,
        caught.value.offset,
        caught.value.msg,
        caught.value.filename,
    )
    assert found.line == 2


def test_causes_come_along_where_they_can():
    last = P.UpstreamError("Its input failed.")
    last.__cause__ = P.EngineLostError("The engine ended.", stalled=True)
    last.__cause__.__cause__ = UnpicklableError("of the", "user's")
    found = WAYS["pickle"](last)
    assert found.__cause__.stalled
    assert found.__cause__.__cause__ is None
    assert copy.copy(last).__cause__ is copy.deepcopy(last).__cause__ is last.__cause__


@every_way
@pytest.mark.parametrize("value", DATA, ids=lambda value: type(value).__name__)
def test_data_survive(value, way):
    found = way(value)
    assert type(found) is type(value)
    assert found == value
    if is_dataclass(value):
        assert [getattr(found, f.name) for f in fields(value)] == [getattr(value, f.name) for f in fields(value)]


@every_way
@pytest.mark.parametrize("handle", HANDLES, ids=lambda handle: type(handle).__name__)
def test_a_handle_says_what_to_do_instead(handle, way):
    with pytest.raises(P.UsageError, match=r"^A .* belongs to its (session|process) and cannot be (pickled|copied): .*\.$"):
        way(handle)


def test_a_handle_inside_of_something_else_says_so_too():
    with pytest.raises(P.UsageError, match=r"use get\(\)"):
        pickle.dumps({"texts": [P.variable(value="a")]})


def test_a_function_survives():
    function = P.SemanticFunction("Say {{input:x}}: {{output:y}}", name="say")
    for way in WAYS.values():
        found = way(function)
        assert (found.name, found.template, found.settings, found.signature) == (
            function.name,
            function.template,
            function.settings,
            function.signature,
        )


MODULE = """
import parrot_nb as P
@P.semantic_function(max_tokens=5)
def decorated(x):
    \"\"\"Say {{input:x}}: {{output:y}}\"\"\"
@P.native_function
def native(x):
    return x + "!"
made = P.SemanticFunction("Tell {{input:x}}: {{output:y}}", name="made")
"""


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "its_prompts.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("its_prompts")
    del sys.modules["its_prompts"]


@every_way
@pytest.mark.parametrize("name", ["decorated", "native", "made"])
def test_a_function_of_a_module_travels_by_name(module, name, way):
    function = getattr(module, name)
    assert function.__module__ == "its_prompts"
    assert way(function) is function


def test_a_copy_with_other_options_travels_by_value(module):
    other = module.decorated.options(temperature=0.5)
    for way in WAYS.values():
        found = way(other)
        assert found is not module.decorated
        assert (found.settings, found.template) == (other.settings, other.template)


@dataclass
class Task:
    title: str
    days: int


NAMES = {"Task": Task, "Far": "Unknown"}
TEXTS = {
    "int[0..9]": "7",
    "'yes' | 'no'": "yes",
    r"/[A-Z]{2}-\d+/": "AB-12",
    "list[Task][1..3]": '[{"title": "Run", "days": 2}]',
    "Task | None": "null",
    "json": '{"a": [1]}',
}


@every_way
@pytest.mark.parametrize("kind", TEXTS)
def test_a_function_with_a_type_travels_by_value(kind, way):
    function = P.SemanticFunction(f"{{{{output:x: {kind}}}}}", namespace=NAMES).options(seed=3)
    found = way(function)
    assert found.template == function.template
    assert found.value_of("x", TEXTS[kind]) == function.value_of("x", TEXTS[kind])


@dataclass
class Node:
    title: str
    next: list[Local]  # noqa: F821 - a name that only the prompt's author has


def test_a_type_that_is_found_nowhere_else_says_what_to_do():
    function = P.SemanticFunction("{{output:x: Node}}", namespace={"Node": Node, "Local": Task})
    assert copy.deepcopy(function).template == function.template
    with pytest.raises(pickle.PicklingError, match=r"'Node' has names in quotes .*: write the classes without quotes"):
        pickle.dumps(function)


MAIN = """
import dataclasses, pickle
import parrot_nb as P

@dataclasses.dataclass
class Task:
    days: int

plan = P.SemanticFunction("{{output:task: Task}}", name="plan")
for function in (plan, plan.options(seed=1)):
    print(pickle.loads(pickle.dumps(function)).value_of("task", '{"days": 2}'))
"""


def test_a_function_with_a_type_of_a_script_travels_by_value():
    ran = subprocess.run([sys.executable, "-c", MAIN], capture_output=True, text=True, check=False)
    assert (ran.stdout, ran.stderr) == ("Task(days=2)\nTask(days=2)\n", "")


def test_no_public_class_is_left_out():
    doors = (P, language, engine, graph, record)
    public = {value for door in doors for name in door.__all__ if inspect.isclass(value := getattr(door, name))}
    judged = {type(value) for value in (*DATA, *HANDLES)} | FUNCTIONS | INSIDE | set(ERRORS)
    # Data without behaviour are judged by being dataclasses: those pickle by their fields.
    left_out = {kind for kind in public - judged if not is_dataclass(kind) or issubclass(kind, Handle)}
    assert not left_out
    assert LoadStoppedError in ERRORS
    assert {kind.__name__ for kind in public if issubclass(kind, P.ParrotError)} <= {kind.__name__ for kind in ERRORS}
