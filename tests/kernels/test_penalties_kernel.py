"""Penalties: torch against a float64 truth; Triton equals torch bit for bit, interpreted on the CPU, compiled on a GPU."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from parrot_kernels import penalise
from parrot_kernels.references_elementwise import penalised_reference

KERNELS = Path(__file__).parents[2] / "kernels"
CHECK = """
import sys, torch
from parrot_kernels.penalties import penalise_torch, penalise_triton
device = sys.argv[1]
torch.manual_seed(0)
for rows, size, count in ((1, 1, 1), (3, 50, 20), (7, 5000, 900)):
    logits = torch.randn(rows, size + 3)[:, :size] * 8
    logits[0, 0], logits[-1, -1], logits[rows // 2, size // 2] = float("inf"), float("nan"), -float("inf")
    places = torch.randperm(rows * size)[:count]
    where = (places // size).int(), (places % size).int(), torch.randint(0, 4, (count,), dtype=torch.int32)
    settings = 2.0 ** torch.randn(rows), torch.randn(rows), torch.randn(rows)
    for factor in (1.0, 1e-38, 3e38):
        penalties = settings[0] if factor == 1 else torch.full((rows,), factor), *settings[1:]
        want = penalise_torch(logits.clone(), *where, *penalties)
        found = logits.clone().to(device)
        penalise_triton(found, *(value.to(device) for value in (*where, *penalties)))
        assert torch.equal(found.cpu().view(torch.int32), want.view(torch.int32)), (rows, size, factor)
assert penalise_triton(logits, *(value[:0] for value in where), *settings) is logits
sys.stdout.write("all equal")
"""


def run_python(script: str, *arguments: str, **environment: str) -> str:
    env = {**os.environ, "PYTHONPATH": str(KERNELS), **environment}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, *arguments],
        env=env, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def entries(rows: list[tuple[list[int], list[int]]]) -> tuple[torch.Tensor, ...]:
    """Rows, ids and counts of rows that are given as prompt and chosen tokens."""
    found = []
    for row, (prompt, chosen) in enumerate(rows):
        counts = Counter(chosen)
        found += [(row, token, counts[token]) for token in {*prompt, *chosen}]
    return tuple(torch.tensor([entry[i] for entry in found], dtype=torch.int32) for i in range(3))


TOKENS = st.lists(st.integers(0, 15), max_size=12)
ROWS = st.lists(
    st.tuples(
        st.lists(st.floats(-50, 50, width=32), min_size=16, max_size=16),
        TOKENS,
        TOKENS,
        st.sampled_from([0.5, 1.0, 1.1, 1.25, 4.0]),
        st.floats(-2, 2, width=32),
        st.floats(-2, 2, width=32),
    ),
    min_size=1,
    max_size=4,
)


@settings(max_examples=150, deadline=None)
@given(ROWS)
def test_every_row_against_float64(rows):
    logits = torch.tensor([row[0] for row in rows])
    penalties = [torch.tensor([row[i] for row in rows], dtype=torch.float32) for i in (3, 4, 5)]
    found = penalise(logits.clone(), *entries([(row[1], row[2]) for row in rows]), *penalties)
    for i, (before, prompt, chosen, *_) in enumerate(rows):
        want = penalised_reference(before, prompt, chosen, *(float(values[i]) for values in penalties))
        assert found[i].tolist() == pytest.approx(want, rel=1e-5, abs=1e-4)
        untouched = sorted(set(range(16)) - {*prompt, *chosen})
        assert found[i, untouched].tolist() == logits[i, untouched].tolist()


def test_the_reference_is_what_transformers_does():
    from transformers import RepetitionPenaltyLogitsProcessor

    torch.manual_seed(1)
    logits, ids = torch.randn(1, 100) * 5, torch.randint(0, 100, (1, 40))
    want = RepetitionPenaltyLogitsProcessor(1.3)(ids, logits.clone())
    one = torch.ones(1)
    found = penalise(logits.clone(), *entries([(ids[0].tolist(), [])]), one * 1.3, one * 0, one * 0)
    assert torch.equal(found, want)


@pytest.mark.parametrize("factor", [2.0**-126, 3.4e38])
def test_what_is_finite_stays_so(factor):
    logits = torch.tensor([[-50.0, 50.0, 0.0, -math.inf, math.inf, math.nan]])
    setting = torch.tensor([factor])
    found = penalise(logits, *entries([(list(range(6)), [0, 1])]), setting, torch.ones(1), torch.ones(1))[0]
    assert found[:3].isfinite().all()
    assert found[3:5].tolist() == [-math.inf, math.inf]
    assert found[5].isnan()


def test_what_does_not_fit_is_refused():
    where = [torch.zeros(2, dtype=torch.int32)] * 3
    rows = [torch.ones(1)] * 3
    with pytest.raises(ValueError, match="Logits"):
        penalise(torch.zeros(1, 4, dtype=torch.bfloat16), *where, *rows)
    for i, name in enumerate(("rows", "ids", "counts", "repetition", "presence", "frequency")):
        good = [*where, *rows]
        with pytest.raises(ValueError, match=name):
            penalise(torch.zeros(1, 4), *good[:i], good[i].double(), *good[i + 1 :])
        with pytest.raises(ValueError, match="must be"):
            penalise(torch.zeros(1, 4), *good[:i], good[i].expand(2)[:0] if i > 2 else good[i][:1], *good[i + 1 :])


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_interpreted():
    assert run_python(CHECK, "cpu", TRITON_INTERPRET="1") == "all equal"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_compiled():
    assert run_python(CHECK, "cuda") == "all equal"
