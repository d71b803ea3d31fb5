"""SmolLM2 with quantised weights: what the rounding costs on ordinary text."""

from __future__ import annotations

import pytest

from parrot_nb.bench.quality import run

NUM_TOKENS = 512


@pytest.mark.minutes
def test_quality_stays_within_bounds(smollm2_folder):
    exact, int8, int4 = run(str(smollm2_folder), ["int8", "int4"], NUM_TOKENS)
    assert 45 < exact.perplexity < 180, "a guide in terse English, read from its beginning"
    assert int8.perplexity / exact.perplexity < 1.02
    assert int8.agreement(exact) > 0.88
    assert int4.perplexity / exact.perplexity < 1.03, "its layers were rounded to such levels before, and its head has int8"
    assert int4.agreement(exact) > 0.9
