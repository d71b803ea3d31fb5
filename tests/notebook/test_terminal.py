"""What an IPython terminal prints of calls: nothing by itself, and nothing into the middle of what others print."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from test_waiting import Terminal

SAY = "say = P.native_function(lambda x: time.sleep(0.3) or 'a text', name='say')"
SLOW = "slow = P.native_function(lambda: go.wait(30) and print('printed') or 'value', name='slow')"


@pytest.fixture(scope="module")
def terminal(tmp_path_factory) -> Iterator[Terminal]:
    opened = Terminal(str(tmp_path_factory.mktemp("ipython")))
    opened.run("%load_ext parrot_nb")
    opened.run("import threading, time, parrot_nb as P")
    for line in (SAY, SLOW, "say('warm').get() and None"):
        opened.run(line)
    yield opened
    opened.process.close(force=True)


def shown(text: str) -> list[str]:
    """The lines that stay: what a carriage return writes over does not."""
    return [
        line.rpartition("\r")[2].rstrip() for line in text.replace("\r\n", "\n").split("\n") if line.rpartition("\r")[2].strip()
    ]


def test_a_call_that_runs_on_prints_nothing_between_prompts(terminal):
    assert shown(terminal.run("v = say('b')")) == []
    first, second = shown(terminal.run("w = say('c'); w"))
    assert re.fullmatch(r"Out\[\d+\]: say \((pending|running)\)", first)
    assert "get() waits for the value" in second
    assert shown(terminal.run("while not (v.done() and w.done()): time.sleep(0.05)")) == []
    assert shown(terminal.run("time.sleep(0.3)")) == [], "its views have had the time"


def test_a_cell_that_waits_says_once_what_it_waited_for(terminal):
    assert shown(terminal.run("say('d').get() and None")) == ["1 call · 1 done", "✓ say(x) -> say: a text"]
    assert shown(terminal.run("v.get() and None")) == []


def test_what_a_function_prints_while_a_line_tells_of_the_wait_stands_alone(terminal):
    """It prints when the line of the wait has been on the terminal for a while."""
    text = terminal.run("go = threading.Event(); threading.Timer(1.5, go.set).start(); _ = slow().get()")
    assert re.search(r"\rslow: 0 tokens, \d s", text), "the line was there"
    assert "printed" in shown(text)
    assert terminal.run("import sys; print(type(sys.stdout).__name__)").strip() != "_Beside"
