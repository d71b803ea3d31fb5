r"""Templates: prompt text cut into constants, input placeholders and output placeholders.

    {{input:NAME}}    {{output:NAME}}    {{output:NAME: TYPE, option=value, ...}}    {{NAME}}    \{{ for literal braces
    {{retry}} ... {{attempt}} ... {{error}} ... {{/retry}}    for each attempt that was refused of the output that follows

Everything that is not a placeholder is kept to the byte. In a run of three or more `{`, the last two open the placeholder;
after a backslash the first two are literal.
"""

from __future__ import annotations

import bisect
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec

from parrot_nb.errors import TemplateError
from parrot_nb.language.checks import Check
from parrot_nb.language.options import Options
from parrot_nb.language.placeholder import Fit, Placeholder, parse_placeholder
from parrot_nb.language.scalars import UnusableTypeError
from parrot_nb.language.type_expression import ErrorAt, TypeExpression
from parrot_nb.language.types import OutputType, ValueType, value_type

SLOT = re.compile(r"\{\{\s*(attempt|error)\s*\}\}")  # in a block about attempts
_BLOCK = re.compile(r"\{\{\s*retry\s*\}\}(.*?)\{\{\s*/\s*retry\s*\}\}", re.DOTALL)
_END = re.compile(r"\{\{\s*/\s*retry\s*\}\}")


class Constant(msgspec.Struct, frozen=True, tag=True):
    """Text as it stands."""

    text: str


class Input(msgspec.Struct, frozen=True, tag=True):
    """Where a variable's value stands. `line` and `column` are 1-based. With `fit`, a value that the context has no room for is cut
    there."""

    name: str
    line: int = 1
    column: int = 1
    fit: Fit | None = None


class Retry(msgspec.Struct, frozen=True):
    """Text that the prompt of an output has for an attempt that was refused.

    Attributes:
        text: with `{{attempt}}` for what was written and `{{error}}` for why it would not do.
        chars_after: characters of the constant before the output that come after it.
    """

    text: str
    chars_after: int = 0

    def told(self, attempt: str, error: str) -> str:
        """The text for an attempt."""
        values = {"attempt": attempt, "error": error}
        return SLOT.sub(lambda match: values[match[1]], self.text)


class Output(msgspec.Struct, frozen=True, tag=True):
    """Where the model writes, with the options said in the placeholder. `line` and `column` are 1-based; without a `form` any text
    will do, and without a `retry` block the prompt's author says nothing of attempts that are refused."""

    name: str
    options: Options = msgspec.field(default_factory=Options)
    line: int = 1
    column: int = 1
    form: OutputType | None = None
    retry: Retry | None = None


Segment = Constant | Input | Output


@dataclass(frozen=True, slots=True)
class Template:
    """A parsed prompt.

    Attributes:
        source: the text it was parsed from.
        segments: its pieces, in order; no two constants are neighbours and none is empty.
        inputs: names needed from outside, in order of first appearance.
        outputs: names that the model writes, in order.
        types: of outputs that are more than text, by name.
        checks: of outputs whose placeholders name one, by name.
    """

    source: str
    segments: tuple[Segment, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    types: Mapping[str, ValueType] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)

    @classmethod
    def parse(
        cls,
        source: str,
        *,
        outputs: Collection[str] = (),
        filename: str = "<semantic>",
        namespace: Mapping[str, Any] | None = None,
    ) -> Template:
        """Parse a prompt. `{{NAME}}` alone is an output where `outputs` has it, else an input.

        Args:
            source: the prompt's text.
            outputs: names that are outputs.
            filename: what errors call the text.
            namespace: names that types may use.

        Raises:
            TemplateError: at the line and column of what is malformed. Linear in the length of `source`.
        """
        return _Parser(source, frozenset(outputs), filename, {} if namespace is None else namespace).parse()

    def typed(self, types: Mapping[str, ValueType]) -> Template:
        """The same prompt with types for outputs that have none in it."""
        segments = tuple(
            msgspec.structs.replace(segment, form=types[segment.name].form)
            if isinstance(segment, Output) and segment.name in types
            else segment
            for segment in self.segments
        )
        return replace(self, segments=segments, types={**self.types, **types})

    def unparse(self) -> str:
        """A source that parses to the same segments."""
        found: list[str] = []
        for before, segment in zip((None, *self.segments), self.segments, strict=False):
            retry = segment.retry if isinstance(segment, Output) else None
            if retry is not None:
                text = before.text if isinstance(before, Constant) else ""
                kept = found.pop() if text else ""
                cut = len(_unparsed(Constant(text[: len(text) - retry.chars_after])))
                found += (kept[:cut], f"{{{{retry}}}}{retry.text}{{{{/retry}}}}", kept[cut:])
            found.append(_unparsed(segment))
        return "".join(found)


def _unparsed(segment: Segment) -> str:
    match segment:
        case Constant(text):
            return text.replace("{{", "\\{{")
        case Input(name, fit=fit):
            return f"{{{{input:{name}}}}}" if fit is None else f"{{{{input:{name}, fit={fit!r}}}}}"
        case Output(name, options, form=kind):
            written = "" if kind is None else f": {kind.text}"
            said = "".join(f", {key}={_literal(value)}" for key, value in options.said().items())
            return f"{{{{output:{name}{written}{said}}}}}"


def _literal(value: object) -> str:
    return repr(list(value)) if isinstance(value, tuple) else repr(value)


def type_of(written: TypeExpression, namespace: Mapping[str, Any], error_at: ErrorAt) -> ValueType | None:
    """The type that was written; None for `str`. Raises TemplateError, made by `error_at`."""
    try:
        return value_type(written.type, written.text, namespace)
    except UnusableTypeError as error:
        raise error_at(f"'{_clipped(written.text)}' cannot be the type of an output: {error}.", written.start) from None


