"""Chat templates as programs: a sandbox for them in which all that they do is charged to a budget.

jinja2's sandbox keeps a template from attributes and calls that lead out of it, not from `9**(9**9)`, `'a' * 10**9` or loops in
loops, which hold the interpreter's lock, so that no other thread could break them off, or fill the memory. Filters, functions and
statements are those that `transformers` gives to templates, less a few that no template in use has and that cannot be bounded.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType
from typing import TYPE_CHECKING, Any

from parrot_nb.engine.embedded.template_budget import (
    CALL_UNITS,
    NODE_UNITS,
    TURN_UNITS,
    Budget,
    TemplateTooLargeError,
)

if TYPE_CHECKING:
    from jinja2 import Environment, Template, nodes

UNBOUNDED_FILTERS = ("pprint", "striptags", "urlize", "xmlattr")
UNBOUNDED_GLOBALS = ("lipsum",)
# Filters that take widths and counts.
NUMBERED_FILTERS = frozenset({"batch", "center", "indent", "replace", "round", "slice", "truncate", "wordwrap"})
FILLING_FILTERS = frozenset({"indent", "join", "replace", "wordwrap"})  # put one text into another many times
# Filters and tests that look at a value's type or length, or pass on one of its items: what it holds costs nothing.
UNREADING_FILTERS = frozenset({"count", "first", "last", "length"})
UNREADING_TESTS = frozenset({
    "boolean", "callable", "defined", "false", "float", "integer", "iterable", "mapping", "none", "number", "sameas", "sequence", "string",
    "true", "undefined",
})  # fmt: skip
PLAIN_TYPES = (str, bytes, int, float, complex, list, tuple, dict, set, frozenset, range)
MAX_INDENT = 64
# Filters that only the compiler puts in: no name in a template's text holds a space.
TURN, TURNS, CUT, JOINED, COMPARED = "a turn", "its turns", "is cut", "is joined", "is compared"


class ChatProgram:
    """A chat template that is ready to render."""

    def __init__(self, template: Template, budget: Budget) -> None:
        self._template = template
        self._budget = budget

    def render(self, **names: Any) -> str:
        """Render with these names.

        Raises:
            TemplateTooLargeError: it does or makes more than it may.
            Exception: whatever a template can raise.
        """
        self._budget.begin()
        return self._template.render(**names)


def compile_template(source: str) -> ChatProgram:
    """A chat template, ready to render. Raises jinja2.TemplateError where it is none."""
    budget = Budget()
    return ChatProgram(_environment(budget).from_string(source), budget)


def _environment(budget: Budget) -> Environment:
    from jinja2 import nodes, pass_context, pass_eval_context
    from jinja2.exceptions import SecurityError, TemplateError
    from jinja2.ext import Extension, loopcontrols
    from jinja2.runtime import Macro
    from jinja2.sandbox import ImmutableSandboxedEnvironment
    from jinja2.utils import Namespace

    class Bounded(ImmutableSandboxedEnvironment):
        """A sandbox that charges what is done in it."""

        intercepted_binops = frozenset({"**", "*", "+", "%", "-", "/", "//"})

        def _parse(self, *args: Any) -> nodes.Template:
            return _charged(super()._parse(*args))

        def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
            budget.operate(operator, left, right)
            return super().call_binop(context, operator, left, right)

        def call(self, context: Any, function: Any, *args: Any, **kwargs: Any) -> Any:
            budget.spend(CALL_UNITS)
            owner = getattr(function, "__self__", None)
            if isinstance(function, BuiltinMethodType) or isinstance(owner, PLAIN_TYPES):
                args = budget.method(owner, function.__name__, args, kwargs)
            elif isinstance(function, Macro):  # its body charges what it does with them
                budget.charge_items(args, tuple(kwargs))
            else:
                budget.charge(*args, *kwargs.values())
            return budget.made(super().call(context, function, *args, **kwargs))

        def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
            wrapped = super().wrap_str_format(value)
            return None if wrapped is None else budget.bounded_format(value.__self__, wrapped)

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
        """A namespace without names that lead to Python's own attributes, and which shows nothing of what it holds."""

        def __init__(*args: Any, **values: Any) -> None:
            Namespace.__init__(*args, **values)
            for name in dict(*args[1:], **values):
                _check(name)

        def __setitem__(self, name: str, value: Any) -> None:
            _check(name)
            super().__setitem__(name, value)

        def __repr__(self) -> str:
            return "<Namespace>"

    def _check(name: str) -> None:
        if name.startswith("_"):
            raise SecurityError(f"A template may not name something {name!r}.")

    def refuse(message: str) -> None:
        raise TemplateError(message)

    def tojson(
        value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
    ) -> str:
        if (len(indent) if isinstance(indent, str) else indent or 0) > MAX_INDENT:
            raise TemplateTooLargeError("indents JSON too far")
        encoder = json.JSONEncoder(ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)
        pieces = []
        for piece in encoder.iterencode(value):  # with an indent, more comes out than goes in
            budget.spend(len(piece))
            pieces.append(piece)
        return "".join(pieces)

    def total(values: Any, attribute: str | int | None = None, start: Any = 0) -> Any:
        from jinja2.filters import make_attrgetter

        of: Any = None if attribute is None else make_attrgetter(environment, attribute)
        for value in values:
            summand = value if of is None else of(value)
            budget.operate("+", start, summand)
            start = start + summand
        return start

    def now(style: str) -> str:
        return datetime.now().astimezone().strftime(style)

    def make_dict(*args: Any, **values: Any) -> dict[Any, Any]:  # and not the type, which has more to it
        return dict(*args, **values)

    @pass_context  # so that jinja2 does not show constants when it compiles
    def shown(_context: Any, value: Any) -> Any:
        budget.charge(value)
        return value

    environment = Bounded(
        trim_blocks=True, lstrip_blocks=True, extensions=[Generation, loopcontrols], optimized=False, finalize=shown
    )
    environment.filters |= {"tojson": tojson, "sum": total}
    environment.globals |= {
        "raise_exception": refuse,
        "strftime_now": now,
        "namespace": Names,
        "dict": make_dict,
    }
    for name in UNBOUNDED_FILTERS:
        environment.filters.pop(name, None)
    for name in UNBOUNDED_GLOBALS:
        environment.globals.pop(name, None)
    filters: dict[str, Any] = environment.filters
    tests: dict[str, Any] = environment.tests
    environment.filters = {name: _filter(name, found, budget, UNREADING_FILTERS) for name, found in filters.items()}
    environment.tests = {name: _filter(name, found, budget, UNREADING_TESTS) for name, found in tests.items()}
    environment.filters |= {
        TURN: budget.spend,
        TURNS: budget.turns,
        CUT: budget.cut,
        COMPARED: budget.made,
        JOINED: lambda values: _joined(budget, values),
    }
    return environment


