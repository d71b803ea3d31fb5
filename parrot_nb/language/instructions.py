"""Instructions: the lines of a prompt above its first placeholder, and the same prompt with others in their place."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import replace

import msgspec

from parrot_nb.errors import ArgumentError
from parrot_nb.language.examples import merged
from parrot_nb.language.function import SemanticFunction
from parrot_nb.language.template import Constant, Input, Segment, Template


def instruction_of(function: SemanticFunction) -> str:
    """Return the whole lines of a prompt that stand above the line of its first placeholder, without the last line's end."""
    return _lines(function.template).removesuffix("\n")


def with_instruction(function: SemanticFunction, text: str) -> SemanticFunction:
    """Return a copy of a function whose prompt begins with another instruction, in lines of its own.

    Args:
        function: without examples.
        text: the instruction, as part of the template.

    Raises:
        ArgumentError: the text has placeholders, or is empty.
    """
    parsed = Template.parse(text.strip("\n") + "\n")
    if parsed.inputs or parsed.outputs or not text.strip():
        raise ArgumentError("An instruction is text without placeholders: write the whole prompt to change these.")
    return _headed(function, parsed.segments, parsed.source, ())


def with_written_instruction(function: SemanticFunction, text: str, parameter: str) -> SemanticFunction:
    """Return a copy of a function whose prompt begins with an instruction that a model wrote.

    The text goes in as data, as the default of a further parameter, so that nothing in it can become a control token or a placeholder.

    Args:
        function: without examples.
        text: the instruction.
        parameter: name of the parameter; of no other placeholder.
    """
    head = (Input(parameter), Constant("\n"))
    more = inspect.Parameter(parameter, inspect.Parameter.KEYWORD_ONLY, default=text)
    return _headed(function, head, f"{{{{input:{parameter}}}}}\n", (more,))


def _headed(
    function: SemanticFunction, head: Sequence[Segment], source: str, more: Sequence[inspect.Parameter]
) -> SemanticFunction:
    template = function.template
    lines = _lines(template)
    num_lines = lines.count("\n")
    first, *rest = template.segments
    if isinstance(first, Constant):
        rest = [*([Constant(first.text[len(lines) :])] if len(first.text) > len(lines) else []), *rest]
    else:
        rest = [first, *rest]
    by = source.count("\n") - num_lines
    moved = [s if isinstance(s, Constant) else msgspec.structs.replace(s, line=s.line + by) for s in rest]
    changed = replace(
        template,
        source=source + template.source.split("\n", num_lines)[num_lines],
        segments=tuple(merged([*head, *moved])),
        inputs=(*(parameter.name for parameter in more), *template.inputs),
    )
    parameters = [*function.signature.parameters.values(), *more]
    return SemanticFunction(
        changed,
        name=function.name,
        parameters=parameters,
        outputs=function.output_names,
        options=function.settings,
        check=function.check,
    )


def _lines(template: Template) -> str:
    first = template.segments[0]
    return first.text[: first.text.rfind("\n") + 1] if isinstance(first, Constant) else ""
