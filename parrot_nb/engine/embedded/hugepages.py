"""Memory of a CPU's steps on huge pages, and kept from step to step.

A step reads all weights once. By pages of 4 KB every one of them is looked up, which in a virtual machine means two tables,
and prefetching stops at its end; on pages of 2 MB a decoding step takes a fifth less. The weights push everything else out
of a core's caches, its tables of pages included, so the objects of Python that the next operation needs gain too. What a
prompt's layers need for a moment, malloc returns to the system and fetches again, zeroed page by page, unless it is told to
keep it.

This is Linux's and glibc's; elsewhere nothing happens. What is computed does not change.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

BLOCK = 2 * 2**20
PAGE = 4096
LEAST_BYTES = 2 * BLOCK  # of weights: smaller ones stay in a core's cache and its table of pages
ALMOST_FULL = 0.9  # of a block's pages hold something: making it whole takes hardly more memory
MOST_S = 1.0  # to move what is there already; the system moves the rest in time
MADV_HUGEPAGE, MADV_COLLAPSE = 14, 25  # madvise(2); the latter since Linux 6.1
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt(3)
KEPT_BYTES, MMAP_BYTES = 256 * 2**20, 32 * 2**20  # the second is where glibc's own, moving threshold ends


@dataclass(frozen=True, slots=True)
class Region:
    """Addresses from `start` up to `end` that are mapped alike."""

    start: int
    end: int
    writable: bool


class HugePages:
    """Puts memory on huge pages, first of all what is filled after it was made: make one, load, then `settle`."""

    def __init__(self) -> None:
        self._libc = _libc()
        self._before = set(self._full_blocks())

    def settle(self, num_bytes: int) -> bool:
        """Move what is filled, if so many bytes of weights are worth it. Returns whether the system does so."""
        if self._libc is None or num_bytes < LEAST_BYTES:
            return False
        _keep_freed(self._libc)
        blocks = list(self._full_blocks())
        moves = False
        for start, end in _spans(_regions(), blocks):
            moves = not self._libc.madvise(start, end - start, MADV_HUGEPAGE) or moves
        end_s = time.monotonic() + MOST_S
        for block in sorted(blocks, key=self._before.__contains__):  # weights may lie where others have lain before
            if time.monotonic() > end_s or self._libc.madvise(block, BLOCK, MADV_COLLAPSE):
                break  # an older Linux: it moves what was advised by itself, some blocks a second
        return moves

    def _full_blocks(self) -> Iterator[int]:
        """Addresses of blocks of ordinary memory that are almost full."""
        if self._libc is None:
            return
        for region in _regions():
            start, end = -(-region.start // BLOCK) * BLOCK, region.end // BLOCK * BLOCK
            if not region.writable or end <= start:
                continue
            resident = (ctypes.c_ubyte * ((end - start) // PAGE))()
            if self._libc.mincore(start, end - start, resident):
                continue  # it was unmapped meanwhile
            pages, per_block = bytes(resident), BLOCK // PAGE
            for i in range((end - start) // BLOCK):
                if pages.count(1, i * per_block, (i + 1) * per_block) >= ALMOST_FULL * per_block:
                    yield start + i * BLOCK


def _spans(regions: Sequence[Region], blocks: Sequence[int]) -> Iterator[tuple[int, int]]:
    """Yield the spans to ask huge pages for: of each region what lies between full blocks, both in ascending order; of malloc's the rest
    too, with what it has reserved after it, for what comes there later."""
    for region, after in itertools.pairwise([*regions, Region(0, 0, writable=True)]):
        inside = blocks[bisect_left(blocks, region.start) : bisect_left(blocks, region.end)]
        if inside and not after.writable and after.start == region.end:
            yield inside[0], after.end
        elif inside:
            yield inside[0], inside[-1] + BLOCK


def _regions() -> list[Region]:
    """Private memory of the process that is no file: what is writable, and what malloc has reserved right after it."""
    regions: list[Region] = []
    try:
        lines = Path("/proc/self/maps").read_text(errors="surrogateescape").splitlines()
    except OSError:  # not every container shows it
        return []
    for line in lines:
        addresses, mode, _, _, inode, *name = line.split(maxsplit=5)
        if inode != "0" or mode[3] != "p" or (name and not name[0].startswith(("[heap", "[anon"))):
            continue
        start, end = (int(address, 16) for address in addresses.split("-"))
        if mode[:2] == "rw":
            regions.append(Region(start, end, writable=True))
        elif mode[:3] == "---" and regions and regions[-1].end == start:
            regions.append(Region(start, end, writable=False))
    return regions


@cache
def _libc() -> Any:
    """The C library of a Linux that gives huge pages to those who ask, if it is glibc; None elsewhere."""
    try:
        setting = Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text()
    except OSError:
        return None
    if sys.platform != "linux" or "[never]" in setting or os.sysconf("SC_PAGE_SIZE") != PAGE:
        return None
    libc = ctypes.CDLL(None, use_errno=True)
    if not hasattr(libc, "gnu_get_libc_version"):
        return None
    libc.madvise.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
    libc.mincore.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p]
    return libc


@cache
def _keep_freed(libc: Any) -> None:
    """Have malloc keep up to `KEPT_BYTES` of freed memory at hand, blocks of up to `MMAP_BYTES` among it."""
    libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
    libc.mallopt(M_MMAP_THRESHOLD, MMAP_BYTES)
