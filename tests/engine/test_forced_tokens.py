"""Forced text: the same tokens whether they are guessed, computed one by one or computed again, and JSON on one line."""

from __future__ import annotations

import asyncio
import json
import re

import pytest
import transformers as hf
from checkpoints import PRIORITY, all_pages_free, open_engine, random_checkpoint, run
from test_seams import bpe_tokenizer

from parrot_nb.engine.embedded import EmbeddedEngine, load_engine
from parrot_nb.engine.embedded.draft import Drafter
from parrot_nb.engine.protocol import Constraint, GenerationEnd, Sampling

WORDS = ["the cat sat on the mat", "the rat", "the cat ate"]
SCHEMA = {
    "type": "object",
    "properties": {
        "the cat sat": {"type": "boolean"},
        "on the mat": {"type": "array", "items": {"enum": WORDS}, "minItems": 2, "maxItems": 2},
        "and the rat": {
            "type": "object",
            "properties": {"x": {"type": "null"}},
            "required": ["x"],
            "additionalProperties": False,
        },
    },
    "required": ["the cat sat", "on the mat", "and the rat"],
    "additionalProperties": False,
}
JSON = Constraint("json", json.dumps(SCHEMA))
PROMPT = "the cat sat on the mat: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("forced") / "model"
    tokenizer = bpe_tokenizer()
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer) + 7, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.35, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    random_checkpoint(path, config)
    tokenizer.save_pretrained(path)
    return path


async def written(engine: EmbeddedEngine, sampling: Sampling, prompt: str) -> tuple[str, GenerationEnd]:
    context = engine.open(PRIORITY)
    engine.fill(context, engine.codec.encode(prompt, first=True))
    text = ""
    try:
        async for piece in engine.generate(context, sampling):
            text += piece.text
            if piece.end is not None:
                return text, piece.end
    finally:
        engine.free(context)
    raise AssertionError("no last piece")


def samplings() -> list[Sampling]:
    sampled = [Sampling(300, temperature=1.5, seed=seed, constraint=JSON) for seed in range(8)]
    return [*sampled, Sampling(300, constraint=JSON), Sampling(300, repetition_penalty=1.3, seed=1, constraint=JSON)]


def all_written(engine: EmbeddedEngine) -> list[tuple[str, GenerationEnd]]:
    """Texts after prompts that suggest some of what follows, written at the same time."""

    async def main(engine: EmbeddedEngine) -> list[tuple[str, GenerationEnd]]:
        prompts = [PROMPT, PROMPT + json.dumps({"the cat sat": True, "on the mat": WORDS[:2]}) + " "]
        found = await asyncio.gather(*(written(engine, s, prompts[i % 2]) for i, s in enumerate(samplings())))
        assert all_pages_free(engine)
        return list(found)

    return run(engine, main)


def test_guesses_and_preemption_change_no_token(folder):
    plain = all_written(open_engine(folder, device="cpu", dtype="float32", off=("drafts",)))
    guessing = all_written(open_engine(folder, device="cpu", dtype="float32"))
    crowded = all_written(load_engine(folder, device="cpu", dtype="float32", page_size=4, kv_memory="128kB"))
    ids = [end.token_ids for _, end in plain]
    assert [end.token_ids for _, end in guessing] == ids
    assert [end.token_ids for _, end in crowded] == ids
    assert not any(end.guessed_tokens for _, end in plain)
    assert sum(end.guessed_tokens for _, end in guessing) > sum(map(len, ids)) / 3


def test_a_guess_is_wrong_only_where_another_token_was_written(folder, monkeypatch):
    """Not where the rest of it was made again, since text was forced there."""
    guesses, unfounded = [], []
    guess, judged = Drafter.guess, Drafter.judged

    def guessed(drafter, *arguments):
        found = guess(drafter, *arguments)
        guesses.append(found)
        drafter.last = found
        return found

    def judge(drafter, num_guessed, num_right):
        tokens, right = drafter._context.tokens, list(drafter.last[:num_right])
        is_last = bool(right) and tokens[-num_right:] == right and tokens[-num_right - 1 : -1] != right
        if num_right < num_guessed and is_last and drafter._context.generation is not None:
            unfounded.append((num_guessed, num_right))
        judged(drafter, num_guessed, num_right)

    monkeypatch.setattr(Drafter, "guess", guessed)
    monkeypatch.setattr(Drafter, "judged", judge)
    all_written(open_engine(folder, device="cpu", dtype="float32"))
    assert any(guesses)
    assert not unfounded


def test_texts_are_one_line_and_valid(folder):
    for text, end in all_written(open_engine(folder, device="cpu", dtype="float32")):
        assert (end.finish, end.complete) == ("stop", True)
        value = json.loads(text)
        assert list(value) == list(SCHEMA["properties"])
        assert text == json.dumps(value)


def test_a_model_that_would_write_other_text_gets_the_tokens_of_its_tokenizer(folder):
    """A random model would write other text; all but its first token and what may span the end is spelled as by the tokenizer."""
    first, certain = "t", "he cat sat on the mat and the other cat ate the rat and the cat sat on the mat"

    async def main(engine: EmbeddedEngine) -> None:
        same = 0
        for seed in range(6):
            constraint = Constraint("regex", f"{first}{certain} (yes|no)")
            sampling = Sampling(100, temperature=1.0, seed=seed, constraint=constraint)
            _, end = await written(engine, sampling, "x = 1 + ")
            begun = engine.codec.decode([end.token_ids[0]])
            rest = engine.codec.encode((first + certain).removeprefix(begun))
            same += list(end.token_ids[1 : len(rest)]) == rest[:-1]
        assert same >= 4  # in the others the model's own token fits

    run(open_engine(folder, device="cpu", dtype="float32"), main)


def test_log_probabilities_are_of_the_tokens_that_were_written(folder):
    async def main(engine: EmbeddedEngine) -> None:
        text, end = await written(engine, Sampling(300, constraint=JSON, logprobs=1), PROMPT)
        assert json.loads(text)
        assert "".join(score.text for score in end.scores) == text
        assert len(end.scores) == len(end.token_ids)

    run(open_engine(folder, device="cpu", dtype="float32"), main)


def test_white_space_in_a_layout_of_its_own_is_bounded(folder):
    """`begin=` opens another layout; even so no run of blanks is endless."""
    said = '{\n  "the cat sat" :'

    async def main(engine: EmbeddedEngine) -> None:
        for seed in range(4):
            constraint = Constraint("json", JSON.body, said)
            text, end = await written(engine, Sampling(450, temperature=2.0, seed=seed, constraint=constraint), PROMPT + said)
            assert end.complete
            assert list(json.loads(said + text)) == list(SCHEMA["properties"])
            assert re.search(r" {21}|\n\s*\n", said + text) is None

    run(open_engine(folder, device="cpu", dtype="float32"), main)
