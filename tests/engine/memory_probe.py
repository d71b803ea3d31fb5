"""A program: load models in turn in one process, and print after each what the process still holds.

    memory_probe.py HOW COUNT FOLDER FOLDER     where HOW is one of the functions at the end

Each line is a JSON object: resident megabytes, live objects by class, and names of threads.
"""

from __future__ import annotations

import _thread
import gc
import json
import sys
import threading
from pathlib import Path

import parrot_nb as P
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.engine import EmbeddedEngine
from parrot_nb.engine.embedded.model import StepModel
from parrot_nb.errors import ModelLoadError
from parrot_nb.runtime.events import ModelChanged

KINDS = (EmbeddedEngine, TokenizerCodec, StepModel)
KEPT: list[object] = []  # what a user still has names for


def resident_mb() -> float:
    """Memory of this process that is in use."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def report() -> None:
    """Print what is left."""
    resident = resident_mb()  # as the user's process has it, whenever the garbage collector comes
    gc.collect()
    objects = gc.get_objects()
    live = {kind.__name__: sum(type(one) is kind for one in objects) for kind in KINDS}
    threads = [thread.name for thread in threading.enumerate()]
    print(json.dumps({"mb": resident, "live": live, "threads": threads}), flush=True)


def session(folder: str, **settings: object) -> P.Session:
    """A session on the CPU with a small cache."""
    return P.Session(model=folder, device="cpu", **{"kv_memory": "8MB", "max_context": 64, **settings})


def sessions(folder: str) -> None:
    """A session that runs a prompt, is closed and kept, as a variable of a notebook keeps it."""
    with session(folder, max_tokens=3, ignore_eos=True) as opened:

        @P.semantic_function(chat=False)
        def tell(topic):
            """Of {{input:topic}}: {{output:text}}"""

        KEPT.extend([opened, tell("the sea").get()])


def failures(folder: str) -> None:
    """A load that fails when the weights have been read; its exception is kept."""
    opened = session(folder, kv_memory="100000GB")
    try:
        opened.load_model(folder)
    except ModelLoadError as error:
        KEPT.extend([opened, error])
    else:
        raise AssertionError("it must not fit")
    opened.close()


def interrupts(folder: str) -> None:
    """A load that is interrupted; its exception is kept."""
    opened = session(folder)

    def interrupt() -> None:
        if isinstance(opened.events.since(len(opened.events) - 1)[0], ModelChanged):
            unsubscribe()
            _thread.interrupt_main()

    unsubscribe = opened.events.subscribe(interrupt)
    try:
        opened.load_model(folder)
        opened.load_model(folder)  # in case that the first was faster
    except KeyboardInterrupt as error:
        KEPT.extend([opened, error])
    else:
        raise AssertionError("it was to be interrupted")
    opened.close()


def main() -> None:
    """Do what the command line says."""
    how, count, *folders = sys.argv[1:]
    for i in range(int(count)):
        {"sessions": sessions, "failures": failures, "interrupts": interrupts}[how](folders[i % len(folders)])
        report()


if __name__ == "__main__":
    main()
