"""One system in a process of its own: reads runs from standard input, a line of JSON each, and writes what came out.

A process each, because systems must not disturb one another: OpenMP lets its threads sleep between operations once more
than one thread of a process has computed, and memory that one keeps is missing to the next.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any, NamedTuple

from parrot_nb.bench import mastered
from parrot_nb.bench.calls import cpu_s
from parrot_nb.bench.latencies import latencies
from parrot_nb.bench.models import KNOWN, find_model
from parrot_nb.bench.workloads import WORKLOADS, Sizes, perf_of, text_writer
from parrot_nb.engine.settings import QUANTIZATIONS
from parrot_nb.language import LATENCY, SemanticFunction, SemanticVariable, gather
from parrot_nb.language.nodes import Perf
from parrot_nb.record import catch_up
from parrot_nb.runtime import OPTIMISATIONS as OF_SESSION
from parrot_nb.runtime.events import StepRan
from parrot_nb.session import Session

if TYPE_CHECKING:
    from parrot_nb.engine.protocol import Engine, StepListener
    from parrot_nb.runtime.engines import Loader

PARROT, PEERS = "parrot", ("hf", "hf-cb", "latency-centric", "throughput-centric")
# The paper's baselines: our engine as a system would drive it that sees requests and no applications, under the policy of that
# name, computing every prompt whole.
CENTRIC = {"latency-centric", "throughput-centric"}
UNSHARED = ("sharing", "dedup", "two_phase", "streaming")
EXTRAS = ("memo", "drafts")  # off unless asked for: it would win every repetition, and random models repeat themselves
# What can be asked for; streaming has fills stream on a CPU, too, which gains nothing by it; compile costs half a minute;
# reproducible computes in fixed blocks.
QUANTIZED = tuple(kind for kind in QUANTIZATIONS if kind != "none")
ADDED = (*EXTRAS, "streaming", "compile", "reproducible", *QUANTIZED)
KV_MEMORY = {"cpu": "1GB", "cuda": "8GB"}  # unless the user says: several systems share the machine, so not all there is


def open_session(
    system: str,
    *,
    model: str,
    dtype: str,
    device: str = "auto",
    kv_memory: str | None = None,
    off: Sequence[str] = (),
    on: Sequence[str] = (),
) -> Session:
    """A session whose calls run on a system: "parrot", one of `PEERS`, or the address of a server; `off` is what parrot does
    without, `on` what of `ADDED` it has."""
    folder = find_model(model)
    if system == PARROT or system in CENTRIC:
        kv_memory = kv_memory or KV_MEMORY[_device_kind(device)]
        if system in CENTRIC:
            without = [*EXTRAS, *UNSHARED]
            return Session(model=folder, dtype=dtype, device=device, kv_memory=kv_memory, off=without, policy=system)
        without = [*off, *(name for name in EXTRAS if name not in on)]
        loader = _streaming(dtype, device, kv_memory, without) if "streaming" in on else None
        quantize = next((kind for kind in QUANTIZED if kind in on), "none")
        return Session(
            model=folder,
            dtype=dtype if quantize == "none" else "auto",  # quantised weights have a dtype of their own to compute with
            device=device,
            kv_memory=kv_memory,
            off=without,
            loader=loader,
            compile="compile" in on,
            reproducible="reproducible" in on,
            quantize=quantize,
        )

    def load(_model: str, _on_step: Any) -> Any:
        from parrot_nb.bench.peers import ServerEngine, TransformersEngine

        if is_server(system):
            from transformers import AutoTokenizer

            from parrot_nb.engine.embedded.codec import TokenizerCodec

            return ServerEngine(system, TokenizerCodec(AutoTokenizer.from_pretrained(folder)))
        where = _device_kind(device) if device == "auto" else device
        return TransformersEngine(folder, dtype=dtype, device=where, continuous=system == "hf-cb")

    return Session(model=folder, loader=load, off=EXTRAS)


def _streaming(dtype: str, device: str, kv_memory: str, off: Sequence[str]) -> Loader:
    """Makes engines that are filled with variables while these are being written, whatever they run on."""

    def load(model: str, on_step: StepListener) -> Engine:
        from parrot_nb.engine.embedded import load_engine

        of_engine = [name for name in off if name not in OF_SESSION]
        engine = load_engine(model, dtype=dtype, device=device, kv_memory=kv_memory, off=of_engine, on_step=on_step)
        engine.capabilities = replace(engine.capabilities, streams_fills=True)
        return engine

    return load


def is_server(system: str) -> bool:
    """Whether a system is the address of one."""
    return system.startswith(("http://", "https://"))


def _device_kind(device: str) -> str:
    if device != "auto":
        return "cpu" if device == "cpu" else "cuda"
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def counter(session: Session) -> Callable[[str], int]:
    """Return a function that counts a text's tokens, to the model of a session that is entered already."""
    plain = SemanticFunction("{{input:text}}{{output:nothing}}", name="count")

    def count(text: str) -> int:
        with session:
            return sum(len(s.token_ids) for s in plain.render(text=text) if s.name == "text") if text else 0

    return count


