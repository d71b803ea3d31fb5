"""SmolLM2's greedy text is that of transformers' `generate`, token by token, whatever is batched, shared, chunked and preempted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from checkpoints import PRIORITY, all_pages_free, run, write
from peer import Peer, Written
from questions import CAPITALS, FEW_SHOT

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import GenerationEnd, Sampling, StepRecord

MAX_TOKENS = 16
NEAR_TIE = 1e-3  # of logits: closer tokens may change places with the order of a float32 sum, thus with the processor
BF16_NEAR_TIE = 0.5  # of logits: bfloat16 keeps 8 bits, which is 0.06 to 0.12 of a logit between 16 and 32, in each of 30 layers
LEAST_EQUAL = 0.5  # of all tokens, those before the first that differs in its text

SENTENCES = (
    "The three most important things to know about the ocean are",
    "def fibonacci(n):\n    ",
    "Once upon a time, in a village by the sea, there lived an old fisherman who",
    "Ingredients:\n- 2 eggs\n- 100 g of flour\n\nMethod:\n1.",
    "In 1969, the first people to walk on the Moon were",
    "Dear Sir or Madam,\n\nI am writing to",
)
REQUESTS = (
    "What is the capital of France?",
    "Write one sentence about autumn.",
    "Translate into French: Good morning.",
    "List three primary colours.",
    "Why is the sky blue? Answer briefly.",
    "Rewrite politely: Give me the book.",
)


@pytest.fixture(scope="module")
def prompts(smollm2_peer: Peer) -> list[tuple[int, ...]]:
    """Twenty: eight that begin alike, six sentences, six conversations."""
    shots = [FEW_SHOT.format(country) for country, _ in CAPITALS[:8]]
    opening = "".join(f"Country: {country}\nCapital: {capital}\n\n" for country, capital in CAPITALS[8:20])
    raw = [smollm2_peer.raw_ids(text) for text in (*(opening + shot for shot in shots), *SENTENCES)]
    return raw + [smollm2_peer.chat_ids(request) for request in REQUESTS]


@pytest.fixture(scope="module")
def expected(smollm2_peer: Peer, prompts) -> list[Written]:
    written = [smollm2_peer.write(prompt, MAX_TOKENS) for prompt in prompts]
    assert len({text.ids for text in written}) == len(prompts)
    assert any(text.ended for text in written)
    return written


async def one(engine, prompt: Sequence[int]) -> GenerationEnd:
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    try:
        return (await write(engine, context, Sampling(max_tokens=MAX_TOKENS)))[1]
    finally:
        engine.free(context)


async def together(engine, prompts: Sequence[Sequence[int]]) -> list[GenerationEnd]:
    ends = await asyncio.gather(*(one(engine, prompt) for prompt in prompts))
    await asyncio.sleep(0)
    assert all_pages_free(engine)
    return ends


def assert_equal(ends: Sequence[GenerationEnd], expected: Sequence[Written]) -> None:
    """All texts are equal, but for one that may part where the two likeliest tokens nearly tie."""
    assert len(ends) == len(expected)
    parted = [gap for end, text in zip(ends, expected, strict=True) if (gap := parting(end, text)) is not None]
    assert all(gap < NEAR_TIE for gap in parted), parted
    assert len(parted) <= 1
    for end, text in zip(ends, expected, strict=True):
        if end.token_ids == text.ids:
            assert end.finish == ("stop" if text.ended else "length")


def parted_at(end: GenerationEnd, text: Written) -> int:
    """How many tokens are equal, up to the first that differs."""
    pairs = zip(end.token_ids, text.ids, strict=False)
    return next((i for i, (ours, theirs) in enumerate(pairs) if ours != theirs), min(len(end.token_ids), len(text.ids)))


def parting(end: GenerationEnd, text: Written) -> float | None:
    """At the first token that differs, how much likelier the reference's own was to it; None where the texts are equal."""
    if end.token_ids == text.ids:
        return None
    i_token = parted_at(end, text)
    if i_token < len(end.token_ids):
        return text.gap(i_token, end.token_ids[i_token])
    return min(text.gap(i_token, end_id) for end_id in text.end_ids)  # ours ended here, the reference went on


def test_alone_batched_and_found_cached(smollm2_folder, prompts, expected):
    async def main(engine):
        alone = [await one(engine, prompt) for prompt in prompts]
        engine.clear_cache()
        batched = await together(engine, prompts)
        return alone, batched, await together(engine, prompts)

    alone, batched, again = run(load_engine(smollm2_folder, device="cpu", dtype="float32", max_context=512), main)
    assert_equal(alone, expected)
    assert_equal(batched, expected)
    assert_equal(again, expected)
    for ends in (alone, batched):
        shared = sum(end.reused_tokens for end in ends[1:8])
        assert shared > 0.8 * sum(map(len, prompts[1:8])), "what begins alike is computed once"
    assert sum(end.prefilled_tokens for end in again) < 0.2 * sum(map(len, prompts))


def test_without_sharing(smollm2_folder, prompts, expected):
    engine = load_engine(smollm2_folder, device="cpu", dtype="float32", max_context=512, off=("sharing", "dedup"))
    ends = run(engine, lambda engine: together(engine, prompts[6:12]))
    assert [end.reused_tokens for end in ends] == [0] * len(ends)
    assert_equal(ends, expected[6:12])


def test_chunked_and_preempted(smollm2_folder, prompts, expected):
    """Sixteen rows a step, and memory for one long context or about five short ones."""
    steps: list[StepRecord] = []
    probe = load_engine(smollm2_folder, device="cpu", dtype="float32", max_context=512, kv_memory="64MB")
    per_page = probe._model.bytes_per_token() * probe.load().page_size_tokens
    asyncio.run(probe.close())
    engine = load_engine(
        smollm2_folder,
        device="cpu",
        dtype="float32",
        max_context=512,
        kv_memory=per_page * 16,
        max_step_tokens=16,
        on_step=steps.append,
    )
    ends = run(engine, lambda engine: together(engine, prompts))
    assert_equal(ends, expected)
    assert max(step.prefill_tokens + step.decode_tokens for step in steps) <= 20
    computed = sum(step.prefill_tokens + step.decode_tokens for step in steps) + sum(end.guessed_tokens for end in ends)
    assert computed > sum(end.prefilled_tokens + end.decoded_tokens for end in ends), "none was preempted"


def test_in_bfloat16_texts_part_at_near_ties_only(smollm2_folder, prompts, expected):
    engine = load_engine(smollm2_folder, device="cpu", dtype="bfloat16", max_context=512)
    ends = run(engine, lambda engine: together(engine, prompts))
    gaps = [parting(end, text) for end, text in zip(ends, expected, strict=True)]
    assert max((gap for gap in gaps if gap is not None), default=0.0) < BF16_NEAR_TIE, gaps
    equal = sum(parted_at(end, text) for end, text in zip(ends, expected, strict=True))
    assert equal > LEAST_EQUAL * sum(len(text.ids) for text in expected), gaps
