"""The house keeps its floors: who may import whom, what a door is, what `import parrot_nb` may load.

Everything is read from the source with `ast`, so an import counts wherever it stands: at the top, inside a function, or
under TYPE_CHECKING.
"""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
ROOTS = {"parrot_nb": ROOT / "parrot_nb", "parrot_kernels": ROOT / "kernels" / "parrot_kernels"}
MAX_LINES = 450

# What each floor may import of the house. `language` and `engine` are neighbours that know nothing of each other.
FLOORS: dict[str, set[str]] = {
    "errors": set(),
    "kernels": set(),
    "tiny": {"errors"},
    "engine": {"errors", "tiny", "kernels"},
    "language": {"errors"},
    "graph": {"errors", "language"},
    "runtime": {"errors", "language", "graph", "engine"},
    "record": {"errors", "language", "engine", "runtime"},
    "session": {"errors", "tiny", "language", "graph", "engine", "runtime", "record"},
    "tables": {"errors", "language", "graph", "engine", "runtime", "record", "session"},
    "lessons": {"errors", "kernels", "language", "graph", "runtime", "record", "session", "tables"},
    "bench": {"errors", "tiny", "kernels", "language", "graph", "engine", "runtime", "record", "session", "tables"},
    "notebook": {"errors", "tiny", "language", "graph", "engine", "runtime", "record", "session", "tables", "bench"},
    "parrot_nb": {"errors", "tiny", "language", "graph", "engine", "runtime", "record", "session", "tables", "bench", "notebook"},
}

# Where calls are run: with the graph, the executor and the engines, whichever process these are in.
RUNTIMES_SIDE = (
    "parrot_nb.graph",
    "parrot_nb.engine.embedded",
    "parrot_nb.runtime.executor",
    "parrot_nb.runtime.memo",
    "parrot_nb.runtime.running",
    "parrot_nb.runtime.runtime",
    "parrot_nb.runtime.scheduler",
)

# The floors on which a heavy or face-only package may be imported at all.
HOMES: dict[str, set[str]] = {
    "torch": {"kernels", "tiny", "engine", "bench", "lessons"},
    "transformers": {"tiny", "engine", "bench"},
    "tokenizers": {"tiny", "engine", "bench"},
    "safetensors": {"tiny", "engine"},
    "triton": {"kernels", "bench"},
    "jinja2": {"engine"},
    "llguidance": {"engine", "language"},
    "pydantic": {"language"},
    "gguf": {"engine"},
    "peft": {"engine"},
    "IPython": {"notebook", "parrot_nb"},
    "ipykernel": {"notebook"},
    "ipywidgets": {"notebook"},
    "anywidget": {"notebook"},
    "traitlets": {"notebook"},
    "graphviz": {"notebook"},
    "pygments": {"notebook"},
    "markdown_it": {"language"},
    "nh3": {"language"},
    "nest_asyncio2": {"session"},
    "msgspec": {"language", "runtime", "record", "session"},
    "narwhals": {"tables"},
}

# Of these, what `import parrot_nb` may load: what crosses between the two sides of a session is checked by it.
LIGHT = {"msgspec"}

# Packages that come with a declared dependency, by that dependency's own promise.
COMES_WITH = {
    "IPython": "ipykernel",
    "pygments": "ipykernel",
    "comm": "ipykernel",
    "tornado": "ipykernel",
    "traitlets": "ipykernel",
    "huggingface_hub": "transformers",
    "markdown_it": "markdown_it_py",
    "numpy": "transformers",
    "typing_extensions": "torch",
}

# Peers that the benchmark measures where somebody has installed them; nothing needs them.
ONLY_MEASURED = {"flashinfer", "xgrammar"}

# The root door may also load the face on demand and say how it is wired to Jupyter.
ROOT_DOOR_FUNCTIONS = {
    "__getattr__", "__dir__", "load_ipython_extension", "unload_ipython_extension", "_jupyter_labextension_paths",
}  # fmt: skip

