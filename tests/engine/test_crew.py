"""How many threads compute beside neighbours, on a made-up machine that shares its cores fairly; and what this one tells."""

from __future__ import annotations

import math
import subprocess
import sys
import threading
import time

import pytest
import torch
from checkpoints import checkpoint
from hypothesis import given
from hypothesis import strategies as st

from parrot_nb.engine.embedded import crew, loader
from parrot_nb.engine.embedded.crew import Crew, Look
from parrot_nb.engine.embedded.model import StepModel

STEP_S = 0.05


class Machine:
    """Cores that are shared fairly by the crew's threads and neighbours that never sleep."""

    def __init__(self, cores: int, quota: int | None = None) -> None:
        """`quota`: cores that this process may use at once, whose threads the neighbours then are."""
        self.quota, self.free = quota, cores
        cores = quota or cores
        self.cores, self.neighbours, self.at_s = cores, 0, 0.0
        self.engine = 1.0  # share of the time for which it computes
        self.idle_s = 0.0
        self.threads: dict[int, tuple[float, float]] = {}
        self.crew = Crew(cores, self.use, self.look, lambda: self.at_s, allowed_cores=quota or math.inf)
        self.counts = [cores]

    def use(self, count: int) -> None:
        self.counts.append(count)

    def look(self) -> Look:
        return Look(self.at_s, dict(self.threads), self.idle_s)

    def run(self, seconds: float) -> None:
        me = threading.get_native_id()
        for _ in range(round(seconds / STEP_S)):
            wanted = self.crew.count + self.neighbours
            share = min(1.0, self.cores / wanted) * self.engine
            for i in range(self.crew.count + (self.neighbours if self.quota else 0)):
                ran, waited = self.threads.get(me + i, (0.0, 0.0))
                self.threads[me + i] = ran + share * STEP_S, waited + (self.engine - share) * STEP_S
            used = min(self.cores, self.crew.count * self.engine + self.neighbours)
            self.idle_s += (self.free - used) * STEP_S
            self.at_s += STEP_S
            self.crew.before_step()


@pytest.mark.parametrize(("cores", "neighbours"), [(2, 1), (4, 2), (8, 3), (2, 5)])
def test_neighbours_get_their_cores_and_give_them_back(cores, neighbours):
    machine = Machine(cores)
    machine.run(10)
    assert machine.counts == [cores], "on an idle machine nothing changes"
    machine.neighbours = neighbours
    machine.run(5)
    fair = cores / (machine.crew.count + neighbours)
    assert machine.crew.count == 1 or fair > 1 - crew.WAITING, "no thread of the crew waits long"
    assert machine.crew.count >= max(1, cores - neighbours), "and none is left out that had a core"
    machine.neighbours = 0
    machine.run(60)
    assert machine.crew.count == cores


def test_idle_cores_beyond_a_quota_are_not_free():
    machine = Machine(8, quota=2)
    machine.neighbours = 1
    machine.run(200)
    assert machine.counts == [2, 1]
    machine.neighbours = 0
    machine.run(10)
    assert machine.counts == [2, 1, 2]


@pytest.mark.parametrize(
    ("how", "owned"), [({"off": ("threads",)}, True), ({"reproducible": True}, True), ({"off": ("threads",)}, False)]
)
def test_an_engine_without_a_crew_begins_with_all_threads_of_the_runtime_s_process_alone(tmp_path, monkeypatch, how, owned):
    """A crew before may have left fewer, and new threads begin with these."""
    used, before = [], torch.get_num_threads()
    prepare = StepModel.prepare

    def prepared(model, page_size):
        used.append(torch.get_num_threads())
        prepare(model, page_size)

    monkeypatch.setattr(StepModel, "prepare", prepared)
    monkeypatch.setattr(loader, "may_end", lambda: owned)
    monkeypatch.setattr(loader, "_all_threads", lambda: 3)
    left = threading.Thread(target=torch.set_num_threads, args=(2,))
    left.start()
    left.join()
    try:
        loader.load_engine(checkpoint(tmp_path / "model", "llama"), device="cpu", dtype="float32", **how)
    finally:
        torch.set_num_threads(before)
    assert used == [3 if owned else 2]


def test_a_moment_is_no_neighbour():
    machine = Machine(2)
    for _ in range(20):
        machine.run(1)
        machine.neighbours = 1
        machine.run(crew.LOOK_S)
        machine.neighbours = 0
    assert machine.counts == [2]


def test_a_neighbour_that_comes_and_goes_changes_the_number_ever_less_often():
    machine = Machine(2)
    changes = []
    for _ in range(2):
        before = len(machine.counts)
        for _ in range(20):
            machine.neighbours = 1
            machine.run(1)
            machine.neighbours = 0
            machine.run(2)
        changes.append(len(machine.counts) - before)
    assert changes[0] > 0
    assert changes[1] < changes[0]


@given(st.lists(st.tuples(st.integers(0, 9), st.floats(0.1, 4), st.floats(0.1, 1)), max_size=12), st.integers(1, 8))
def test_the_number_stays_between_one_and_all(work, cores):
    machine = Machine(cores)
    for machine.neighbours, seconds, machine.engine in work:
        machine.run(seconds)
    assert all(1 <= count <= cores for count in machine.counts)
    assert all(abs(a - b) == 1 for a, b in zip(machine.counts, machine.counts[1:], strict=False))


def test_an_engine_that_mostly_rests_learns_nothing():
    machine = Machine(2)
    machine.engine, machine.neighbours = 0.1, 5
    machine.run(10)
    assert machine.counts == [2]


def test_nothing_changes_where_the_system_tells_nothing():
    used, clock = [], iter(range(1000))
    team = Crew(8, used.append, lambda: None, lambda: next(clock))
    for _ in range(100):
        team.before_step()
    assert (team.count, used) == (8, [])


def test_this_machine_tells_what_ran():
    first = crew.look()
    if first is None:
        pytest.skip("this system does not tell how long threads wait for a core")
    until_s = time.process_time() + 0.2
    while time.process_time() < until_s:
        pass
    second = crew.look()
    me = threading.get_native_id()
    assert second.threads[me][0] - first.threads[me][0] > 0.1
    assert second.threads[me][1] >= first.threads[me][1]
    assert second.idle_s >= first.idle_s
    assert second.at_s > first.at_s


def test_the_runtime_s_process_waits_by_sleeping_and_keeps_what_the_user_says():
    """In a process of its own, since OpenMP reads its variables once."""
    code = """
import os
from parrot_nb.runtime import process
process.share_cores()
print(os.environ.get("GOMP_SPINCOUNT"), os.environ.get("OMP_WAIT_POLICY"), os.environ.get("OMP_NUM_THREADS"))
"""

    def said(**given: str) -> list[str]:
        import os

        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OMP_", "GOMP_", "KMP_", "MKL_"))}
        ran = subprocess.run(
            [sys.executable, "-c", code], env=kept | given, capture_output=True, text=True, timeout=60, check=True
        )
        return ran.stdout.split()

    from parrot_nb.runtime.process import SPINS

    assert said(OMP_NUM_THREADS="3") == [SPINS, "None", "3"]
    assert said(OMP_WAIT_POLICY="active", OMP_NUM_THREADS="1") == ["None", "active", "1"]
    assert said(GOMP_SPINCOUNT="7", OMP_NUM_THREADS="1") == ["7", "None", "1"]
