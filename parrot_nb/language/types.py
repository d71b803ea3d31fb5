"""Types of outputs: what a text stands for, as a constraint for engines and as a value for the user.

A type is evaluated where the prompt is defined, and splits in two. An `OutputType` is data: it crosses to the runtime, and says
what a text must obey. The `ValueType` around it stays with the user's classes, and makes values of texts.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pickle import PicklingError
from typing import Any, Literal

import msgspec

from parrot_nb.language.grammar import Grammar
from parrot_nb.language.least import least_text
from parrot_nb.language.notify import message_of
from parrot_nb.language.scalars import UnusableTypeError
from parrot_nb.language.shapes import Shape, Shaper, escaped, loads

MAX_BODY_CHARS = 200_000
CHOICES_EXAMPLE = '{{output:label: "high" | "low", score=True}}'


class OutputType(msgspec.Struct, frozen=True):
    """Constraint that the text of an output must obey.

    Attributes:
        text: the type as it was written.
        kind: "json" (a JSON schema), "regex" (a regular expression of the whole text), "choices" (a JSON list of texts) or "lark" (a
            grammar).
        body: that schema, expression or list.
        least: a shortest text; empty where that is not known.
        refuses: True if a text that obeys can still be refused when its value is made.
    """

    text: str
    kind: Literal["json", "regex", "choices", "lark"]
    body: str
    least: str = ""
    refuses: bool = False


@dataclass(frozen=True, slots=True)
class ValueType:
    """A type with the user's classes. It is pickled as what it was made of.

    Attributes:
        form: its part that is data.
        read: makes the value of a text. Raises ValueError, or whatever the user's classes raise.
        kind: the type, or the form of `parrot_nb.language.type_expression`, that it was made of.
    """

    form: OutputType
    read: Callable[[str], Any] = field(compare=False)
    kind: Any = None

    def __copy__(self) -> ValueType:
        return self

    def __deepcopy__(self, _memo: dict[int, Any]) -> ValueType:
        return self

    def __reduce__(self) -> tuple[Any, ...]:
        try:
            again = value_type(self.kind, self.form.text, {})
        except UnusableTypeError:
            again = None
        if again is None or again.form != self.form:
            raise PicklingError(
                f"The type '{self.form.text}' has names in quotes that cannot be found elsewhere: write the classes without quotes, "
                "or define the function in a module."
            )
        return value_type, (self.kind, self.form.text, {})


def value_type(kind: Any, text: str, namespace: Mapping[str, Any]) -> ValueType | None:
    """The type of an output; None for `str`, which any text is.

    Args:
        kind: a type, or a form of `parrot_nb.language.type_expression`.
        text: how it is written.
        namespace: names of whoever wrote it, for annotations in quotes.

    Raises:
        UnusableTypeError: no text stands for it, or no engine could follow it.
    """
    if kind is str:
        return None
    if isinstance(kind, Grammar):
        return ValueType(OutputType(text, "lark", kind.source), str, kind)
    shaper = Shaper(namespace)
    shape = shaper.shape(kind)
    found = _in_choices(shape, text) or _as_pattern(shape, text) or _as_json(shape, text, shaper.definitions)
    if len(found.form.body) > MAX_BODY_CHARS:
        raise UnusableTypeError(
            f"it is too large ({len(found.form.body)} characters of schema, at most {MAX_BODY_CHARS}): make it smaller"
        )
    _check(found.form)
    return replace(found, kind=kind)


def unscorable(kind: ValueType | None) -> str | None:
    """Why the values of a type cannot be scored, with the remedy; None where they can."""
    if kind is None or kind.form.kind != "choices":
        return f"its type has no choices; write them, as in {CHOICES_EXAMPLE}"
    texts = json.loads(kind.form.body)
    if "" in texts:
        return "the empty text has no likelihood; take it out of the choices, or put a space around it"
    if len({kind.read(text) for text in texts}) < len(texts):
        return "two of its choices stand for equal values; keep one of them"
    return None


def reason_of(error: BaseException) -> str:
    """Return why a text stands for no value, in one line: what a user's class or check said."""
    problems = getattr(error, "errors", None)
    if callable(problems) and type(error).__module__.startswith("pydantic"):
        told = [(".".join(map(str, each["loc"])), each["msg"].removeprefix("Value error, ")) for each in problems()]
        return "; ".join(f"{place}: {message}" if place else message for place, message in told)
    return " ".join(message_of(error).split()) or type(error).__name__


def _in_choices(shape: Shape, text: str) -> ValueType | None:
    if shape.choices is None:
        return None
    return ValueType(OutputType(text, "choices", _dumped(list(shape.choices)), min(shape.choices, key=len)), shape.read)


def _as_pattern(shape: Shape, text: str) -> ValueType | None:
    if shape.is_plain or shape.pattern is None:
        return None
    return ValueType(OutputType(text, "regex", shape.pattern, refuses=shape.refuses), shape.read)


def _as_json(shape: Shape, text: str, definitions: Mapping[str, Any]) -> ValueType:
    schema = {**shape.schema, **({"$defs": dict(definitions)} if definitions else {})}
    least = least_text(schema)
    if least is None:
        raise UnusableTypeError("every text of it would be endless: let a field be None, or a list, where it refers to itself")

    def read(written: str) -> Any:
        return shape.load(loads(written))

    return ValueType(OutputType(text, "json", _dumped(schema), least, shape.refuses), read)


def _check(form: OutputType) -> None:
    """Have the constraint compiled once, without a tokenizer."""
    from llguidance import LLMatcher

    match form.kind:
        case "json":
            grammar = LLMatcher.grammar_from_json_schema(form.body)
        case "regex":
            grammar = LLMatcher.grammar_from_regex(form.body)
        case "choices":
            grammar = LLMatcher.grammar_from_regex("|".join(map(escaped, json.loads(form.body))))
        case "lark":
            return  # when it was made
    if problem := LLMatcher.validate_grammar(grammar):
        lines = [line.strip() for line in problem.split("\n") if line.strip()]
        shown = next((line.removeprefix("error: ") for line in lines if line.startswith("error: ")), lines[0])
        raise UnusableTypeError(f"no engine can follow it ({shown.rstrip('.')[:200]})")


def _dumped(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
