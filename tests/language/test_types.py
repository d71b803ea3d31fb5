"""Types of outputs: what can be written, what it stands for, and where a mistake is shown."""

from __future__ import annotations

import dataclasses
import datetime as dt
import enum
import json
import math
from decimal import Decimal
from typing import Literal, NamedTuple, TypedDict

import pydantic
import pytest

from parrot_nb.errors import TemplateError
from parrot_nb.language import SemanticFunction, Template, parse_line, semantic_function


class Color(enum.Enum):
    RED = 1
    DARK_BLUE = 2


class Mood(enum.StrEnum):
    GOOD = "good"
    BAD = "bad"


@dataclasses.dataclass
class Item:
    name: str
    count: int = 1
    parent: Item | None = None


@dataclasses.dataclass
class Positive:
    n: int

    def __post_init__(self) -> None:
        if self.n <= 0:
            raise ValueError("n must be above 0")


class Point(NamedTuple):
    x: float
    y: float = 0.0


class Row(TypedDict):
    id: int
    tags: list[str]


class Animal(pydantic.BaseModel):
    name: str = pydantic.Field(alias="the name", min_length=1)
    legs: int = pydantic.Field(ge=0, le=8)
    kind: Literal["cat", "dog"] = "cat"
    born: dt.date | None = None
    friends: list[Animal] = []


def typed(expression: str):
    """The type of `{{output:x: expression}}`, evaluated with the names of this module."""
    return Template.parse(f"{{{{output:x: {expression}}}}}", namespace=globals()).types.get("x")


@pytest.mark.parametrize(
    ("expression", "kind", "text", "value"),
    [
        ("int", "json", "-12", -12),
        ("float", "json", "1.5e3", 1500.0),
        ("bool", "choices", "true", True),
        ("None", "choices", "null", None),
        ("date", "regex", "2024-02-29", dt.date(2024, 2, 29)),
        ("dt.datetime", "regex", "2024-02-29T12:30:00Z", dt.datetime(2024, 2, 29, 12, 30, tzinfo=dt.UTC)),
        ("Decimal", "json", "0.10", Decimal("0.10")),
        ('"high" | "low"', "choices", "low", "low"),
        ('Literal["a", 1, None, True]', "choices", "1", 1),
        ("Color", "choices", "DARK_BLUE", Color.DARK_BLUE),
        ("Mood", "choices", "bad", Mood.BAD),
        ("Color.RED | Color.DARK_BLUE", "choices", "1", Color.RED),
        ("int[0..10]", "json", "10", 10),
        ("float[..1.5]", "json", "1.25", 1.25),
        ("str[..80]", "regex", "a b\n", "a b\n"),
        (r"/\d{4}-\d\d/", "regex", "2024-12", "2024-12"),
        (r"/a\/b}}/", "regex", "a/b}}", "a/b}}"),
        ("list[int]", "json", "[1, 2]", [1, 2]),
        ("list[int][1..2]", "json", "[1]", [1]),
        ("list", "json", '[1, "a"]', [1, "a"]),
        ("tuple[int, str]", "json", '[1, "a"]', (1, "a")),
        ("tuple[int, ...]", "json", "[1, 2, 3]", (1, 2, 3)),
        ("dict[str, float]", "json", '{"a": 1}', {"a": 1.0}),
        ("json", "json", '{"a": [1.5, null]}', {"a": [1.5, None]}),
        ("int | None", "json", "null", None),
        ("Optional[int]", "json", "7", 7),
        ('int | "many"', "regex", "many", "many"),
        ("str | int", "regex", "12", 12),
        ("int | str", "regex", "12 apples", "12 apples"),
        ("date | None", "regex", "null", None),
        ("list[str] | None", "json", "null", None),
        ("Item", "json", '{"name": "a", "parent": {"name": "b"}}', Item("a", 1, Item("b"))),
        ("list[Item]", "json", '[{"name": "é", "count": 2}]', [Item("é", 2)]),
        ("Item | Positive", "json", '{"n": 3}', Positive(3)),
        ("Point", "json", '{"x": 1}', Point(1.0)),
        ("Row", "json", '{"id": 1, "tags": []}', {"id": 1, "tags": []}),
        ("list[Mood | Color]", "json", '["good", "RED"]', [Mood.GOOD, Color.RED]),
        ("dict[str, date]", "json", '{"a": "2024-01-31"}', {"a": dt.date(2024, 1, 31)}),
        ("(int | None)", "json", "1", 1),
        ("list[(int | 'a')]", "json", '[1, "a"]', [1, "a"]),
        ("Animal", "json", '{"the name": "a", "legs": 4}', Animal(**{"the name": "a", "legs": 4})),
        (
            "dict[str, Animal | None]",
            "json",
            '{"b": {"the name": "a", "legs": 4, "friends": [{"the name": "c", "legs": 2}]}, "c": null}',
            {"b": Animal(**{"the name": "a", "legs": 4, "friends": [Animal(**{"the name": "c", "legs": 2})]}), "c": None},
        ),
    ],
)
def test_what_a_type_is_to_an_engine_and_what_its_text_stands_for(expression, kind, text, value):
    found = typed(expression)
    assert found is not None
    assert (found.form.kind, found.form.text) == (kind, expression)
    read = found.read(text)
    assert read == value
    assert type(read) is type(value)


