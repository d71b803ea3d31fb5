"""The line of a `%%semantic` cell: `[NAME][(params)] [-> outputs] [options]`."""

from __future__ import annotations

import ast
import inspect
import keyword
import re
import unicodedata
import warnings
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from parrot_nb.errors import OptionError, TemplateError
from parrot_nb.language.checks import Check, named_check
from parrot_nb.language.options import Options
from parrot_nb.language.template import type_of
from parrot_nb.language.type_expression import parse_type
from parrot_nb.language.types import ValueType

MAGIC_OPTIONS: Mapping[str, str] = {
    "--model": "ID  hub id or local folder of the model to run on",
    "--max-tokens": "N  most tokens of each output",
    "--temperature": "T  0 is greedy (the default)",
    "--top-p": "P  nucleus probability mass, above 0 to 1",
    "--top-k": "K  most likely tokens to choose from; 0 is all",
    "--min-p": "P  least probability relative to the likeliest token's",
    "--repetition-penalty": "R  above 1 makes tokens of the prompt and the output so far less likely; 1 changes nothing",
    "--presence-penalty": "P  -2 to 2; above 0 makes tokens of the output so far less likely",
    "--frequency-penalty": "P  -2 to 2; the same for each time that they are in it",
    "--seed": "S  makes a sample reproducible",
    "--stop": "TEXT  ends the output; may be given several times",
    "--ignore-eos": "go on to max-tokens past the model's end-of-sequence token",
    "--begin": "TEXT  text that each output begins with, part of its value",
    "--no-heal": "fill the prompt's last token as it stands, instead of letting the model choose the one that spans the seam",
    "--logprobs": "N  keep each token's log-probability and those of the N likeliest others (0 to 20)",
    "--thinking": "[on|off|N]  have a model that can think do so before it answers, in N tokens at most",
    "--check": "NAME  a function that is asked about each value: True, or False (or an error) where it will not do",
    "--retries": "N  how often an output may be written again that its type or check refuses",
    "--feedback": "tell the model what was refused, and why, when an output is written again",
    "--score": "[total|mean]  write the likeliest choice of outputs that are choices, and report how likely each is; mean: per token",
    "--system": "TEXT  a system turn before the prompt (chat only)",
    "--chat": "[auto|on|off]  use the tokenizer's chat template; auto: where it has one",
    "--raw": "the same as --chat off",
    "--fresh": "generate anew also what would come out the same as before",
}

