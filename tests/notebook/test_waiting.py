"""A `get()` for what only a task of the running loop can set: in IPython's terminal it waits, in a Jupyter kernel it is refused."""

from __future__ import annotations

import os
import re
import signal
import sys
import time
from collections.abc import Iterator

import pexpect
import pytest

WAIT_S = 60
LATER = """
async def later(variable, text, seconds):
    ran.append("begun")
    await asyncio.sleep(seconds)
    variable.set(text)
    ran.append("ended")
async def says(rest):
    print("it waits", flush=True)
    await rest
ran = []
"""


class Terminal:
    """An IPython terminal on a pseudo-terminal; `run` is a cell."""

    def __init__(self, folder: str) -> None:
        environment = {**os.environ, "IPYTHONDIR": folder, "TERM": "dumb"}
        arguments = ["-m", "IPython", "--simple-prompt", "--no-banner", "--colors=nocolor", "--no-confirm-exit"]
        self.process = pexpect.spawn(sys.executable, arguments, env=environment, encoding="utf-8", timeout=WAIT_S, echo=False)
        self.number = 0
        self._end_of_cell()

    def _end_of_cell(self) -> str:
        self.number += 1
        self.process.expect(re.escape(f"In [{self.number}]: "))
        return self.process.before

    def send(self, code: str) -> None:
        self.process.sendline(f"exec({code!r})" if "\n" in code else code)

    def run(self, code: str) -> str:
        self.send(code)
        return self._end_of_cell()

    def interrupt(self) -> str:
        os.kill(self.process.pid, signal.SIGINT)
        return self._end_of_cell()


@pytest.fixture(scope="module")
def terminal(tmp_path_factory) -> Iterator[Terminal]:
    opened = Terminal(str(tmp_path_factory.mktemp("ipython")))
    opened.run("%load_ext parrot_nb")
    opened.run("import asyncio, threading, time, parrot_nb as P")
    opened.run(LATER)
    yield opened
    opened.process.close(force=True)


def test_in_the_terminal_a_task_sets_it(terminal):
    code = "v = P.variable('v'); t = asyncio.create_task(later(v, 'late', 0.2)); print('got', v.get()); await t"
    assert "got late" in terminal.run(code)
    assert "['begun', 'ended']" in terminal.run("ran")


def test_in_the_terminal_a_task_begun_in_an_earlier_cell_sets_it(terminal):
    terminal.run("ran.clear(); v = P.variable('v'); t = asyncio.create_task(later(v, 'earlier', 0.2)); await asyncio.sleep(0)")
    assert "got earlier" in terminal.run("await asyncio.sleep(0); print('got', v.get())")
    assert "['begun', 'ended'] True" in terminal.run("await t; print(ran, t.done())")


def test_in_the_terminal_lines_typed_meanwhile_all_run(terminal):
    terminal.send("ran.clear(); v = P.variable('v'); t = asyncio.create_task(later(v, 'x', 0.5)); print('got', v.get()); await t")
    for i in range(3):
        terminal.send(f"print('line', {i})")
    texts = [terminal._end_of_cell() for _ in range(4)]
    assert "got x" in texts[0]
    assert [f"line {i}" in text for i, text in enumerate(texts[1:])] == [True] * 3


def test_in_the_terminal_an_interrupt_ends_the_wait_and_harms_no_task(terminal):
    terminal.run("ran.clear(); v = P.variable('v'); other = P.variable('other')")
    terminal.send("t = asyncio.create_task(says(later(other, 'unharmed', 0.5))); v.get() or await t")
    terminal.process.expect("it waits")  # the task runs in nothing but the wait
    shown = terminal.interrupt()
    assert "Interrupted: 'v' cancelled; the session goes on." in shown
    assert "Traceback" not in shown
    assert "unharmed ['begun', 'ended']" in terminal.run("print(await other, ran) or await t")


def test_in_the_terminal_a_timeout_ends_the_wait(terminal):
    assert "GetTimeoutError: 'v' is still pending after 0.2 s" in terminal.run("await asyncio.sleep(0); v.get(timeout=0.2)")


def test_in_the_terminal_the_loop_is_left_as_it_was(terminal):
    code = "t = asyncio.create_task(later(P.variable('w'), 'w', 0)); await t; asyncio.run(asyncio.sleep(0))"
    assert "cannot be called from a running event loop" in terminal.run(code)


# In a kernel


@pytest.fixture(scope="module")
def kernel(open_notebook):
    opened = open_notebook()
    assert opened.run(f"%load_ext parrot_nb\nimport asyncio, threading, parrot_nb as P\n{LATER}").error is None
    return opened


def refused(output) -> None:
    assert output.error == "SessionError", output
    assert "'v' waits for 'v', which nothing has set: set it first, or await v instead of get()." in output.message


@pytest.mark.parametrize("session", ["P.current_session()", "P.Session(model='none')"])
@pytest.mark.parametrize("top", ["", "await asyncio.sleep(0)\n"])
def test_a_kernels_cell_is_refused_and_what_is_queued_runs(kernel, session, top):
    code = f"{top}v = P.variable('v')\nran.clear()\nt = asyncio.create_task(later(v, 'late', 0.2))\nwith {session}:\n    v.get()"
    sent = [kernel.client.execute(code, stop_on_error=False), kernel.send("print(await v)"), kernel.send("print('next', ran)")]
    outputs = [kernel.collect(one) for one in sent]
    refused(outputs[0])
    assert [output.text for output in outputs[1:]] == ["late\n", "next ['begun', 'ended']\n"]


def test_a_task_of_a_kernel_is_refused_too(kernel):
    refused(kernel.run("async def reads():\n    return v.get()\nv = P.variable('v')\nawait asyncio.create_task(reads())"))


def test_a_kernels_thread_with_a_loop_of_its_own_waits(kernel):
    code = (
        "async def main():\n"
        "    v = P.variable('v')\n"
        "    t = asyncio.create_task(later(v, 'there', 0.1))\n"
        "    values.append(v.get())\n"
        "    await t\n"
        "values, ran = [], []\n"
        "thread = threading.Thread(target=asyncio.run, args=(main(),))\n"
        "thread.start(); thread.join(30)\n"
        "print(values, ran)"
    )
    assert kernel.run(code).text == "['there'] ['begun', 'ended']\n"


def test_an_interrupt_of_an_async_cell_in_get_is_told_at_once(kernel):
    """The kernel's handler asks the loop to cancel the cell's task, and the loop stands still."""
    code = "@P.native_function\ndef slow():\n    threading.Event().wait()\nawait asyncio.sleep(0)\nslow().get()"
    sent = kernel.send(code)
    kernel.collect(sent, until="display")  # the graph
    time.sleep(0.5)
    kernel.manager.interrupt_kernel()
    output = kernel.collect(sent)
    assert output.error in ("CancelledError", "KeyboardInterrupt", "CellInterrupted")
    assert kernel.value("1 + 1") == "2"
    assert kernel.value("P.current_session().calls()[-1].outputs[0].state") == "'cancelled'"
    assert kernel.run("await asyncio.sleep(0)\nprint('goes on')").text == "goes on\n"
