"""An older kernel is told so when the extension is loaded, in one line that says what to type."""

from __future__ import annotations

import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from IPython.core.error import UsageError
from packaging.requirements import Requirement

from parrot_nb.notebook.kernel import OLDEST, require_kernel

ROOT = Path(__file__).parents[2]
SHELL = SimpleNamespace(kernel=object())


def test_the_oldest_kernel_is_the_one_that_is_declared():
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    (needed,) = [Requirement(line) for line in declared if Requirement(line).name == "ipykernel"]
    assert str(needed.specifier) == f">={OLDEST[0]}.{OLDEST[1]}"


@pytest.mark.parametrize("version", ["5.5.6", "6.17.1", "6.29.5", "7.0.1", "7.1.0", "7.3.2"])
def test_an_older_kernel_is_refused_with_the_remedy(version):
    with pytest.raises(UsageError, match=f"this kernel runs {version}: run `%pip install -U 'ipykernel>=7.4'`, then restart"):
        require_kernel(SHELL, version)


@pytest.mark.parametrize("version", ["7.4.0", "7.10.1", "8.0.0a1"])
def test_a_newer_kernel_will_do(version):
    require_kernel(SHELL, version)


def test_a_shell_without_a_kernel_is_not_asked():
    require_kernel(SimpleNamespace(), "6.17.1")


def test_a_kernel_is_asked_for_its_version_when_the_extension_is_loaded(notebook):
    output = notebook.run("import ipykernel\nkept, ipykernel.__version__ = ipykernel.__version__, '7.1.0'\n%load_ext parrot_nb")
    assert "UsageError: parrot_nb needs ipykernel 7.4" in output.text + output.message
    assert "Traceback" not in output.text + output.message
    output = notebook.run("ipykernel.__version__ = kept\n%load_ext parrot_nb\n%parrot help")
    assert output.error is None
