"""Many small calls of all kinds whose handles are dropped; prints what both sides of the session take, a line of JSON each time.

`python tests/session/soak.py --calls 200000`: memory in MB, threads, descriptors and the lengths of all containers together, of the
notebook's process and of the runtime's, after 2,000 calls and at the end.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import json
import os
import random
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import parrot_nb as P

SIZED = (dict, set, list, deque)
FIRST_LOOK = 2_000  # calls
RESET_EVERY = 100  # rounds
RENAME_EVERY = 10
STREAM_EVERY = 5


class Work:
    """One session's work, a round at a time.

    Args:
        session: where its calls run.
        seed: of the texts.
    """

    def __init__(self, session: P.Session, seed: int) -> None:
        self.session = session
        self.num_calls = 0
        self._rng = random.Random(seed)
        self._num_rounds = 0
        self._tip: Any = "begin"
        self._say = semantic("say", "Say {{input:x}}: {{output:y}}", max_tokens=2)

        @P.native_function
        def follow(text, word):
            return f"{word} {len(text)}"

        @P.native_function
        def measure(text):
            return {"length": len(text)}

        @P.native_function
        async def later(text):
            await asyncio.sleep(0)
            return text.upper()

        @P.native_function
        def fails(text):
            raise ValueError(text)

        self._follow, self._measure, self._later, self._fails = follow, measure, later, fails

    def round(self) -> None:
        """Some hundred calls; none is held afterwards but the tip of an endless chain."""
        self._num_rounds += 1
        for step in (self._memoised, self._fresh, self._natives, self._failing, self._given, self._chain, self._cancelled):
            step()
        if self._num_rounds % STREAM_EVERY == 0:
            with ThreadPoolExecutor(1) as beside:  # a notebook's own thread has a loop already
                beside.submit(asyncio.run, self._awaited()).result()
        if self._num_rounds % RENAME_EVERY == 0:
            self._renamed()
        if self._num_rounds % RESET_EVERY == 0:
            self.session.reset()

    def _memoised(self) -> None:
        self._check(self._say.map([f"word {i % 10}" for i in range(100)]))

    def _fresh(self) -> None:
        self._check(self._say.map([f"{self._rng.random():.6f}" for _ in range(8)]))

    def _natives(self) -> None:
        said = self._say("word 1")
        found = [self._measure(said) for _ in range(4)] + [self._later("a"), "<" + said + ">", P.join([said, said])]
        first = P.first(said, *found[:2], where=lambda value: isinstance(value, dict))
        self._check([said, first, *found])

    def _failing(self) -> None:
        broken = self._fails("word")
        follows = self._follow(broken, "never")
        for variable in (follows, broken):
            ends_without_value(variable)
            assert variable.state == "failed"
        self.num_calls += 2

    def _given(self) -> None:
        texts = [P.variable(value=f"word {i}") for i in range(4)]
        empty = P.variable(name="empty")
        read = self._say(empty)
        self.session.flush()
        empty.set("word 4")
        self._check([*(self._say(text) for text in texts), read])

    def _chain(self) -> None:
        for i in range(10):
            self._tip = self._follow(self._tip, f"step {i}")
        self._check([self._tip], count=10)

    def _cancelled(self) -> None:
        texts = [self._say.options(max_tokens=200)(f"{self._rng.random():.6f}") for _ in range(2)]
        self.session.flush()
        for text in texts:
            text.cancel()
        for text in texts:
            ends_without_value(text)
        lost = self._say(f"{self._rng.random():.6f}")
        self.session.flush()
        del lost
        self.num_calls += 3

    async def _awaited(self) -> None:
        text = self._say(f"{self._rng.random():.6f}")
        assert [piece async for piece in text.stream()]
        late = self._say.options(max_tokens=200)(f"{self._rng.random():.6f}")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(late.aget(), 0.001)
        late.cancel()
        self.num_calls += 2

    def _renamed(self) -> None:
        number = f"{self._rng.random():.6f}"[2:]
        self._check([semantic(f"say_{number}", f"{number} {{{{input:x}}}}: {{{{output:y_{number}}}}}", max_tokens=2)("word")])
        self._check([P.native_function(named(f"native_{number}"))("word")])
        self._say = semantic("say", f"Say {{{{input:x}}}} {self._rng.randrange(10)}: {{{{output:y}}}}", max_tokens=2)

    def _check(self, variables: Any, count: int | None = None) -> None:
        for value in P.gather(*variables).get(timeout=60):
            assert value is not None
        self.num_calls += len(variables) if count is None else count


def ends_without_value(variable: P.SemanticVariable) -> None:
    """Read a variable that fails or is cancelled. In one process both sides share the error, whose traceback would hold who read it."""
    try:
        variable.get(timeout=60)
    except P.ParrotError as error:
        error.__traceback__ = None


def semantic(name: str, text: str, **options: Any) -> Any:
    """A semantic function of this name and prompt."""
    return P.semantic_function(**options)(named(name, text, [name for name in ("x",) if f"input:{name}" in text]))


def named(name: str, text: str = "", parameters: list[str] | None = None) -> Callable[..., Any]:
    """A Python function of this name and docstring that returns its argument."""
    scope: dict[str, Any] = {}
    exec(f"def {name}({', '.join(parameters or ['x'])}):\n    return x", scope)
    scope[name].__doc__ = text
    return scope[name]


def lengths() -> Counter[str]:
    """Lengths of all containers of this process together, by the type that holds them."""
    found: Counter[str] = Counter()
    seen: set[int] = set()
    for owner in gc.get_objects():
        for part in (owner, *gc.get_referents(owner)):
            if type(part) in SIZED and id(part) not in seen:
                seen.add(id(part))
                found[f"{type(owner).__module__}.{type(owner).__name__}"] += len(part)
    return found


def taken(pid: int) -> dict[str, float]:
    """What a process takes, as Linux tells it."""
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {
        "mb": round(int(status["VmRSS"].split()[0]) / 1024, 1),
        "threads": int(status["Threads"]),
        "descriptors": len(os.listdir(f"/proc/{pid}/fd")),  # noqa: PTH208 - others may vanish while it is read
    }


def native_threads() -> frozenset[threading.Thread]:
    """The threads that run native functions now, of whatever session."""
    return frozenset(t for t in threading.enumerate() if t.name.startswith("parrot-native-") and t.name != "parrot-native-async")


def look(session: P.Session, num_calls: int, others: frozenset[threading.Thread] = frozenset()) -> dict[str, Any]:
    """All that is measured, once nothing runs but the threads of others."""
    until_s = time.monotonic() + 30
    while not session.idle or native_threads() - others:
        assert time.monotonic() < until_s, "something runs without end"
        time.sleep(0.05)
    time.sleep(0.3)  # handles that were dropped are told of in a moment
    session.flush()
    time.sleep(0.3)
    gc.collect()
    link = session._connection.link
    pid = getattr(link, "pid", None)
    return {
        "calls": num_calls,
        "notebook": taken(os.getpid()),
        "runtime": None if pid is None else taken(pid),
        "containers": sum(lengths().values()),
    }


def main() -> None:
    """See the module."""
    line = argparse.ArgumentParser()
    line.add_argument("--calls", type=int, default=200_000)
    line.add_argument("--seconds", type=float, default=float("inf"), help="after which fewer calls will do")
    line.add_argument("--at-least", type=int, default=2 * FIRST_LOOK, help="calls, however long they take")
    line.add_argument("--isolate", choices=("yes", "no"), default="yes")
    line.add_argument("--every", type=int, default=20_000, help="calls between two looks")
    line.add_argument("--what", action="store_true", help="say which types hold what has grown")
    asked = line.parse_args()
    began_s = time.monotonic()
    with P.Session(isolate=asked.isolate == "yes", device="cpu", kv_memory="4MB") as session:
        work = Work(session, seed=1)
        next_look, before = FIRST_LOOK, Counter[str]()

        def told() -> None:
            print(json.dumps(look(session, work.num_calls) | {"seconds": round(time.monotonic() - began_s, 1)}), flush=True)

        while work.num_calls < asked.calls and (work.num_calls < asked.at_least or time.monotonic() < began_s + asked.seconds):
            work.round()
            if work.num_calls < next_look:
                continue
            told()
            next_look = asked.every * (work.num_calls // asked.every + 1)
            if asked.what:
                now = lengths()
                print(dict((now - before).most_common(25)), file=sys.stderr, flush=True)
                before = now
        told()


if __name__ == "__main__":
    main()
