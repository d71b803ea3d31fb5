"""The Triton attention over trees of shared pages: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from parrot_kernels import ContextRows, HeadShape
from parrot_kernels.segments import cut
from parrot_kernels.tiled import attention_tiled
from parrot_kernels.tiles import TileLimits, TilePlan

ROOT = Path(__file__).parents[2]
CHECK = """
import sys, torch
from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, attention
from parrot_kernels.reference import attention_reference
from parrot_kernels.tiles import TileLimits
from parrot_kernels import tiled as tiled_module, tiles as tiles_module
device, count = sys.argv[1], int(sys.argv[2])
tiles_module.MIN_SPLIT_TOKENS = 8  # so that short runs are split
torch.use_deterministic_algorithms(True)  # what torch.empty gives is full of NaN then
seen = set()
generator = torch.Generator().manual_seed(int(sys.argv[3]))
dtypes = [torch.bfloat16] if device == 'cuda' else []  # the interpreter multiplies the bits of bfloat16 as integers
def pick(*xs): return xs[int(torch.randint(len(xs), (), generator=generator))]
for case in range(count):
    page_size, (heads, kv_heads) = pick(1, 3, 4, 16), pick((1, 1), (4, 1), (2, 2), (6, 2), (32, 2))
    key_dim, value_dim = pick((8, 8), (5, 7), (16, 4), (64, 64), (40, 24), (80, 80), (192, 128))
    tiled_module.MANY_ROWS = pick(0, 256)  # either shape of the merge
    dtype = pick(torch.float32, torch.float16, *dtypes)
    parts = [(pick(0, 1, 7, 20, 37), pick(1, 1, 1, 2, 9), pick(0, 5, 16, 40)) for _ in range(pick(1, 2, 4, 6))]
    if case == 0:  # a tree of three levels, and a chunk of more rows than a tile holds
        page_size, heads, kv_heads = 4, 32, 2
        parts = [(37, 1, 0), (37, 1, 40), (37, 9, 16), (20, 1, 5)]
    needed = sum(-(-(cached + new) // page_size) for cached, new, _ in parts)
    order, contexts = torch.randperm(needed + 1, generator=generator).tolist(), []
    for cached, new, alike in parts:
        before = contexts[-1] if contexts else ContextRows(0, 1, [])
        shared = min(alike, cached, before.num_cached_tokens) // page_size
        own = -(-(cached + new) // page_size) - shared
        contexts.append(ContextRows(cached, new, [*before.pages[:shared], *(order.pop() for _ in range(own))]))
    rows, slots = sum(c.num_new_tokens for c in contexts), (needed + 1) * page_size
    rand = lambda *shape: torch.randn(*shape, generator=generator).to(dtype)
    query, k, v = rand(heads, rows, key_dim).transpose(0, 1), rand(slots, kv_heads, key_dim), rand(slots, kv_heads, value_dim)
    for cache in (k, v):  # slots that hold no token may hold anything
        used = [c.pages[i // page_size] * page_size + i % page_size for c in contexts for i in range(c.num_cached_tokens + c.num_new_tokens)]
        cache[[i for i in range(slots) if i not in set(used)]] = float("nan")
    options = dict(scale=pick(1.0, 0.3), window=pick(None, 1, 5, 20), softcap=pick(None, 1.5))
    sinks = rand(heads) if pick(True, False) else None
    expected = attention_reference(query.double(), k.double(), v.double(), contexts, page_size,
                                   sinks=None if sinks is None else sinks.double(), **options)
    shape = HeadShape(heads, kv_heads, key_dim, value_dim, dtype.itemsize)
    static = TileLimits(16, 200, 400, rows, 600)
    for costs, limits in ((Costs(10**9, 0, 0), TileLimits(1)), (None, TileLimits(64)), (Costs(2, 1, 20), static)):
        def run(part):
            plan = AttentionPlan.build(part, page_size, device, shape=shape, costs=costs, tiled=limits, spare_slot=0)
            return plan, attention(query.to(device), k.to(device), v.to(device), plan,
                                   sinks=None if sinks is None else sinks.to(device), **options).cpu()
        plan, out = run(contexts)
        tolerance = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
        torch.testing.assert_close(out.double(), expected, rtol=tolerance, atol=tolerance, msg=lambda m: f"case {case}: {m}")
        if limits is static:  # a captured plan serves another step, and then this one
            mine, (captured, fewer) = contexts[0].num_new_tokens, run(contexts[:1])
            torch.testing.assert_close(fewer[:mine].double(), expected[:mine], rtol=tolerance, atol=tolerance)
            assert not fewer[mine:].any(), "rows of no context"
            captured.tiles.copy_from(plan.tiles)
            again = attention(query.to(device), k.to(device), v.to(device), captured,
                              sinks=None if sinks is None else sinks.to(device), **options)
            assert torch.equal(again.cpu(), out)
        names = {
            "shared": any(not s.own for s in plan.segments), "unshared": all(s.own for s in plan.segments),
            "levels": any(a.row_start <= b.row_start < a.row_end and a is not b for a in plan.segments for b in plan.segments if not a.own and not b.own),
            "split": plan.tiles.row_start.diff().max() > len(plan.segments), "window": options["window"],
            "rows split": any(s.num_rows * heads // kv_heads > tiles_module.LARGE_ROWS for s in plan.segments),
            "large": len(plan.tiles.large), "chunk": any(s.own and s.num_rows > 1 and s.first for s in plan.segments),
        }
        seen |= {name for name, found in names.items() if found}
missing = set(names) - seen
assert not missing, f"the cases lack {missing}"
sys.stdout.write("all equal")
"""


def check(device: str, count: int, seed: int, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(ROOT / "kernels"), **environment}
    done = subprocess.run(
        [sys.executable, "-c", CHECK, device, str(count), str(seed)],
        env=env,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
@pytest.mark.parametrize("seed", range(2))
def test_interpreted(seed):
    assert check("cpu", 8, seed, TRITON_INTERPRET="1") == "all equal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert check("cuda", 100, 0) == "all equal"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"query": torch.zeros(3, 4, 8)}, "for 2 rows"),
        ({"query": torch.zeros(2, 3, 8)}, "evenly"),
        ({"query": torch.zeros(2, 4, 9)}, "do not go with"),
        ({"v_cache": torch.zeros(5, 2, 8)}, "do not go with"),
        ({"query": torch.zeros(2, 34, 8)}, "not 8, 8 and 17"),
        ({"query": torch.zeros(2, 4, 8).half()}, "float16"),
        ({"v_cache": torch.zeros(2, 4, 8).transpose(0, 1)}, "contiguous"),
        ({"window": 0}, "window of 0"),
        ({"softcap": 0.0}, "soft cap of 0"),
        ({"sinks": torch.zeros(3)}, "4 query heads"),
    ],
)
def test_what_the_kernel_does_not_serve_is_refused(change, message):
    pytest.importorskip("triton")
    plan = TilePlan.build(cut([ContextRows(2, 2, [0])], 4, None), 2, 4, HeadShape(4, 2, 8, 8, 4), TileLimits(8), "cpu")
    given = {"query": torch.zeros(2, 4, 8), "k_cache": torch.zeros(4, 2, 8), "v_cache": torch.zeros(4, 2, 8), **change}
    with pytest.raises(ValueError, match=message):
        attention_tiled(**given, plan=plan, scale=1.0)