def run_once(session: Session, workload: str, sizes: Sizes, write: Any) -> dict[str, Any]:
    """Run an application on made-up texts in a session that is entered already; see `measure`."""
    build, _ = WORKLOADS[workload]
    texts = _Texts(write)
    with Session(model="none"):  # makes the texts before the clock starts; nothing is read, so nothing runs
        build(sizes, texts)
    return measure(
        session,
        lambda: [Output(variable, None, perf_of(workload, sizes, i)) for i, variable in enumerate(build(sizes, texts))],
    )


def run_checked(session: Session, workload: str, sizes: Sizes) -> dict[str, Any]:
    """Run an application on what parrot-tiny has learnt, in a session that is entered already; see `measure`."""
    prepared = mastered.prepare(workload, sizes, counter(session))
    return measure(session, lambda: [Output(*output, perf_of(workload, sizes, i)) for i, output in enumerate(prepared())])


class Output(NamedTuple):
    """Output that an application's user reads."""

    variable: SemanticVariable
    right: str | None = None  # its value, where that is known
    perf: Perf = LATENCY


def measure(session: Session, build: Callable[[], Sequence[Output]]) -> dict[str, Any]:
    """Seconds, CPU time, tokens, steps, what calls of each function took, a fingerprint of what an application wrote, and how much
    of it was right where that is known."""
    before = {node.id for node in session.variables()}
    num_events = len(session.events)
    with session:
        cpu_before_s, started_s = cpu_s(), time.perf_counter()
        outputs = build()
        values = _read(outputs)
        seconds = time.perf_counter() - started_s
    catch_up(session)  # the end of the last call, too
    cpu_after_s = cpu_s()
    usages = [node.usage for node in session.variables() if node.id not in before]
    known = [value == output.right for value, output in zip(values, outputs, strict=True) if output.right is not None]
    news = session.events.since(num_events)
    return {
        "seconds": seconds,
        "cpu_s": None if cpu_before_s is None or cpu_after_s is None else cpu_after_s - cpu_before_s,
        "prefilled": sum(usage.prefilled_tokens for usage in usages),
        "reused": sum(usage.reused_tokens for usage in usages),
        "decoded": sum(usage.decoded_tokens for usage in usages),
        "steps": sum(isinstance(event, StepRan) for event in news),
        "latencies": {name: asdict(found) for name, found in latencies(news).items()},
        "texts": [hashlib.sha256(value.encode()).hexdigest()[:16] for value in values],
        "right": sum(known) if known else None,
    }


def _read(outputs: Sequence[Output]) -> list[Any]:
    """Return all values, each read as its user does."""
    if all(output.perf == LATENCY for output in outputs):
        return list(gather([output.variable for output in outputs]).get())

    async def read() -> list[Any]:
        return await asyncio.gather(*(output.variable.aget(output.perf) for output in outputs))

    return asyncio.run(read())


class _Texts:
    """A writer that remembers."""

    def __init__(self, write: Any) -> None:
        self._write = write
        self._texts: dict[Any, str] = {}

    def __call__(self, num_tokens: int, *key: Any) -> str:
        if (num_tokens, key) not in self._texts:
            self._texts[num_tokens, key] = self._write(num_tokens, *key)
        return self._texts[num_tokens, key]


def main() -> int:
    """Serve runs until standard input ends."""
    out, sys.stdout = sys.stdout, sys.stderr  # what libraries print must not get between the answers

    def answer(message: dict[str, Any]) -> None:
        out.write(json.dumps(message) + "\n")
        out.flush()

    settings = json.loads(sys.argv[1])
    seed_of_server: str | None = None
    with open_session(**settings) as session:
        try:
            count = counter(session)
            count("a")  # loads the model
        except Exception as error:  # the table says why a system did not run
            answer({"error": f"{type(error).__name__}: {error}"})
            return 1
        answer({"models": [f"{m.architecture}, {m.num_parameters / 1e6:.0f} M, {m.device}" for m in session.models()]})
        for line in sys.stdin:
            order = json.loads(line)
            sizes = Sizes(**order["sizes"])
            try:
                if order["cold"]:
                    session.reset()
                    if is_server(settings["system"]):  # its cache cannot be cleared: only texts that are new to it are cold
                        seed_of_server = f"{sizes.seed} {time.time_ns()}"
                if settings["model"] == KNOWN:
                    answer(run_checked(session, order["workload"], sizes))
                else:
                    answer(run_once(session, order["workload"], sizes, text_writer(count, seed_of_server or sizes.seed)))
            except Exception as error:  # likewise
                answer({"error": f"{type(error).__name__}: {error}"})
                session.reset()
    return 0


if __name__ == "__main__":
    sys.exit(main())
