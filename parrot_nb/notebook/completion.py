"""Tab completion: options of the magic line, placeholders in a prompt, words of `%parrot`, and the attributes of our objects.

`choices` is a function of the text before the cursor, the cell, and the notebook's names; for a model it also looks at files.
Attributes are offered here because IPython's own completer, Jedi, fails on properties whose type is a union with a tuple, and
then offers nothing.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from parrot_nb.language import MAGIC_OPTIONS, TYPES, NativeFunction, SemanticFunction, SemanticVariable, VariableList
from parrot_nb.language.options import SAMPLING_NAMES, SCORES
from parrot_nb.notebook.commands import COMMANDS, MODEL_OPTIONS, STORE_OPTIONS, STORE_WORDS, SWITCHES, known_names
from parrot_nb.notebook.executions import SHOWS
from parrot_nb.notebook.model_paths import model_paths

MAGIC = "%%semantic"
VALUES: Mapping[str, tuple[str, ...]] = {
    "--chat": ("auto", "on", "off"),
    "--thinking": ("on", "off"),
    "--score": SCORES,
    "--device": ("auto", "cpu", "cuda"),
    "--dtype": ("auto", "float32", "bfloat16", "float16"),
    "--quantize": ("none", "int8", "int4"),
    "--sampling": ("greedy", "model"),
    "--kv-memory": ("512MB", "2GB", "8GB"),
    "--size": ("100MB", "1GB"),
    "--days": ("30", "365"),
}
FILES = ("report.html", "app.py", "trace.json", "graph.svg", "graph.pdf")
BENCH_OPTIONS = ("--systems", "--off", "--on", "--model", "--dtype", "--device", "--repeat", "--users", "--markdown")
NAME = re.compile(r"[^\W\d]\w*")
ATTRIBUTE = re.compile(r"(?<![\w.)\]\"'}])([^\W\d]\w*)((?:\.[^\W\d]\w*|\[-?\d+\])*)\.(\w*)$")
OURS = SemanticVariable, VariableList, SemanticFunction, NativeFunction
Found = tuple[str, list[str]]  # what of the word is there, and what it could become


def choices(before: str, cell: str, is_first_line: bool, names: Mapping[str, Any]) -> Found | None:
    """Return the completions at the cursor; None where it is not in a text of ours.

    Args:
        before: the cursor's line up to it.
        cell: all of the text.
        is_first_line: whether that line is the cell's first.
        names: the notebook's variables.
    """
    stripped = before.lstrip()
    if is_first_line and re.match(rf"{MAGIC}\s", stripped):
        return _magic_line(stripped, names)
    if is_first_line and re.match(r"%%parrot\s", stripped):
        return _words(
            stripped.removeprefix("%%parrot"),
            {"compare": _of_compare, "plan": lambda _words, _word: [], "show": lambda _words, _word: list(SHOWS)},
        )
    if re.match(r"%parrot\s", stripped):
        return _words(stripped.removeprefix("%parrot"), {name: _of_command(name) for name in COMMANDS})
    if not is_first_line and re.match(rf"\s*{MAGIC}(\s|$)", cell):
        return _placeholder(before, cell, names)
    return None


def _magic_line(before: str, names: Mapping[str, Any]) -> Found:
    *words, word = before.split(" ")
    last = words[-1] if words else ""
    if last in VALUES:
        return word, _beginning(word, VALUES[last])
    signature = before.partition(" --")[0]
    if signature.count("(") > signature.count(")") and " --" not in before:
        part = re.split(r"[(,\s]", before)[-1]
        return part, _beginning(part, _inputs(names))
    return word, _beginning(word, MAGIC_OPTIONS) if word.startswith("-") else []


def _classes(names: Mapping[str, Any]) -> list[str]:
    """Classes that the notebook has defined."""
    return [name for name, value in names.items() if isinstance(value, type) and value.__module__ == "__main__"]


def _placeholder(before: str, cell: str, names: Mapping[str, Any]) -> Found | None:
    start = before.rfind("{{")
    if start < 0 or "}}" in before[start:]:
        return None
    inside = before[start + 2 :]
    typed = re.fullmatch(r"\s*(?:(?:input|output)\s*:)?\s*\w+\s*:\s*(?:[^}=]*[\[|(]\s*)?(\w*)", inside)
    if typed and not re.fullmatch(r"\s*(?:input|output)\s*:\s*\w*", inside):
        return typed[1], _beginning(typed[1], [*TYPES, *_classes(names)])
    if match := re.fullmatch(r".*,\s*check\s*=\s*(\w*)", inside):
        return match[1], _beginning(match[1], [name for name, value in names.items() if inspect.isfunction(value)])
    if match := re.fullmatch(r"\s*input\s*:.*,\s*(?:fit\s*=\s*)?(['\"]?\w*)", inside):
        places = ['"middle"', '"end"', '"start"'] if "=" in inside.rpartition(",")[2] else ["fit="]
        return match[1], _beginning(match[1], places)
    if match := re.fullmatch(r".*,\s*(\w*)", inside):
        return match[1], _beginning(match[1], [f"{name}=" for name in (*SAMPLING_NAMES, "check")])
    if match := re.fullmatch(r"\s*input\s*:\s*(\w*)", inside):
        return match[1], _beginning(match[1], dict.fromkeys([*_declared(cell), *_inputs(names)]))
    if match := re.fullmatch(r"\s*output\s*:\s*(\w*)", inside):
        return match[1], _beginning(match[1], _outputs(cell))
    if match := re.fullmatch(r"\s*(\w*)", inside):
        return match[1], _beginning(match[1], ["input:", "output:", *_declared(cell)])
    return None


def _declared(cell: str) -> list[str]:
    """Parameters on the magic line, and outputs that a later placeholder may read."""
    line, _, body = cell.partition("\n")
    parameters = re.search(r"\((.*?)\)", line)
    found = [NAME.match(part.strip()) for part in parameters[1].split(",")] if parameters else []
    outputs = re.findall(r"\{\{\s*output\s*:\s*(\w+)", body)
    return [*(match[0] for match in found if match), *outputs]


def _outputs(cell: str) -> list[str]:
    line = cell.partition("\n")[0].partition(" --")[0]
    return re.findall(r"[^\W\d]\w*", line.partition("->")[2])


def _inputs(names: Mapping[str, Any]) -> list[str]:
    """The notebook's variables that a prompt can read."""
    kinds = SemanticVariable, VariableList, str, int, float, list, dict
    return sorted(
        name for name, value in names.items() if not name.startswith("_") and isinstance(value, kinds) and name.isidentifier()
    )