def _clipped(text: str, limit: int = 60) -> str:
    return text if len(text) <= limit else text[: limit - 1] + "…"


class _Parser:
    def __init__(self, source: str, outputs: frozenset[str], filename: str, namespace: Mapping[str, Any]) -> None:
        self.source = source
        self.declared_outputs = outputs
        self.filename = filename
        self.namespace = namespace
        self.types: dict[str, ValueType] = {}
        self.checks: dict[str, Check] = {}
        self.block: tuple[re.Match[str], int] | None = None  # that belongs to the output that follows
        self.last_end = max((match.start() for match in _END.finditer(source)), default=0)
        self.line_starts = [0, *(match.end() for match in re.finditer("\n", source))]

    def parse(self) -> Template:
        self._refuse_surrogates()
        source, segments, constant = self.source, list[Segment](), list[str]()
        position = 0
        while (opening := source.find("{{", position)) >= 0:
            if opening > position and source[opening - 1] == "\\":
                constant += (source[position : opening - 1], "{{")
                position = opening + 2
                continue
            while source.startswith("{", opening + 2):
                opening += 1
            constant.append(source[position:opening])
            if opening < self.last_end and (block := _BLOCK.match(source, opening)) is not None:
                self._begin_block(block, sum(map(len, constant)))
                position = block.end()
                continue
            placeholder = parse_placeholder(source, opening, self._error, self.namespace)
            text = "".join(constant)
            if text:
                segments.append(Constant(text))
            constant = []
            segments.append(self._with_block(self._segment(placeholder, opening), len(text)))
            position = placeholder.end
        if text := "".join((*constant, source[position:])):
            segments.append(Constant(text))
        self._no_block()
        return self._checked(segments)

    def _begin_block(self, block: re.Match[str], num_chars: int) -> None:
        """A block about attempts stands after so many characters of a constant."""
        self._no_block()
        for inner in re.finditer(r"\{\{", block[1]):
            if SLOT.match(block[1], inner.start()) is None:
                index = block.start(1) + inner.start()
                raise self._error(
                    "Between {{retry}} and {{/retry}} there is only {{attempt}}, {{error}} and text: take this out.", index
                )
        self.block = block, num_chars

    def _with_block(self, segment: Input | Output, num_chars: int) -> Input | Output:
        """The segment after a constant of so many characters, with the block that stands in that."""
        if self.block is None or not isinstance(segment, Output):
            self._no_block()
            return segment
        (block, start), self.block = self.block, None
        return msgspec.structs.replace(segment, retry=Retry(block[1], num_chars - start))

    def _no_block(self) -> None:
        if self.block is not None:
            raise self._error("{{retry}} must stand in the text right before its output: move it there.", self.block[0].start())

    def _segment(self, placeholder: Placeholder, opening: int) -> Input | Output:
        line, column = self._position(opening)
        role = placeholder.role or ("output" if placeholder.name in self.declared_outputs else "input")
        if role == "output":
            if placeholder.fit is not None:
                raise self._error("fit belongs to an input: it says where a text that is too long is cut.", opening)
            if placeholder.check is not None:
                self.checks[placeholder.name] = placeholder.check
            kind = None if placeholder.type is None else self._type(placeholder.name, placeholder.type)
            return Output(placeholder.name, placeholder.options, line, column, None if kind is None else kind.form)
        if placeholder.type is not None and placeholder.type.type is not str:
            raise self._error(
                "An input is always text: leave its type out; the value of a call is turned into text by str().",
                placeholder.type.start,
            )
        if placeholder.has_options and (placeholder.fit is None or placeholder.options.said() or placeholder.check is not None):
            raise self._error(
                f"An input takes no options but fit: write {{{{input:{placeholder.name}}}}}, or {{{{input:{placeholder.name}, "
                'fit="middle"}}.',
                opening,
            )
        return Input(placeholder.name, line, column, placeholder.fit)

    def _type(self, name: str, written: TypeExpression) -> ValueType | None:
        found = type_of(written, self.namespace, self._error)
        if found is not None:
            self.types[name] = found
        return found

    def _checked(self, segments: list[Segment]) -> Template:
        written: list[str] = []
        inputs: dict[str, Input] = {}
        for segment in segments:
            if isinstance(segment, Output):
                if segment.name in written:
                    raise self._error_at(
                        segment, f"'{segment.name}' is already an output of this prompt: give this one another name."
                    )
                if segment.name in inputs:
                    raise self._error_at(
                        segment,
                        f"'{segment.name}' is read before it is written: give the output another name, or put the input after it.",
                    )
                written.append(segment.name)
            elif isinstance(segment, Input) and segment.name not in written:
                inputs.setdefault(segment.name, segment)
        return Template(self.source, tuple(segments), tuple(inputs), tuple(written), self.types, self.checks)

    def _refuse_surrogates(self) -> None:
        try:
            self.source.encode()
        except UnicodeEncodeError as error:
            code = ord(self.source[error.start])
            message = f"The prompt holds half a character (lone surrogate U+{code:04X}): take it out."
            raise self._error(message, error.start) from None

    def _position(self, index: int) -> tuple[int, int]:
        line = bisect.bisect_right(self.line_starts, index)
        return line, index - self.line_starts[line - 1] + 1

    def _error(self, message: str, index: int) -> TemplateError:
        line, column = self._position(index)
        end = self.line_starts[line] if line < len(self.line_starts) else len(self.source)
        text = self.source[self.line_starts[line - 1] : end].rstrip("\r\n")
        return TemplateError(message, line=line, column=column, text=text, filename=self.filename)

    def _error_at(self, segment: Output, message: str) -> TemplateError:
        return self._error(message, self.line_starts[segment.line - 1] + segment.column - 1)
