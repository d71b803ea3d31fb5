"""What a decode step would take on an H100, predicted: `python tests/engine/predicted.py` writes the table of kernels/README.md.

Launches are counted on the stand-in, bytes follow from a model's shape, and the host's time is measured here. How fast the
device is are assumptions, `Assumed`; nothing of this ran on one.
"""

from __future__ import annotations

import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(Path(__file__).parent), str(ROOT), str(ROOT / "kernels")]

import torch  # noqa: E402
from checkpoints import checkpoint  # noqa: E402
from standin import StandIn  # noqa: E402

from parrot_kernels import HeadShape  # noqa: E402
from parrot_nb.bench.gpu import weight_bytes  # noqa: E402
from parrot_nb.bench.models import SHAPES  # noqa: E402
from parrot_nb.engine.embedded import graphs, load_engine  # noqa: E402
from parrot_nb.engine.embedded.device import Device  # noqa: E402
from parrot_nb.engine.embedded.step import StepContext  # noqa: E402
from parrot_nb.engine.protocol import Sampling  # noqa: E402

BATCHES, CONTEXT_TOKENS = (1, 16, 64), 1000
BYTES = 2  # of an element in bfloat16
LAYERS = 3  # of the checkpoint on the stand-in
READS_OF_LOGITS = 5  # with the write of the head's product


@dataclass(frozen=True)
class Assumed:
    """An H100 SXM, by its data sheet and by what others measured."""

    bytes_per_s: float = 3.35e12
    attained: float = 0.8  # of this, by products of few rows and by attention
    launch_s: float = 1.5e-6  # from the end of a kernel to the beginning of the next in a graph, and what a small one takes


@dataclass(frozen=True)
class Launches:
    """Launches in the graph of a decode step."""

    per_layer: int
    others: int

    def of(self, num_layers: int) -> int:
        return self.per_layer * num_layers + self.others


def count() -> Launches:
    """Count them on the stand-in."""
    before = graphs.LADDER, graphs.MIXED
    graphs.LADDER, graphs.MIXED = (1,), ()
    with tempfile.TemporaryDirectory() as folder, StandIn() as standin:
        engine = load_engine(checkpoint(Path(folder), "qwen3"), device="cuda", dtype="float32", kv_memory="64KB", page_size=4)
        (graph,) = [graph for graph in standin.graphs if graph.ended]
        total = graph.launches
        in_layers = sum(total[name] for name in ("rope_and_write_triton", "attention_tiled", "gated_triton"))
        in_layers += total["rms_norm_triton"] - 1 + total["mm"] - 1  # the last norm and the head are in none
        engine._worker.finish(engine._model.release)
        engine._worker.ended.result(60)
    graphs.LADDER, graphs.MIXED = before
    return Launches(in_layers // LAYERS, sum(total.values()) - in_layers)


def host_s(shape: str, batch: int) -> float:
    """Measure the CPU time of making a step's inputs and of putting them into the buffer that is sent."""
    config = SHAPES[shape]
    heads = HeadShape(config["num_attention_heads"], config["num_key_value_heads"], 128, 128, BYTES)
    made = graphs.StepGraphs(
        lambda *_: torch.zeros(0), None, num_pages=20_000, page_size=16, shape=heads, costs=heads.costs(torch.device("cuda")),
        target_programs=264, device=Device(torch.device("cpu")), capture=lambda _: lambda: torch.zeros(0), ladder=(batch,),
    )  # fmt: skip
    pages = -(-(CONTEXT_TOKENS + 1) // 16)
    contexts = [
        StepContext((0,), CONTEXT_TOKENS, tuple(range(i * pages, (i + 1) * pages)), Sampling(100), 5, 3, 1, after=i)
        for i in range(batch)
    ]
    taken = []
    with torch.inference_mode():
        for _ in range(40):
            start = time.thread_time()
            made.step(contexts)
            taken.append(time.thread_time() - start)
    return median(taken)


def predict(shape: str, batch: int, launches: Launches, host: float, assumed: Assumed) -> tuple[float, float]:
    """Return the seconds of a step, and the share of what reading all weights and KV once would allow."""
    config = SHAPES[shape]
    dim = config.get("head_dim", config["hidden_size"] // config["num_attention_heads"])
    kv = batch * CONTEXT_TOKENS * config["num_hidden_layers"] * config["num_key_value_heads"] * 2 * dim * BYTES
    logits = READS_OF_LOGITS * batch * config["vocab_size"] * BYTES
    needed = weight_bytes(shape) + kv
    device = (needed + logits) / (assumed.bytes_per_s * assumed.attained) + launches.of(
        config["num_hidden_layers"]
    ) * assumed.launch_s
    step = max(device, host)  # the next step is planned while this one runs
    return step, needed / assumed.bytes_per_s / step


def table(launches: Launches, assumed: Assumed) -> str:
    """The predictions as Markdown."""
    lines = [
        "| predicted, not measured | batch | launches | host, measured here | step | share of the bandwidth bound |",
        "|---|---|---|---|---|---|",
    ]
    for shape in ("qwen3-0.6b", "qwen3-8b"):
        for batch in BATCHES:
            host = host_s(shape, batch)
            step, share = predict(shape, batch, launches, host, assumed)
            count = launches.of(SHAPES[shape]["num_hidden_layers"])
            lines.append(f"| {shape} | {batch} | {count} | {host * 1e3:.2f} ms | {step * 1e3:.2f} ms | {share:.0%} |")
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    sys.stdout.write(table(count(), Assumed()) + "\n")