def test_a_text_is_no_constraint_and_an_untyped_output_neither():
    assert typed("str") is None
    assert Template.parse("{{output:x}}").segments[0].form is None


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("Item", '{"name": "a", "nam": 1}'),
        ("Item", '{"count": 1}'),
        ("Positive", '{"n": -1}'),
        ("Animal", '{"the name": "", "legs": 4}'),
        ("Animal", '{"name": "a", "legs": 4}'),
        ("dict[str, int]", '{"a": 1, "a": 2}'),
        ("list[int]", "[1, true]"),
        ("int", "1.0"),
        ("float", "NaN"),
        ("bool", "True"),
        ("tuple[int, int]", "[1]"),
        ("json", "{"),
    ],
)
def test_other_texts_are_refused(expression, text):
    with pytest.raises(ValueError, match=r".+"):
        typed(expression).read(text)


def test_numbers_are_read_to_the_digit():
    assert typed("list[Decimal]").read("[0.1000000000000000055511151231257827, 1]") == [
        Decimal("0.1000000000000000055511151231257827"),
        Decimal(1),
    ]
    assert typed("dict[str, json]").read('{"a": 0.1}') == {"a": 0.1}
    assert typed("float").read("1e999") == math.inf


@pytest.mark.parametrize(
    ("source", "column", "message"),
    [
        ("{{output:x: in}}", 13, "'in' is not known here"),
        ("{{output:x: high | low}}", 13, r'put choices into quotes, as in "high"'),
        ("{{output:x: list[Itm]}}", 18, "'Itm' is not known"),
        ("{{output:x: dt.dat}}", 13, "'dt' has no 'dat'"),
        ("{{output:x: dt}}", 13, "'dt' is a module"),
        ("{{output:x:}}", 12, "An empty type"),
        ("{{output:x: , seed=1}}", 13, "An empty type"),
        ("{{output:x: list[int}}", 21, "Expected , or ]"),
        ("{{output:x: (int}}", 17, r"Expected \)"),
        ("{{output:x: int |}}", 18, "Expected a type here"),
        ("{{output:x: int int}}", 17, "Expected }}"),
        ("{{output:x: f(1)}}", 13, "'f' is not known"),
        ("{{output:x: int(3)}}", 16, "Expected }}"),
        ("{{output:x: /a}}", 13, "never closed"),
        ("{{output:x: /(/}}", 13, "no engine can follow it"),
        ("{{output:x: /a(?=b)/}}", 13, "look-around"),
        ("{{output:x: set[int]}}", 13, "JSON has no sets"),
        ("{{output:x: bytes}}", 13, "no text stands for 'bytes'"),
        ("{{output:x: dict[int, str]}}", 13, "keys of JSON are texts"),
        ("{{output:x: int[5..1]}}", 16, "leave nothing"),
        ("{{output:x: int[..]}}", 16, "say nothing"),
        ("{{output:x: int[0.5..1]}}", 13, "whole numbers"),
        ("{{output:x: bool[0..1]}}", 13, "bounds are for"),
        ("{{output:x: str[-1..]}}", 13, "whole numbers, 0 or more"),
        ("{{output:x: 'a' | 'a'}}", 13, "'a' is there twice"),
        ("{{output:x: Literal['1', 1]}}", 13, "'1' is there twice"),
        ("{{output:x: ''}}", 13, "must not be empty"),
        ("{{output:x: Endless}}", 13, "every text of it would be endless"),
        ("{{input:x: int}}", 12, "An input is always text"),
        ("é\n{{output:x: list[" + "list[" * 60 + "int" + "]" * 61 + "}}", 268, "nested too deeply"),
        ("{{output:x: " + " | ".join(f"'{'choice' * 100}{i}'" for i in range(400)) + "}}", 13, "too large"),
    ],
)
def test_a_mistake_is_shown_where_it_stands(source, column, message):
    names = {**globals(), "Endless": Endless}
    with pytest.raises(TemplateError, match=message) as caught:
        Template.parse(source, namespace=names)
    assert caught.value.column == column


@dataclasses.dataclass
class Endless:
    next: Endless


