"""What an option may be is checked where it is said: at the edges of int32, int64, float32 and float64 each value is either
refused with one sentence or works, in both samplers."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from checkpoints import PRIORITY, run, write
from hypothesis import example, given, settings
from hypothesis import strategies as st

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.protocol import Sampling
from parrot_nb.language import Options
from parrot_nb.language.options import SAMPLING_NAMES

ROOT = Path(__file__).parents[2]
WHOLE = [0, 1, -1, 2**31 - 1, 2**31, -(2**31), 2**32, 2**53 + 1, 2**63 - 1, 2**63, -(2**63), 2**64, 10**400, True]
REAL = [
    0.0, -0.0, 1.0, math.nextafter(1, 2), math.nextafter(1, 0), 2.0, math.nextafter(2, 3), -2.0,
    2.0**-24, 2.0**-126, math.nextafter(2.0**-126, 0), 2.0**-149, 2.0**-150, 1e-300, 5e-324, -5e-324,
    (2 - 2.0**-23) * 2.0**127, math.nextafter((2 - 2.0**-23) * 2.0**127, math.inf), 1e39, 1.7976931348623157e308,
    math.inf, -math.inf, math.nan,
]  # fmt: skip
EDGES = st.sampled_from([*WHOLE, *REAL]) | st.integers(-(2**64), 2**64) | st.floats()
OPTION = st.sampled_from([name for name in SAMPLING_NAMES if name not in ("stop", "ignore_eos")])
LOGITS = [3.0, 1.0, 1.0, -2.0, 0.0, float("-inf"), 3.0, -30.0]
CHECK = """
import sys, torch
from hypothesis import given, settings, strategies as st
sys.path.insert(0, sys.argv[1])
from test_option_edges import LOGITS, NUMBERS, sampling_or_none
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_kernels.sample import sample_tokens_torch, sample_tokens_triton

@settings(max_examples=60, deadline=None, derandomize=True, database=None)
@given(st.lists(st.dictionaries(st.sampled_from(["temperature", "top_p", "top_k", "min_p", "seed"]), NUMBERS), max_size=3))
def check(all_said):
    found = [sampling for said in all_said if (sampling := sampling_or_none(said)) is not None]
    if found:
        rows = SamplingRows.of(found, [sampling.seed or 0 for sampling in found], [2**40] * len(found))
        logits = torch.tensor([LOGITS] * len(found))
        values = logits, rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seeds, rows.positions
        want = sample_tokens_torch(*values)
        assert (want >= 0).all() and torch.equal(sample_tokens_triton(*values), want), (found, want)

check()
sys.stdout.write("all equal")
"""
NUMBERS = st.sampled_from([value for value in [*WHOLE, *REAL] if not isinstance(value, float) or math.isfinite(value)])


def sampling_or_none(said: dict[str, object]) -> Sampling | None:
    """The sampling of these options as a call has it; None where one is refused."""
    try:
        options = Options.checked(**said)
    except P.OptionError:
        return None
    known = {name: value for name, value in options.said().items() if name in Sampling.__dataclass_fields__}
    return Sampling(**{"max_tokens": 2, **known})


@settings(max_examples=500, deadline=None)
@given(OPTION, EDGES)
@example("top_k", 2**31)
@example("temperature", 1e39)
@example("max_tokens", 10**400)
def test_each_value_is_refused_in_one_sentence_or_works(name, value):
    if (sampling := sampling_or_none({name: value})) is None:
        with pytest.raises(P.OptionError, match=rf"^{name} must be [^\n]*\.$"):
            Options.checked(**{name: value})
        return
    seeds = [sampling.seed or 0]
    chosen = SamplingRows.of([sampling], seeds, [2**62]).sample(torch.tensor([LOGITS]))
    assert 0 <= int(chosen) < len(LOGITS)
    assert int(chosen) != 5, "a token without probability"


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(OPTION, NUMBERS, min_size=2), st.integers(0, 2**63 - 1))
def test_options_together_choose_a_possible_token(said, seed):
    if (sampling := sampling_or_none(said)) is not None:
        rows = SamplingRows.of([sampling] * 2, [seed, seed], [0, 2**40])
        chosen = rows.sample(torch.tensor([LOGITS] * 2)).tolist()
        assert all(0 <= token < len(LOGITS) and token != 5 for token in chosen)
        if sampling.temperature < 1e-30:
            assert set(chosen) <= {0, 6}


@pytest.mark.parametrize(
    "name",
    [
        name
        for name in SAMPLING_NAMES
        if name in Sampling.__dataclass_fields__ and name not in ("stop", "ignore_eos", "max_tokens")
    ],
)
def test_the_engine_writes_with_what_is_accepted(checkpoints, name):
    samplings = [found for value in [*WHOLE, *REAL] if (found := sampling_or_none({name: value, "max_tokens": 2}))]
    assert samplings

    async def main(engine):
        for sampling in samplings:
            context = engine.open(PRIORITY)
            engine.fill(context, [65, 66, 67, 65])
            _, end = await write(engine, context, sampling)
            assert end.decoded_tokens >= 1
            engine.free(context)

    run(load_engine(checkpoints("llama"), kv_memory="256KB", page_size=4), main)


@pytest.mark.skipif(sys.platform != "linux", reason="Triton is for Linux")
def test_the_triton_sampler_does_the_same():
    env = {**os.environ, "PYTHONPATH": f"{ROOT}:{ROOT / 'kernels'}", "TRITON_INTERPRET": "1"}
    command = [sys.executable, "-W", "ignore", "-c", CHECK, str(Path(__file__).parent)]
    done = subprocess.run(command, env=env, capture_output=True, text=True, timeout=200, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout == "all equal"
