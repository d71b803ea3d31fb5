"""Sampling: torch against a float64 truth and chi square; Triton equals torch, interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from parrot_kernels.references_elementwise import bits_reference, kept_reference, sample_reference
from parrot_kernels.sample import philox_bits, sample_tokens, uniform

KERNELS = Path(__file__).parents[2] / "kernels"
CHECK = """
import sys, torch
from parrot_kernels.sample import sample_tokens_torch, sample_tokens_triton
device, sizes = sys.argv[1], [int(size) for size in sys.argv[2].split(",")]
torch.manual_seed(0)
rows = 12
for size in sizes:
    for dtype in (torch.float32, torch.bfloat16):
        logits = torch.randn(rows, size + 2).to(dtype)[:, :size] * 3
        logits[0, 0], logits[1], logits[2, 1:], logits[3, size // 2] = float("nan"), -float("inf"), -float("inf"), float("inf")
        logits[4] = logits[4].round()
        options = (
            torch.tensor([0, 0.5, 1, 1, 0.9, 0, 0, 0.7, 0.7, 1.3, 1, 1e-9]),
            torch.tensor([0, 1, 3, 0, 50, 0, 9, 20, 1, 0, 0, 5], dtype=torch.int32),
            torch.tensor([1, 0.5, 0.9, 1, 0.3, 1, 0.2, 0.95, 1, 0.9, 1, 1]),
            torch.tensor([0, 0, 0.1, 0, 0, 0, 0, 0.05, 0, 0, 0.3, 0.5]),
            torch.randint(-(2**63), 2**63 - 1, (rows,)),
            torch.randint(2**40, (rows,)),
        )
        want = sample_tokens_torch(logits, *options)
        chosen = sample_tokens_triton(logits.to(device), *(option.to(device) for option in options)).cpu()
        assert torch.equal(chosen, want), (size, dtype, chosen, want)
sys.stdout.write("all equal")
"""
RANDOM = """
import sys, random, torch
from parrot_kernels import sample_triton
from parrot_kernels.sample import sample_tokens_torch
sample_triton.BLOCK, sample_triton.LANES, sample_triton.LIST_BLOCK = (int(size) for size in sys.argv[2:5])
sample_triton.MOST_LISTED = int(sys.argv[5])
rng, places = random.Random(int(sys.argv[5])), 0
generator = torch.Generator().manual_seed(rng.randrange(2**30))
for _ in range(int(sys.argv[6])):
    rows, size = rng.randrange(1, 5), rng.choice([1, 2, 5, 16, 63, 64, 65, rng.randrange(1, 400)])
    logits = torch.randn(rows, size, generator=generator) * rng.choice([0.1, 1, 8, 1e4])
    if rng.random() < 0.5:
        logits = logits.round()  # ties
    if rng.random() < 0.3:
        logits = torch.where(torch.rand(rows, size, generator=generator) < 0.4, -torch.inf, logits)
    if rng.random() < 0.1:
        logits[:, rng.randrange(size)] = torch.inf
    logits = logits.to(rng.choice([torch.float32, torch.bfloat16, torch.float16]))
    pick = lambda *values: [rng.choice(values) for _ in range(rows)]
    options = (
        torch.tensor(pick(0.0, 0.3, 1.0, 2.5, 1e-20)),
        torch.tensor(pick(0, 0, 1, 2, 7, size - 1, size, size + 1, 2**31 - 1), dtype=torch.int32),
        torch.tensor(pick(1.0, 1.0, 0.0, 0.3, 0.61, 0.9, 0.97)),
        torch.tensor(pick(0.0, 0.0, 0.02, 0.4, 1.0)),
        torch.tensor(pick(0, -(2**63), 2**63 - 1, rng.randrange(2**63))),
        torch.tensor(pick(0, 1, 2**40, rng.randrange(2**62))),
    )
    want = sample_tokens_torch(logits, *options)
    device = sys.argv[1]
    found = sample_triton.sample_tokens_triton(logits.to(device), *(option.to(device) for option in options)).cpu()
    assert torch.equal(found, want), (logits.tolist(), options, found, want)
    places += rows
sys.stdout.write(f"{places} equal")
"""
GRAPH = """
import torch
from parrot_kernels.sample import sample_tokens
logits = torch.randn(3, 1000, device="cuda")
settings = [torch.tensor(values, device="cuda", dtype=dtype) for values, dtype in (
    ([0, 1, 0.7], torch.float32), ([0, 20, 0], torch.int32), ([1, 1, 0.9], torch.float32), ([0, 0, 0.1], torch.float32),
    ([1, 2, 3], torch.int64), ([0, 0, 0], torch.int64))]
want = sample_tokens(logits, *settings)
graph = torch.cuda.CUDAGraph()
with torch.cuda.graph(graph):
    chosen = sample_tokens(logits, *settings)
graph.replay()
assert torch.equal(chosen, want)
settings[-1].add_(1)
graph.replay()
assert torch.equal(chosen, sample_tokens(logits, *settings))
"""


def run_python(script: str, *arguments: str, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(KERNELS), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def sample(logits, temperature=1.0, top_k=0, top_p=1.0, min_p=0.0, seeds=0, positions=0):
    """`sample_tokens` of [B, V], with settings per row or for all."""
    rows = logits.shape[0]
    values = (temperature, top_k, top_p, min_p, seeds, positions)
    dtypes = (torch.float32, torch.int32, torch.float32, torch.float32, torch.int64, torch.int64)
    options = (torch.as_tensor(value, dtype=dtype).expand(rows) for value, dtype in zip(values, dtypes, strict=True))
    return sample_tokens(logits, *options)


def single(value: float) -> float:
    """As float32 has it: what the kernels are given."""
    return torch.tensor(value, dtype=torch.float32).item()


WORD = st.integers(-(2**63), 2**63 - 1)
LEVELS = st.one_of(
    st.lists(st.integers(-3, 3).map(float), min_size=1, max_size=40),  # many ties
    st.lists(st.floats(-20, 20, width=32), min_size=1, max_size=40),
)


@settings(max_examples=30, deadline=None)
@given(seed=WORD, position=WORD, num_tokens=st.integers(1, 70))
def test_noise_is_philox(seed, position, num_tokens):
    bits = philox_bits(torch.tensor([seed, 0]), torch.tensor([position, 1]), num_tokens)
    assert bits[0].tolist() == bits_reference(seed, position, num_tokens)
    assert bits[1].tolist() == bits_reference(0, 1, num_tokens)


def test_noise_is_the_published_philox():
    """The first known answer of Random123: key and counter 0."""
    assert [hex(word) for word in bits_reference(0, 0, 4)] == ["0x6627e8d5", "0xe169c58d", "0xbc57ac4c", "0x9b00dbd8"]


def test_uniform_is_inside_the_open_interval_and_flat():
    u = uniform(torch.arange(20), torch.arange(20), 5000).double()
    assert u.min() > 0
    assert u.max() < 1
    counts = torch.histc(u, 50, 0, 1)
    assert ((counts - 2000) ** 2 / 2000).sum() < 100  # chi square of 49 degrees: p = 2e-5


@pytest.mark.cpu_kinds
@settings(max_examples=150, deadline=None)
@given(
    levels=LEVELS,
    temperature=st.sampled_from([0.0, 0.25, 1.0, 2.0]),
    top_k=st.integers(0, 45),
    top_p=st.sampled_from([0.0, 0.125, 0.5, 0.75, 0.90625, 1.0]),
    min_p=st.sampled_from([0.0, 0.05, 0.3, 1.0]),
    seed=WORD,
    position=st.integers(0, 2**40),
)
def test_one_row_against_float64(levels, temperature, top_k, top_p, min_p, seed, position):
    min_p = single(min_p)
    chosen = sample(torch.tensor([levels]), temperature, top_k, top_p, min_p, seed, position).item()
    if temperature and chosen not in kept_reference(levels, temperature, top_k, top_p, min_p):
        near = [kept_reference(levels, temperature, top_k, p, m) for p in nudged(top_p) for m in nudged_min(min_p)]
        assert any(chosen in kept for kept in near), "left out by more than rounding"
    elif (
        len({tuple(kept_reference(levels, temperature or 1, top_k, p, m)) for p in nudged(top_p) for m in nudged_min(min_p)}) == 1
    ):
        assert chosen == sample_reference(levels, temperature, top_k, top_p, min_p, seed, position)


def nudged(threshold: float) -> tuple[float, ...]:
    """What float32 may take the threshold for; the ends mean all or one and are exact."""
    return (threshold,) if threshold in (0.0, 1.0) else (threshold - 1e-6, threshold, threshold + 1e-6)


def nudged_min(min_p: float) -> tuple[float, ...]:
    """The same of min_p, where one means the likeliest and what float32 cannot tell from it."""
    return (1.0 - 1e-6, 1.0) if min_p == 1.0 else nudged(min_p)


@settings(max_examples=40, deadline=None)
@given(
    levels=LEVELS, top_k=st.integers(0, 45), top_p=st.sampled_from([0.125, 0.5, 0.90625, 1.0]), min_p=st.sampled_from([0.0, 0.3])
)
def test_exactly_the_kept_tokens_are_drawn(levels, top_k, top_p, min_p):
    """From equal weights of what is kept every token is met: 40 are missed by 1000 draws once in 10^9."""
    kept = kept_reference(levels, 1.0, top_k, top_p, single(min_p))
    if len({levels[i] for i in kept}) > 1 or any(
        len(kept) != len(kept_reference(levels, 1.0, top_k, p, min_p)) for p in nudged(top_p)
    ):
        return
    drawn = sample(torch.tensor([levels]).expand(1000, -1), 1.0, top_k, top_p, min_p, positions=torch.arange(1000))
    assert drawn.unique().tolist() == kept


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7])
def test_draws_follow_the_softmax(temperature):
    logits, draws = torch.tensor([2.0, -1.0, 0.0, 1.0, 0.5, -3.0, 1.5, 0.0, 0.25]), 40_000
    drawn = sample(logits.expand(draws, -1), temperature, seeds=7, positions=torch.arange(draws))
    want = torch.softmax(logits.double() / temperature, dim=0) * draws
    distance = ((torch.bincount(drawn, minlength=9) - want) ** 2 / want).sum().item()
    assert distance < 32  # chi square of 8 degrees: p = 1e-4; the seed is fixed


def test_draws_over_a_large_vocabulary_are_even():
    """Where 2^15 tokens are equal the least of the noise decides: it must not be coarse there."""
    draws, size = 2000, 2**15
    drawn = torch.cat([sample(torch.zeros(100, size), seeds=i, positions=torch.arange(100)) for i in range(draws // 100)])
    counts = torch.histc(drawn.double(), 16, 0, size)
    assert ((counts - draws / 16) ** 2 / (draws / 16)).sum() < 45  # chi square of 15 degrees: p = 1e-4


def test_ties_at_the_edge_of_top_p():
    """Of 5000 equal tokens top-p 0.5 keeps the first 2500."""
    drawn = sample(torch.zeros(300, 5000), top_p=0.5, positions=torch.arange(300))
    assert drawn.max() < 2500
    assert drawn.max() > 2400


def test_a_row_depends_on_itself_alone():
    torch.manual_seed(3)
    logits = torch.randn(6, 200)
    temperature, top_p, seeds = torch.tensor([1, 0, 1, 2, 0.5, 1]), torch.tensor([1, 1, 0.5, 1, 0.9, 1]), torch.arange(6)
    together = sample(logits, temperature, 0, top_p, 0.01, seeds, seeds * 3)
    for i in range(6):
        alone = sample(logits[i : i + 1], temperature[i], 0, top_p[i], 0.01, seeds[i], seeds[i] * 3)
        assert alone.item() == together[i].item()
    order = torch.randperm(6)
    assert torch.equal(
        sample(logits[order], temperature[order], 0, top_p[order], 0.01, seeds[order], seeds[order] * 3), together[order]
    )


def test_seeds_and_positions_are_told_apart():
    logits = torch.zeros(40, 10_000)
    by_seed, by_position = sample(logits, seeds=torch.arange(40)), sample(logits, positions=torch.arange(40))
    assert len(by_seed.unique()) == len(by_position.unique()) == 40
    assert (by_seed[1:] != by_position[1:]).all()


def test_greedy_and_unusable_rows():
    nan, inf = math.nan, math.inf
    logits = torch.tensor(
        [[1.0, 3.0, 3.0], [nan, 0.0, 1.0], [-inf, -inf, -inf], [inf, inf, inf], [0.0, inf, inf], [-inf, 0.0, -inf]]
    )
    for temperature in (0.0, 1e-30):
        assert sample(logits, temperature, top_k=1, top_p=0.5).tolist() == [1, -1, -1, -1, 1, 1]
    assert sample(logits.bfloat16(), 0.0).tolist() == [1, -1, -1, -1, 1, 1]
    assert sample(logits, 1.0)[1:4].tolist() == [-1, -1, -1]
    assert sample(torch.empty(0, 5)).shape == (0,)


def test_what_does_not_fit_is_refused():
    one = torch.zeros(1)
    good = [one, one.int(), one, one, one.long(), one.long()]
    with pytest.raises(ValueError, match="Logits"):
        sample_tokens(torch.zeros(1, 4).long(), *good)
    with pytest.raises(ValueError, match="Logits"):
        sample_tokens(torch.zeros(4), *good)
    for i, name in enumerate(("temperature", "top_k", "top_p", "min_p", "seeds", "positions")):
        with pytest.raises(ValueError, match=name):
            sample_tokens(torch.zeros(1, 4), *good[:i], good[i].to(torch.int16), *good[i + 1 :])
        with pytest.raises(ValueError, match=name):
            sample_tokens(torch.zeros(1, 4), *good[:i], good[i].expand(2), *good[i + 1 :])


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert run_python(CHECK, "cpu", "1,2,3,64,100,4100", TRITON_INTERPRET="1") == "all equal"


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
@pytest.mark.parametrize(("listed", "times"), [(1000, 25), (3, 10), pytest.param(40, 1500, marks=pytest.mark.minutes)])
def test_random_rows_interpreted(listed, times):
    """Parts of 64 tokens, so that rows have many; and lists that do not hold what is near, so that the row itself is read."""
    found = run_python(RANDOM, "cpu", "64", "16", "32", str(listed), str(times), TRITON_INTERPRET="1")
    assert int(found.removesuffix(" equal")) >= times


@pytest.mark.minutes
@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_a_large_vocabulary_interpreted():
    assert run_python(CHECK, "cpu", "152000", TRITON_INTERPRET="1") == "all equal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert run_python(CHECK, "cuda", "1,2,3,64,100,4100,32000,151936") == "all equal"
    assert run_python(RANDOM, "cuda", "64", "16", "32", "3", "200").endswith(" equal")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_captured():
    run_python(GRAPH)
