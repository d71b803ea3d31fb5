"""Random schemas on random weights at a high temperature: every text that ends is JSON and validates, by other people's judges."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator

import jsonschema
import pytest
import transformers as hf
from checkpoints import PRIORITY, all_pages_free, open_engine, random_checkpoint, run
from test_seams import bpe_tokenizer

from parrot_nb.engine.embedded import EmbeddedEngine
from parrot_nb.engine.protocol import Constraint, Sampling

AT_ONCE = 16
KEYS = ["name", "größe", "a b", 'quote"', "back\\slash", "名前", "x", "_", "1", "type"]


def random_schema(rng: random.Random, depth: int = 0, names: tuple[str, ...] = ()) -> dict[str, object]:
    """A schema whose texts end before long."""
    leaves = ["integer", "number", "boolean", "null", "string", "enum", "const", "pattern"]
    kind = rng.choice(
        leaves if depth > 2 else [*leaves, *["object", "array", "tuple", "anyOf", "map"] * 2, *(["$ref"] if names else [])]
    )

    def inner() -> dict[str, object]:
        return random_schema(rng, depth + 1, names)

    match kind:
        case "integer":
            low = rng.randint(-500, 500)
            return {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 2000)}
        case "number":
            low = rng.randint(-5, 5)
            return (
                {"type": "number", "minimum": low, "maximum": low + rng.randint(1, 9)}
                if rng.random() < 0.7
                else {"enum": [1.5, -2e10]}
            )
        case "string":
            low = rng.randint(0, 3)
            return {"type": "string", "minLength": low, "maxLength": low + rng.randint(0, 6)}
        case "enum":
            return {
                "enum": rng.sample(
                    ["red", "grün", "", 'a"b', "back\\slash", 1, 2.5, None, True, "🦜", "line\nbreak"], rng.randint(1, 4)
                )
            }
        case "const":
            return {"const": rng.choice(["yes", 7, None, False, "ÿ"])}
        case "pattern":
            return {
                "type": "string",
                "pattern": rng.choice([r"^[a-c]{2,4}$", r"^\d{3}-\d{2}$", r"^(?:ab|ba)+c?$", r"^[^\x00-\x1f]{1,3}$"]),
            }
        case "object":
            keys = rng.sample(KEYS, rng.randint(0, 4))
            required = [key for key in keys if rng.random() < 0.7]
            return {
                "type": "object",
                "properties": {key: inner() for key in keys},
                "required": required,
                "additionalProperties": False,
            }
        case "array":
            low = rng.randint(0, 2)
            return {"type": "array", "items": inner(), "minItems": low, "maxItems": low + rng.randint(0, 2)}
        case "tuple":
            items = [inner() for _ in range(rng.randint(1, 3))]
            return {"type": "array", "prefixItems": items, "items": False, "minItems": len(items)}
        case "anyOf":
            return {"anyOf": [inner() for _ in range(rng.randint(1, 3))]}
        case "map":
            return {"type": "object", "properties": {"k": inner()}, "additionalProperties": {"enum": ["v", 0]}}
        case "$ref":
            return {"$ref": f"#/$defs/{rng.choice(names)}"}
        case "boolean" | "null":
            return {"type": kind}
    raise AssertionError(kind)


def whole_schema(seed: int) -> dict[str, object]:
    rng = random.Random(seed)
    names = ("one", "two")[: rng.randint(0, 2)]
    definitions = {name: random_schema(rng, 2) for name in names}
    return {**random_schema(rng, 0, names), **({"$defs": definitions} if names else {})}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("schemas") / "model"
    tokenizer = bpe_tokenizer()
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=24, num_hidden_layers=1, num_attention_heads=2,
        num_key_value_heads=1, max_position_embeddings=512, initializer_range=0.35, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    random_checkpoint(path, config)
    tokenizer.save_pretrained(path)
    return path


def texts(folder, seeds: range) -> Iterator[tuple[int, str]]:
    """The texts that ended, by the seed of their schema and their noise."""

    async def one(engine: EmbeddedEngine, seed: int) -> tuple[int, str] | None:
        context = engine.open(PRIORITY)
        engine.fill(context, engine.codec.encode("the cat sat on ", first=True))
        text = ""
        try:
            constraint = Constraint("json", json.dumps(whole_schema(seed)))
            async for piece in engine.generate(context, Sampling(300, temperature=1.5, seed=seed, constraint=constraint)):
                text += piece.text
                if piece.end is not None:
                    assert piece.end.complete or piece.end.finish == "length", (seed, text)
                    return (seed, text) if piece.end.complete else None
        finally:
            engine.free(context)
        raise AssertionError("no last piece")

    async def main(engine: EmbeddedEngine) -> list[tuple[int, str]]:
        found = []
        for start in range(seeds.start, seeds.stop, AT_ONCE):
            group = range(start, min(start + AT_ONCE, seeds.stop))
            found += [each for each in await asyncio.gather(*(one(engine, seed) for seed in group)) if each is not None]
        assert all_pages_free(engine)
        return found

    yield from run(open_engine(folder, device="cpu", dtype="float32"), main)


def judge(folder, seeds: range) -> None:
    ended = list(texts(folder, seeds))
    assert len(ended) > 0.8 * len(seeds)
    for seed, text in ended:
        jsonschema.validate(json.loads(text), whole_schema(seed), cls=jsonschema.Draft202012Validator)


def test_two_hundred_schemas(folder):
    judge(folder, range(200))


@pytest.mark.minutes
def test_a_thousand_schemas(folder):
    judge(folder, range(1000, 2000))
