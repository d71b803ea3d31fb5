"""The inside of one placeholder: `[input:|output:] NAME [: TYPE] [, option=value ...]`."""

from __future__ import annotations

import ast
import keyword
import re
import unicodedata
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Any, Literal

from parrot_nb.errors import OptionError, TemplateError
from parrot_nb.language.checks import Check, named_check
from parrot_nb.language.options import SAMPLING_NAMES, Options
from parrot_nb.language.type_expression import ErrorAt, TypeExpression, parse_type

ROLES = ("input", "output")
_ROLE = re.compile(r"\s*(input|output)\s*:")
_NAME = re.compile(r"\s*([^\W\d]\w*)\s*")
_SPACE = re.compile(r"\s*")
_EMPTY = re.compile(r"\s*\}\}")
_QUOTED = re.compile(r"""'(?:[^'\\\r\n]|\\[^\r\n])*'|"(?:[^"\\\r\n]|\\[^\r\n])*\"""")


Fit = Literal["middle", "end", "start"]  # where a text that is too long is cut
FITS: tuple[Fit, ...] = ("middle", "end", "start")


@dataclass(frozen=True, slots=True)
class Placeholder:
    """Parsed placeholder; `end` is the index after its closing braces."""

    role: Literal["input", "output"] | None
    name: str
    options: Options
    has_options: bool
    end: int
    type: TypeExpression | None = None
    check: Check | None = None
    fit: Fit | None = None


def parse_placeholder(source: str, opening: int, error_at: ErrorAt, namespace: Mapping[str, Any]) -> Placeholder:
    """Parse the placeholder whose `{{` stands at `opening`; its type is evaluated with the names of `namespace`.

    Raises:
        TemplateError: made by `error_at(message, index)`.
    """
    position = opening + 2
    role: Literal["input", "output"] | None = None
    if match := _ROLE.match(source, position):
        role = "input" if match[1] == "input" else "output"
        position = match.end()
    start = position
    name, position = _name(source, opening, position, error_at)
    kind = None
    if source.startswith(":", position):
        if role is None and (meant := get_close_matches(name, ROLES, n=1, cutoff=0.7)):
            raise error_at(
                f"'{name}' is no role of a placeholder: did you mean {{{{{meant[0]}:...}}}}?", _after_space(source, start)
            )
        kind = _type(source, opening, position + 1, error_at, namespace)
        position = _after_space(source, kind.end)
    if source.startswith("}}", position):
        return Placeholder(role, name, Options(), has_options=False, end=position + 2, type=kind)
    if not source.startswith(",", position):
        raise _unexpected(source, opening, position, error_at)
    end = _closing(source, opening, position + 1, error_at)
    options, check, fit = _options(source[position + 1 : end], position + 1, error_at, namespace)
    return Placeholder(role, name, options, has_options=True, end=end + 2, type=kind, check=check, fit=fit)


def _name(source: str, opening: int, position: int, error_at: ErrorAt) -> tuple[str, int]:
    match = _NAME.match(source, position)
    if match is None:
        if source.find("}}", position) < 0:
            raise error_at("This placeholder is never closed: add }}, or write \\{{ for literal braces.", opening)
        if _EMPTY.match(source, position):
            raise error_at(
                "An empty placeholder: name the variable, as in {{input:x}}, or write \\{{ for literal braces.", opening
            )
        raise error_at("Expected a name in this placeholder, as in {{input:x}}; write \\{{ for literal braces.", opening)
    name = unicodedata.normalize("NFKC", match[1])
    if not name.isidentifier():
        raise error_at(f"'{name}' cannot be a variable's name: use letters, digits and _.", match.start(1))
    if keyword.iskeyword(name):
        raise error_at(f"'{name}' is a keyword of Python: choose another name, such as '{name}_'.", match.start(1))
    return name, match.end()


