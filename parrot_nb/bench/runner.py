"""Runs systems in turn on one application and keeps every figure."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from parrot_nb.bench import mastered
from parrot_nb.bench.latencies import Latency
from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.worker import ADDED, CENTRIC, EXTRAS, PARROT, PEERS, QUANTIZED, is_server
from parrot_nb.bench.workloads import WORKLOADS, Sizes
from parrot_nb.errors import UsageError
from parrot_nb.runtime import OPTIMISATIONS as OF_SESSION

DTYPES = ("best", "bfloat16", "float32")
SERVERS_OWN = "its own"
MOST_TRIALS, TRIALS_S = 3, 5.0  # of a dtype: one run may be slow for reasons of the machine's, so the best of a few counts
WARM_UP_SHARE = 8  # the first warm-up run is so many times smaller


@dataclass(frozen=True, slots=True)
class Run:
    """One run of an application on one system; tokens over all calls, None where the system does not say."""

    cold: bool
    seconds: float
    prefilled_tokens: int | None
    reused_tokens: int | None
    decoded_tokens: int
    texts: tuple[str, ...]  # fingerprints of what the user reads
    right: int | None = None  # how many of these texts are right, where that is known
    steps: int | None = None  # forward passes
    latencies: dict[str, Latency] = field(default_factory=dict)  # of the calls of each function
    cpu_s: float | None = None  # CPU seconds of all threads, its client's among them

    @property
    def tokens_per_s(self) -> float:
        """Decoded tokens over the application's time."""
        return self.decoded_tokens / self.seconds


@dataclass(slots=True)
class Row:
    """A system at one size of an application, and its runs; or why there are none."""

    system: str
    dtype: str
    sizes: Sizes
    runs: list[Run] = field(default_factory=list)
    error: str | None = None

    def median_s(self, *, cold: bool = True) -> float | None:
        """Median time, None without runs."""
        seconds = [run.seconds for run in self.runs if run.cold == cold]
        return statistics.median(seconds) if seconds else None

    def median_cpu_s(self) -> float | None:
        """Median CPU time of the cold runs, None without one that tells it."""
        seconds = [run.cpu_s for run in self.runs if run.cold and run.cpu_s is not None]
        return statistics.median(seconds) if seconds else None


@dataclass(slots=True)
class Result:
    """Measurements of `run`.

    Attributes:
        trials_s: where the dtype was "best": by system and dtype, the seconds of the best run before; None for no run.
    """

    workload: str
    model: str
    rows: list[Row]
    trials_s: dict[str, dict[str, float | None]] = field(default_factory=dict)


