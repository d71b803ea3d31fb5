"""Chat templates as programs: a sandbox for them that also bounds what their operators make.

jinja2's sandbox keeps a template from attributes and calls that lead out of it, not from `9**(9**9)` or `'a' * 10**9`, which
hold the interpreter's lock, so that no other thread could break them off, or fill the memory. Filters, functions and
statements are those that `transformers` gives to templates.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

MAX_BITS = 4096  # of a number
MAX_ITEMS = 10_000_000  # characters of a text, or items of a list
WIDE_FORMAT = re.compile(r"%[^%a-zA-Z]*(\d{5}|\*)")  # a text of any width that it says, or that it is given


def compile_template(source: str) -> Template:
    """A chat template, ready to render. Raises jinja2.TemplateError where it is none."""
    from jinja2 import nodes, pass_eval_context
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Bounded(ImmutableSandboxedEnvironment):
        """A sandbox whose operators refuse to make what is too large."""

        intercepted_binops = frozenset({"**", "*", "+", "%"})

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            if _size(operator, left, right) > 1:
                raise SecurityError(f"The operator {operator} would make something too large.")
            return super().call_binop(context, operator, left, right)

    class Generation(Extension):
        """The statement around what an assistant says; it writes its body."""

        tags = {"generation"}  # noqa: RUF012 - as its base class declares it

        def parse(self, parser: Any) -> nodes.Node:
            line = next(parser.stream).lineno
            body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
            return nodes.CallBlock(self.call_method("_body"), [], [], body).set_lineno(line)

        @pass_eval_context
        def _body(self, _context: Any, caller: Any) -> str:
            return str(caller())

    class Names(Namespace):
        """A namespace without names that lead to Python's own attributes."""

        def __init__(*args: Any, **values: Any) -> None:
            Namespace.__init__(*args, **values)
            for name in dict(*args[1:], **values):
                _check(name)

        def __setitem__(self, name: str, value: Any) -> None:
            _check(name)
            super().__setitem__(name, value)

    def _check(name: str) -> None:
        if name.startswith("_"):
            raise SecurityError(f"A template may not name something {name!r}.")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)

    def now(style: str) -> str:
        return datetime.now().astimezone().strftime(style)

    def make_dict(*args: Any, **values: Any) -> dict[Any, Any]:  # and not the type, which has more to it
        return dict(*args, **values)

    environment = Bounded(trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols])
    environment.filters["tojson"] = tojson
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": now,
        "namespace": Names,
        "dict": make_dict,
    }
    return environment.from_string(source)


def _size(operator: str, left: Any, right: Any) -> float:
    """The size of what an operator makes, as a share of what it may."""
    match operator, left, right:
        case "**", int(), int():
            return abs(left).bit_length() * max(right, 0) / MAX_BITS
        case "*", int(), int():
            return (left.bit_length() + right.bit_length()) / MAX_BITS
        case "*", int(), (str() | list() | tuple()):
            return left * len(right) / MAX_ITEMS
        case "*", (str() | list() | tuple()), int():
            return len(left) * right / MAX_ITEMS
        case "+", (str() | list() | tuple()), (str() | list() | tuple()):
            return (len(left) + len(right)) / MAX_ITEMS
        case "%", str(), _:
            return 2 * bool(WIDE_FORMAT.search(left))
    return 0
