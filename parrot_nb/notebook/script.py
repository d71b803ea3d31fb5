"""The calls of a session as a plain Python script that runs by itself, and prints what came of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from parrot_nb.errors import TraceError
from parrot_nb.language import Options, SemanticFunction
from parrot_nb.language.calls import Call
from parrot_nb.language.joins import Concatenation
from parrot_nb.language.nodes import VariableNode
from parrot_nb.notebook.sources import LINE, Names, Sources, literal, long_text, refuse_names, semantic_source

MIN_MAP = 3  # so many like calls in a row are written as a map
RACE = "the condition of P.first"
POSITIONAL = 3  # arguments; more are given by name


def script_of(
    calls: Sequence[Call],
    names: Mapping[int, str],
    lists: Mapping[int, str],
    settings: Mapping[str, Any],
    *,
    version: str | None,
) -> str:
    """The script.

    Args:
        calls: in the order in which they were made; those that failed are left out.
        names: what the notebook calls variables, by the ids of their nodes (a list, of its first item).
        lists: in which of its lists a variable is, by the ids of their nodes.
        settings: of the session, as keyword arguments.
        version: of parrot_nb, if it is known.

    Raises:
        TraceError: there is no call, or one that a script cannot make.
    """
    wanted = [call for call in calls if call.state not in ("failed", "cancelled")]
    if not any(call.kind in ("semantic", "native") for call in wanted):
        raise TraceError("There is no call to export: call a function first.")
    return _Script(names, lists).written(wanted, settings, version)


class _Script:
    def __init__(self, names: Mapping[int, str], lists: Mapping[int, str]) -> None:
        self._notebook_names = names
        self._lists_of = lists
        self._names = Names()
        self._sources = Sources(self._names)
        self._expressions: dict[int, str] = {}  # of nodes, by id
        self._lists: dict[str, int] = {}  # names of maps, and how many items they have
        self._constants: dict[str, str] = {}
        self._semantic: dict[Any, tuple[str, SemanticFunction, Options]] = {}
        self._prompts: list[str] = []
        self._lines: list[str] = []
        self._results: dict[str, str] = {}  # printed names -> expressions
        self._made: dict[Any, tuple[VariableNode, ...]] = {}
        self._raced: set[int] = set()  # read by P.first, which may cancel them: not printed

    def written(self, calls: Sequence[Call], settings: Mapping[str, Any], version: str | None) -> str:
        for call in calls:  # first, since what they use keeps its name
            if call.kind == "native":
                self._sources.native(call.native)
            elif call.kind == "first" and call.race.where is not None:
                self._sources.plain(call.race.where.function, RACE)
        self._define([call for call in calls if call.kind == "semantic"])
        read = {node.id for call in calls for node in call.inputs.values()}
        self._raced = {node.id for call in calls if call.kind == "first" for node in call.inputs.values()}
        i = 0
        while i < len(calls):
            count = self._run_length(calls, i)
            if count >= MIN_MAP:
                self._write_map(calls[i : i + count], read)
            else:
                count = 1
                self._write_call(calls[i], read)
            i += count
        arguments = ", ".join(f"{key}={value!r}" for key, value in settings.items())
        results = ", ".join(f'"{shown}": {expression}' for shown, expression in self._results.items())
        if len(results) > LINE:
            results = "\n" + "".join(f'        "{shown}": {e},\n' for shown, e in self._results.items()) + "    "
        imports = [*self._sources.imports]
        if any("inspect.signature" in prompt for prompt in self._prompts):
            imports.insert(0, "import inspect")
        head = f'"""Made by parrot_nb{f" {version}" if version else ""} from a notebook: its functions, its calls, and what came of them."""'
        constants = [long_text(name, text) for text, name in self._constants.items()]
        blocks = self._spaced([*self._sources.parts, *self._prompts])
        sections = [head, self._imports(imports), *constants, *blocks]
        body = "\n".join(f"    {line}" for line in self._lines)
        main = (
            f"with P.Session({arguments}):\n{body}\n"
            f"    for _name, _variable in {{{results}}}.items():\n"
            '        print(f"{_name}: {_variable.get()}")'
        )
        return "\n\n".join(sections) + f"\n\n\n{main}\n"

    @staticmethod
    def _spaced(parts: Sequence[str]) -> list[str]:
        """Return the parts with two empty lines around what is a block."""
        blocks = [part.startswith(("@", "def", "async", "class")) for part in parts]
        return [f"\n{p}" if block or before else p for p, block, before in zip(parts, blocks, [False, *blocks], strict=False)]

    @staticmethod
    def _imports(lines: Sequence[str]) -> str:
        """Ours last, as a package that is installed."""
        usual = sorted((line for line in lines if "parrot_nb" not in line), key=lambda line: line.split()[1])
        own = [line for line in lines if "parrot_nb" in line]
        return "\n".join([*usual, "", *own] if usual else own)

    # Functions

    def _define(self, calls: Sequence[Call]) -> None:
        """Define every prompt once, with those of its first call's options that all its calls set; of several of one name, the last keeps it."""
        copies: dict[Any, dict[int, SemanticFunction]] = {}
        for call in calls:
            copies.setdefault(_key(call.semantic), {})[id(call.semantic)] = call.semantic
        for function in (function for same in copies.values() for function in same.values()):
            refuse_names(function)
        for key, same in reversed(copies.items()):
            function, *others = same.values()
            said = [other.settings.said() for other in others]
            shared = {k: v for k, v in function.settings.said().items() if all(k in other for other in said)}
            self._semantic[key] = self._names.take(function.name), function, Options(**shared)
        for name, function, usual in (self._semantic[key] for key in copies):
            self._prompts.append(semantic_source(function, name, usual))

    def _function(self, call: Call) -> str:
        if call.kind == "native":
            return self._sources.native(call.native)
        name, _, options = self._semantic[_key(call.semantic)]
        said, usual = call.semantic.settings.said(), options.said()
        other = ", ".join(f"{k}={v!r}" for k, v in said.items() if usual.get(k) != v)
        return f"{name}.options({other})" if other else name

    # Calls

    def _write_call(self, call: Call, read: set[int]) -> None:
        arguments = {key: self._argument(call, key, node) for key, node in call.inputs.items()}
        match call.kind:
            case "join":
                self._expressions[call.outputs[0].id] = self._joined(call, list(arguments.values()))
                if call.outputs[0].id in self._notebook_names or call.outputs[0].id not in read:
                    self._assign(call, self._expressions[call.outputs[0].id], read)
                return
            case "first":
                where = call.race.where
                condition = "" if where is None else f", where={self._sources.plain(where.function, RACE)}"
                self._assign(call, f"P.first({', '.join(arguments.values())}{condition})", read)
                return
        function = self._function(call)
        written = f"{function}({self._arguments(call, arguments)})"
        samples = call.kind == "semantic" and call.options.temperature and call.options.seed is None
        if not samples and written in self._made:  # a cell that ran twice
            for node, before in zip(call.outputs, self._made[written], strict=True):
                self._expressions[node.id] = self._expressions[before.id]
                if node.id in self._notebook_names:
                    self._results.setdefault(self._notebook_names[node.id], self._expressions[before.id])
            return
        self._made[written] = call.outputs
        self._assign(call, written, read)

    def _assign(self, call: Call, written: str, read: set[int]) -> None:
        if len(call.outputs) == 1:
            (node,) = call.outputs
            name = self._names.take(self._notebook_names.get(node.id, node.name))
            self._expressions[node.id] = name
        else:
            told = self._notebook_names.get(call.outputs[0].id, "").partition(".")
            name = self._names.take(told[0] if told[1] else f"{call.name}_outputs")
            self._expressions |= {node.id: f"{name}.{node.name}" for node in call.outputs}
        self._lines.append(f"{name} = {written}")
        for node in call.outputs:
            if node.id not in self._raced and (node.id in self._notebook_names or node.id not in read):
                shown = self._notebook_names.get(node.id, self._expressions[node.id])
                self._results[shown] = self._expressions[node.id]

    def _arguments(self, call: Call, arguments: Mapping[str, str]) -> str:
        """Positional where there are few; *args and **kwargs of a native function by their places and names."""
        spread = [key for key in arguments if "[" in key]
        if spread or len(arguments) <= POSITIONAL:
            parts = []
            signature = (call.native if call.kind == "native" else call.semantic).signature
            for key, text in arguments.items():
                inner = key[key.index("[") + 1 : -1] if "[" in key else ""
                parameter = signature.parameters.get(key)
                keyword_only = parameter is not None and parameter.kind.name == "KEYWORD_ONLY"
                parts.append(f"{inner}={text}" if inner.isidentifier() else f"{key}={text}" if keyword_only else text)
            return ", ".join(parts)
        return ", ".join(f"{key}={text}" for key, text in arguments.items())

    def _argument(self, call: Call, key: str, node: VariableNode) -> str:
        if node.producer is not None:
            if node.id not in self._expressions:
                raise TraceError(f"'{call.name}' reads '{node.name}', which was made before a reset: run its cell again.")
            return self._expressions[node.id]
        if not node.final:
            raise TraceError(f"'{node.name}', which '{call.name}' reads, has no value yet: set it first.")
        if call.kind != "native" and node.spans is not None and not isinstance(node.value, (str, int, float, list, dict)):
            return self._text(node.text, key)
        if isinstance(node.value, str):
            return self._text(node.value, key)
        return literal(node.value, f"Argument '{key}' of '{call.name}'")

    def _text(self, text: str, key: str) -> str:
        if len(text) <= LINE - 30 and text.count("\n") <= 2:
            return repr(text)
        if text not in self._constants:
            self._constants[text] = self._names.take((key if key.isidentifier() else "text").upper())
        return self._constants[text]

    def _joined(self, call: Call, inputs: Sequence[str]) -> str:
        if not isinstance(call.function, Concatenation):
            inner = self._items(inputs)
            return inner[1:] if inner.startswith("*") else f"P.gather({inner})"
        left = iter(inputs)
        items = [next(left) if part is None else self._text(part, "text") for part in call.function.parts]
        written = any(node.producer is not None for node in call.inputs.values())  # else Python would join them at once
        if call.name == "+" and len(items) > 1 and written:
            return " + ".join(items)
        constants, between = call.function.parts[1::2], None
        if len(items) == 2 * len(inputs) - 1 and len(set(constants)) == 1:
            between = constants[0]
        if between is not None:
            sep = "" if between == "\n" else f", {between!r}"
            inner = self._items(inputs)
            return f"P.join({inner[1:] if inner.startswith('*') else f'[{inner}]'}{sep})"
        return f'P.join([{", ".join(items)}], "")'

    def _items(self, inputs: Sequence[str]) -> str:
        """Several expressions, or the list that they are all of."""
        name = inputs[0].partition("[")[0] if inputs else ""
        if self._lists.get(name) == len(inputs) and list(inputs) == [f"{name}[{i}]" for i in range(len(inputs))]:
            return f"*{name}"
        return ", ".join(inputs)

    # Maps

    def _run_length(self, calls: Sequence[Call], i: int) -> int:
        """Return how many calls from here on a map could have made."""
        first = calls[i]
        if first.kind not in ("semantic", "native") or len(first.outputs) != 1 or any("[" in key for key in first.inputs):
            return 1
        made: set[int] = set()  # by those before it: no call of a map reads another
        j = i
        group = self._lists_of.get(first.outputs[0].id)
        while j < len(calls) and calls[j].function is first.function:
            node = calls[j].outputs[0]
            if self._lists_of.get(node.id) != group or (group is None and node.id in self._notebook_names):
                break
            if any(node.producer is not None and node.producer.id in made for node in calls[j].inputs.values()):
                break
            made.add(calls[j].id)
            j += 1
        return j - i

    def _write_map(self, calls: Sequence[Call], read: set[int]) -> None:
        rows = [{key: self._argument(call, key, node) for key, node in call.inputs.items()} for call in calls]
        parts = []
        for key in rows[0]:
            column = [row[key] for row in rows]
            one = len(set(column)) == 1 and len(calls) > 1
            plain = isinstance(calls[0].inputs[key].value, str) or calls[0].inputs[key].producer is not None
            if one and plain:
                parts.append(f"{key}={column[0]}")
            else:
                items = self._items(column)
                parts.append(f"{key}={items[1:] if items.startswith('*') else self._listed(column)}")
        if all(part.partition("=")[2] == rows[0][key] for part, key in zip(parts, rows[0], strict=True)):
            for call in calls:  # equal calls: nothing to go over
                self._write_call(call, read)
            return
        nodes = [call.outputs[0] for call in calls]
        name = self._names.take(self._notebook_names.get(nodes[0].id, f"{nodes[0].name}s"))
        self._lists[name] = len(calls)
        self._expressions |= {node.id: f"{name}[{i}]" for i, node in enumerate(nodes)}
        self._lines.append(f"{name} = {self._function(calls[0])}.map({', '.join(parts)})")
        named = nodes[0].id in self._notebook_names or any(node.id not in read for node in nodes)
        if named and not any(node.id in self._raced for node in nodes):
            self._results[name] = name

    @staticmethod
    def _listed(items: Sequence[str]) -> str:
        short = f"[{', '.join(items)}]"
        return short if len(short) <= LINE else "[\n" + "".join(f"        {item},\n" for item in items) + "    ]"


def _key(function: SemanticFunction) -> Any:
    """Equal for copies with other options; types are what the source says, and checks there are none (`refuse_names`)."""
    return function.name, function.template.source, function.output_names, str(function.signature)
