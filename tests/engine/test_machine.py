"""What a process may take of memory and cores, by made-up files of control groups, and in a real group where one can be made."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import uuid
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parrot_nb.engine import machine

MB, GB = 2**20, 2**30
V2_MOUNT = "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate"
V1_MEMORY = "36 25 0:31 {root} /sys/fs/cgroup/memory ro,nosuid master:15 - cgroup cgroup rw,memory"
V1_CPU = "37 25 0:32 {root} /sys/fs/cgroup/cpu,cpuacct ro,nosuid master:16 - cgroup cgroup rw,cpu,cpuacct"


@pytest.fixture
def made(tmp_path):
    """`made({path: text})` is a root folder with these files, on a machine with 64 GB of which 50 are free."""

    def make(files: dict[str, object]) -> Path:
        plain = {"proc/meminfo": f"MemTotal: {64 * MB} kB\nMemFree: 1 kB\nMemAvailable: {50 * MB} kB"}
        for path, text in {**plain, **files}.items():
            file = tmp_path / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(f"{text}\n")
        return tmp_path

    return make


def test_no_group_leaves_the_machine(made):
    root = made({})
    found = machine.memory(root)
    assert (found.free_bytes, found.source, found.limit_bytes) == (50 * GB, "the machine", 64 * GB)
    assert machine.cores(root).count == min(
        os.cpu_count() or 1, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else 99
    )


def test_a_container_of_version_2_shows_its_own_group_as_the_root(made):
    root = made(
        {
            "proc/self/cgroup": "0::/",
            "proc/self/mountinfo": V2_MOUNT,
            "sys/fs/cgroup/memory.max": 2 * GB,
            "sys/fs/cgroup/memory.high": "max",
            "sys/fs/cgroup/memory.current": 900 * MB,
            "sys/fs/cgroup/memory.stat": f"anon {500 * MB}\ninactive_file {300 * MB}\nactive_file 1",
            "sys/fs/cgroup/cpu.max": "50000 100000",
        }
    )
    found = machine.memory(root)
    assert found.free_bytes == 2 * GB - 2 * GB // 16 - 600 * MB
    assert (found.source, found.limit_bytes) == ("the container's memory.max", 2 * GB)
    assert machine.cores(root) == machine.Cores(0.5, "the container's cpu.max")
    assert machine.cores(root).threads == 1


def test_the_least_of_all_groups_above_counts(made):
    inner, outer = "sys/fs/cgroup/kubepods/pod7/box", "sys/fs/cgroup/kubepods/pod7"
    root = made(
        {
            "proc/self/cgroup": "0::/kubepods/pod7/box",
            "proc/self/mountinfo": V2_MOUNT,
            f"{inner}/memory.max": "max",
            f"{inner}/memory.current": 10 * MB,
            f"{inner}/cpu.max": "max 100000",
            f"{outer}/memory.max": 8 * GB,
            f"{outer}/memory.high": 4 * GB,
            f"{outer}/memory.current": GB,
            f"{outer}/cpu.max": "25000 100000",
            "sys/fs/cgroup/kubepods/memory.max": 16 * GB,
            "sys/fs/cgroup/kubepods/memory.current": 2 * GB,
        }
    )
    found = machine.memory(root)
    assert (found.free_bytes, found.source) == (4 * GB - GB // 4 - GB, "the container's memory.high")
    assert machine.cores(root).count == 0.25


@pytest.mark.parametrize(
    ("mounted", "path", "folder"),
    [
        ("/", "/docker/ab", "memory/docker/ab"),  # the host's own view
        ("/docker/ab", "/docker/ab", "memory"),  # a container that knows its path on the host
        ("/docker/ab", "/docker/ab/inner", "memory/inner"),
        ("/docker/ab", "/docker/abc", "memory"),  # of another: only the root is ours
    ],
)
def test_version_1_finds_its_group_below_what_is_mounted(made, mounted, path, folder):
    root = made(
        {
            "proc/self/cgroup": f"12:memory:{path}\n3:cpu,cpuacct:{path}\n1:name=systemd:/x\n0::/",
            "proc/self/mountinfo": f"{V1_MEMORY.format(root=mounted)}\n{V1_CPU.format(root=mounted)}\n{V2_MOUNT.replace('/sys/fs/cgroup', '/sys/fs/cgroup/unified')}",
            f"sys/fs/cgroup/{folder}/memory.limit_in_bytes": 3 * GB,
            f"sys/fs/cgroup/{folder}/memory.usage_in_bytes": 5 * GB,  # more than there may be: never negative
            f"sys/fs/cgroup/{folder.replace('memory', 'cpu,cpuacct')}/cpu.cfs_quota_us": 25_000,
            f"sys/fs/cgroup/{folder.replace('memory', 'cpu,cpuacct')}/cpu.cfs_period_us": 100_000,
        }
    )
    assert machine.memory(root) == machine.Memory(0, "the container's memory.limit_in_bytes", 3 * GB)
    assert machine.cores(root) == machine.Cores(0.25, "the container's cpu.cfs_quota_us")


def test_no_limit_of_version_1_is_a_huge_number(made):
    root = made(
        {
            "proc/self/cgroup": "12:memory:/\n3:cpu,cpuacct:/",
            "proc/self/mountinfo": f"{V1_MEMORY.format(root='/')}\n{V1_CPU.format(root='/')}",
            "sys/fs/cgroup/memory/memory.limit_in_bytes": 9223372036854771712,
            "sys/fs/cgroup/memory/memory.usage_in_bytes": GB,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us": -1,
            "sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us": 100_000,
        }
    )
    assert machine.memory(root).source == "the machine"
    assert machine.cores(root).source in ("the machine", "this process's CPU affinity")


def test_a_folder_with_a_space_is_found(made):
    root = made(
        {
            "proc/self/cgroup": "0::/my jobs",
            "proc/self/mountinfo": V2_MOUNT.replace("/sys/fs/cgroup", "/sys/my\\040groups"),
            "sys/my groups/my jobs/memory.max": GB,
            "sys/my groups/my jobs/memory.current": 0,
        }
    )
    assert machine.memory(root).limit_bytes == GB


@given(
    lines=st.dictionaries(st.sampled_from(["cgroup", "mountinfo", "statm"]), st.text(max_size=200)), value=st.text(max_size=30)
)
def test_files_with_anything_in_them_never_raise(tmp_path_factory, lines, value):
    root = tmp_path_factory.mktemp("root")
    (root / "proc/self").mkdir(parents=True)
    (root / "sys/fs/cgroup").mkdir(parents=True)
    files = {"cgroup": "0::/", "mountinfo": V2_MOUNT} | lines
    for name, text in files.items():
        (root / "proc/self" / name).write_bytes(text.encode("utf-8", "surrogatepass"))
    for name in ("memory.max", "memory.current", "memory.stat", "cpu.max"):
        (root / "sys/fs/cgroup" / name).write_bytes(value.encode("utf-8", "surrogatepass"))
    assert machine.memory(root).free_bytes >= 0
    assert machine.cores(root).count > 0


@pytest.mark.parametrize(("count", "threads"), [(0.1, 1), (1.0, 1), (1.5, 1), (1.9, 2), (2.0, 2), (63.99, 64)])
def test_threads_do_not_exceed_what_a_quota_lets_run(count, threads):
    assert machine.Cores(count, "a quota").threads == threads


PRINTS = "from parrot_nb.engine import machine; m = machine.memory(); print(m.free_bytes, m.source, sep='|')"


def said(*, before: str = "", group: Path | None = None) -> tuple[int, str]:
    """What a fresh process says of its memory, in a group, after some code."""
    join = "" if group is None else f"open({str(group / 'cgroup.procs')!r}, 'w').write(str(__import__('os').getpid()))\n"
    ran = subprocess.run(
        [sys.executable, "-c", join + textwrap.dedent(before) + "\n" + PRINTS],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    free, source = ran.stdout.strip().split("|")
    return int(free), source


def test_the_shell_s_limit_counts():
    pytest.importorskip("resource")
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc/self/statm here")
    free, source = said(before=f"import resource; resource.setrlimit(resource.RLIMIT_AS, ({GB}, {GB}))")
    assert source == "ulimit -v"
    assert 0 < free < GB


def test_a_real_group_counts():
    group = next((path for path in group_places() if try_to_make(path)), None)
    if group is None:
        pytest.skip("no control group can be made here")
    try:
        limit = group / "memory.max"
        limit = limit if limit.exists() else group / "memory.limit_in_bytes"
        try:
            limit.write_text(str(300 * MB))
        except OSError as error:
            pytest.skip(f"no limit can be set here: {error}")
        free, source = said(group=group)
        assert source == f"the container's {limit.name}"
        assert 200 * MB < free < 300 * MB
    finally:
        group.rmdir()


def group_places() -> list[Path]:
    name = f"parrot-test-{uuid.uuid4().hex[:8]}"
    return [folder / name for folder in (Path("/sys/fs/cgroup/memory"), Path("/sys/fs/cgroup")) if folder.is_dir()]


def try_to_make(path: Path) -> bool:
    try:
        path.mkdir()
    except OSError:
        return False
    if any((path / name).exists() for name in ("memory.max", "memory.limit_in_bytes")):
        return True
    path.rmdir()
    return False
