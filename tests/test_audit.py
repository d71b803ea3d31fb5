"""What the audit of the environment says and fails on, and what the bill of materials of a release lists."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

CI = Path(__file__).parents[1] / ".ci"


def script(name: str):
    spec = importlib.util.spec_from_file_location(f"ci_{name}", CI / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


audit, sbom = script("audit"), script("sbom")

SOUND = {"name": "sound", "version": "1.0", "vulns": []}
BAD = {
    "name": "bad",
    "version": "1.0",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["1.1"], "description": "long"}],
}
UNKNOWN = {"name": "unknown", "skip_reason": "Dependency not found on PyPI and could not be audited: unknown (1.0)"}
OURS = {"name": "parrot-nb", "skip_reason": "distribution marked as editable"}


def test_what_is_found_fails_unless_it_is_accepted(capsys):
    assert audit.judged([SOUND, OURS], {}) == 0
    assert capsys.readouterr().out == "audit: 1 of 1 packages looked at, 0 vulnerabilities that are not accepted.\n"
    assert audit.judged([SOUND, BAD], {}) == 1
    assert "bad 1.0: PYSEC-1, CVE-1, fixed in 1.1; not accepted" in capsys.readouterr().out
    assert audit.judged([SOUND, BAD], {"CVE-1": "is not called"}) == 0
    assert "is not called" in capsys.readouterr().out


def test_an_index_without_data_is_said_in_a_line(capsys):
    assert audit.judged([UNKNOWN, OURS], {}) == 0
    said = capsys.readouterr().out
    assert said == (
        "audit: not done, the index offers no data on vulnerabilities (Dependency not found on PyPI and could not be audited).\n"
    )


@pytest.mark.parametrize(
    "said", ["raise SystemExit('no network')", "print('[]')", "print('{}')", "print('{\"dependencies\": 1')"]
)
def test_an_audit_that_does_not_answer_fails_nothing(said, monkeypatch, capsys):
    monkeypatch.setattr(audit, "COMMAND", [sys.executable, "-c", said])
    assert audit.main() == 0
    assert capsys.readouterr().out.startswith("audit: not done, ")


def test_nothing_is_accepted_without_a_reason():
    assert audit.accepted(["# a comment", "", "CVE-1 is not called"]) == {"CVE-1": "is not called"}
    with pytest.raises(ValueError, match="without a reason"):
        audit.accepted(["CVE-1"])
    audit.accepted(audit.ACCEPTED.read_text(encoding="utf-8").splitlines())


@pytest.mark.minutes
def test_the_bill_lists_what_a_user_gets_and_no_more(tmp_path):
    sbom.main(tmp_path / "dist" / "bill.json")
    text = (tmp_path / "dist" / "bill.json").read_text(encoding="utf-8")
    bill = json.loads(text)
    names = {part["name"].lower() for part in bill["components"]}
    assert names >= {"jinja2", "torch", "transformers", "huggingface_hub", "numpy"}
    assert names.isdisjoint({"pytest", "ruff", "mypy", "hypothesis", "jupyterlab", "lxml", "mkdocs"})
    assert bill["metadata"]["component"]["name"] == "parrot-nb"
    refs = {part["bom-ref"] for part in bill["components"]}
    assert {ref for one in bill["dependencies"] for ref in one["dependsOn"]} == refs
    assert "file:" not in text
    assert str(CI.parent) not in text