def _type(source: str, opening: int, position: int, error_at: ErrorAt, namespace: Mapping[str, Any]) -> TypeExpression:
    start = _after_space(source, position)
    if source.find("}}", start) < 0:
        raise error_at("This placeholder is never closed: add }}, or write \\{{ for literal braces.", opening)
    if source.startswith(("}}", ","), start):
        raise error_at("An empty type: write one after the colon, as in {{output:n: int}}, or leave the colon out.", start)
    return parse_type(source, position, namespace, error_at)


def _after_space(source: str, position: int) -> int:
    match = _SPACE.match(source, position)
    assert match is not None, "the pattern matches the empty text"
    return match.end()


def _closing(source: str, opening: int, position: int, error_at: ErrorAt) -> int:
    """The index of the closing braces, past quoted strings."""
    while position < len(source):
        char = source[position]
        if char in "'\"":
            quoted = _QUOTED.match(source, position)
            if quoted is None:
                raise error_at(f"This string is never closed: add {char}.", position)
            position = quoted.end()
        elif source.startswith("}}", position):
            return position
        elif source.startswith("{{", position):
            raise error_at("A placeholder inside a placeholder: close the first with }} before this one.", position)
        else:
            position += 1
    raise error_at("This placeholder is never closed: add }}, or write \\{{ for literal braces.", opening)


def _unexpected(source: str, opening: int, position: int, error_at: ErrorAt) -> TemplateError:
    if source.startswith("{{", position):
        return error_at("A placeholder inside a placeholder: close the first with }} before this one.", position)
    if source.find("}}", position) < 0:
        return error_at("This placeholder is never closed: add }}, or write \\{{ for literal braces.", opening)
    return error_at(
        "Expected }} or an option after the name, as in {{output:x, max_tokens=20}}; \\{{ is for literal braces.", position
    )


def _options(text: str, start: int, error_at: ErrorAt, namespace: Mapping[str, Any]) -> tuple[Options, Check | None, Fit | None]:
    # Parenthesised on a line of its own, so that columns of the tree are offsets into `text`.
    flat = text.replace("\r", " ").replace("\n", " ")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a string such as "\d", which is meant as it stands
            tree = ast.parse(f"f({flat})", mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise error_at("These options are malformed: write option=value, separated by commas.", start) from None
    if not isinstance(tree, ast.Call) or tree.args or not isinstance(tree.func, ast.Name):
        raise error_at("These options are malformed: write option=value, separated by commas.", start)
    said: dict[str, Any] = {}
    check: Check | None = None
    fit: Fit | None = None
    for item in tree.keywords:
        index = start + len(f"f({flat}".encode()[: item.col_offset].decode()) - 2
        if item.arg == "check" and check is None:
            check = named_check(ast.unparse(item.value), namespace, partial(_at, error_at, index))
            continue
        if item.arg == "fit" and fit is None:
            fit = _fit(item, index, error_at)
            continue
        name, value = _option(item, index, error_at)
        if name in said:
            raise error_at(f"The option '{name}' is there twice.", index)
        said[name] = value
        try:
            Options.checked(**{name: value})
        except OptionError as error:
            raise error_at(str(error), index) from None
    return Options.checked(**said), check, fit


def _fit(item: ast.keyword, index: int, error_at: ErrorAt) -> Fit:
    value = item.value.value if isinstance(item.value, ast.Constant) else None
    found = next((fit for fit in FITS if fit == value), None)
    if found is None:
        raise error_at(f"fit must be one of {', '.join(map(repr, FITS))}: where a text that is too long is cut.", index)
    return found


def _at(error_at: ErrorAt, index: int, message: str) -> TemplateError:
    return error_at(message, index)


def _option(item: ast.keyword, index: int, error_at: ErrorAt) -> tuple[str, Any]:
    if item.arg is None or item.arg not in SAMPLING_NAMES:
        raise error_at(
            f"Unknown option '{item.arg or '**'}' in a placeholder: choose from {', '.join((*SAMPLING_NAMES, 'check'))}.", index
        )
    try:
        value = ast.literal_eval(item.value)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        raise error_at(f"The value of '{item.arg}' must be a plain number, string, list, True or False.", index) from None
    if value is None:
        raise error_at(f"'{item.arg}' must have a value: leave the option out instead of None.", index)
    return item.arg, value
