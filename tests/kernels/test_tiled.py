"""The Triton attention over trees of shared pages: interpreted on the CPU, compiled where there is a GPU."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_kernels import ContextRows, Costs, HeadShape
from parrot_kernels.segments import cut
from parrot_kernels.tiles import LARGE_ROWS, SMALL_ROWS, PlanTooLargeError, TileLimits, TilePlan

ROOT = Path(__file__).parents[2]
ALWAYS = Costs(10**9, 0, 0)
CHECK = """
import sys, torch
from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, attention
from parrot_kernels.reference import attention_reference
from parrot_kernels.tiles import TileLimits
from parrot_kernels import tiles as tiles_module
device, count = sys.argv[1], int(sys.argv[2])
tiles_module.MIN_SPLIT_TOKENS = 8  # so that short runs are split
generator = torch.Generator().manual_seed(int(sys.argv[3]))
dtypes = [torch.bfloat16] if device == 'cuda' else []  # the interpreter multiplies the bits of bfloat16 as integers
def pick(*xs): return xs[int(torch.randint(len(xs), (), generator=generator))]
for case in range(count):
    page_size, (heads, kv_heads) = pick(1, 3, 4, 16), pick((1, 1), (4, 1), (2, 2), (6, 2), (32, 2))
    key_dim, value_dim = pick((8, 8), (5, 7), (16, 4), (64, 64), (40, 24))
    dtype = pick(torch.float32, torch.float16, *dtypes)
    parts = [(pick(0, 1, 7, 20, 37), pick(1, 1, 1, 2, 9), pick(0, 5, 16, 40)) for _ in range(pick(1, 2, 4, 6))]
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
    options = dict(scale=pick(1.0, 0.3), window=pick(None, 1, 5, 20), softcap=pick(None, 1.5))
    sinks = rand(heads) if pick(True, False) else None
    expected = attention_reference(query.double(), k.double(), v.double(), contexts, page_size,
                                   sinks=None if sinks is None else sinks.double(), **options)
    shape = HeadShape(heads, kv_heads, key_dim, value_dim, dtype.itemsize)
    static = TileLimits(16, 200, 400, rows, 600)
    for costs, limits in ((Costs(10**9, 0, 0), TileLimits(1)), (None, TileLimits(64)), (Costs(2, 1, 20), static)):
        plan = AttentionPlan.build(contexts, page_size, device, shape=shape, costs=costs, tiled=limits)
        out = attention(query.to(device), k.to(device), v.to(device), plan,
                        sinks=None if sinks is None else sinks.to(device), **options)
        tolerance = {torch.float32: 1e-4, torch.float16: 4e-3, torch.bfloat16: 3e-2}[dtype]
        torch.testing.assert_close(out.cpu().double(), expected, rtol=tolerance, atol=tolerance, msg=lambda m: f"case {case}: {m}")
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


parts = st.lists(st.tuples(st.integers(0, 90), st.integers(1, 40), st.integers(0, 60)), min_size=1, max_size=8)


@settings(max_examples=150, deadline=None)
@given(parts, st.sampled_from([1, 4, 16]), st.sampled_from([1, 7, 1000]), st.sampled_from([(4, 4), (8, 2), (32, 2)]))
def test_every_token_of_every_row_is_in_one_tile(parts, page_size, target, heads):
    pages = iter(range(10**6))
    contexts: list[ContextRows] = []
    for cached, new, alike in parts:
        before = contexts[-1] if contexts else ContextRows(0, 1, [])
        shared = min(alike, cached, before.num_cached_tokens) // page_size
        own = -(-(cached + new) // page_size) - shared
        contexts.append(ContextRows(cached, new, [*before.pages[:shared], *(next(pages) for _ in range(own))]))
    num_rows = sum(c.num_new_tokens for c in contexts)
    shape = HeadShape(*heads, 8, 8, 4)
    plan = TilePlan.build(cut(contexts, page_size, ALWAYS), num_rows, page_size, shape, TileLimits(target), "cpu")
    group = heads[0] // heads[1]
    read: list[list[int]] = [[] for _ in range(num_rows)]
    orders: list[list[int]] = [[] for _ in range(num_rows)]
    for tiles, most in ((plan.small, SMALL_ROWS), (plan.large, LARGE_ROWS)):
        for row, count, i_page, first, tokens, order in tiles.tolist():
            assert 0 < count * group <= most
            for r in range(row, row + count):
                orders[r].append(order)
                read[r] += [plan.pages[i_page + i // page_size].item() * page_size + i % page_size for i in range(tokens)]
                assert first + tokens - 1 <= plan.row_position[r] + 40
    starts = plan.row_start.tolist()
    row = 0
    for context in contexts:
        length = context.num_cached_tokens + context.num_new_tokens
        slots = {context.pages[i // page_size] * page_size + i % page_size for i in range(length)}
        for i in range(context.num_new_tokens):
            assert plan.row_position[row] == context.num_cached_tokens + i
            assert len(read[row]) == len(set(read[row])) == length
            assert set(read[row]) == slots
            assert sorted(orders[row]) == list(range(starts[row + 1] - starts[row]))
            row += 1
    assert plan.num_partials == starts[-1]


def test_static_plans_have_one_shape_and_say_when_it_does_not_fit():
    shape, limits = HeadShape(8, 2, 8, 8, 4), TileLimits.for_decode(4, 64, 32, 2)
    plans = []
    for lengths in ((5, 40, 3, 100), (64, 64), (900,)):
        pages = iter(range(100))
        contexts = [ContextRows(n - 1, 1, [next(pages) for _ in range(-(-n // 16))]) for n in lengths]
        plans.append(TilePlan.build(cut(contexts, 16, ALWAYS), len(lengths), 16, shape, limits, "cpu"))
    assert len({plan.buffer.shape for plan in plans}) == len({plan.num_partials for plan in plans}) == 1
    plans[0].copy_from(plans[1])
    assert torch.equal(plans[0].small, plans[1].small)
    assert torch.equal(plans[0].row_start, plans[1].row_start)
    many = [ContextRows(15, 1, [i]) for i in range(80)]
    with pytest.raises(PlanTooLargeError):
        TilePlan.build(cut(many, 16, None), 80, 16, shape, limits, "cpu")
    with pytest.raises(ValueError, match="capacities"):
        plans[0].copy_from(TilePlan.build(cut(contexts, 16, None), 1, 16, shape, TileLimits(8), "cpu"))
