"""What threads hand to a session arrives whole and in order, whoever else does so meanwhile."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace

import pytest
from hash_engine import HashEngine
from shorthand import WAIT_S, text_of

import parrot_nb as P
from parrot_nb.engine.protocol import Constraint, Sampling
from parrot_nb.runtime.memo import _key


@P.semantic_function(chat=False)
def step(x):
    """Say {{input:x}}: {{output:y}}"""


@pytest.fixture
def session() -> Iterator[P.Session]:
    with P.Session(model="hash", loader=lambda model, on_step: HashEngine(model), max_tokens=4) as s:
        yield s


@pytest.fixture
def hasty() -> Iterator[None]:
    """Threads that take turns as often as they can."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.parametrize("round_", range(8))
def test_threads_that_read_at_once_all_get_their_values(session, hasty, round_):
    """One thread's reading must not overtake the submission of its call by another's."""
    ready = threading.Barrier(4)

    def read(i: int) -> list[str]:
        ready.wait()
        with session:
            return [step(f"{round_}.{i}.{j}").get(timeout=WAIT_S) for j in range(10)]

    with session, ThreadPoolExecutor(4) as pool:
        found = list(pool.map(read, range(4)))
    assert found == [[text_of(f"Say {round_}.{i}.{j}: ", 4) for j in range(10)] for i in range(4)]


def test_variables_dropped_by_several_threads_at_once(session, hasty):
    """Each thread drops handles and flushes, so that two may find the same list of lost ones."""
    ready = threading.Barrier(4)
    errors: list[BaseException] = []

    def drop() -> None:
        try:
            ready.wait()
            for j in range(50):
                step(str(j))
                gc.collect(0)
                session.flush()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=drop) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert step("after").get(timeout=WAIT_S) == text_of("Say after: ", 4)


def test_a_thread_started_inside_uses_the_session_that_is_entered(session):
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(lambda x: step(x).get(timeout=WAIT_S), ["a", "b"]))
    assert found == [text_of("Say a: ", 4), text_of("Say b: ", 4)]
    assert len(session.calls()) == 2


def test_of_two_that_are_entered_the_inner_one_counts(session):
    with P.Session(model="hash", loader=lambda model, on_step: HashEngine(model), max_tokens=4) as inner:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(lambda: step("x").get(timeout=WAIT_S)).result()
        assert len(inner.calls()) == 1
    with ThreadPoolExecutor(1) as pool:
        pool.submit(lambda: step("x").get(timeout=WAIT_S)).result()
    assert len(session.calls()) == 1


CHANGED = {
    "stop": ("end",), "ignore_eos": True, "max_tokens": 7, "repetition_penalty": 1.5, "presence_penalty": 0.5, "frequency_penalty": 0.5,
    "logprobs": 2, "temperature": 0.7, "constraint": Constraint("regex", "a*"), "scoring": "mean",
}  # fmt: skip
HARMLESS = {"top_p": 0.5, "top_k": 3, "min_p": 0.1, "seed": 9}  # of the likeliest token they leave what it is


@pytest.mark.parametrize("name", [field.name for field in fields(Sampling)])
def test_what_changes_a_greedy_text_is_part_of_what_the_memo_knows_it_by(name):
    """A field added later fails here until somebody has thought about it."""
    plain = Sampling(max_tokens=5)
    changed = replace(plain, **{name: {**CHANGED, **HARMLESS}[name]})
    same = _key(b"prompt", plain) == _key(b"prompt", changed)
    assert same == (name in HARMLESS)
