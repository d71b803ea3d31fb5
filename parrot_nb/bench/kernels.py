"""`python -m parrot_nb.bench kernels`: the attention of a decode step by itself, shared and not.

On a GPU it goes through many layers' caches, so that a prefix does not stay in the L2 cache, as captured graphs; beside
FlashInfer's decode and cascade wrappers where that package is present. Bytes are the ideal ones, each shared token read
once: 2 Hkv D (P + sum S) elements of KV and 2 B Hq D of queries and results; the ceiling is what a copy in the same run
moves. On a CPU it is the torch path with smaller heads.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from parrot_kernels import ContextRows

PAGE = 16
CASES = ((16, 2048, 256), (64, 4096, 256), (64, 8192, 128), (256, 2048, 64))
L2_BYTES = 60 * 2**20  # of an H100 or H200: caches of all layers together must be several times this


@dataclass(frozen=True, slots=True)
class Figure:
    """One way to compute one case; seconds per layer, of so many layers with caches of their own."""

    case: str
    system: str
    seconds: float
    ideal_bytes: int
    flop: int
    ceiling_bytes_per_s: float
    layers: int

    @property
    def share(self) -> float:
        """Ideal bytes per second over what a copy moves."""
        return self.ideal_bytes / self.seconds / self.ceiling_bytes_per_s


@dataclass(frozen=True, slots=True)
class Heads:
    """Sizes of a layer."""

    query: int
    key: int
    dim: int


def contexts(batch: int, prefix: int, own: int, *, levels: int = 1) -> list[ContextRows]:
    """Decode rows that share `prefix` tokens, in two levels if asked: a half by all, a quarter by each half of them."""
    from parrot_kernels import ContextRows

    pages = iter(range(10**7))

    def take(num_tokens: int) -> list[int]:
        return [next(pages) for _ in range(-(-num_tokens // PAGE))]

    if levels == 1:
        trunks = [take(prefix)] * batch if prefix else [[]] * batch
    else:
        root, halves = take(prefix // 2), [take(prefix // 2) for _ in range(2)]
        trunks = [root + halves[2 * i // batch] for i in range(batch)]
    return [ContextRows(len(trunk) * PAGE + own - 1, 1, trunk + take(own)) for trunk in trunks]


def run(
    cases: Sequence[tuple[int, int, int]] = CASES, *, device: str, heads: Heads, dtype: str, repeat: int = 20
) -> list[Figure]:
    """Measure.

    Args:
        cases: (batch, shared tokens, own tokens).
        device: "cpu" or "cuda".
        heads: of a layer.
        dtype: "bfloat16", "float16" or "float32".
        repeat: measured passes; the median counts.
    """
    figures: list[Figure] = []
    for batch, prefix, own in cases:
        for name, rows, shared in (
            (f"{batch} x ({prefix} shared + {own})", contexts(batch, prefix, own), prefix),
            (
                f"{batch} x ({prefix // 2} + {prefix // 2} in halves + {own})",
                contexts(batch, prefix, own, levels=2),
                prefix * 3 // 2,
            ),
            (f"{batch} x {own} unshared", contexts(batch, 0, own), 0),
        ):
            figures += _case(name, rows, shared + batch * own, device=device, heads=heads, dtype=dtype, repeat=repeat)
    return figures


def _case(
    name: str, rows: list[ContextRows], ideal_tokens: int, *, device: str, heads: Heads, dtype: str, repeat: int
) -> list[Figure]:
    import torch

    from parrot_kernels import AttentionPlan, HeadShape, TileLimits, attention

    kind = getattr(torch, dtype)
    batch = len(rows)
    num_slots = (max(page for row in rows for page in row.pages) + 1) * PAGE
    layer_bytes = 2 * num_slots * heads.key * heads.dim * kind.itemsize
    layers = max(2, -(-4 * L2_BYTES // layer_bytes)) if device == "cuda" else 4
    caches = [torch.randn(2, num_slots, heads.key, heads.dim, device=device).to(kind) for _ in range(layers)]
    query = torch.randn(batch, heads.query, heads.dim, device=device).to(kind)
    shape = HeadShape(heads.query, heads.key, heads.dim, heads.dim, kind.itemsize)
    tiled = None
    if device == "cuda":
        tiled = TileLimits(2 * torch.cuda.get_device_properties(0).multi_processor_count)
    ideal_bytes = (2 * heads.key * heads.dim * ideal_tokens + 2 * batch * heads.query * heads.dim) * kind.itemsize
    flop = 4 * heads.query * heads.dim * sum(row.num_cached_tokens + 1 for row in rows)
    ceiling = _copy_bytes_per_s(device)
    figures = []
    for system, costs in (("two-phase", shape.costs(torch.device(device))), ("paged", None)):
        plan = AttentionPlan.build(rows, PAGE, device, shape=shape, costs=costs, tiled=tiled)

        def every_layer(plan: AttentionPlan = plan) -> None:
            for keys, values in caches:
                attention(query, keys, values, plan, scale=heads.dim**-0.5)

        figures.append(Figure(name, system, _seconds(every_layer, device, repeat) / layers, ideal_bytes, flop, ceiling, layers))
    known = (ideal_bytes, flop, ceiling, layers)
    figures += _flashinfer(name, rows, caches, query, heads, repeat, known) if device == "cuda" else []
    return figures


def _seconds(function: Callable[[], None], device: str, repeat: int) -> float:
    """Median time of a call; on a GPU of a captured graph's replay."""
    import torch

    with torch.inference_mode():
        if device == "cpu":
            function()
            times = []
            for _ in range(repeat):
                start = time.perf_counter()
                function()
                times.append(time.perf_counter() - start)
            return statistics.median(times)
        side = torch.cuda.Stream()
        with torch.cuda.stream(side):
            function()
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            function()
        events = [(torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) for _ in range(repeat)]
        graph.replay()
        for begin, end in events:
            begin.record()
            graph.replay()
            end.record()
        torch.cuda.synchronize()
        return statistics.median(float(begin.elapsed_time(end)) / 1e3 for begin, end in events)