_FLAGS = {
    "--ignore-eos": ("ignore_eos", True),
    "--raw": ("chat", False),
    "--fresh": ("fresh", True),
    "--no-heal": ("heal", False),
    "--feedback": ("feedback", True),
}
_WHOLE = dict.fromkeys(("max_tokens", "top_k", "seed", "logprobs", "retries"), int)
_REAL = dict.fromkeys(("temperature", "top_p", "min_p", "repetition_penalty", "presence_penalty", "frequency_penalty"), float)
_NUMBERS: Mapping[str, type[int | float]] = {**_WHOLE, **_REAL}
_NAME = re.compile(r"\s*([^\W\d]\w*)?\s*")
_OUTPUT = re.compile(r"([^,:]*)")
_QUOTED = re.compile(r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\"""")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", '"': '"', "'": "'"}


@dataclass(frozen=True, slots=True)
class MagicLine:
    """Parsed magic line; None where it says nothing.

    Attributes:
        name: of the function.
        parameters: of its signature, with defaults.
        outputs: names after `->`.
        types: of those that have one there.
        check: a condition on the values.
        options: the function's.
    """

    name: str | None
    parameters: tuple[inspect.Parameter, ...] | None
    outputs: tuple[str, ...] | None
    options: Options
    types: Mapping[str, ValueType] = field(default_factory=dict)
    check: Check | None = None


def parse_line(line: str, *, offset: int = 0, prefix: str = "", namespace: Mapping[str, Any] | None = None) -> MagicLine:
    """Parse what follows `%%semantic`.

    Args:
        line: the text.
        offset: columns before it in the cell's first line, for errors.
        prefix: that text, for errors.
        namespace: names that types may use.

    Raises:
        TemplateError: with line 1 and the column of what is malformed.
    """

    def error(message: str, index: int) -> TemplateError:
        return TemplateError(message, line=1, column=offset + index + 1, text=prefix + line)

    cut = _options_start(line)
    types: dict[str, ValueType] = {}
    name, parameters, outputs = _signature(line[:cut], error, namespace or {}, types)
    options, check = _options(line, cut, error, namespace or {})
    return MagicLine(name, parameters, outputs, options, types, check)


def _options_start(line: str) -> int:
    """Return where the options begin: the first `--` after white space, outside quotes."""
    position = 0
    while position < len(line):
        quoted = _QUOTED.match(line, position) if line[position] in "'\"" else None
        if quoted:
            position = quoted.end()
        elif line.startswith("--", position) and (position == 0 or line[position - 1].isspace()):
            return position
        else:
            position += 1
    return len(line)


def _signature(
    text: str, error: Any, namespace: Mapping[str, Any], types: dict[str, ValueType]
) -> tuple[str | None, tuple[inspect.Parameter, ...] | None, tuple[str, ...] | None]:
    match = _NAME.match(text)
    assert match is not None, "the pattern matches the empty text"
    name, position = match[1] and unicodedata.normalize("NFKC", match[1]), match.end()
    if name is not None and keyword.iskeyword(name):
        raise error(f"'{name}' is a keyword of Python: choose another name for the function.", match.start(1))
    parameters = None
    if text.startswith("(", position):
        end = _closing(text, position)
        if end is None:
            raise error("The parameter list is never closed: add ).", position)
        parameters = _parameters(text[position : end + 1], position, error)
        position = end + 1
    rest = text[position:]
    if not rest.strip():
        return name, parameters, None
    start = position + len(rest) - len(rest.lstrip())
    if not text.startswith("->", start):
        raise error("Expected '->' and the outputs, or an option beginning with --, here.", start)
    return name, parameters, _outputs(text, start + 2, error, namespace, types)


def _closing(text: str, opening: int) -> int | None:
    depth, position = 0, opening
    while position < len(text):
        char = text[position]
        quoted = _QUOTED.match(text, position) if char in "'\"" else None
        if quoted:
            position = quoted.end()
            continue
        depth += (char in "([{") - (char in ")]}")
        if depth == 0:
            return position
        position += 1
    return None


def _parameters(text: str, start: int, error: Any) -> tuple[inspect.Parameter, ...]:
    head = "def f"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a default such as "\d", which is meant as it stands
            (definition,) = ast.parse(f"{head}{text}: pass").body
    except SyntaxError as problem:
        index = start + max(0, min((problem.offset or 1) - 1 - len(head), len(text) - 1))
        raise error(f"The parameters are malformed ({problem.msg}): write names, as in f(x, tone='formal').", index) from None
    except (ValueError, RecursionError, MemoryError):
        raise error("The parameters are malformed: write names, as in f(x, tone='formal').", start) from None
    if not isinstance(definition, ast.FunctionDef):
        raise error("The parameters are malformed: write names, as in f(x, tone='formal').", start)

    def index_of(node: ast.arg | ast.expr) -> int:
        return start + len(f"{head}{text}".encode()[: node.col_offset].decode()) - len(head)

    arguments = definition.args
    if star := arguments.vararg or arguments.kwarg:
        raise error(f"A prompt has a fixed number of inputs: name them instead of '*{star.arg}'.", index_of(star))

    seen: set[str] = set()
    for argument in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs):
        if argument.arg in seen:
            raise error(f"The parameter '{argument.arg}' is there twice.", index_of(argument))
        seen.add(argument.arg)

    def parameter(argument: ast.arg, default: ast.expr | None, kind: Any) -> inspect.Parameter:
        value = inspect.Parameter.empty
        if default is not None:
            try:
                value = ast.literal_eval(default)
            except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
                raise error(
                    f"The default of '{argument.arg}' must be a plain number, string or list.", index_of(default)
                ) from None
        return inspect.Parameter(argument.arg, kind, default=value)

    plain = [*arguments.posonlyargs, *arguments.args]
    missing: list[ast.expr | None] = [None] * (len(plain) - len(arguments.defaults))
    kinds = inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY
    found = [parameter(a, d, kinds[0]) for a, d in zip(plain, [*missing, *arguments.defaults], strict=True)]
    found += [parameter(a, d, kinds[1]) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    return tuple(found)


def _outputs(text: str, start: int, error: Any, namespace: Mapping[str, Any], types: dict[str, ValueType]) -> tuple[str, ...]:
    """The names after `->`, whose types are put into `types`."""
    names: list[str] = []
    position = start
    while True:
        part = text[position:]
        match = _OUTPUT.match(part)
        assert match is not None, "the pattern matches the empty text"
        name = unicodedata.normalize("NFKC", match[1].strip())
        index = position + len(part) - len(part.lstrip())
        if not name.isidentifier() or keyword.iskeyword(name):
            shown = f"'{name}' cannot be an output's name" if name else "An output's name is missing"
            raise error(f"{shown}: write names after ->, separated by commas.", min(index, len(text)))
        if name in names:
            raise error(f"The output '{name}' is there twice.", index)
        names.append(name)
        position += match.end()
        if text.startswith(":", position):
            written = parse_type(text, position + 1, namespace, error)
            if (kind := type_of(written, namespace, error)) is not None:
                types[name] = kind
            position = written.end + len(text[written.end :]) - len(text[written.end :].lstrip())
        if position == len(text):
            return tuple(names)
        if not text.startswith(",", position):
            raise error("Expected a comma, or an option beginning with --, after this output.", position)
        position += 1


def _options(line: str, start: int, error: Any, namespace: Mapping[str, Any]) -> tuple[Options, Check | None]:
    words = deque(_words(line, start, error))
    said: dict[str, Any] = {}
    check: Check | None = None
    while words:
        word, index = words.popleft()
        option, equals, attached = word.partition("=")
        if option not in MAGIC_OPTIONS:
            raise error(f"Unknown option '{option}': choose from {', '.join(MAGIC_OPTIONS)}.", index)
        name = option[2:].replace("-", "_")
        if option in _FLAGS:
            if equals:
                raise error(f"{option} takes no value.", index)
            flag, value = _FLAGS[option]
            said[flag] = value
            continue
        if option == "--chat":
            follows = not equals and words and words[0][0] in ("auto", "on", "off")
            choice = attached if equals else words.popleft()[0] if follows else "on"
            if choice not in ("auto", "on", "off"):
                raise error(f"--chat is auto, on or off, not '{choice}'.", index)
            said["chat"] = {"auto": None, "on": True, "off": False}[choice]
            continue
        if option == "--thinking":
            follows = not equals and words and words[0][0] not in MAGIC_OPTIONS
            said["thinking"] = _thinking(attached if equals else words.popleft()[0] if follows else "on", index, error)
            continue
        if option == "--score" and not equals and (not words or words[0][0] in MAGIC_OPTIONS):
            said["score"] = True
            continue
        if not equals and (not words or words[0][0] in MAGIC_OPTIONS):
            raise error(f"{option} needs a value: {option} {MAGIC_OPTIONS[option].split('  ')[0]}.", index)
        text = attached if equals else words.popleft()[0]
        if name == "check":
            check = named_check(text, namespace, partial(_at, error, index))
            continue
        value = _value(name, text, index, error)
        if name == "stop":
            said.setdefault("stop", []).append(value)
        else:
            said[name] = value
    try:
        return Options.checked(**said), check
    except OptionError as problem:
        raise error(str(problem), start) from None


def _at(error: Any, index: int, message: str) -> BaseException:
    return error(message, index)  # type: ignore[no-any-return]


def _thinking(text: str, index: int, error: Any) -> bool | int:
    if text in ("on", "off"):
        return text == "on"
    if not (text.isascii() and text.isdigit() and int(text[:20])):
        raise error(f"--thinking is on, off or the most tokens to think, at least 1, not '{text}'.", index)
    return int(text[:20])


def _value(name: str, text: str, index: int, error: Any) -> Any:
    value: Any = text
    if name in _NUMBERS:
        try:
            value = _NUMBERS[name](text)
        except ValueError:
            raise error(f"--{name.replace('_', '-')} must be a number, not '{text}'.", index) from None
    elif name in ("stop", "system", "begin"):
        value = re.sub(r"\\(.)", lambda match: _ESCAPES.get(match[1], match[0]), text)
    try:
        Options.checked(**{name: value})
    except OptionError as problem:
        raise error(str(problem), index) from None
    return value


def _words(line: str, start: int, error: Any) -> list[tuple[str, int]]:
    """The words of the options with where each begins, quotes taken off."""
    words: list[tuple[str, int]] = []
    position = start
    while position < len(line):
        if line[position].isspace():
            position += 1
            continue
        begin, word = position, ""
        while position < len(line) and not line[position].isspace():
            if line[position] in "'\"":
                quoted = _QUOTED.match(line, position)
                if quoted is None:
                    raise error(f"This quote is never closed: add {line[position]}.", position)
                word += quoted[0][1:-1]
                position = quoted.end()
            else:
                word += line[position]
                position += 1
        words.append((word, begin))
    return words