def _words(after: str, commands: Mapping[str, Callable[[list[str], str], list[str]]]) -> Found:
    *words, word = after.lstrip().split(" ")
    words = [w for w in words if w]
    if not words:
        return word, _beginning(word, commands)
    further = commands.get(words[0])
    if further is None:
        return word, []
    word = word.rpartition(",")[2] if words[-1] == "--off" else word
    return word, _beginning(word, further(words[1:], word))


def _of_compare(words: list[str], word: str) -> list[str]:
    return list(known_names()) if words[-1:] == ["--off"] else ["--off"]


def _of_command(name: str) -> Callable[[list[str], str], list[str]]:
    def further(words: list[str], word: str) -> list[str]:
        last = words[-1] if words else ""
        if name == "export":
            return [] if words else list(FILES)
        if name == "model":
            options = [*MODEL_OPTIONS, *SWITCHES]
            if last in MODEL_OPTIONS:
                return list(known_names()) if last == "--off" else list(VALUES.get(last, ()))
            models = [] if words else ["parrot-tiny", *([] if word.startswith("-") else model_paths(word))]
            return models + [option for option in options if option not in words]
        if name == "store":
            used = {w for w in words if w.startswith("--")}
            return (
                [option for option in (*STORE_OPTIONS, *STORE_WORDS) if option not in used]
                if last not in VALUES
                else list(VALUES[last])
            )
        if name == "bench":
            from parrot_nb.bench.workloads import WORKLOADS

            return list(WORKLOADS) if not words else [o for o in BENCH_OPTIONS if o not in words] if word.startswith("-") else []
        return []

    return further


def attributes(before: str, names: Mapping[str, Any]) -> Found | None:
    """Return the attributes of a variable, a list of them or a prompt function before the cursor; None of anything else.

    Nothing of the user's runs: outputs are looked up in named tuples, items in lists and tuples.
    """
    match = ATTRIBUTE.search(before)
    if match is None or match[1] not in names:
        return None
    value = names[match[1]]
    for field, index in re.findall(r"\.(\w+)|\[(-?\d+)\]", match[2]):
        if field and isinstance(value, tuple) and field in getattr(value, "_fields", ()):
            value = getattr(value, field)
        elif index and type(value) in (list, tuple, VariableList) and -len(value) <= int(index) < len(value):
            value = value[int(index)]
        else:
            return None
    if not isinstance(value, OURS):
        return None
    return match[3], [name for name in _beginning(match[3], dir(value)) if match[3].startswith("_") or not name.startswith("_")]


def _beginning(word: str, choices: Iterable[str]) -> list[str]:
    return [choice for choice in choices if choice.startswith(word)]


def make_matcher(shell: Any) -> Any:
    """IPython's matcher for our cells; None before IPython 8.6, which knows none of this kind (Colab has 7.34)."""
    try:
        from IPython.core.completer import SimpleCompletion, context_matcher
    except ImportError:
        return None

    @context_matcher()
    def parrot_matcher(context: Any) -> dict[str, Any]:
        found = choices(context.text_until_cursor, context.full_text, context.cursor_line == 0, shell.user_ns)
        kind = "parameter" if found else "property"
        found = found or attributes(context.text_until_cursor, shell.user_ns)
        if found is None:
            return {"completions": [], "matched_fragment": "", "suppress": False}
        word, offered = found
        completions = [SimpleCompletion(choice, type=kind) for choice in offered]
        # In a prompt nothing else belongs here: Python's own suggestions would be wrong.
        return {"completions": completions, "matched_fragment": word, "suppress": True}

    return parrot_matcher
