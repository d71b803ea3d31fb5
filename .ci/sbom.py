"""Write a CycloneDX bill of materials for a release: the package and all that it needs at run time, in the versions installed here.

Usage: python .ci/sbom.py FILE
"""

from __future__ import annotations

import importlib.metadata
import json
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
ROOT_REF = "root-component"


def main(target: Path) -> None:
    """Write the file."""
    with tempfile.TemporaryDirectory() as folder:
        whole = Path(folder) / "environment.json"
        command = [
            sys.executable,
            "-m",
            "cyclonedx_py",
            "environment",
            "--pyproject",
            str(ROOT / "pyproject.toml"),
            "--mc-type",
            "library",
        ]
        subprocess.run([*command, "--output-reproducible", "--of", "JSON", "-o", str(whole)], check=True)
        bill = json.loads(whole.read_text(encoding="utf-8"))
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(narrowed(bill, project["dependencies"]), indent=1) + "\n", encoding="utf-8")
    sys.stdout.write(f"{target}: {len(json.loads(target.read_text(encoding='utf-8'))['components'])} packages\n")


def narrowed(bill: dict[str, Any], requirements: Iterable[str]) -> dict[str, Any]:
    """The part of a bill that follows from requirements; what only development or an extra needs is left out."""
    refs = {canonicalize_name(part["name"]): part["bom-ref"] for part in bill["components"]}
    direct, needs = needed(requirements)
    components = [public(part) for part in bill["components"] if canonicalize_name(part["name"]) in needs]
    dependencies = [{"ref": ROOT_REF, "dependsOn": sorted(refs[name] for name in direct)}]
    dependencies += [
        {"ref": refs[name], "dependsOn": sorted(refs[one] for one in found)} for name, found in sorted(needs.items())
    ]
    return {**bill, "components": components, "dependencies": dependencies}


def needed(requirements: Iterable[str]) -> tuple[set[str], dict[str, set[str]]]:
    """Names of what requirements need directly, and of all packages with what each of them needs.

    Raises:
        importlib.metadata.PackageNotFoundError: one of them is not installed.
    """
    direct = _applying(requirements, frozenset())
    needs: dict[str, set[str]] = {}
    pending, seen = set(direct), set[tuple[str, frozenset[str]]]()
    while pending:
        name, extras = package = pending.pop()
        if package not in seen:
            seen.add(package)
            found = _applying(importlib.metadata.requires(name) or (), extras)
            needs.setdefault(name, set()).update(one for one, _ in found)
            pending |= found
    return {name for name, _ in direct}, needs


def _applying(requirements: Iterable[str], extras: frozenset[str]) -> set[tuple[str, frozenset[str]]]:
    """The requirements that hold here for these extras: names, and the extras that are asked of them."""
    found = [Requirement(line) for line in requirements]
    return {
        (canonicalize_name(one.name), frozenset(one.extras))
        for one in found
        if one.marker is None or any(one.marker.evaluate({"extra": extra}) for extra in ("", *extras))
    }


def public(part: dict[str, Any]) -> dict[str, Any]:
    """A component without addresses of files of this machine, from which it may have been installed."""
    links = [link for link in part.get("externalReferences", []) if link["url"].startswith(("https://", "http://"))]
    return {
        **{key: value for key, value in part.items() if key != "externalReferences"},
        **({"externalReferences": links} if links else {}),
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]))