HEAVY = sorted({*HOMES, "numpy", "tqdm", "pandas", "polars", "huggingface_hub"} - LIGHT)


@dataclass(frozen=True)
class Import:
    module: str  # as written, made absolute
    names: tuple[str, ...]
    line: int
    typing_only: bool
    lazy: bool = False  # inside a function


@dataclass(frozen=True)
class Module:
    name: str
    path: Path
    tree: ast.Module

    @property
    def is_door(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def floor(self) -> str:
        return floor_of(self.name)

    def __repr__(self) -> str:
        return self.name


def floor_of(module: str) -> str:
    root, *rest = module.split(".")
    if root == "parrot_kernels":
        return "kernels"
    return rest[0] if rest else "parrot_nb"


def modules() -> list[Module]:
    found = []
    for root, folder in ROOTS.items():
        for path in sorted(folder.rglob("*.py")):
            parts = [root, *path.relative_to(folder).with_suffix("").parts]
            name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
            found.append(Module(name, path, ast.parse(path.read_text(encoding="utf-8"), str(path))))
    return found


MODULES = modules()
BY_NAME = {module.name: module for module in MODULES}
DOORS = [module for module in MODULES if module.is_door]


@cache
def imports_of(name: str) -> tuple[Import, ...]:
    module = BY_NAME[name]
    package = module.name if module.is_door else module.name.rpartition(".")[0]
    typing_only = {
        id(node)
        for branch in ast.walk(module.tree)
        if isinstance(branch, ast.If) and "TYPE_CHECKING" in ast.unparse(branch.test)
        for statement in branch.body
        for node in ast.walk(statement)
    }
    lazy = {
        id(node)
        for function in ast.walk(module.tree)
        if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef))
        for node in ast.walk(function)
    }
    found = []
    for node in ast.walk(module.tree):
        when = {"typing_only": id(node) in typing_only, "lazy": id(node) in lazy}
        if isinstance(node, ast.Import):
            found += [Import(alias.name, (), node.lineno, **when) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            target = ".".join(part for part in (base, node.module) if part)
            names = tuple(alias.name for alias in node.names)
            found.append(Import(target, names, node.lineno, **when))
    return tuple(found)


def house_targets(statement: Import) -> list[str]:
    """The modules of the house that an import statement names: submodules where it names them, else the module itself."""
    if statement.module.split(".")[0] not in ROOTS:
        return []
    submodules = [f"{statement.module}.{name}" for name in statement.names if f"{statement.module}.{name}" in BY_NAME]
    others = len(submodules) < len(statement.names) or not statement.names
    return submodules + ([statement.module] if others else [])


def test_the_test_sees_the_house():
    assert {module.floor for module in MODULES} >= {
        "errors",
        "tiny",
        "engine",
        "language",
        "graph",
        "runtime",
        "session",
        "kernels",
    }
    assert {module.floor for module in MODULES} <= set(FLOORS)
    assert house_targets(Import("parrot_nb.language", ("nodes", "join"), 1, typing_only=False)) == [
        "parrot_nb.language.nodes",
        "parrot_nb.language",
    ]
    assert any(statement.typing_only for module in MODULES for statement in imports_of(module.name))
    assert any(statement.lazy for module in MODULES for statement in imports_of(module.name))


def test_the_table_of_floors_has_no_circle():
    order = list(TopologicalSorter(FLOORS).static_order())
    assert order[-1] == "parrot_nb"
    assert all(allowed <= set(FLOORS) for allowed in FLOORS.values())


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_imports_only_from_floors_below(module):
    wrong = [
        f"line {statement.line}: {target}"
        for statement in imports_of(module.name)
        for target in house_targets(statement)
        if floor_of(target) != module.floor and floor_of(target) not in FLOORS[module.floor]
    ]
    assert not wrong, f"{module.path.relative_to(ROOT)} imports from a floor that is not below '{module.floor}': {wrong}"


# What the notebook's side takes from the runtime's all the same: functions of plain data, and words.
TAKEN_OVER = {
    ("parrot_nb.notebook.widget.details", "parrot_nb.graph"),  # explains a call by its description
    ("parrot_nb.notebook.widget.details", "parrot_nb.graph.explain"),
    ("parrot_nb.lessons.steps", "parrot_nb.graph.explain"),  # tells decisions in the same words
    ("parrot_nb.notebook.commands", "parrot_nb.engine.embedded.loader"),  # names of optimisations, for completion
    ("parrot_nb.session.session", "parrot_nb.runtime.runtime"),  # in a thread of this process it is made here
}


def test_the_notebook_s_side_knows_its_runtime_by_messages_alone():
    """What runs calls may be in another process: the notebook's side asks for it where it is to run here, and not before."""
    taken = {
        (module.name, target)
        for module in MODULES
        if module.floor in ("language", "session", "record", "tables", "lessons", "notebook")
        for statement in imports_of(module.name)
        if not statement.typing_only
        for target in house_targets(statement)
        if target.startswith(RUNTIMES_SIDE)
    }
    assert taken == TAKEN_OVER
    lazily = {t for i in imports_of("parrot_nb.session.session") if i.lazy for t in house_targets(i)}
    assert "parrot_nb.runtime.runtime" in lazily, "not before a session runs in a thread"


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_imports_name_modules_that_exist(module):
    missing = [target for statement in imports_of(module.name) for target in house_targets(statement) if target not in BY_NAME]
    assert not missing


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_heavy_packages_stay_on_their_floors(module):
    wrong = [
        f"line {statement.line}: {package}"
        for statement in imports_of(module.name)
        if (package := statement.module.split(".")[0]) in HOMES
        and module.floor not in HOMES[package]
        and not statement.typing_only
    ]
    assert not wrong, f"{module.path.relative_to(ROOT)}: {wrong}"


def test_no_circles_between_modules():
    """Imports that exist for the type checker alone may point back within a floor; all others, lazy ones too, may not."""
    graph = {
        module.name: {
            target
            for statement in imports_of(module.name)
            if not statement.typing_only
            for target in house_targets(statement)
            if target != module.name
        }
        for module in MODULES
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_kernels_depend_on_torch_and_triton_only():
    used = {
        statement.module.split(".")[0] for module in MODULES if module.floor == "kernels" for statement in imports_of(module.name)
    }
    assert used - sys.stdlib_module_names <= {"torch", "triton", "parrot_kernels"}


def test_every_package_used_is_declared():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = [line for name, lines in project["optional-dependencies"].items() if name not in {"dev", "lab"} for line in lines]
    declared = {
        line.split(";")[0].split(">")[0].split("=")[0].strip().replace("-", "_") for line in [*project["dependencies"], *extras]
    }
    for module in MODULES:
        for statement in imports_of(module.name):
            package = statement.module.split(".")[0]
            if package not in sys.stdlib_module_names and package not in ROOTS and package not in ONLY_MEASURED:
                assert COMES_WITH.get(package, package) in declared, f"{module.path}:{statement.line} uses {package}"


# Doors


def exported(door: Module) -> list[str]:
    """The names in a door's `__all__`."""
    for node in door.tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return ast.literal_eval(node.value)
    pytest.fail(f"{door.path.relative_to(ROOT)} has no __all__")


def test_every_package_has_a_door():
    folders = {path.parent for folder in ROOTS.values() for path in folder.rglob("*.py")}
    assert {door.path.parent for door in DOORS} == folders


@pytest.mark.parametrize("door", DOORS, ids=repr)
def test_a_door_hands_out_and_does_nothing_else(door):
    assert ast.get_docstring(door.tree), "a door says what the package is"
    names = exported(door)
    assert len(names) == len(set(names))
    bound = set()
    for node in door.tree.body[1:]:
        match node:
            case ast.Import() | ast.ImportFrom():
                bound |= {alias.asname or alias.name for alias in node.names}
            case ast.Assign(targets=[ast.Name(id="__all__")]):
                pass
            case ast.Assign(targets=[ast.Name(id="__version__")]) if door.name in ROOTS:
                bound.add("__version__")
            case ast.FunctionDef(name=name) if door.name == "parrot_nb" and name in ROOT_DOOR_FUNCTIONS:
                bound.add(name)
            case ast.If() if door.name == "parrot_nb" and ast.unparse(node.test) == "TYPE_CHECKING":
                bound |= {alias.asname or alias.name for inner in node.body for alias in inner.names}
            case _:
                pytest.fail(f"{door.path.relative_to(ROOT)}:{node.lineno} is not an import: {ast.unparse(node)[:60]}")
    lazily = door.name == "parrot_nb" and "__getattr__" in bound
    assert lazily or set(names) <= bound, f"in __all__ but never bound: {sorted(set(names) - bound)}"


def definition(module: Module, name: str) -> ast.AST | None:
    """Where a name handed out by a module is defined: its class or function, or None for other values."""
    for node in ast.walk(module.tree):
        if isinstance(node, (ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and node.name == name:
            if any(ast.unparse(decorator).endswith("overload") for decorator in node.decorator_list):
                continue  # only a signature
            return node
    for statement in imports_of(module.name):
        if name in statement.names and statement.module in BY_NAME:
            return definition(BY_NAME[statement.module], name)
    return None


CLASSES = {node.name: node for module in MODULES for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)}


def is_public_method(node: ast.AST) -> bool:
    if not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)) or node.name.startswith("_"):
        return False
    decorators = [ast.unparse(decorator) for decorator in node.decorator_list]
    return not any(decorator.endswith((".setter", ".deleter", "overload")) for decorator in decorators)


def documented_above(owner: ast.ClassDef, method: str) -> bool:
    """Whether a base class of the house documents this method: an override keeps its contract."""
    for base in owner.bases:
        parent = CLASSES.get(ast.unparse(base).split("[")[0].rpartition(".")[2])
        if parent is None:
            continue
        own = [node for node in parent.body if is_public_method(node) and node.name == method]
        if any(ast.get_docstring(node) for node in own) or documented_above(parent, method):
            return True
    return False


@pytest.mark.parametrize("door", DOORS, ids=repr)
def test_what_a_door_hands_out_is_documented(door):
    silent = []
    for name in exported(door):
        node = definition(door, name)
        if node is None:
            continue
        if not ast.get_docstring(node):
            silent.append(name)
        if isinstance(node, ast.ClassDef):
            silent += [
                f"{name}.{method.name}"
                for method in node.body
                if is_public_method(method) and not ast.get_docstring(method) and not documented_above(node, method.name)
            ]
    assert not silent, f"public and without a docstring: {silent}"


# Files


@pytest.mark.parametrize("module", MODULES, ids=repr)
def test_nothing_prints(module):
    lines = [node.lineno for node in ast.walk(module.tree) if isinstance(node, ast.Call) and ast.unparse(node.func) == "print"]
    assert not lines, f"{module.path.relative_to(ROOT)} prints on lines {lines}: output lands in whatever cell ran last"


def test_files_can_be_read_in_one_go():
    sources = [
        path
        for folder in ("parrot_nb", "kernels", "tests")
        for end in ("py", "js", "mjs", "ts", "css")
        for path in (ROOT / folder).rglob(f"*.{end}")
        if "node_modules" not in path.parts
    ]
    long = {str(path.relative_to(ROOT)): n for path in sources if (n := len(path.read_bytes().splitlines())) > MAX_LINES}
    assert sources
    assert not long, f"over {MAX_LINES} lines: {long}"


# What importing loads


def test_importing_parrot_nb_loads_nothing_heavy():
    program = f"import sys, parrot_nb; sys.stdout.write(' '.join(sorted(set({HEAVY!r}) & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "", f"import parrot_nb loaded {done.stdout}"


def test_version_is_the_packages_own():
    program = "import sys, parrot_nb; sys.stdout.write(parrot_nb.__version__)"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
