"""The functions of a notebook as source text that stands by itself: prompts, Python functions, and what those use."""

from __future__ import annotations

import ast
import builtins
import inspect
import keyword
import textwrap
import types
from collections.abc import Iterable, Iterator
from typing import Any

from parrot_nb.errors import TemplateError, TraceError
from parrot_nb.language import NativeFunction, Options, SemanticFunction, Template

LINE = 100  # characters; a longer text becomes a constant of its own
RESERVED = {"P", "inspect", "_name", "_variable"}  # used by the script itself


class Names:
    """Names that are taken once each."""

    def __init__(self) -> None:
        self._taken = set(RESERVED) | set(dir(builtins)) | set(keyword.kwlist)

    def take(self, wanted: str) -> str:
        """The name, with a number where it is taken; another where it is none."""
        base = wanted if wanted.isidentifier() else "text"
        name, number = base, 2
        while name in self._taken:
            name, number = f"{base}_{number}", number + 1
        self._taken.add(name)
        return name


def literal(value: Any, where: str) -> str:
    """A plain value as Python writes it.

    Raises:
        TraceError: a script cannot hold it.
    """
    written = repr(value)
    try:
        same = ast.literal_eval(written) == value
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        same = False
    if not (isinstance(same, bool) and same):
        raise TraceError(f"{where} is a {type(value).__name__}, which a script cannot hold: give it as text or numbers.")
    return written


def long_text(name: str, text: str) -> str:
    """A constant with lines as they read, where that is exact."""
    body = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    shown = f'"""\\\n{body}"""' if not body.endswith('"') else ""
    if not shown or _value(shown) != text:
        shown = repr(text)
    return f"{name} = {shown}"


def semantic_source(function: SemanticFunction, name: str, options: Options) -> str:
    """A prompt without checks (`refuse_names`) as a decorated function where its docstring says it exactly, else made from its text."""
    said = ", ".join(f"{key}={list(value) if isinstance(value, tuple) else value!r}" for key, value in options.said().items())
    decorator = f"@P.semantic_function({said})" if said else "@P.semantic_function"
    body = function.template.source.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    text = f"{decorator}\ndef {name}{function.signature}:\n{textwrap.indent(f'{chr(34) * 3}{body}{chr(34) * 3}', '    ')}"
    if name == function.name and _means(text, function):
        return text
    parameters = ", ".join(str(p) for p in function.signature.parameters.values())
    made = (
        f"{name} = P.SemanticFunction(\n    {function.template.source!r},\n    name={function.name!r},\n"
        f"    parameters=list(inspect.signature(lambda {parameters}: None).parameters.values()),\n"
        f"    outputs={list(function.output_names)!r},\n)"
    )
    return f"{made}.options({said})" if said else made


def refuse_names(function: SemanticFunction) -> None:
    """Refuse a prompt whose types or checks are names of the notebook.

    Raises:
        TraceError: it has some.
    """
    checked = [name for name in function.output_names if function.check_of(name) is not None]
    if checked:
        raise TraceError(
            f"'{function.name}' checks '{checked[0]}', which a script cannot take over: leave check= out of what you export."
        )
    try:
        again = Template.parse(function.template.source, outputs=function.template.outputs, namespace={})
    except TemplateError:
        again = None
    if again is None or again.segments != function.template.segments:
        raise TraceError(
            f"'{function.name}' has types that a script cannot take over: write them in the placeholders, of numbers, choices and lists."
        )


def _means(text: str, function: SemanticFunction) -> bool:
    """Whether a decorated function's docstring is the prompt to the byte, and declares its outputs in its order."""
    try:
        (definition,) = ast.parse(text).body
    except (SyntaxError, ValueError):
        return False
    docstring = ast.get_docstring(definition) if isinstance(definition, ast.FunctionDef) else None
    if docstring != function.template.source:
        return False
    try:
        again = SemanticFunction(docstring, name=function.name)
    except Exception:  # such as a placeholder without a role, whose role the magic line gave
        return False
    return again.output_names == function.output_names and again.template.segments == function.template.segments