class _Worker:
    """A system's process."""

    def __init__(self, system: str, dtype: str, settings: dict[str, Any], threads: int | None) -> None:
        name, off, on = (system, [], []) if is_server(system) else _without_and_with(system)
        self._name = name
        self._tells_tokens = name in (PARROT, "hf", *CENTRIC)  # the others share prefixes, too, and keep to themselves how much
        environment = {**os.environ, "HF_HUB_DISABLE_PROGRESS_BARS": "1", "TOKENIZERS_PARALLELISM": "false"}
        if threads is not None:
            environment["OMP_NUM_THREADS"] = str(threads)
        environment["PYTHONPATH"] = os.pathsep.join(path for path in sys.path if path)
        arguments = {"system": name, "dtype": dtype, **settings, "off": off, "on": on}
        self._process = subprocess.Popen(  # noqa: S603 - our own module
            [sys.executable, "-W", "ignore", "-m", "parrot_nb.bench.worker", json.dumps(arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=environment,
        )  # fmt: skip
        self.error: str | None = self._answer().get("error")

    def run(self, workload: str, sizes: Sizes, *, cold: bool) -> Run | str:
        """One run, or why it failed."""
        assert self._process.stdin is not None
        order = {"workload": workload, "sizes": {name: getattr(sizes, name) for name in Sizes.names()}, "cold": cold}
        try:
            self._process.stdin.write(json.dumps(order) + "\n")
            self._process.stdin.flush()
        except OSError:
            return "its process has ended"
        found = self._answer()
        if "error" in found:
            return str(found["error"])
        prefilled, reused = (found["prefilled"], found["reused"]) if self._tells_tokens else (None, None)
        steps = found["steps"] if self._name == PARROT or self._name in CENTRIC else None
        return Run(
            cold=cold,
            seconds=found["seconds"],
            prefilled_tokens=prefilled,
            reused_tokens=reused,
            decoded_tokens=found["decoded"],
            texts=tuple(found["texts"]),
            right=found["right"],
            steps=steps,
            latencies={name: Latency(**values) for name, values in found["latencies"].items()},
            cpu_s=None if is_server(self._name) else found["cpu_s"],
        )

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            return {"error": f"its process ended with {code} (-9: killed for want of memory)"}
        answer: dict[str, Any] = json.loads(line)
        return answer

    def close(self) -> None:
        """End the process."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()


def default_sizes(workload: str, model: str) -> Sizes:
    """A workload's own sizes, those for a model whose answers are checked where that is `model`.

    Raises:
        UsageError: no such workload.
    """
    if workload not in WORKLOADS:
        raise UsageError(f"There is no workload '{workload}': choose from {', '.join(WORKLOADS)}.")
    return mastered.DEFAULT_SIZES[workload] if model == KNOWN else WORKLOADS[workload][1]


def _without_and_with(system: str) -> tuple[str, list[str], list[str]]:
    """A row's name taken apart, such as "parrot -sharing" or "parrot +memo"."""
    name, *words = system.split(" ")
    return name, [word[1:] for word in words if word[0] == "-"], [word[1:] for word in words if word[0] == "+"]


def check_systems(systems: Sequence[str], off: Sequence[str], on: Sequence[str] = ()) -> list[str]:
    """The rows' names: the systems, and parrot without each of `off` and with each of `on`.

    Raises:
        UsageError: an unknown system or optimisation.
    """
    for system in systems:
        if system != PARROT and system not in PEERS and not is_server(system):
            raise UsageError(
                f"There is no system '{system}': choose from parrot, {', '.join(PEERS)}, or give a server's address."
            )
    from parrot_nb.engine.embedded.loader import OPTIMISATIONS as OF_ENGINE

    known = [name for name in (*OF_ENGINE, *OF_SESSION) if name not in EXTRAS]
    for name in off:
        if name not in known:
            raise UsageError(f"There is no optimisation '{name}' to turn off: choose from {', '.join(known)}.")
    for name in on:
        if name not in ADDED:
            raise UsageError(f"There is no '{name}' to turn on: choose from {', '.join(ADDED)}.")
    return list(dict.fromkeys([*systems, *(f"{PARROT} -{name}" for name in off), *(f"{PARROT} +{name}" for name in on)]))


def run(
    workload: str,
    *,
    systems: Sequence[str] = (PARROT,),
    off: Sequence[str] = (),
    on: Sequence[str] = (),
    model: str = "random:qwen3-26m",
    dtype: str = "best",
    device: str = "auto",
    kv_memory: str | None = None,
    sizes: Sequence[Sizes] | None = None,
    repeat: int = 3,
    threads: int | None = None,
    warm: bool = True,
    tell: Callable[[str], None] = lambda _: None,
) -> Result:
    """Measure systems on an application, in turn: first each unmeasured, small and then whole, then `repeat` times each.

    Args:
        workload: of `WORKLOADS`.
        systems: "parrot", "hf" (transformers' `generate` on static batches), "hf-cb" (its continuous batching),
            "latency-centric" and "throughput-centric" (the paper's baselines on our engine), or the address of an OpenAI-compatible server.
        off: optimisations of parrot's; one more row without each.
        on: what parrot does without here, since it would win every repetition or by what a random model writes; one more
            row with each: "memo", "drafts"; "streaming", which it does on a GPU anyway; "compile", its layers by torch.compile;
            "reproducible", texts that depend on nothing beside them; "int8" and "int4", its weights quantised.
        model: "default" (parrot-tiny, on texts whose right answers are known), "random:SHAPE", a hub id or a folder (on
            made-up texts and to forced lengths).
        dtype: "float32", "bfloat16", or "best": each system's faster one on a CPU, bfloat16 on a GPU.
        device: "auto", "cpu" or "cuda".
        kv_memory: of parrot, such as "2GB".
        sizes: one row per system and size; the workload's own when None.
        repeat: measured runs; each is cold (nothing cached) and, for systems that keep a cache, warm after it.
        threads: of torch; all cores when None.
        warm: measure warm runs, too.
        tell: hears what is being done.

    Raises:
        UsageError: an unknown name.
    """
    own_sizes = default_sizes(workload, model)
    if dtype not in DTYPES:
        raise UsageError(f"There is no dtype '{dtype}': choose from {', '.join(DTYPES)}.")
    names = check_systems(systems, off, on)
    all_sizes = list(sizes or [own_sizes])
    tell(f"preparing {model}")
    find_model(model)
    settings = {"model": model, "device": device, "kv_memory": kv_memory}
    workers: dict[str, tuple[_Worker, str]] = {}
    trials_s: dict[str, dict[str, float | None]] = {}
    rows = [Row(name, dtype, size) for size in all_sizes for name in names]
    try:
        for name in names:
            tell(f"starting {name}")
            dtypes = _dtypes_of(name, dtype, device)
            workers[name], tried_s = _start(name, workload, dtypes, settings, threads, _largest(all_sizes))
            if len(dtypes) > 1:
                trials_s[name] = tried_s
        for i_run in range(repeat):
            for row in rows:
                worker, row.dtype = workers[row.system]
                row.error = row.error or worker.error
                for cold in (True, False) if warm and _keeps_a_cache(row.system) else (True,):
                    if row.error is None:
                        tell(f"run {i_run + 1} of {repeat}: {row.system}")
                        found = worker.run(workload, row.sizes, cold=cold)
                        if isinstance(found, str):
                            row.error = found
                        else:
                            row.runs.append(found)
    finally:
        for worker, _ in workers.values():
            worker.close()
    return Result(workload, model, rows, trials_s)


def _dtypes_of(name: str, dtype: str, device: str) -> tuple[str, ...]:
    """Return the dtypes that are tried for a row; one that quantises has its own alone."""
    if is_server(name):
        return (SERVERS_OWN,)
    quantized = tuple(kind for kind in QUANTIZED if kind in _without_and_with(name)[2])
    return quantized or candidates(dtype, device)


def candidates(dtype: str, device: str) -> tuple[str, ...]:
    """Return the dtypes that are tried for one of `DTYPES`. On a GPU float32 is never the faster one, and a model of it beside the
    other would take three times the memory."""
    if dtype != "best":
        return (dtype,)
    from parrot_nb.engine.embedded.device import count_cuda

    return ("bfloat16",) if device != "cpu" and count_cuda() else ("bfloat16", "float32")


def _largest(all_sizes: Sequence[Sizes]) -> Sizes:
    """Return sizes as large as any of them in every respect, with requests that come all at once."""
    most = {name: max(getattr(sizes, name) for sizes in all_sizes) for name in Sizes.names()}
    return Sizes(**most).but(rate=0, seed=all_sizes[0].seed)


def _keeps_a_cache(system: str) -> bool:
    return system != "hf"


def _start(
    name: str, workload: str, dtypes: Sequence[str], settings: dict[str, Any], threads: int | None, sizes: Sizes
) -> tuple[tuple[_Worker, str], dict[str, float | None]]:
    """A system's process in the fastest of these dtypes, warmed up; and how long a whole run took in each at best."""
    small = sizes.but(
        shared=max(1, sizes.shared // WARM_UP_SHARE),
        chunk=max(1, sizes.chunk // WARM_UP_SHARE),
        out=max(1, sizes.out // 4),
        rate=0,
    )
    tried: list[tuple[float | None, _Worker, str]] = []
    for dtype in dtypes:
        worker = _Worker(name, dtype, settings, threads)
        took_s: list[float] = []
        if worker.error is None:
            worker.run(workload, small, cold=True)
            for _ in range(MOST_TRIALS if len(dtypes) > 1 else 1):
                whole = worker.run(workload, sizes, cold=True)
                if isinstance(whole, str):
                    break
                took_s.append(whole.seconds)
                if sum(took_s) > TRIALS_S:
                    break
        tried.append((min(took_s, default=None), worker, dtype))
    _, best, kept = min(tried, key=lambda found: float("inf") if found[0] is None else found[0])
    for _, worker, _ in tried:
        if worker is not best:
            worker.close()
    return (best, kept), {dtype: seconds for seconds, _, dtype in tried}
