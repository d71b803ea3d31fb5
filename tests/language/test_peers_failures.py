"""What other libraries of typed outputs got wrong: one row for each failure, and what it would look like here.

| failure | where it would show |
|---|---|
| truncated JSON accepted | a beginning of a text obeys, or has a value |
| endless white space | a blank may follow on blanks |
| Optional ignored | null is refused, or taken for the other type |
| unions picking the first member | a text of another member has no value, or the first one's |
| non-ASCII escaped | a choice or key with such characters is spelled with escapes |
| enums by index | a number stands for a member |
"""

from __future__ import annotations

import asyncio
import dataclasses
import enum
import json
import typing

import pytest

from parrot_nb.bench.models import find_model
from parrot_nb.engine.protocol import Constraint
from parrot_nb.language import Template


class Farbe(enum.Enum):
    GRÜN = 1  # noqa: PLC2401 - what is tested
    BLAU = 2


@dataclasses.dataclass
class Ort:
    straße: str  # noqa: PLC2401 - what is tested
    höhe: int | None  # noqa: PLC2401 - likewise


@dataclasses.dataclass
class Cat:
    name: str


@dataclasses.dataclass
class Dog:
    name: str
    barks: bool


@pytest.fixture(scope="module")
def codec():
    from transformers import AutoTokenizer

    from parrot_nb.engine.embedded.codec import TokenizerCodec

    return TokenizerCodec(AutoTokenizer.from_pretrained(find_model("default")))


def kind_of(expression: str):
    kind = Template.parse(f"{{{{output:x: {expression}}}}}", namespace=globals()).types["x"]
    assert kind is not None
    return kind


def obeys(codec, expression: str, text: str) -> bool:
    form = kind_of(expression).form
    return asyncio.run(codec.grammars.start(Constraint(form.kind, form.body), ())).accepts(text)


ORT = '{"straße": "Gürtel 東 🦜", "höhe": null}'


@pytest.mark.parametrize("expression", ["Ort", "Ort | None", "dict[str, json]", "json"])
def test_no_beginning_of_a_text_is_accepted_for_the_whole(codec, expression):
    assert obeys(codec, expression, ORT)
    for end in range(1, len(ORT)):
        assert not obeys(codec, expression, ORT[:end])
        with pytest.raises(ValueError, match=r".+"):
            kind_of(expression).read(ORT[:end])


@pytest.mark.parametrize("place", [0, 1, 10, 11, 26, len(ORT) - 1, len(ORT)])
@pytest.mark.parametrize("blanks", [" ", "\n", "\t", " " * 1000])
def test_white_space_is_that_of_one_line(codec, place, blanks):
    assert not obeys(codec, "Ort", ORT[:place] + blanks + ORT[place:])


@pytest.mark.parametrize(
    ("expression", "text", "value"),
    [
        ("int | None", "null", None),
        ("int | None", "7", 7),
        ("typing.Optional[Cat]", "null", None),
        ("typing.Optional[Cat]", '{"name": "a"}', Cat("a")),
        ("Ort", '{"straße": "a", "höhe": null}', Ort("a", None)),
        ("Ort", '{"straße": "a", "höhe": 3}', Ort("a", 3)),
        ("Cat | Dog", '{"name": "a", "barks": true}', Dog("a", True)),
        ("Dog | Cat", '{"name": "a"}', Cat("a")),
        ("str | int", "12", 12),
        ("list[int | bool]", "[1, true]", [1, True]),
        ("int | list[int]", "[1]", [1]),
        ("Farbe", "GRÜN", Farbe.GRÜN),
        ("list[Farbe]", '["GRÜN", "BLAU"]', [Farbe.GRÜN, Farbe.BLAU]),
        ('"größer" | "東京"', "東京", "東京"),
    ],
)
def test_each_member_of_a_type_has_its_own_text_and_value(codec, expression, text, value):
    assert obeys(codec, expression, text)
    read = kind_of(expression).read(text)
    assert read == value
    assert type(read) is type(value)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("Ort", json.dumps({"straße": "a", "höhe": None})),  # the key escaped
        ("list[Farbe]", json.dumps(["GRÜN"])),
        ('"größer" | "東京"', json.dumps("東京")),
        ("Farbe", "1"),
        ("Farbe", "0"),
        ("list[Farbe]", "[1]"),
        ("list[Farbe]", '["1"]'),
        ("int", "null"),
        ("Cat", "null"),
    ],
)
def test_other_spellings_of_values_are_refused(codec, expression, text):
    assert not obeys(codec, expression, text)


def test_optional_is_what_typing_says():
    assert kind_of("typing.Optional[int]").form.body == kind_of("int | None").form.body
    assert typing.get_args(typing.Optional[int]) == (int, type(None))  # noqa: UP045 - the old spelling is what is tested
