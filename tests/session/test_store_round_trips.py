"""Values of every kind come back from the store as they were, and a file that cannot be written is read."""

from __future__ import annotations

import enum
import os
import subprocess
import sys
import textwrap
from dataclasses import dataclass
from pathlib import Path

import pytest

import parrot_nb as P

WAIT_S = 60
ROOT = Path(__file__).parents[2]


class Urgency(enum.Enum):
    high = 1
    normal = 2
    low = 3


@dataclass
class Item:
    who: str
    urgent: bool


def functions() -> dict[str, P.SemanticFunction]:
    ask = "How urgent is this message? Answer with one word: high, normal or low.\n{{input:message}}\nUrgency: "
    names = {"Urgency": Urgency, "Item": Item}
    shown = [{"message": "Sell it at once.", "word": "high"}, {"message": "Sell it some day.", "word": "low"}]
    return {
        "text": P.SemanticFunction(ask + "{{output:word}}"),
        "examples": P.SemanticFunction(ask + "{{output:word}}").with_examples(shown),
        "choice": P.SemanticFunction(ask + '{{output:word: "high" | "normal" | "low"}}'),
        "enum": P.SemanticFunction(ask + "{{output:word: Urgency}}", namespace=names),
        "record": P.SemanticFunction("{{input:message}} {{output:item: Item, max_tokens=60}}", namespace=names),
        "optional": P.SemanticFunction("{{input:message}} {{output:yes: bool | None}}"),
        "scored": P.SemanticFunction(ask + '{{output:word: "high" | "normal" | "low", score=True}}'),
        "logprobs": P.SemanticFunction(ask + "{{output:word, logprobs=2}}"),
        "sampled": P.SemanticFunction(ask + "{{output:word, temperature=1, seed=5}}"),
        "begun": P.SemanticFunction(ask + '{{output:word, begin="hi"}}'),
    }


def known_of(variable: P.SemanticVariable) -> tuple[object, ...]:
    value = variable.get(timeout=WAIT_S)
    return value, type(value), variable.text, variable.scores, variable.logprobs, variable.finish


def test_every_kind_of_value_comes_back(tmp_path):
    message = "Please print the blue report right now."
    with P.Session(store=tmp_path / "results.db"):
        made = {name: known_of(function(message)) for name, function in functions().items()}
    with P.Session(store=tmp_path / "results.db") as session:
        again = {name: function(message) for name, function in functions().items()}
        assert {name: known_of(variable) for name, variable in again.items()} == made
        usages = {name: variable.usage for name, variable in again.items()}
        assert [name for name, usage in usages.items() if not usage.from_memo or usage.decoded_tokens] == []
        assert session.store.path is not None
    assert made["enum"][0] is Urgency.high
    assert isinstance(made["record"][0], Item)
    assert set(made["scored"][3]) == {"high", "normal", "low"}


READ = """
import warnings
import parrot_nb as P
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    with P.Session(store={path!r}) as session:
        word = P.SemanticFunction("Say {{{{input:x}}}}: {{{{output:y, max_tokens=8}}}}")
        old, new = word("a"), word("b")
        print(old.get(), old.usage.from_memo, new.usage.from_memo, bool(new.get()), sep="|")
print(*(str(each.message) for each in said), sep="\\n")
"""


def test_a_store_on_a_read_only_mount_is_read(tmp_path):
    """Root may write into any folder, so it is a mount that says no."""
    if sys.platform != "linux":
        pytest.skip("mount namespaces are Linux's")
    folder = tmp_path / "kept"
    folder.mkdir()
    path = folder / "results.db"
    word = P.SemanticFunction("Say {{input:x}}: {{output:y, max_tokens=8}}")
    with P.Session(store=path):
        value = word("a").get(timeout=WAIT_S)
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    mounted = f'mount --bind "{folder}" "{folder}" && mount -o remount,bind,ro "{folder}" && exec "$@"'
    unshare = ["unshare", "--mount", "--map-root-user"] if os.geteuid() else ["unshare", "--mount"]
    if subprocess.run([*unshare, "sh", "-c", mounted, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine gives no mount namespace")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "kernels")])}
    code = textwrap.dedent(READ.format(path=str(path)))
    done = subprocess.run(
        [*unshare, "sh", "-c", mounted, "sh", sys.executable, "-c", code],
        env=environment, capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    first, *said = done.stdout.splitlines()
    assert first == f"{value}|True|False|True"
    assert said == [f"'{path}' is read-only: texts are taken from it, and none are added."]
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before
