"""What Binder makes a machine of: `binder/` is what repo2docker expects, and asks for no less than the package does."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.version import Version

ROOT = Path(__file__).parents[1]
POST_BUILD = ROOT / "binder" / "postBuild"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
CONDA = yaml.safe_load((ROOT / "binder" / "environment.yml").read_text(encoding="utf-8"))

# What a dependency of ours is called among conda's packages.
CONDA_NAMES = {"pytorch-cpu": "torch"}


def test_conda_brings_nothing_older_than_the_package_asks_for():
    needed = {Requirement(line).name: Requirement(line).specifier for line in PROJECT["dependencies"]}
    for line in CONDA["dependencies"]:
        name, bound = re.fullmatch(r"([a-z0-9-]+)(?:[>=]+([\d.]+))?", line).groups()
        if name == "python":
            assert Version(bound) in SpecifierSet(PROJECT["requires-python"])
        elif name != "pip":
            lowest = needed.pop(CONDA_NAMES.get(name, name))
            assert Version(bound) in lowest, line


def test_only_conda_forge_is_asked():
    assert CONDA["channels"] == ["conda-forge", "nodefaults"]


def test_post_build_is_a_program_and_installs_this_repository():
    text = POST_BUILD.read_text(encoding="utf-8")
    assert text.startswith("#!/usr/bin/env bash\n")
    assert "set -euo pipefail" in text
    (command,) = [line for line in text.splitlines() if line and not line.startswith(("#", "set "))]
    (installed,) = re.findall(r"pip install .*'\.\[(\w+)\]'$", command)
    assert installed in PROJECT["optional-dependencies"]
    subprocess.run(["bash", "-n", str(POST_BUILD)], check=True)


@pytest.mark.skipif(os.name == "nt", reason="Windows knows no executable files")
def test_post_build_is_executable():
    assert os.access(POST_BUILD, os.X_OK)


@pytest.mark.skipif(os.name == "nt", reason="repo2docker does not run on Windows")
def test_repo2docker_takes_the_folder():
    done = subprocess.run(
        [sys.executable, "-m", "repo2docker", "--no-build", "--debug", "."],
        cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-2000:]
    assert "Building conda environment for python=3.11" in said
    assert 'env update -p ${NB_PYTHON_PREFIX} --file "binder/environment.yml"' in said
    assert "RUN ./binder/postBuild" in said


def test_the_link_opens_a_lesson_that_is_there():
    (path,) = set(
        re.findall(r"urlpath=lab/tree/(\S+?\.ipynb)", (ROOT / "docs/pages/environments.md").read_text(encoding="utf-8"))
    )
    assert (ROOT / path).is_file()
