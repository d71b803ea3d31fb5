"""Gemma 3 270M, a base model whose newlines are added tokens: its greedy text is that of `generate` too.

Runs with `make test-models` alone: the model is under terms of its maker's and fetched to measure with.
"""

from __future__ import annotations

import asyncio
import sys

import pytest
import torch
from checkpoints import PRIORITY, run
from in_memory import check_one_copy
from peer import Peer
from questions import FEW_SHOT_CAPITALS

import parrot_nb as P
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.linear import has_packed_products
from parrot_nb.engine.protocol import Sampling

MAX_TOKENS = 16
UNHEALED = {"heal": False}  # the ids of the prompt are then all that `generate` needs
TEXTS = (
    FEW_SHOT_CAPITALS[0][0],
    FEW_SHOT_CAPITALS[5][0],
    "The three most important things to know about the ocean are",
    "def fibonacci(n):\n\t",
    "<table>\n  <tr>\n    <td>1</td>",
    "Ingredients:\n\n- 2 eggs\n- 100 g of flour\n\n\nMethod:\n1.",
)


@pytest.mark.slow
def test_greedy_text_equals_generate(gemma_folder, gemma_peer: Peer):
    prompts = [gemma_peer.raw_ids(text) for text in TEXTS]
    expected = [gemma_peer.write(prompt, MAX_TOKENS) for prompt in prompts]
    newlines = {gemma_peer.tokenizer.convert_tokens_to_ids(token) for token in ("\n", "\n\n")}
    assert any(newlines & set(text.ids) for text in expected), "a newline is among what is written"

    async def one(engine, prompt):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        async for piece in engine.generate(context, Sampling(max_tokens=MAX_TOKENS)):
            if piece.end is not None:
                engine.free(context)
                return piece.end.token_ids
        raise AssertionError("no last piece")

    async def main(engine):
        return [await one(engine, prompt) for prompt in prompts], await asyncio.gather(*(one(engine, p) for p in prompts))

    alone, batched = run(load_engine(gemma_folder, device="cpu", dtype="float32", max_context=512), main)
    assert alone == batched == [text.ids for text in expected]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="needs /proc")
@pytest.mark.skipif(not has_packed_products(torch.bfloat16), reason="oneDNN has no bfloat16 products on this CPU")
def test_one_copy_of_the_weights_and_a_hundred_megabytes(gemma_folder):
    check_one_copy(gemma_folder)


@pytest.mark.slow
def test_prompts_are_tokenized_as_their_makers_do(gemma_folder, gemma_peer: Peer):
    with P.Session(model=gemma_folder, device="cpu", max_context=512):
        for text in TEXTS:
            function = P.SemanticFunction(text + "{{output:rest}}", name="go_on").options(chat=False, **UNHEALED)
            ids = tuple(token for segment in function.render() for token in segment.token_ids)
            assert ids == gemma_peer.raw_ids(text), text
