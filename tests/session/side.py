"""Sessions in scripts, and processes as Linux shows them."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import parrot_nb as P

WAIT_S = 60
PROLOGUE = f"""
import faulthandler, gc, multiprocessing, os, signal, sys, threading, time, weakref
sys.path.insert(0, {str(Path(__file__).parent)!r})
import parrot_nb as P
from side import WAIT_S, descriptors, pid_of, runs, until, write
session = P.Session(isolate=True, max_tokens=4)
session.__enter__()
"""


def write(template: str = "Say {{input:x}}: {{output:y}}", **options) -> P.SemanticFunction:
    """A prompt as a function; four tokens, unless options say otherwise."""
    return P.SemanticFunction(template, name="write", options=P.language.Options.checked(**{"max_tokens": 4, **options}))


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen"
        time.sleep(0.01)


def pid_of(session: P.Session) -> int:
    """The process that a session's runtime is in."""
    assert session.place == "in a process of its own"
    pid = session._connection.link.pid
    assert pid is not None
    return pid


def runs(pid: int) -> bool:
    """Whether there is such a process, and it has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descriptors() -> dict[str, str]:
    """What is open in this process."""
    found = {}
    for path in Path("/proc/self/fd").iterdir():
        try:
            found[path.name] = str(path.readlink())
        except FileNotFoundError:
            continue
    return found


def script(code: str, **settings) -> subprocess.Popen[str]:
    """A program that has a session, with its output to be read."""
    return subprocess.Popen(
        [sys.executable, "-c", PROLOGUE + code],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **settings,
    )


def done(program: subprocess.Popen[str]) -> str:
    """What a program printed that ended well."""
    out, err = program.communicate(timeout=WAIT_S)
    assert program.returncode == 0, err
    return out
