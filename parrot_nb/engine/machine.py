"""Memory and cores that this process may take, and what says so: the machine, a container's control group, or the shell.

A container that is limited to 2 GB and two cores on a host of 512 GB and 64 cores reads the host's numbers in /proc: whoever plans by
them is killed, or has 64 threads take turns on two cores. The limits of control groups (cgroups, version 1 and 2) hold for a process
through all groups above its own, as far as the container shows them; affinity and `ulimit` hold besides.
"""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
UNLIMITED = 2**60  # bytes; version 1 says "no limit" by a number near 2**63
RESERVED = 0.0625  # of a group's limit, kept for what is not counted yet: beyond the limit the kernel ends a process of the group


@dataclass(frozen=True, slots=True)
class Memory:
    """Memory that may still be taken.

    Attributes:
        free_bytes: so much; never negative.
        source: what limits it, for people, such as "the machine" or "the container's memory.max".
        limit_bytes: size of what limits it; None where that is not known.
    """

    free_bytes: int
    source: str
    limit_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Cores:
    """Cores that may be used at once.

    Attributes:
        count: so many, which may be a fraction; more than 0.
        source: what limits them, for people.
    """

    count: float
    source: str

    @property
    def threads(self) -> int:
        """Number of threads that keep them busy and do not wait for each other's share: at least 1."""
        return max(1, math.floor(self.count + 0.25))


def memory(root: Path = ROOT) -> Memory:
    """Return the memory that this process may still take: the least of all that limit it. Reads some files, in under a millisecond.

    Args:
        root: folder that stands for the root of all files, for tests.
    """
    found = [_machine_memory(root), *_group_memory(root), *_own_memory(root)]
    return min(found, key=lambda memory: memory.free_bytes)


def cores(root: Path = ROOT) -> Cores:
    """Return the cores that this process may use at once: the least of machine, affinity and quotas.

    Args:
        root: folder that stands for the root of all files, for tests.
    """
    machine = os.cpu_count() or 1
    found = [Cores(machine, "the machine")]
    with contextlib.suppress(AttributeError, OSError):  # not outside Linux
        allowed = len(os.sched_getaffinity(0))
        if allowed < machine:
            found.append(Cores(allowed, "this process's CPU affinity"))
    found += _group_cores(root)
    return min(found, key=lambda cores: cores.count)


def _machine_memory(root: Path) -> Memory:
    table = dict(_pairs(root / "proc/meminfo"))
    if "MemAvailable:" in table:
        return Memory(table["MemAvailable:"] * 1024, "the machine", table.get("MemTotal:", 0) * 1024 or None)
    pages = os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else 2**20
    return Memory(int(pages) * 4096 // 2, "half of the machine, which does not say what is free")


def _group_memory(root: Path) -> Iterator[Memory]:
    for folder, version in _groups(root, "memory"):
        names = ("memory.max", "memory.high") if version == 2 else ("memory.limit_in_bytes",)
        limits = [(limit, name) for name in names if (limit := _number(folder / name)) is not None and limit < UNLIMITED]
        used = _number(folder / ("memory.current" if version == 2 else "memory.usage_in_bytes"))
        if limits and used is not None:
            limit, name = min(limits)
            told, prefix = dict(_pairs(folder / "memory.stat")), "" if version == 2 else "total_"
            idle = told.get(f"{prefix}inactive_file", 0) + told.get(f"{prefix}active_file", 0) // 2
            taken = max(0, used - idle)  # files that were read once count as used, and go when memory is wanted
            yield Memory(max(0, int(limit * (1 - RESERVED)) - taken), f"the container's {name}", limit)


def _group_cores(root: Path) -> Iterator[Cores]:
    for folder, version in _groups(root, "cpu"):
        if version == 2:
            quota, period = [*_words(folder / "cpu.max"), "", ""][:2]
        else:
            quota, period = _text(folder / "cpu.cfs_quota_us"), _text(folder / "cpu.cfs_period_us")
        if quota.isdecimal() and period.isdecimal() and int(quota) and int(period):
            yield Cores(int(quota) / int(period), f"the container's {'cpu.max' if version == 2 else 'cpu.cfs_quota_us'}")


def _own_memory(root: Path) -> Iterator[Memory]:
    """Limits of the shell (`ulimit`): of addresses, and of data."""
    try:
        import resource
    except ImportError:  # not on Windows
        return
    sizes = [int(word) * resource.getpagesize() for word in _words(root / "proc/self/statm") if word.isdecimal()]
    if len(sizes) < 6:
        return
    for kind, used, name in ((resource.RLIMIT_AS, sizes[0], "ulimit -v"), (resource.RLIMIT_DATA, sizes[5], "ulimit -d")):
        limit, _ = resource.getrlimit(kind)
        if limit not in (resource.RLIM_INFINITY, -1):
            yield Memory(max(0, limit - used), name, limit)


def _groups(root: Path, controller: str) -> Iterator[tuple[Path, int]]:
    """Yield the folder of this process's control group and of all groups above it that can be seen, with the version of its files."""
    paths: dict[int, str] = {}
    for line in _text(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            paths[2] = path
        elif controller in controllers.split(","):
            paths[1] = path
    for version, mounted_root, mount in _mounts(root, controller):
        if version not in paths:
            continue
        inside = paths[version]
        if mounted_root != "/":  # a container may show its own group as the root, and name it by the host's path
            inside = inside.removeprefix(mounted_root) if f"{inside}/".startswith(f"{mounted_root}/") else "/"
        folder = mount / inside.strip("/")
        while True:
            if folder.is_dir():
                yield folder, version
            if folder in (mount, folder.parent):
                break
            folder = folder.parent


def _mounts(root: Path, controller: str) -> Iterator[tuple[int, str, Path]]:
    """Yield the version, the group at the root and the folder of each hierarchy that may hold a controller: see proc(5), mountinfo."""
    for line in _text(root / "proc/self/mountinfo").splitlines():
        fields, _, rest = line.partition(" - ")
        kind, words = rest.split(" "), fields.split(" ")
        if len(words) < 5 or len(kind) < 3:
            continue
        mount = root / _unescaped(words[4]).lstrip("/")
        if kind[0] == "cgroup2":
            yield 2, _unescaped(words[3]), mount
        elif kind[0] == "cgroup" and controller in kind[2].split(","):
            yield 1, _unescaped(words[3]), mount


def _unescaped(path: str) -> str:
    """Undo how mountinfo writes spaces and the like: as a backslash and three octal digits."""
    first, *parts = path.split("\\")
    return first + "".join(chr(int(part[:3], 8)) + part[3:] if part[:3].isdecimal() else "\\" + part for part in parts)


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace").strip()
    except OSError:
        return ""


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _number(path: Path) -> int | None:
    text = _text(path)
    return int(text) if text.isdecimal() else None


def _pairs(path: Path) -> Iterable[tuple[str, int]]:
    """Yield the names and numbers of a file that has such a pair in each line."""
    for line in _text(path).splitlines():
        name, _, rest = line.partition(" ")
        number = rest.split()[:1]
        if number and number[0].isdecimal():
            yield name, int(number[0])
