"""Tokenizers whose regular expressions run without end, or whose Rust panics, are refused before a text depends on them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from attacking import assert_usable
from shorthand import WAIT_S, f, until
from tokenizers import Tokenizer, models, pre_tokenizers

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.patterns import KNOWN, MAX_PATTERN_CHARS, MAX_PATTERNS, check_patterns
from parrot_nb.errors import ModelLoadError

sys.path.insert(0, str(Path(__file__).parents[1] / "engine"))


LINES = (Path(__file__).parent / "hostile_patterns.txt").read_text(encoding="utf-8").splitlines()
HOSTILE = [line for line in LINES if line and not line.startswith("#")]
HONEST = [*sorted(KNOWN), r"\d{1,3}(?=(?:\d{3})*\b)", " {2,}", r" ?[^(\s|[.,!?…。，、।۔،])]+", "[一-龥]+"]
PARTS = {
    "pre_tokenizer": lambda pattern: {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False},
    "normalizer": lambda pattern: {"type": "Sequence", "normalizers": [{"type": "Replace", "pattern": {"Regex": pattern}, "content": ""}]},
}  # fmt: skip


def change_tokenizer(folder: Path, **parts: object) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | parts))


def refused(folder: Path, *fragments: str) -> None:
    with pytest.raises(ModelLoadError) as caught:
        load_engine(folder)
    said = str(caught.value)
    assert all(fragment in said for fragment in fragments), said
    assert "\n" not in said
    assert len(said) < 500


@pytest.mark.parametrize("i_pattern", range(len(HOSTILE)), ids=HOSTILE)
def test_an_expression_that_runs_for_hours(folder, i_pattern):
    kind = sorted(PARTS)[i_pattern % len(PARTS)]
    change_tokenizer(folder, **{kind: PARTS[kind](HOSTILE[i_pattern])})
    refused(folder, "regular expression that can run for hours", "tokenizer.json")


@pytest.mark.parametrize("pattern", HONEST)
def test_expressions_in_use_are_quick(pattern, monkeypatch):
    monkeypatch.setattr("parrot_nb.engine.embedded.patterns.KNOWN", frozenset())
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.Split(__import__("tokenizers").Regex(pattern), "isolated")
    check_patterns("model", backend)


@pytest.mark.parametrize(
    "patterns", [["a" * (MAX_PATTERN_CHARS + 1)], [f"a{i}" for i in range(MAX_PATTERNS + 1)]], ids=["long", "many"]
)
def test_more_than_any_has(folder, patterns):
    steps = [PARTS["pre_tokenizer"](pattern) for pattern in patterns]
    change_tokenizer(folder, pre_tokenizer={"type": "Sequence", "pretokenizers": steps})
    refused(folder, "more or longer regular expressions")


BROKEN = [
    {"pre_tokenizer": PARTS["pre_tokenizer"]("(")},
    {"pre_tokenizer": {"type": "of tomorrow"}},
    {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "AAAA"}},
    {"model": {"type": "BPE", "vocab": {"a": 4_000_000_000}, "merges": []}},
    {
        "model": {"type": "BPE", "vocab": {"a": 0, "b": 300}, "merges": []},
        "added_tokens": [{"id": 1, "content": "x", "special": False}],
    },
    {"model": {"type": "BPE", "vocab": {"a": -1}, "merges": []}},
    {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": [["a", "b"]]}},
    {"added_tokens": [{"id": 2**62, "content": "<x>", "special": True}]},
]


@pytest.mark.parametrize("parts", BROKEN, ids=json.dumps)
def test_a_tokenizer_that_is_none(folder, parts):
    change_tokenizer(folder, **parts)
    refused(folder, "tokenizer")


def test_a_panic_while_a_tokenizer_is_read(folder, monkeypatch):
    class PanicException(BaseException):
        """As Rust's are called."""

    def panics(*args, **kwargs):
        raise PanicException("index out of bounds")

    for name in ("from_file", "from_str", "from_buffer", "from_pretrained"):
        monkeypatch.setattr(f"tokenizers.Tokenizer.{name}", panics, raising=False)
    monkeypatch.setattr("transformers.AutoTokenizer.from_pretrained", panics)
    refused(folder, "tokenizer", "index out of bounds")


OVERDUE = """
from tokenizers import Regex, Tokenizer, models, pre_tokenizers
from parrot_nb.engine import deadline
from parrot_nb.engine.embedded.vocabulary import PlainTokenizer, parts_of
deadline.TEXT_S = 0.3
deadline.allow_ending()
backend = Tokenizer(models.BPE(vocab={"a": 0}, merges=[]))
backend.pre_tokenizer = pre_tokenizers.Split(Regex("(?:zyx(a|a)*b|c)"), "isolated")
plain = PlainTokenizer(backend, parts_of(backend), {})
plain.encode("a" * 1000)
import time; time.sleep(0.5)
print("before", flush=True)
plain.encode(("zyx" + "a" * 21) * 300 + "b")
print("after")
"""


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such timer")
def test_a_text_that_takes_too_long_ends_the_runtimes_process():
    done = subprocess.run([sys.executable, "-c", OVERDUE], check=False, capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("before\n", -signal.SIGALRM), done.stderr[-500:]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="the system has no such timer")
def test_what_is_said_of_it_and_what_goes_on(apart):
    running = f("Say {{output:y}}", max_tokens=400, ignore_eos=True, fresh=True)()
    apart.flush()
    until(lambda: running.state == "running", "the call")
    os.kill(apart._connection.link.pid, signal.SIGALRM)
    with pytest.raises(P.EngineLostError, match=r"was ended, since a tokenizer took more than a minute.*make the call again"):
        running.get(timeout=WAIT_S)
    assert_usable(apart)