def _copy_bytes_per_s(device: str) -> float:
    """Return the bytes per second that a large copy reads and writes."""
    import torch

    size = 2**30 if device == "cuda" else 2**27
    source = torch.empty(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)

    def copy() -> None:
        target.copy_(source)

    return 2 * size / _seconds(copy, device, 5)


def _flashinfer(
    name: str,
    rows: list[ContextRows],
    caches: list[torch.Tensor],
    query: torch.Tensor,
    heads: Heads,
    repeat: int,
    known: tuple[int, int, float, int],
) -> list[Figure]:
    """FlashInfer's batch decode, which shares nothing; its cascade for one shared prefix. None where it is not installed."""
    try:
        import flashinfer
    except ImportError:
        return []
    import torch

    device, batch = query.device, len(rows)
    work = torch.empty(256 * 2**20, dtype=torch.uint8, device=device)
    paged = [cache.view(2, -1, PAGE, heads.key, heads.dim).transpose(0, 1).contiguous() for cache in caches]

    def table(pages: list[list[int]], lengths: list[int]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        starts = [0]
        for part in pages:
            starts.append(starts[-1] + len(part))
        last = [length - (len(part) - 1) * PAGE for part, length in zip(pages, lengths, strict=True)]
        flat = [page for part in pages for page in part]
        return tuple(torch.tensor(x, dtype=torch.int32, device=device) for x in (starts, flat, last))  # type: ignore[return-value]

    figures = []
    decode = flashinfer.BatchDecodeWithPagedKVCacheWrapper(work, "NHD", use_tensor_cores=True)
    decode.plan(
        *table([list(row.pages) for row in rows], [row.num_cached_tokens + 1 for row in rows]),
        heads.query, heads.key, heads.dim, PAGE, q_data_type=query.dtype, kv_data_type=query.dtype,
    )  # fmt: skip

    def paged_decode() -> None:
        for cache in paged:
            decode.run(query, cache)

    figures.append(Figure(name, "FlashInfer decode", _seconds(paged_decode, "cuda", repeat) / len(paged), *known))
    common = next((i for i, column in enumerate(zip(*(row.pages for row in rows), strict=False)) if len(set(column)) > 1), 0)
    if common:
        cascade = flashinfer.MultiLevelCascadeAttentionWrapper(2, work, "NHD")
        top = table([list(rows[0].pages[:common])], [common * PAGE])
        own = table([list(row.pages[common:]) for row in rows], [row.num_cached_tokens + 1 - common * PAGE for row in rows])
        each = torch.arange(batch + 1, dtype=torch.int32, device=device)
        cascade.plan(
            [torch.tensor([0, batch], dtype=torch.int32, device=device), each],
            [top[0], own[0]], [top[1], own[1]], [top[2], own[2]],
            heads.query, heads.key, heads.dim, PAGE, q_data_type=query.dtype,
        )  # fmt: skip

        def cascaded() -> None:
            for cache in paged:
                cascade.run(query, cache)

        figures.append(Figure(name, "FlashInfer cascade", _seconds(cascaded, "cuda", repeat) / len(paged), *known))
    return figures


def render(figures: Sequence[Figure]) -> str:
    """The table."""
    lines = [
        f"{'case':<44} {'system':<18} {'us/layer':>9} {'GB/s':>7} {'of copy':>7} {'TFLOP/s':>8} {'x paged':>8} {'layers':>6}"
    ]
    for figure in figures:
        paged = next(other for other in figures if other.case == figure.case and other.system == "paged")
        lines.append(
            f"{figure.case:<44} {figure.system:<18} {figure.seconds * 1e6:>9.1f} {figure.ideal_bytes / figure.seconds / 1e9:>7.0f} "
            f"{figure.share:>7.0%} {figure.flop / figure.seconds / 1e12:>8.2f} {paged.seconds / figure.seconds:>8.2f} "
            f"{figure.layers:>6}"
        )
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> int:
    """The command's line after `kernels`."""
    line = argparse.ArgumentParser(prog="python -m parrot_nb.bench kernels", description=(__doc__ or "").partition("\n")[0])
    line.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    line.add_argument("--dtype", choices=("bfloat16", "float16", "float32"), default="bfloat16")
    line.add_argument("--repeat", type=int, default=20)
    line.add_argument("--case", action="append", help="batch,shared,own; may be given several times")
    line.add_argument("--json", type=Path)
    asked = line.parse_args(arguments)
    import torch

    device = asked.device if asked.device != "auto" else "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and not torch.cuda.is_available():
        sys.stderr.write("There is no CUDA device here: use --device cpu.\n")
        return 2
    try:
        cases = [_numbers(text) for text in asked.case] if asked.case else CASES[:1] if device == "cpu" else CASES
    except ValueError:
        sys.stderr.write("--case takes three numbers above 0, such as 16,2048,256.\n")
        return 2
    heads = Heads(32, 8, 128) if device == "cuda" else Heads(8, 4, 64)
    figures = run(cases, device=device, heads=heads, dtype=asked.dtype, repeat=max(1, asked.repeat))
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    note: list[str] = (
        [] if device == "cpu" or any("FlashInfer" in f.system for f in figures) else ["FlashInfer is not installed."]
    )
    about = f"{name}, {asked.dtype}, {heads.query}/{heads.key} heads of {heads.dim}, torch {torch.__version__}"
    sys.stdout.write("\n".join([render(figures), "", about, *note]) + "\n")
    if asked.json is not None:
        found: list[dict[str, Any]] = [asdict(figure) for figure in figures]
        asked.json.write_text(json.dumps({"about": about, "figures": found}, indent=1) + "\n", encoding="utf-8")
    return 0


def _numbers(text: str) -> tuple[int, int, int]:
    batch, shared, own = (int(part) for part in text.split(","))
    if min(batch, own) < 1 or shared < 2 * PAGE:
        raise ValueError(text)
    return batch, shared, own
