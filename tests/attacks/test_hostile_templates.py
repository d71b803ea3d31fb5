"""Chat templates of strangers: each is rendered, or refused with one sentence, after a bounded amount of work."""

from __future__ import annotations

import contextlib
import json
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from parrot_nb.engine.embedded import template_budget
from parrot_nb.engine.embedded.frames import ChatTemplate
from parrot_nb.engine.embedded.templates import compile_template
from parrot_nb.errors import EngineError

LINES = (Path(__file__).parent / "hostile_templates.txt").read_text(encoding="utf-8").splitlines()
HOSTILE = [line for line in LINES if line and not line.startswith("#")]
MEMORY_BYTES = 512 * 2**20  # beside what the tests hold already


class Tokenizer:
    """A tokenizer, as far as a chat template asks for one."""

    def __init__(self, chat_template: str) -> None:
        self.chat_template = chat_template
        self.special_tokens_map = {"bos_token": "<s>"}

    def apply_chat_template(self):
        raise AssertionError("templates are rendered here")

    apply_chat_template.__qualname__ = "PreTrainedTokenizerBase.apply_chat_template"


def chat(template: str) -> ChatTemplate:
    return ChatTemplate(Tokenizer(template), lambda text: [text], lambda _: False, lambda _: False)


@pytest.fixture
def little_work(monkeypatch):
    """A fifth of the budget, so that the whole table takes seconds."""
    monkeypatch.setattr(template_budget, "BUDGET_UNITS", template_budget.BUDGET_UNITS // 5)


@pytest.fixture
def little_memory():
    """Memory to do the attack in, and no more."""
    held = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (held + MEMORY_BYTES, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited as Linux does it")
@pytest.mark.parametrize("template", HOSTILE)
def test_it_is_refused_by_the_work_that_it_does(template, little_work, little_memory):
    with pytest.raises(EngineError, match=r"^The chat template .*: use --raw\.$") as caught:
        chat(template + "{{ messages[0].content }}").frame(1, None)
    said = str(caught.value)
    assert "within" not in said, "it was broken off by the clock"
    assert "MemoryError" not in said
    assert len(said) < 300
    assert "\n" not in said


DEEP = [
    "(" * 100_000,
    "{{ " + "(" * 50_000,
    "{{ " + "a+" * 50_000 + "a }}",
    "{% if a %}" * 5_000,
    "{{ a" + "[0]" * 50_000 + " }}",
]


def test_deep_sources_are_refused_or_rendered():
    """In a process of its own: a stack that overflows ends it."""
    code = (
        "import json, sys; sys.path.insert(0, sys.argv[1])\nfrom test_hostile_templates import answers\n"
        "sys.stdout.write(str(sum(map(answers, json.load(sys.stdin)))))"
    )
    command = [sys.executable, "-c", code, str(Path(__file__).parent)]
    done = subprocess.run(command, check=False, input=json.dumps(DEEP), capture_output=True, text=True)
    assert done.stdout == str(len(DEEP)), done.stderr[-500:]


def answers(source: str) -> bool:
    """Whether a template gives a text or our error."""
    with contextlib.suppress(EngineError):
        chat(source + "{{ messages[0].content }}").frame(1, None)
    return True


def test_a_conversation_of_long_templates_is_within_the_budget():
    """30,000 characters, as the longest templates in use have, for each of a hundred messages."""
    template = "{% for m in messages %}{{ m.role ~ '\\n' + m.content | trim }}" + "x" * 30_000 + "{% endfor %}"
    program = compile_template(template)
    assert len(program.render(messages=[{"role": "user", "content": "a" * 40}] * 100)) > 100 * 30_000
