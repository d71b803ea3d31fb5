"""Few-shot prompts: examples of a prompt, filled in, before the prompt itself.

What an example says is not part of the template. It goes in as input, as the values of parameters with defaults, so that nothing in it
can become a control token or a placeholder.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from enum import Enum
from typing import Any

import msgspec

from parrot_nb.errors import ArgumentError, InputValueError
from parrot_nb.language.tabular import rows_of
from parrot_nb.language.template import Constant, Input, Segment, Template
from parrot_nb.language.text import to_text
from parrot_nb.language.types import ValueType, reason_of

SEPARATOR = "\n\n"


def examples_of(table: Any, names: Sequence[str], columns: Mapping[str, str], called: str) -> list[dict[str, Any]]:
    """The values of inputs and outputs, by name, in each row of a table.

    Args:
        table: a data frame or an iterable of dicts.
        names: of the inputs and outputs.
        columns: of those whose column has another name.
        called: what to call the function in errors.

    Raises:
        ArgumentError: a name or a column that is not there.
    """
    if strange := next((name for name in columns if name not in names), None):
        raise ArgumentError(f"{called}: there is no input or output '{strange}': choose from {', '.join(names)}.")
    examples = []
    for number, cells in enumerate(rows_of(table, called), start=1):
        if lacking := next((name for name in names if columns.get(name, name) not in cells), None):
            raise ArgumentError(
                f"{called}: example {number} has no column '{lacking}': say which one it is, as in {lacking}='column'."
            )
        examples.append({name: cells[columns.get(name, name)] for name in names})
    return examples


def with_examples(
    template: Template, parameters: Sequence[inspect.Parameter], examples: Sequence[Mapping[str, Any]], called: str
) -> tuple[Template, list[inspect.Parameter]]:
    """A template with examples before it, and its parameters with the examples' texts as defaults of further ones.

    Args:
        template: the prompt.
        parameters: of it.
        examples: values of all inputs and outputs, by name.
        called: what to call the function in errors.

    Raises:
        ArgumentError: a value that is no value of its output's type, or has no text.
    """
    parts: list[Segment] = []
    texts: dict[str, str] = {}
    for number, example in enumerate(examples, start=1):
        for segment in template.segments:
            if isinstance(segment, Constant):
                parts.append(segment)
                continue
            name = f"example{number}_{segment.name}"
            if name not in texts:
                texts[name] = _text(
                    example[segment.name], template.types.get(segment.name), f"{called}: example {number}", segment.name
                )
            parts.append(Input(name))
        parts.append(Constant(SEPARATOR))
    if taken := next((name for name in texts if name in template.inputs or name in template.outputs), None):
        raise ArgumentError(f"{called}: '{taken}' is the name of an example's text: rename the placeholder.")
    before = replace(template, source="", segments=tuple(parts)).unparse()
    parsed = Template.parse(before)
    source = before + template.source
    segments = (*parsed.segments, *(_moved(segment, before) for segment in template.segments))
    inputs = (*(name for name in parsed.inputs if name not in template.inputs), *template.inputs)
    wide = replace(template, source=source, segments=tuple(merged(segments)), inputs=inputs)
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=text) for name, text in texts.items()]
    return wide, [*parameters, *more]


def _text(value: Any, kind: ValueType | None, where: str, name: str) -> str:
    """The text that a value of an output is written as, or an input's text."""
    try:
        if kind is None:
            return to_text(value, f"'{name}'")
        text = _written(value, kind)
        kind.read(text)
    except InputValueError as error:
        raise ArgumentError(f"{where}: {error}") from None
    except Exception as error:  # whatever the user's classes raise
        raise ArgumentError(
            f"{where}: {value!r:.60} is no '{kind.form.text if kind else 'text'}' for '{name}' ({reason_of(error)}): mend it."
        ) from None
    return text


def _written(value: Any, kind: ValueType) -> str:
    if kind.form.kind == "choices":
        texts: list[str] = json.loads(kind.form.body)
        if isinstance(value, str) and value in texts:
            return value
        return next((text for text in texts if kind.read(text) == value), to_text(value, "a choice"))
    if kind.form.kind == "regex":
        return "null" if value is None else to_text(value, "a value")
    return json.dumps(value, default=_plain, ensure_ascii=False)


def _plain(value: Any) -> Any:
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    if hasattr(value, "model_dump"):
        return value.model_dump(mode="json")
    if isinstance(value, Enum):
        return value.value if isinstance(value.value, str) else value.name
    return to_text(value, "a value in it")


def _moved(segment: Segment, before: str) -> Segment:
    """A segment at its place behind that text."""
    if isinstance(segment, Constant):
        return segment
    column = segment.column + (len(before) - before.rfind("\n") - 1 if segment.line == 1 else 0)
    return msgspec.structs.replace(segment, line=segment.line + before.count("\n"), column=column)


def merged(segments: Sequence[Segment]) -> list[Segment]:
    """Return the segments with neighbouring constants as one."""
    found: list[Segment] = []
    for segment in segments:
        if isinstance(segment, Constant) and found and isinstance(last := found[-1], Constant):
            found[-1] = Constant(last.text + segment.text)
        else:
            found.append(segment)
    return found
