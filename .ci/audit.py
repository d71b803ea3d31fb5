"""Ask the package index for known vulnerabilities of what is installed here.

Where there is no network, or the index offers no such data, one line says so. A vulnerability that is found is printed, and fails
the run unless `accepted_vulnerabilities.txt` beside this file has its id with a reason.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

ACCEPTED = Path(__file__).with_name("accepted_vulnerabilities.txt")
TIMEOUT_S = 15  # of one answer
LIMIT_S = 300  # of all
COMMAND = [
    sys.executable, "-m", "pip_audit", "--format", "json", "--progress-spinner", "off", "--skip-editable", "--timeout", str(TIMEOUT_S),
]  # fmt: skip


def main() -> int:
    """Audit, and say what came of it; returns the exit status."""
    try:
        done = subprocess.run(COMMAND, check=False, capture_output=True, text=True, timeout=LIMIT_S)
        found = json.loads(done.stdout)["dependencies"]
    except subprocess.TimeoutExpired:
        return said(f"audit: not done, the index did not answer within {LIMIT_S} s.")
    except (ValueError, KeyError, TypeError):
        lines = done.stderr.strip().splitlines() or [f"pip-audit ended with {done.returncode}"]
        return said(f"audit: not done, {lines[-1][:200]}")
    return judged(found, accepted(ACCEPTED.read_text(encoding="utf-8").splitlines()))


def accepted(lines: Iterable[str]) -> dict[str, str]:
    """Ids and reasons. Raises ValueError for an id without one."""
    found = {}
    for line in lines:
        if line.strip() and not line.startswith("#"):
            known, _, reason = line.strip().partition(" ")
            if not reason.strip():
                raise ValueError(f"{ACCEPTED.name} accepts {known} without a reason: write it behind the id.")
            found[known] = reason.strip()
    return found


def judged(packages: list[dict[str, Any]], known: dict[str, str]) -> int:
    """Say what was found in packages, as pip-audit lists them; returns 1 if any of it is not accepted."""
    packages = [package for package in packages if "editable" not in package.get("skip_reason", "")]  # ours
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        reasons = {str(package["skip_reason"]).partition(":")[0] for package in packages}
        return said(f"audit: not done, the index offers no data on vulnerabilities ({'; '.join(sorted(reasons))[:200]}).")
    bad = 0
    for package in audited:
        for one in package["vulns"]:
            ids = [one["id"], *one.get("aliases", [])]
            reason = next((known[name] for name in ids if name in known), None)
            bad += reason is None
            fixed = f"fixed in {', '.join(one['fix_versions'])}" if one.get("fix_versions") else "not fixed yet"
            said(f"audit: {package['name']} {package['version']}: {', '.join(ids)}, {fixed}; {reason or 'not accepted'}")
    said(f"audit: {len(audited)} of {len(packages)} packages looked at, {bad} vulnerabilities that are not accepted.")
    return int(bad > 0)


def said(line: str) -> int:
    """Write a line; returns 0."""
    sys.stdout.write(f"{line}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
