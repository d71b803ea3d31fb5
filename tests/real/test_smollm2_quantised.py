"""SmolLM2 with quantised weights: what the rounding costs on ordinary text, of the checkpoint and of the Q4_1 file."""

from __future__ import annotations

from parrot_nb.bench.quality import read, run

NUM_TOKENS = 160


def test_quality_stays_within_bounds(smollm2_folder):
    exact, int8, int4 = run(str(smollm2_folder), ["int8", "int4"], NUM_TOKENS)
    assert 5 < exact.perplexity < 60, "the text is read as English"
    assert int8.perplexity / exact.perplexity < 1.05
    assert int8.agreement(exact) > 0.9
    assert int4.perplexity / exact.perplexity < 1.25
    assert int4.agreement(exact) > 0.75
    assert int8.agreement(exact) > int4.agreement(exact)


def test_the_blocks_of_the_file_lose_no_more_than_bfloat16_does(smollm2_gguf):
    """Its levels are kept; what is rounded beside them are the head, of Q8_0, and scales."""
    blocks, plain = (read(setting, str(smollm2_gguf), NUM_TOKENS) for setting in ("int4", "bfloat16"))
    assert "120 of 121 keep the file's own levels" in blocks.told
    assert blocks.perplexity / plain.perplexity < 1.1
    assert blocks.agreement(plain) > 0.85