@pytest.mark.parametrize(
    ("expression", "least"),
    [
        ("Item", '{"name": ""}'),
        ("int[100..]", "100"),
        ("list[Row][2..]", '[{"id": 0, "tags": []}, {"id": 0, "tags": []}]'),
        ("'yes' | 'no'", "no"),
        ("Item | None", "null"),
        ("Animal", '{"the name": "a", "legs": 0}'),
    ],
)
def test_the_shortest_text_is_known(expression, least):
    assert typed(expression).form.least == least


def test_types_in_a_signature():
    line = parse_line('f(x) -> n: int, who: "me" | "you", rest --seed 3', namespace={})
    assert line.outputs == ("n", "who", "rest")
    assert {name: kind.form.text for name, kind in line.types.items()} == {"n": "int", "who": '"me" | "you"'}
    with pytest.raises(TemplateError, match="'Itm' is not known") as caught:
        parse_line("f -> n: Itm", namespace=globals())
    assert caught.value.column == 9
    template = Template.parse("{{x}}: {{n}}", outputs=["n"])
    function = SemanticFunction(template, outputs=["n"], types={"n": typed("int")})
    assert function.template.segments[-1].form == typed("int").form
    with pytest.raises(TemplateError, match="another type: keep one"):
        SemanticFunction(Template.parse("{{output:n: float}}"), types={"n": typed("int")})


def is_short(text: str) -> bool:
    return len(text) < 9


async def is_slow(text: str) -> bool:
    return False


def test_checks_are_named_where_the_output_is():
    template = Template.parse("{{output:x: int, retries=3, check=is_short}} {{output:y, check=Mood.upper}}", namespace=globals())
    assert template.checks == {"x": is_short, "y": Mood.upper}
    assert template.segments[0].options.said() == {"retries": 3}
    line = parse_line("f -> x --retries 2 --check is_short", namespace=globals())
    assert line.check is is_short
    assert line.options.said() == {"retries": 2}


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ("check=is_long", "The check 'is_long' is not known here"),
        ("check='is_short'", "check is the name of a function"),
        ("check=lambda x: x", "check is the name of a function"),
        ("check=Mood.shout", "'Mood.shout' cannot be had"),
        ("check=is_slow", "not an async one"),
        ("check=json", "must be a function of the value, not module"),
        ("check=is_short, check=is_short", "Unknown option|twice|malformed"),
        ("retries=-1", "retries must be a whole number from 0 to 100"),
    ],
)
def test_a_check_that_is_none_is_shown_where_it_stands(written, message):
    with pytest.raises(TemplateError, match=message) as caught:
        Template.parse(f"{{{{output:x, {written}}}}}", namespace=globals())
    assert caught.value.column >= 13


def test_types_of_a_decorated_function():
    @dataclasses.dataclass
    class Local:
        a: int

    @semantic_function
    def local(x) -> Local:
        """{{input:x}} {{output:y}}"""

    @semantic_function(seed=1)
    def several(x) -> tuple[int, str, Item]:
        """{{input:x}} {{output:a}} {{output:b}} {{output:c}}"""

    @semantic_function
    def inside(x):
        """{{input:x}} {{output:y: Local | None}}"""

    @semantic_function
    def text(x) -> str:
        """{{input:x}} {{output:y}}"""

    assert local.template.types["y"].read('{"a": 1}') == Local(1)
    assert inside.template.types["y"].read('{"a": 1}') == Local(1)
    assert {name: kind.form.text for name, kind in several.template.types.items()} == {"a": "int", "c": "Item"}
    assert not text.template.types
    with pytest.raises(TemplateError, match="no text stands for 'bytes'"):

        @semantic_function
        def wrong(x) -> bytes:
            """{{input:x}} {{output:y}}"""

    assert SemanticFunction("{{output:y: Local}}").template.types["y"].read('{"a": 2}') == Local(2)


def test_a_typed_prompt_can_be_written_again():
    source = "{{input:x}} {{output:n: int | None, max_tokens=5}} {{output:m: 'a' | 'b'}}"
    template = Template.parse(source)
    again = Template.parse(template.unparse())
    assert again.types["n"].form == template.types["n"].form
    assert again.types["m"].form == template.types["m"].form


def test_no_text_of_a_value_becomes_a_type():
    with pytest.raises(TemplateError, match="Expected a type"):
        Template.parse("{{output:x: {{input:kind}} }}")


def test_schemas_are_closed_and_in_order():
    schema = json.loads(typed("Animal").form.body)
    model = next(iter(schema["$defs"].values()))
    assert list(model["properties"]) == ["the name", "legs", "kind", "born", "friends"]
    assert model["additionalProperties"] is False
    assert "title" not in json.dumps(schema)