class Sources:
    """Python functions with all they use of the notebook, each once and before who uses it."""

    def __init__(self, names: Names) -> None:
        self.imports: dict[str, None] = {"import parrot_nb as P": None}
        self.parts: list[str] = []
        self._names = names
        self._done: dict[int, str] = {}
        self._kept: dict[str, Any] = {}  # names of the notebook that the script has under the same name

    def native(self, function: NativeFunction) -> str:
        """The name of a native function in the script."""
        if id(function) in self._done:
            return self._done[id(function)]
        inner = function.function
        if not _is_notebooks(inner):
            expression = self._imported(inner, f"Native function '{function.name}'")
            name = self._names.take(function.name)
            self.parts.append(f"{name} = P.native_function({expression}, name={function.name!r})")
        else:
            text = self._text(inner, function.name)
            self._needs(inner, text, function.name)
            name = self._names.take(function.name)
            own = getattr(inner, "__name__", "")
            if text.startswith(("def ", "async def ")) and own == name:
                self.parts.append(f"@P.native_function\n{text}")
            elif text.startswith(("def ", "async def ")):
                self.parts.append(f"{text}\n\n\n{name} = P.native_function({own}, name={function.name!r})")
            else:
                self.parts.append(f"{name} = P.native_function({text}, name={function.name!r})")
        self._done[id(function)] = name
        return name

    def plain(self, function: Any, what: str) -> str:
        """An expression for a Python function that the script calls itself, such as a condition."""
        if not _is_notebooks(function):
            return self._imported(function, what)
        text = self._text(function, what)
        self._needs(function, text, what)
        if text.startswith("lambda"):
            return text
        self._keep(function.__name__, function, text)
        return str(function.__name__)

    def _imported(self, function: Any, what: str) -> str:
        module, path = getattr(function, "__module__", None), getattr(function, "__qualname__", "")
        if module == "builtins" or (module is None and isinstance(function, types.MethodDescriptorType)):
            return path
        if not module or "<" in path:
            raise TraceError(f"{what} has no source that a script could hold: write it as a def in a cell.")
        self.imports[f"import {module}"] = None
        return f"{module}.{path}"

    def _text(self, function: Any, what: str) -> str:
        """The source of a function of the notebook, from its def or lambda on."""
        try:
            lines = textwrap.dedent(inspect.getsource(function))
            tree = ast.parse(lines)
        except (OSError, TypeError, SyntaxError):
            raise TraceError(f"'{what}' has no source that a script could hold: define it in a cell with def.") from None
        if getattr(function, "__closure__", None):
            raise TraceError(f"'{what}' uses variables of the function around it: define it at the top of a cell.")
        for node in ast.walk(tree):
            if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == function.__name__:
                self._check_decorators(node, what)
                return "\n".join(lines.splitlines()[node.lineno - 1 : node.end_lineno])
        lambdas = [node for node in ast.walk(tree) if isinstance(node, ast.Lambda)]
        if len(lambdas) != 1:
            raise TraceError(f"'{what}' has no source that a script could hold: define it in a cell with def.")
        return ast.unparse(lambdas[0])

    @staticmethod
    def _check_decorators(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef, what: str) -> None:
        for decorator in map(ast.unparse, node.decorator_list):
            if "native_function" not in decorator:
                raise TraceError(f"'{what}' has the decorator @{decorator}, which a script cannot take over: define it without.")

    def _needs(self, function: Any, text: str, what: str) -> None:
        """Bring along what a function uses of the notebook."""
        scope = getattr(function, "__globals__", {})
        for name in _globals_of(function, text):
            if name not in scope or name == getattr(function, "__name__", ""):
                continue
            value = scope[name]
            if hasattr(builtins, name) and str(getattr(value, "__module__", None)).partition(".")[0] in FRONT_END:
                continue  # a notebook's own open() and exit() are the usual ones in a script
            if self._kept.get(name, _NONE) is value:
                continue
            if isinstance(value, types.ModuleType):
                plain = value.__name__ == name
                self.imports[f"import {value.__name__}" if plain else f"import {value.__name__} as {name}"] = None
                self._reserve(name, value)
            elif isinstance(value, (types.FunctionType, type)) and not _is_notebooks(value):
                self.imports[f"from {value.__module__} import {value.__name__}" + f" as {name}" * (value.__name__ != name)] = None
                self._reserve(name, value)
            elif isinstance(value, (types.FunctionType, type)):
                inner = self._text(value, name)
                self._kept[name] = value  # first, since it may call itself or be called by what it calls
                self._needs(value, inner, name)
                self._keep(name, value, inner)
            else:
                self._keep(name, value, f"{name} = {literal(value, f'{name!r}, which {what!r} uses,')}")

    def _keep(self, name: str, value: Any, text: str) -> None:
        self._reserve(name, value)
        if text not in self.parts:
            self.parts.append(text)

    def _reserve(self, name: str, value: Any) -> None:
        """The script has this under the notebook's name, which no variable may take then."""
        self._kept[name] = value
        self._names.take(name)


FRONT_END = ("builtins", "io", "_io", "IPython", "ipykernel")
_NONE = object()


def _is_notebooks(function: Any) -> bool:
    """Whether it was made in the notebook (or script), and is in no module that could be imported."""
    return getattr(function, "__module__", None) in ("__main__", None) and not isinstance(function, types.MethodDescriptorType)


def _globals_of(function: Any, text: str) -> list[str]:
    """Names that a function or class looks up outside of it: by its code, and where it is defined."""
    found: dict[str, None] = {}
    codes = [function.__code__] if hasattr(function, "__code__") else []
    while codes:
        code = codes.pop()
        found.update(dict.fromkeys(code.co_names))
        codes += [constant for constant in code.co_consts if isinstance(constant, types.CodeType)]
    found.update(dict.fromkeys(_outer_names(text, whole=not hasattr(function, "__code__"))))
    return list(found)


def _outer_names(text: str, *, whole: bool) -> Iterator[str]:
    (statement,) = ast.parse(text).body
    nodes: Iterable[ast.AST] = [statement]
    if isinstance(statement, (ast.FunctionDef, ast.AsyncFunctionDef)) and not whole:
        nodes = [statement.args, *([statement.returns] if statement.returns else [])]
    for node in nodes:
        yield from (inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name))


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return None
