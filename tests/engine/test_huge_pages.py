"""What steps read lies on huge pages, where the system has them; nothing else changes."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from checkpoints import run, text_after

from parrot_nb.bench.models import find_model
from parrot_nb.engine.embedded import hugepages, load_engine
from parrot_nb.engine.protocol import Sampling

MIB = 2**20
needs_huge_pages = pytest.mark.skipif(hugepages._libc() is None, reason="needs a Linux that gives huge pages to those who ask")

# The kernel's own word for what was advised is "hg"; what was moved at once, it counts in kB.
SETTLES = """
import mmap, re, sys
from parrot_nb.engine.embedded.hugepages import HugePages

def memory():
    return mmap.mmap(-1, 32 * 2**20, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)

before = memory()
before.write(b"1" * len(before))
pages = HugePages()
full, sparse = memory(), memory()
full.write(b"2" * len(full))
for start in range(0, len(sparse), 2**16):
    sparse[start] = 3
print(pages.settle(int(sys.argv[1])))
flags = re.findall(r"AnonHugePages: +(\\d+) kB|VmFlags: (.*)", open("/proc/self/smaps").read())
print(sum(int(kb) for kb, _ in flags if kb), any("hg" in words.split() for _, words in flags))
assert set(full[:]) == set(b"2") and set(before[:]) == set(b"1") and sum(sparse[:]) == 3 * len(sparse) // 2**16
"""


@needs_huge_pages
def test_what_is_filled_moves_and_keeps_its_bytes():
    settled, (moved_kb, advised) = settle(64 * MIB)
    assert (settled, advised) == ("True", "True")
    assert int(moved_kb) == 0 or 48 * 1024 <= int(moved_kb) <= 88 * 1024, "what was full, or all left to an older kernel"


@needs_huge_pages
def test_small_weights_stay_where_they_are():
    assert settle(hugepages.LEAST_BYTES - 1) == ("False", ["0", "False"])


def test_where_nothing_can_be_found_out_nothing_is_done(monkeypatch):
    def refused(*_, **__):
        raise PermissionError("no")

    hugepages._libc.cache_clear()
    try:
        monkeypatch.setattr(hugepages.Path, "read_text", refused)
        assert not hugepages.HugePages().settle(64 * MIB)
        monkeypatch.undo()
        found = hugepages._libc()
        monkeypatch.setattr(hugepages.Path, "read_text", refused)
        pages = hugepages.HugePages()
        assert (pages._libc is found, list(pages._before), pages.settle(64 * MIB)) == (True, [], False)
    finally:
        hugepages._libc.cache_clear()


SAYS = """
import asyncio
from parrot_nb.bench.models import find_model
from parrot_nb.engine.embedded import load_engine

for off in ((), (), ("huge_pages",)):
    engine = load_engine(find_model("default"), device="cpu", dtype="float32", off=off)
    print("weights on huge pages" in engine.model.swapped)
    asyncio.run(engine.close())
"""


@needs_huge_pages
def test_an_engine_says_so():
    """The second one's weights may lie where the first one's did."""
    done = subprocess.run([sys.executable, "-c", SAYS], capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.split() == ["True", "True", "False"], done.stderr[-2000:]


RESTS = """
import asyncio, ctypes, pathlib, re, time
from parrot_nb.bench.models import find_model
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling
from checkpoints import text_after

libc = ctypes.CDLL(None)
libc.malloc.restype, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]

def taken_mib():
    return int(re.search(r"VmRSS:\\s*([0-9]+)", pathlib.Path("/proc/self/status").read_text())[1]) >> 10

async def main(engine):
    blocks = [libc.malloc(2**20) for _ in range(100)]
    for block in blocks:
        ctypes.memset(block, 1, 2**20)
    for block in blocks:
        libc.free(block)
    freed = taken_mib()
    await text_after(engine, engine.codec.encode("Anna has"), Sampling(max_tokens=4, ignore_eos=True))
    end_s = time.monotonic() + 30
    while taken_mib() > freed - 60 and time.monotonic() < end_s:
        await asyncio.sleep(0.05)
    print(freed - taken_mib())
    await engine.close()

asyncio.run(main(load_engine(find_model("default"), device="cpu", dtype="float32")))
"""


@needs_huge_pages
def test_an_engine_without_work_returns_what_it_has_freed():
    here = {**os.environ, "PYTHONPATH": os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])}
    done = subprocess.run([sys.executable, "-c", RESTS], capture_output=True, text=True, timeout=60, check=False, env=here)
    assert done.returncode == 0, done.stderr[-2000:]
    assert int(done.stdout) >= 60


def test_the_same_is_written():
    async def main(engine):
        prompt = engine.codec.encode("Anna has to call the baker. Who has to call the baker? Answer:")
        return await text_after(engine, prompt, Sampling(max_tokens=12, ignore_eos=True))

    engines = [load_engine(find_model("default"), device="cpu", dtype="float32", off=off) for off in ((), ("huge_pages",))]
    one, other = (run(engine, main) for engine in engines)
    assert one == other != ""


def settle(num_bytes: int) -> tuple[str, list[str]]:
    done = subprocess.run(
        [sys.executable, "-c", SETTLES, str(num_bytes)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    first, second = done.stdout.splitlines()
    return first, second.split()
