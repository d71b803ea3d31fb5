"""A day of work in one page: cells of all kinds, run at random, and what kernel, runtimes and page keep of them.

`make soak` runs it; `PARROT_PAGE_CELLS` says how many cells, `PARROT_PAGE_ROUNDS` how many calls, and `PARROT_PAGE_OUT` where the lines of JSON go.
"""

from __future__ import annotations

import json
import os
import random
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from notebook_pages import CURRENT, Face, NotebookPage

pytestmark = [
    pytest.mark.browser,
    pytest.mark.minutes,
    pytest.mark.timeout(7200),
    pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory and threads from /proc"),
]

NUM_CELLS = int(os.environ.get("PARROT_PAGE_CELLS", "100"))
NUM_ROUNDS = int(os.environ.get("PARROT_PAGE_ROUNDS", "20"))  # of some hundred calls, in a cell of many
NUM_LOOKS = 10
OWN_MB = 0.2  # of a page's heap for each cell that runs: JupyterLab keeps 0.12 of one that prints a number
PLACES = 8  # cells of the notebook, each of which is written anew again and again
SESSION_TESTS = Path(__file__).parents[1] / "session"

BEGIN = f"""%load_ext parrot_nb
import sys; sys.path.insert(0, {str(SESSION_TESTS)!r})
import parrot_nb as P, soak
calls = 0"""
LOOK = """import gc, json, os, pathlib, sys
P.current_session().flush()
gc.collect()
_pids = [os.getpid()] + [int(p) for path in pathlib.Path("/proc/self/task").glob("*/children") for p in path.read_text().split()]
_taken = [soak.taken(pid) for pid in _pids]
print("LOOK" + json.dumps({
    "kernel": _taken[0], "runtimes": len(_taken) - 1, "runtimes_mb": round(sum(t["mb"] for t in _taken[1:]), 1),
    "comms": len(get_ipython().kernel.comm_manager.comms), "blocks": sys.getallocatedblocks(), "calls": calls}))"""


def define(rng: random.Random) -> str:
    return f"%%semantic say(x) -> y --max-tokens 8\nSay {{{{input:x}}}} in way {rng.randrange(1000)}: {{{{output:y}}}}"


def many(rng: random.Random) -> str:
    return f"work = soak.Work(P.current_session(), {rng.randrange(10**6)})\nfor _ in range({NUM_ROUNDS}): work.round()\ncalls += work.num_calls;"


def mapped(rng: random.Random) -> str:
    return f"texts = say.map([f'text {{i}} {rng.randrange(10**6)}' for i in range(30)])\ntexts.get() and None\ncalls += 30"


def chain(rng: random.Random) -> str:
    return f"v = '{rng.randrange(10**6)}'\nfor _ in range(5): v = say(v)\ncalls += 5\nv"


def failing(rng: random.Random) -> str:
    return f"@P.native_function\ndef fails(x): raise ValueError(x)\ncalls += 2\nsay(fails('{rng.random()}')).get()"


def session(rng: random.Random) -> str:
    return "with P.Session(device='cpu', kv_memory='4MB', isolate=True) as s:\n    say('a session').get()\ncalls += 1"


def model(rng: random.Random) -> str:
    return f"%parrot model parrot-tiny --device cpu --kv-memory {rng.choice([8, 12, 16])}MB"


def views(rng: random.Random) -> str:
    return f"%parrot {rng.choice(['timeline', 'vars', 'graph', 'reset', 'cancel', ''])}"


KINDS: list[tuple[Callable[[random.Random], str], int]] = [
    (define, 2), (many, 2), (mapped, 3), (chain, 4), (failing, 2), (session, 2), (model, 2), (views, 3),
]  # fmt: skip
INTERRUPTED = "calls += 1\nsay.options(max_tokens=3000, ignore_eos=True, fresh=True)('no end').get()"


@pytest.fixture
def opened(browser: Any, face: Face) -> Iterator[NotebookPage]:
    notebook = NotebookPage.of(browser, face, "soak", [BEGIN, define(random.Random(0)), *["None"] * PLACES, LOOK])
    yield notebook
    notebook.close()


class Day:
    """What is done in a page, and what it takes."""

    def __init__(self, opened: NotebookPage) -> None:
        self.opened = opened
        self.page = opened.page
        self.tools = opened.page.context.new_cdp_session(opened.page)

    def run(self, cell: int, source: str | None = None, *, interrupt: bool = False) -> None:
        self.page.evaluate(
            f"""([cell, source]) => {{
              const content = {CURRENT}.content;
              if (source !== null) content.widgets[cell].model.sharedModel.setSource(source);
              content.activeCellIndex = cell;
              window.ended = window.jupyterapp.commands.execute('notebook:run-cell');
            }}""",
            [cell, source],
        )
        if interrupt:
            self.page.wait_for_timeout(400)
            self.page.evaluate(f"async () => {{ await {CURRENT}.sessionContext.session.kernel.interrupt(); }}")
        self.page.evaluate("async () => { await window.ended; }")

    def look(self) -> dict[str, Any]:
        self.run(PLACES + 2)
        output = self.opened.output(PLACES + 2)
        told = next((line for line in output.splitlines() if line.startswith("LOOK")), None)
        assert told is not None, output
        for _ in range(2):
            self.tools.send("HeapProfiler.collectGarbage")
        heap = self.tools.send("Runtime.getHeapUsage")["usedSize"]
        counters = self.tools.send("Memory.getDOMCounters")
        return json.loads(told.removeprefix("LOOK")) | {
            "page_mb": round(heap / 2**20, 1),
            "nodes": counters["nodes"],
            "listeners": counters["jsEventListeners"],
        }


def test_a_day_in_a_page_leaves_nothing_behind(opened: NotebookPage) -> None:
    rng, day, out = random.Random(1), Day(opened), os.environ.get("PARROT_PAGE_OUT")
    for cell in range(2):
        day.run(cell)
    looks = []
    for count in range(1, NUM_CELLS + 1):
        cell = 2 + rng.randrange(PLACES)
        if rng.random() < 0.1:
            day.run(cell, INTERRUPTED, interrupt=True)
        else:
            [kind] = rng.choices([kind for kind, _ in KINDS], [weight for _, weight in KINDS])
            day.run(cell, kind(rng))
        if count % (NUM_CELLS // NUM_LOOKS) == 0:
            looks.append({"cells": count} | day.look())
            if out:
                with Path(out).open("a") as file:
                    file.write(json.dumps(looks[-1]) + "\n")
    first, last = looks[0], looks[-1]
    assert last["calls"] > first["calls"], "the cells did not run"
    assert last["kernel"]["mb"] - first["kernel"]["mb"] < 50, looks
    full_mb = max(look["runtimes_mb"] for look in looks[: NUM_LOOKS // 2])  # a new process fills its cache first
    assert last["runtimes_mb"] - full_mb < 50, looks
    assert last["kernel"]["threads"] <= first["kernel"]["threads"] + 2, looks
    assert last["kernel"]["descriptors"] <= first["kernel"]["descriptors"] + 4, looks
    assert last["runtimes"] <= first["runtimes"] + 1, looks
    assert last["comms"] <= first["comms"] + 2 * PLACES, looks
    assert last["page_mb"] - first["page_mb"] < 10 + OWN_MB * (last["cells"] - first["cells"]), looks