def _filter(name: str, function: Callable[..., Any], budget: Budget, unreading: Collection[str]) -> Callable[..., Any]:
    """A filter or test that charges what goes in and what comes out, if it reads that."""

    @wraps(function)
    def called(*args: Any, **kwargs: Any) -> Any:
        budget.spend(CALL_UNITS)
        return function(*args, **kwargs)

    if name in unreading:
        return called
    first = 1 + hasattr(function, "jinja_pass_arg")  # after what it is applied to

    @wraps(function)  # with the mark that says what jinja2 passes to it
    def charged(*args: Any, **kwargs: Any) -> Any:
        budget.spend(CALL_UNITS)
        if name in NUMBERED_FILTERS:
            budget.arguments((*args[first:], *kwargs.values()))
        if name in FILLING_FILTERS:
            args = tuple(list(budget.made(arg)) if hasattr(arg, "__next__") else arg for arg in args)
        units = budget.charge(*args, *kwargs.values())
        value, rest = args[first - 1 : first], (*args[first:], *kwargs.values())
        if name == "format":
            budget.formatted(str(args[first - 1]), units)
        elif name in FILLING_FILTERS:
            longest = max((len(part) for part in rest if isinstance(part, str)), default=0)
            widest = max((part for part in rest if isinstance(part, int)), default=0) if name == "indent" else 0
            pieces = max((_num_pieces(part) for part in value), default=0)
            budget.room(units + pieces * max(longest, widest))
        return budget.made(function(*args, **kwargs))

    return charged


def _num_pieces(value: Any) -> int:
    """The most places in a value where something can be put in."""
    return len(value) + 1 if hasattr(value, "__len__") else 1


def _joined(budget: Budget, values: Sequence[Any]) -> str:
    budget.spend(CALL_UNITS)
    budget.room(budget.charge(*values))
    return "".join(map(str, values))


def _charged(tree: nodes.Template) -> nodes.Template:
    """Put charges into a template: for every turn of a loop, every call of a macro or block, and what the compiler does itself."""
    from jinja2 import nodes
    from jinja2.visitor import NodeTransformer

    def through(name: str, node: Any) -> Any:
        return nodes.Filter(node, name, [], [], None, None).set_lineno(node.lineno)

    class Charging(NodeTransformer):
        def generic_visit(self, node: nodes.Node, *args: Any, **kwargs: Any) -> Any:
            weight = _weight(node)
            super().generic_visit(node, *args, **kwargs)
            if isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
                turn = through(TURN, nodes.Const(TURN_UNITS + weight, lineno=node.lineno))
                node.body.insert(0, nodes.ExprStmt(turn, lineno=node.lineno))
            if isinstance(node, nodes.For) and node.test is not None:
                node.iter = through(TURNS, node.iter)
            if isinstance(node, nodes.Compare):
                node.expr = through(COMPARED, node.expr)
                for operand in node.ops:
                    operand.expr = through(COMPARED, operand.expr)
            if isinstance(node, nodes.Getitem) and isinstance(node.arg, nodes.Slice):
                return through(CUT, node)
            if isinstance(node, nodes.Concat):
                return through(JOINED, nodes.List(node.nodes, lineno=node.lineno))
            return node

    def _weight(node: nodes.Node) -> int:
        """Units of what a turn writes and does by itself; loops in it count theirs."""
        if not isinstance(node, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
            return 0
        weight, pending = 0, list(node.body)
        while pending:
            part = pending.pop()
            weight += NODE_UNITS + len(getattr(part, "data", "") if isinstance(part, nodes.TemplateData) else "")
            if not isinstance(part, (nodes.For, nodes.Macro, nodes.CallBlock, nodes.Block)):
                pending += part.iter_child_nodes()
        return weight

    found: nodes.Template = Charging().visit(tree)
    return found
