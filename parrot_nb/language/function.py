"""Semantic functions: a template with a signature. Calling one runs nothing; it adds a call to the graph."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, Self, overload

from parrot_nb.errors import OptionError, TemplateError
from parrot_nb.language import calling
from parrot_nb.language.calls import Call
from parrot_nb.language.checks import Check, checked_check, passes
from parrot_nb.language.examples import examples_of, with_examples
from parrot_nb.language.graph_function import GraphFunction
from parrot_nb.language.host import RenderedSegment, current_host
from parrot_nb.language.nodes import Span, VariableNode
from parrot_nb.language.options import Options
from parrot_nb.language.signatures import callers_names, names_of, returned_types
from parrot_nb.language.static import A, B, C, D, Params, T, V_co
from parrot_nb.language.tabular import calls_over_table
from parrot_nb.language.template import Constant, Output, Template
from parrot_nb.language.text import to_text
from parrot_nb.language.types import CHOICES_EXAMPLE, ValueType, unscorable
from parrot_nb.language.variable import SemanticVariable, VariableList, joined_list

UNSCORED = ("begin", "retries", "logprobs")  # options of a placeholder that contradict its score

if TYPE_CHECKING:
    from typing_extensions import TypedDict, Unpack

    from parrot_nb.language.graph_function import Outputs

    class Settings(TypedDict, total=False):
        """The arguments of `SemanticFunction` by name."""

        name: str | None
        parameters: Sequence[inspect.Parameter] | None
        outputs: Sequence[str] | None
        options: Options | None
        types: Mapping[str, ValueType] | None
        check: Check | None
        namespace: Mapping[str, Any] | None


class SemanticFunction(GraphFunction[Params, V_co]):
    """A prompt as a function. Immutable: `options` makes a copy.

    Also a decorator for a Python function whose docstring is the template; its body is never run.

    Args:
        template: the prompt's text, a parsed template, or such a Python function.
        name: what to call it.
        parameters: its parameters; the template's inputs, in order of first appearance, when None.
        outputs: its outputs, in order; as the template has them when None. Makes `{{NAME}}` an output.
        options: how to generate, unless a placeholder says otherwise.
        types: of outputs whose placeholders name none.
        check: a condition on the values of outputs whose placeholders name none: a function that returns True, or returns False or
            raises where a value will not do.
        namespace: names that the types in a text may use; those of the caller when None.

    Raises:
        TemplateError: the template is malformed, has no output, or does not fit the signature.
    """

    @overload
    def __init__(self: SemanticFunction[..., Any], template: str | Template, **settings: Unpack[Settings]) -> None: ...
    @overload
    def __init__(self: SemanticFunction[Params, Any], template: Callable[Params, None], **settings: Unpack[Settings]) -> None: ...
    @overload
    def __init__(
        self: SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B]]],
        template: Callable[Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B]]],
        **settings: Unpack[Settings],
    ) -> None: ...
    @overload
    def __init__(
        self: SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C]]],
        template: Callable[Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B], C | SemanticVariable[C]]],
        **settings: Unpack[Settings],
    ) -> None: ...
    @overload
    def __init__(
        self: SemanticFunction[
            Params, Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C], SemanticVariable[D]]
        ],
        template: Callable[
            Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B], C | SemanticVariable[C], D | SemanticVariable[D]]
        ],
        **settings: Unpack[Settings],
    ) -> None: ...
    @overload
    def __init__(
        self: SemanticFunction[Params, SemanticVariable[T]],
        template: Callable[Params, SemanticVariable[T]],
        **settings: Unpack[Settings],
    ) -> None: ...
    @overload
    def __init__(
        self: SemanticFunction[Params, SemanticVariable[T]], template: Callable[Params, T], **settings: Unpack[Settings]
    ) -> None: ...
    def __init__(
        self,
        template: str | Template | Callable[..., Any],
        *,
        name: str | None = None,
        parameters: Sequence[inspect.Parameter] | None = None,
        outputs: Sequence[str] | None = None,
        options: Options | None = None,
        types: Mapping[str, ValueType] | None = None,
        check: Check | None = None,
        namespace: Mapping[str, Any] | None = None,
    ) -> None:
        function = template if callable(template) and not isinstance(template, Template) else None
        if not isinstance(template, Template):
            namespace = callers_names() if namespace is None else namespace
        if callable(template) and not isinstance(template, Template):
            name, parameters, template = _from_python(template, name, parameters, namespace or {})
        if isinstance(template, str):
            template = Template.parse(template, outputs=outputs or (), namespace=namespace)
        template = _with_types(template, types or {})
        self.name = name or "semantic"
        self.template = template
        self.settings = options or Options()
        _check_scores(self.name, template, self.settings)
        self.check = None if check is None else checked_check(check)
        self.output_names = _check_outputs(template, outputs)
        self.signature = _signature(self.name, template, parameters)
        self._base: SemanticFunction | None = None  # the function without examples, of one that has some
        self._define(self.name, function)
        self.__signature__ = self.signature
        self.__doc__ = f"{self.name}{self.signature} -> {', '.join(self.output_names)}\n\n{template.source}"

    def make_call(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        """A call for these arguments, not yet submitted; raises as calling does."""
        bound = calling.bind(self.name, self.signature, args, kwargs)
        inputs = {key: self._input(key, value) for key, value in bound.items()}
        return Call(self, "semantic", inputs, self.output_names, self.settings)

    def options(self, /, **options: Any) -> Self:
        """A copy with other settings, such as `f.options(temperature=0.7, seed=7)`.

        Args:
            options: by name; those of `Options`, and `check`, which None takes away. What a placeholder says itself stays as it is.

        Raises:
            OptionError: an unknown option or an unusable value.
        """
        copy = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        if "check" in options:
            check = options.pop("check")
            copy.check = None if check is None else checked_check(check)
        copy.settings = Options.checked(**options).over(self.settings)
        _check_scores(self.name, self.template, copy.settings)
        return copy

    def with_examples(self, table: Any, /, **columns: str) -> SemanticFunction:
        """A copy that shows the model examples first: the prompt, filled in, once for each row of a table. It takes the place of
        examples that the function has already.

        Args:
            table: a data frame or an iterable of dicts, with a column for each input and each output.
            columns: the column of an input or output, where it has another name.

        Raises:
            ArgumentError: a column that is not there, or a cell that is no value of its output.
        """
        base = self._base or self
        called = f"{base.name}.with_examples()"
        examples = examples_of(table, (*base.template.inputs, *base.output_names), columns, called)
        copy: SemanticFunction = object.__new__(type(self))
        copy.__dict__.update(self.__dict__)
        parameters = list(base.signature.parameters.values())
        copy.template, given = with_examples(base.template, parameters, examples, called)
        copy.signature = copy.__signature__ = inspect.Signature(given)
        copy._base = base
        return copy

    def estimate(self, /, *args: Any, **kwargs: Any) -> Any:
        """Plan what calling this would run: `map` where an argument is a list or a table, else one call. Loads the model and runs
        nothing.

        Returns:
            A `Plan`: exact tokens of each prompt, what is shared or known already, what does not fit, the likely seconds.

        Raises:
            ArgumentError: missing, extra or doubled arguments, or lists of different lengths.
            InputValueError: a plain value has no one obvious text.
            ModelError: the model cannot be had.
        """
        if (calls := calls_over_table(self, args, kwargs)) is None:
            calls = calling.calls_of(self, args, kwargs) if calling.maps(args, kwargs) else [self.make_call(args, kwargs)]
        return current_host().plan(calls)

    def render(self, /, *args: Any, **kwargs: Any) -> tuple[RenderedSegment, ...]:
        """The prompt for these inputs, segment by segment, as text and token ids. Loads the model and runs nothing.

        Returns:
            `RenderedSegment`s, in order; a variable without value yet has no text and no ids, and so has an output.

        Raises:
            ArgumentError: missing, extra or doubled arguments.
            ModelError: the model cannot be had.
        """
        bound = calling.bind(self.name, self.signature, args, kwargs)
        host = current_host()
        return host.render(self, {key: self._input(key, value) for key, value in bound.items()})

    @property
    def has_examples(self) -> bool:
        """True if `with_examples` made this function."""
        return self._base is not None

    @property
    def checked(self) -> tuple[str, ...]:
        """Names of the outputs whose texts may be refused though they obey their types."""
        refusing = {name for name, kind in self.template.types.items() if kind.form.refuses}
        return tuple(name for name in self.template.outputs if name in refusing or self.check_of(name) is not None)

    def check_of(self, output: str) -> Check | None:
        """The condition on the value of an output; None where there is none."""
        return self.template.checks.get(output, self.check)

    def value_of(self, output: str, text: str) -> Any:
        """The value that the text of an output stands for. Raises whatever says that it stands for none."""
        kind = self.template.types.get(output)
        value = text if kind is None else kind.read(text)
        if (check := self.check_of(output)) is not None:
            passes(check, value)
        return value

    def _input(self, parameter: str, value: Any) -> VariableNode:
        if isinstance(value, SemanticVariable):
            return value.node
        value = calling.gathered(value, f"argument '{parameter}' of {self.name}()")
        if isinstance(value, VariableList):
            return joined_list(value)
        text = to_text(value, f"argument '{parameter}' of {self.name}()")
        node = VariableNode(parameter)
        node.resolve(value, spans=(Span(text),))
        return node

    def __repr__(self) -> str:
        return f"<semantic function {self.name}{self.signature} -> {', '.join(self.output_names)}>"


class SemanticDecorator(Protocol):
    """Decorator that `semantic_function` returns where it is given options."""

    @overload
    def __call__(self, function: Callable[Params, None], /) -> SemanticFunction[Params, Any]: ...
    @overload
    def __call__(
        self, function: Callable[Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B]]], /
    ) -> SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B]]]: ...
    @overload
    def __call__(
        self, function: Callable[Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B], C | SemanticVariable[C]]], /
    ) -> SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C]]]: ...
    @overload
    def __call__(
        self,
        function: Callable[
            Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B], C | SemanticVariable[C], D | SemanticVariable[D]]
        ],
        /,
    ) -> SemanticFunction[
        Params, Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C], SemanticVariable[D]]
    ]: ...
    @overload
    def __call__(self, function: Callable[Params, SemanticVariable[T]], /) -> SemanticFunction[Params, SemanticVariable[T]]: ...
    @overload
    def __call__(self, function: Callable[Params, T], /) -> SemanticFunction[Params, SemanticVariable[T]]: ...


@overload
def semantic_function(function: Callable[Params, None], /, **options: Any) -> SemanticFunction[Params, Any]: ...
@overload
def semantic_function(
    function: Callable[Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B]]], /, **options: Any
) -> SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B]]]: ...
@overload
def semantic_function(
    function: Callable[Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B], C | SemanticVariable[C]]],
    /,
    **options: Any,
) -> SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C]]]: ...
@overload
def semantic_function(
    function: Callable[
        Params, tuple[A | SemanticVariable[A], B | SemanticVariable[B], C | SemanticVariable[C], D | SemanticVariable[D]]
    ],
    /,
    **options: Any,
) -> SemanticFunction[Params, Outputs[SemanticVariable[A], SemanticVariable[B], SemanticVariable[C], SemanticVariable[D]]]: ...
@overload
def semantic_function(
    function: Callable[Params, SemanticVariable[T]], /, **options: Any
) -> SemanticFunction[Params, SemanticVariable[T]]: ...
@overload
def semantic_function(function: Callable[Params, T], /, **options: Any) -> SemanticFunction[Params, SemanticVariable[T]]: ...
@overload
def semantic_function(function: None = None, /, **options: Any) -> SemanticDecorator: ...
def semantic_function(function: Callable[..., Any] | None = None, /, **options: Any) -> Any:
    """Decorator: a Python function whose docstring is the template becomes a semantic function.

    Bare (`@P.semantic_function`) or with options (`@P.semantic_function(max_tokens=64)`).

    Args:
        function: whose docstring is the prompt; its body is never run. What it is said to return is the type of its output
            (`-> int`), of several outputs as a tuple (`-> tuple[int, str]`); other annotations are not looked at.
        options: how to generate, by name; those of `Options`, and `check`, a condition on the values.

    Returns:
        A `SemanticFunction`, or what makes one of a function.

    Raises:
        TemplateError: the docstring is malformed, or does not fit the parameters.
        OptionError: an unknown option or an unusable value.
    """
    check = options.pop("check", None)
    made = partial(SemanticFunction, options=Options.checked(**options), check=check, namespace=callers_names())
    return made if function is None else made(function)


def _from_python(
    function: Callable[..., Any], name: str | None, parameters: Sequence[inspect.Parameter] | None, namespace: Mapping[str, Any]
) -> tuple[str, Sequence[inspect.Parameter], Template]:
    name = name or str(getattr(function, "__name__", "semantic"))
    if not inspect.isfunction(function):
        raise TemplateError(
            f"'{name}' is not a plain function: decorate a def whose docstring is the prompt.", text=f"def {name}(...)"
        )
    if inspect.iscoroutinefunction(function):
        raise TemplateError(
            f"'{name}' is an async function: a semantic function is a plain def, and its variables can be awaited.",
            text=f"async def {name}(...)",
        )
    if not function.__doc__:
        raise TemplateError(f"'{name}' has no docstring: its docstring is the prompt.", text=f"def {name}(...)")
    names = names_of(function, namespace)
    template = Template.parse(inspect.cleandoc(function.__doc__), filename=f"<docstring of {name}>", namespace=names)
    template = _with_types(template, returned_types(function, name, template.outputs, names))
    if parameters is None:
        parameters = tuple(inspect.signature(function).parameters.values())
    if parameters and parameters[0].name in ("self", "cls") and parameters[0].name not in template.inputs:
        raise TemplateError(f"'{name}' is a method: write it as a plain def outside of the class.", text=f"def {name}(...)")
    return name, parameters, template


def _with_types(template: Template, types: Mapping[str, ValueType]) -> Template:
    """The prompt with the types of its signature."""
    for name, kind in types.items():
        if name in template.types and template.types[name].form != kind.form:
            raise _at(
                template, name, f"The signature says '{kind.form.text}' of '{name}', and its placeholder another type: keep one."
            )
    return template.typed(types) if types else template


def _check_scores(name: str, template: Template, settings: Options) -> None:
    """Refuse to score an output that has no choices, or whose choices cannot be told apart."""
    outputs = [segment for segment in template.segments if isinstance(segment, Output)]
    for output in outputs:
        reason = unscorable(template.types.get(output.name))
        if output.options.score and reason is not None:
            raise _at(template, output.name, f"'{output.name}' cannot be scored: {reason}.")
        if output.options.score and (said := [each for each in UNSCORED if getattr(output.options, each) is not None]):
            raise _at(template, output.name, f"'{output.name}' is scored, so {said[0]} has nothing to say: leave it out.")
    if settings.score:
        choices = [kind for kind in template.types.values() if kind.form.kind == "choices"]
        if not choices:
            raise OptionError(f"'{name}' has no output whose choices could be scored: write them, as in {CHOICES_EXAMPLE}.")
        if reason := next((reason for kind in choices if (reason := unscorable(kind)) is not None), None):
            raise OptionError(f"'{name}' has an output that cannot be scored: {reason}.")


def _check_outputs(template: Template, declared: Sequence[str] | None) -> tuple[str, ...]:
    if not template.outputs:
        raise _at_start(template, "The prompt has no output: write {{output:NAME}} where the model should write.")
    if len(template.outputs) > 1 and (hidden := next((n for n in template.outputs if n.startswith("_")), None)):
        raise _at(template, hidden, f"Of several outputs none may begin with _: rename '{hidden}'.")
    if declared is None:
        return template.outputs
    for name in declared:
        if name not in template.outputs:
            raise _at_start(
                template, f"The signature has the output '{name}', the prompt does not: write {{{{output:{name}}}}} in it."
            )
    for name in template.outputs:
        if name not in declared:
            raise _at(template, name, f"The prompt has the output '{name}', the signature does not: add it after ->.")
    return tuple(declared)


def _signature(name: str, template: Template, parameters: Sequence[inspect.Parameter] | None) -> inspect.Signature:
    if parameters is None:
        return inspect.Signature([inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in template.inputs])
    given = [parameter.name for parameter in parameters]
    for parameter in parameters:
        if parameter.kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD):
            raise _at_start(template, f"A prompt has a fixed number of inputs: name them instead of '*{parameter.name}'.")
        if parameter.name in template.outputs:
            raise _at_start(template, f"'{parameter.name}' is an output of the prompt: take it out of the parameters.")
        if parameter.name not in template.inputs:
            raise _at_start(
                template, f"The prompt does not use the parameter '{parameter.name}': write {{{{input:{parameter.name}}}}} in it."
            )
    for needed in template.inputs:
        if needed not in given:
            raise _at(
                template, needed, f"The prompt uses '{needed}', which is no parameter: add it to {name}({', '.join(given)})."
            )
    return inspect.Signature([p.replace(annotation=inspect.Parameter.empty) for p in parameters])


def _at(template: Template, name: str, message: str) -> TemplateError:
    """The error, at the first placeholder called `name`."""
    segment = next(s for s in template.segments if not isinstance(s, Constant) and s.name == name)
    text = template.source.split("\n")[segment.line - 1].rstrip("\r")
    return TemplateError(message, line=segment.line, column=segment.column, text=text)


def _at_start(template: Template, message: str) -> TemplateError:
    return TemplateError(message, text=template.source.split("\n", 1)[0].rstrip("\r"))
