"""What a type checker knows of users' code: pyright reads `user_code.py` in strict mode, with the types of the package itself."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import parrot_nb as P

ROOT = Path(__file__).parents[2]
CODE = Path(__file__).with_name("user_code.py")


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """What pyright says of the file, as JSON."""
    folder = tmp_path_factory.mktemp("pyright")
    settings = {
        "typeCheckingMode": "strict",
        "reportUnnecessaryTypeIgnoreComment": "error",
        "extraPaths": [str(ROOT)],
        "pythonVersion": "3.11",
        "pythonPlatform": "Linux",
    }
    shutil.copy(CODE, folder)
    (folder / "pyrightconfig.json").write_text(json.dumps(settings), encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pyright", "--project", str(folder), "--outputjson", "--pythonpath", sys.executable],
        env={**os.environ, "PYRIGHT_PYTHON_IGNORE_WARNINGS": "1"}, stdin=subprocess.DEVNULL,
        capture_output=True, text=True, timeout=250, check=False,
    )  # fmt: skip
    assert done.stdout.startswith("{"), done.stdout + done.stderr
    return json.loads(done.stdout)


def test_users_code_passes_pyright_in_strict_mode(report):
    """Right code has no error and wrong code has one: each `pyright: ignore` of the file that finds none is an error too."""
    told = [f"{each['range']['start']['line'] + 1}: {each['message']}" for each in report["generalDiagnostics"]]
    assert not told, "\n".join(told)
    assert report["summary"]["filesAnalyzed"] == 1


def test_types_with_arguments_are_values_at_run_time():
    """Annotations are evaluated where nothing postpones it."""
    assert get_args(P.SemanticVariable[int]) == (int,)
    assert get_args(P.VariableList[str]) == (str,)
    assert get_args(str | P.SemanticVariable[str]) == (str, P.SemanticVariable[str])


def test_the_annotation_of_a_variable_gives_the_type_of_the_output():
    @P.semantic_function
    def age(person: str | P.SemanticVariable[str]) -> P.SemanticVariable[int]:
        """{{input:person}} {{output:age}}"""

    @P.semantic_function
    def both(text: P.SemanticVariable) -> tuple[P.SemanticVariable[int], P.SemanticVariable, None]:
        """{{input:text}} {{output:n}} {{output:rest}} {{output:nothing}}"""

    assert age.template.types["age"].read("42") == 42
    assert {name: kind.form.text for name, kind in both.template.types.items()} == {"n": "int", "nothing": "None"}
