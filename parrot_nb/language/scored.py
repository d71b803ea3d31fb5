"""Scored choices: outputs that are the likeliest of several texts, with the probability of each."""

from __future__ import annotations

import typing
from collections.abc import Iterable
from typing import Any

from parrot_nb.errors import ArgumentError, OptionError
from parrot_nb.language.function import SemanticFunction
from parrot_nb.language.options import Options
from parrot_nb.language.scalars import UnusableTypeError
from parrot_nb.language.template import Template
from parrot_nb.language.type_expression import Constant, OneOf
from parrot_nb.language.types import value_type
from parrot_nb.language.variable import SemanticVariable


def choose(prompt: Any, options: Any, *, score: bool | str = True, **settings: Any) -> SemanticVariable:
    """A variable that is the likeliest of several values after a prompt; `scores` has the probability of each.

    Args:
        prompt: a text or a variable; it is no template.
        options: the values: texts, numbers, True, False, None or members of an Enum; or a type that has such values, as
            `Literal["a", "b"]` or an Enum.
        score: "total" (or True) compares the log-likelihoods of their texts, "mean" those per token.
        settings: of the function, as `model` or `chat`.

    Raises:
        ArgumentError: the options are no such values, or fewer than one.
        OptionError: an unknown setting or an unusable value.
        InputValueError: the prompt has no one obvious text.
        SessionError: the session is closed, or a variable belongs to another one.
    """
    if not score:
        raise OptionError('P.choose() scores its options: score is True, "total" or "mean".')
    kind, shown = _kind_of(options)
    try:
        found = value_type(kind, shown, {})
    except UnusableTypeError as error:
        raise ArgumentError(f"These options cannot be chosen from: {error}.") from None
    if found is None or found.form.kind != "choices":
        raise ArgumentError(f"'{shown}' is no choice between texts: give a list of options, a Literal or an Enum.")
    template = Template.parse("{{input:prompt}}{{output:choice}}")
    own = Options.checked(score=score, **settings)
    choice: SemanticVariable = SemanticFunction(template, name="choose", types={"choice": found}, options=own)(prompt)
    return choice


def _kind_of(options: Any) -> tuple[Any, str]:
    """The type of these options, and how it is written."""
    if isinstance(options, (str, SemanticVariable)):
        raise ArgumentError("P.choose() takes a list of options: put a single one into brackets.")
    if isinstance(options, type) or typing.get_origin(options) is not None or not isinstance(options, Iterable):
        return options, options.__name__ if isinstance(options, type) else repr(options).removeprefix("typing.")
    values = list(options)
    if not values:
        raise ArgumentError("P.choose() needs at least one option.")
    return OneOf(tuple(Constant(value) for value in values)), " | ".join(map(repr, values))
