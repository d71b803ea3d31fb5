"""Constrained generation on the real engine: what it lets a model write, and that it changes nothing else."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import re
import shutil
import weakref
from dataclasses import replace

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, all_pages_free, audit, open_engine, random_checkpoint, run
from test_seams import bpe_tokenizer, reference_model, vocabulary

from parrot_nb.engine.embedded import EmbeddedEngine, load_engine
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.protocol import Constraint, GenerationEnd, Sampling
from parrot_nb.errors import ConstraintError

SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "count": {"type": "integer", "minimum": 0, "maximum": 999},
        "tags": {"type": "array", "items": {"enum": ["new", "old"]}, "maxItems": 3},
        "note": {"anyOf": [{"type": "string", "maxLength": 8}, {"type": "null"}]},
    },
    "required": ["name", "count", "tags", "note"],
    "additionalProperties": False,
}
JSON = Constraint("json", json.dumps(SCHEMA))
DATE = Constraint("regex", r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
CHOICES = Constraint("choices", json.dumps(["yes", "no", "naïve (or not) | [x]", "🙂"]))
EOS = 1
PROMPT = "the cat sat on the mat: "


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Byte-level BPE, and more rows of embedding than tokens."""
    path = tmp_path_factory.mktemp("constraints") / "model"
    tokenizer = bpe_tokenizer()
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer) + 7, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=512, initializer_range=0.35, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    random_checkpoint(path, config)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def codec():
    return TokenizerCodec(bpe_tokenizer())


async def written(
    engine: EmbeddedEngine, sampling: Sampling, prompt: str = PROMPT, taken_back: int = 0
) -> tuple[str, GenerationEnd]:
    """A text after a prompt, of which so many tokens are taken back."""
    ids = engine.codec.encode(prompt, first=True)
    context = engine.open(PRIORITY)
    engine.fill(context, ids[: len(ids) - taken_back])
    text = ""
    try:
        async for piece in engine.generate(context, sampling, taken_back=ids[len(ids) - taken_back :]):
            text += piece.text
            if piece.end is not None:
                return text, piece.end
    finally:
        engine.free(context)
    raise AssertionError("no last piece")


def check(text: str, constraint: Constraint) -> None:
    if constraint.kind == "json":
        value = json.loads(text)
        assert list(value) == list(SCHEMA["properties"])
        assert isinstance(value["count"], int)
        assert 0 <= value["count"] <= 999
        assert set(value["tags"]) <= {"new", "old"}
    elif constraint.kind == "regex":
        assert re.fullmatch(constraint.body, text)
    else:
        assert text in json.loads(constraint.body)


@pytest.mark.parametrize(
    ("taken_back", "guesses"), [(0, True), (1, True), (2, False)], ids=["whole", "healed", "without guesses"]
)
@pytest.mark.parametrize("constraint", [JSON, DATE, CHOICES], ids=lambda c: c.kind)
def test_whatever_a_model_says_the_text_obeys(folder, constraint, taken_back, guesses):
    async def main(engine: EmbeddedEngine) -> None:
        samplings = [Sampling(400, temperature=1.5, seed=seed, constraint=constraint) for seed in range(4)]
        samplings += [Sampling(400, constraint=constraint), Sampling(400, constraint=constraint, ignore_eos=True)]
        results = await asyncio.gather(*(written(engine, s, taken_back=taken_back) for s in samplings))
        alone = [await written(engine, s, taken_back=taken_back) for s in samplings[:2]]
        assert [text for text, _ in results[:2]] == [text for text, _ in alone]  # whatever else is in a step
        for text, end in results:
            assert (end.finish, end.complete) == ("stop", True)
            check(text, constraint)
            assert engine.codec.decode([*end.token_ids]) == text.removeprefix(end.lead)
        assert all_pages_free(engine)
        audit(engine)

    run(open_engine(folder, device="cpu", dtype="float32", off=() if guesses else ("drafts",)), main)


@pytest.mark.parametrize("stated", [-1, 258, 10_000, [EOS, -1, 10**9]])
def test_ends_that_the_tokenizer_lacks_change_nothing(folder, tmp_path, stated):
    copy = shutil.copytree(folder, tmp_path / "model")
    for name in ("config.json", "generation_config.json"):
        settings = json.loads((copy / name).read_text())
        (copy / name).write_text(json.dumps(settings | {"eos_token_id": stated}))

    async def main(engine: EmbeddedEngine) -> None:
        digits = Constraint("regex", "[0-9]{1,20}")  # which may end after each
        for seed in range(3):
            text, end = await written(engine, Sampling(400, temperature=1.5, constraint=digits, seed=seed))
            assert end.complete
            check(text, digits)

    run(open_engine(copy, device="cpu", dtype="float32"), main)


def check_step_by_step(codec, folder, prompt: list[int], taken_back: list[int], choices: list[str], written: list[int]) -> None:
    """Hold each token that a greedy model wrote against the logits: it is the likeliest of those that keep the text the beginning
    of a choice. Where the text is certain, it is the model's own token if that fits, else one that spells the text too."""
    words = vocabulary(folder)
    owed = b"".join(words[i] for i in taken_back)
    whole = [owed + choice.encode() for choice in choices]
    said = b""
    for i, token in enumerate(written):
        with torch.inference_mode():
            logits = reference_model(folder)(torch.tensor([[*prompt, *written[:i]]])).logits[0, -1]
        left = [text[len(said) :] for text in whole if text.startswith(said)]
        fits = [j for j, word in words.items() if any(text.startswith(word) for text in left)]
        best = max([*fits, *([EOS] if b"" in left else [])], key=lambda j: float(logits[j]))
        ends = min(left), max(left)  # what all begin with, these two do
        certain = bytes(a for a, _ in itertools.takewhile(lambda pair: pair[0] == pair[1], zip(*ends, strict=False)))
        if certain and i and len(said) >= len(owed):
            own = int(logits.argmax())
            spelled = codec.encode(certain.decode(errors="ignore"))[:1]
            assert token in ([own] if own in fits else [best, *spelled])
        else:
            assert token == best
        said += words[token]
    assert said in whole
    if any(text != said and text.startswith(said) for text in whole):
        with torch.inference_mode():
            logits = reference_model(folder)(torch.tensor([[*prompt, *written]])).logits[0, -1]
        longer = [j for j, word in words.items() if any(text.startswith(said + word) for text in whole)]
        assert all(logits[EOS] >= logits[j] for j in longer)


@pytest.mark.parametrize("taken_back", [0, 1, 2])
@pytest.mark.parametrize("text", [PROMPT, "def f(x): return the", "über die Br", "naïve caf", "the cat "])
def test_choices_are_the_likeliest_tokens_that_keep_to_them(folder, text, taken_back):
    choices = ["the cat", "the cat sat", "the rat", "über", "ücke", "é and more", "é", "x + 1", "🙂🙂", "sat", "satin"]

    async def main(engine: EmbeddedEngine) -> None:
        ids = engine.codec.encode(text, first=True)
        prompt, taken = ids[: len(ids) - taken_back], ids[len(ids) - taken_back :]
        if taken and 0x80 <= (engine.codec.token_bytes(taken[0]) or b"a")[0] < 0xC0:
            pytest.skip("a seam does not cut characters")
        value, end = await written(engine, Sampling(60, constraint=Constraint("choices", json.dumps(choices))), text, taken_back)
        assert value in choices
        check_step_by_step(engine.codec, folder, prompt, taken, choices, list(end.context_ids))

    run(open_engine(folder, device="cpu", dtype="float32"), main)


def test_forced_tokens_take_no_step_of_their_own(folder):
    async def main(engine: EmbeddedEngine) -> None:
        constraint = Constraint("regex", "the cat sat on the mat and the other cat ate the rat (yes|no)")
        text, end = await written(engine, Sampling(200, constraint=constraint))
        assert text.startswith("the cat sat on the mat and")
        assert end.guessed_tokens > end.decoded_tokens / 2

    run(open_engine(folder, device="cpu", dtype="float32"), main)


def test_a_text_that_obeys_anyway_is_the_same_with_the_constraint(folder):
    async def main(engine: EmbeddedEngine) -> None:
        samplings = [Sampling(4, temperature=0.7, seed=seed) for seed in range(60)]
        free = await asyncio.gather(*(written(engine, s) for s in samplings))
        anything = Constraint("regex", r"(?s:.*)")
        bound = await asyncio.gather(*(written(engine, replace(s, constraint=anything)) for s in samplings))
        known = engine.codec.vocab_size
        pairs = [  # half characters are no text, and some rows of the embedding no token
            (a, b) for a, b in zip(free, bound, strict=True) if "\ufffd" not in a[0] and max(a[1].token_ids, default=0) < known
        ]
        assert len(pairs) > 3
        assert [(text, end.token_ids, end.finish) for (text, end), _ in pairs] == [
            (text, end.token_ids, end.finish) for _, (text, end) in pairs
        ]
        # The free text as the only other choice: it is likelier than the one that nobody says.
        greedy, end = await written(engine, Sampling(3))
        assert "\ufffd" not in greedy
        choices = Constraint("choices", json.dumps([greedy, "\x00"]))
        chosen, bound_end = await written(engine, Sampling(40, constraint=choices))
        assert chosen == greedy
        assert bound_end.token_ids == end.token_ids

    run(open_engine(folder, device="cpu", dtype="float32", off=("drafts",)), main)


def test_a_text_that_is_cut_says_whether_it_is_complete(folder):
    async def main(engine: EmbeddedEngine) -> None:
        _, cut = await written(engine, Sampling(3, constraint=JSON))
        assert (cut.finish, cut.complete) == ("length", False)
        _, number = await written(engine, Sampling(2, constraint=Constraint("regex", "[0-9]+"), ignore_eos=True))
        assert (number.finish, number.complete) == ("length", True)
        text, stopped = await written(engine, Sampling(50, constraint=JSON, stop=('"name',)))
        assert (stopped.finish, stopped.complete) == ("stop", False), text
        text, stopped = await written(
            engine, Sampling(50, constraint=Constraint("regex", "12(;[a-z]{40})?"), stop=(";",), ignore_eos=True)
        )
        assert (text, stopped.finish, stopped.complete) == ("12", "stop", True)
        assert (await written(engine, Sampling(50)))[1].complete is None

    run(open_engine(folder, device="cpu", dtype="float32"), main)


def test_text_that_was_said_belongs_to_the_value(folder):
    async def main(engine: EmbeddedEngine) -> None:
        for taken_back in (0, 1):
            said = '{"name": "the cat"'
            constraint = Constraint("json", JSON.body, said)
            text, end = await written(engine, Sampling(200, constraint=constraint), PROMPT + said, taken_back)
            check(said + text, JSON)
            assert end.complete
        said = '{\n    "name": "the cat"'  # another layout than that of texts with no beginning
        text, end = await written(engine, Sampling(400, constraint=Constraint("json", JSON.body, said)), PROMPT + said)
        check(said + text, JSON)
        assert end.complete
        assert re.search(r"[ \t]{21}", said + text) is None
        text, _ = await written(engine, Sampling(50, constraint=Constraint("regex", "ab", "a")), "the cat a", 1)
        assert text == "b"
        with pytest.raises(ConstraintError, match=r"begin='\[' cannot begin a value of this type"):
            await written(engine, Sampling(200, constraint=Constraint("json", JSON.body, "[")), PROMPT + "[")
        assert all_pages_free(engine)

    run(open_engine(folder, device="cpu", dtype="float32"), main)


def test_a_crowd_that_is_preempted_writes_the_same(folder):
    """A cache with room for a few: contexts lose their pages and are computed again, beside others without constraint."""

    async def main(engine: EmbeddedEngine) -> None:
        samplings = [
            Sampling(60, temperature=1.2, seed=seed, constraint=None if seed % 3 == 0 else (JSON, DATE)[seed % 2])
            for seed in range(12)
        ]
        together = await asyncio.gather(*(written(engine, s, prompt=PROMPT * (1 + s.seed % 2)) for s in samplings))
        alone = [await written(engine, s, prompt=PROMPT * (1 + s.seed % 2)) for s in samplings]
        assert [(text, end.token_ids, end.complete) for text, end in together] == [
            (text, end.token_ids, end.complete) for text, end in alone
        ]
        assert all_pages_free(engine)
        audit(engine)

    run(load_engine(folder, device="cpu", dtype="float32", page_size=4, kv_memory="64kB"), main)


def test_the_grammars_of_a_vocabulary_go_with_it(folder):
    def codec_of_a_closed_engine() -> weakref.ref[object]:
        engine = open_engine(folder, device="cpu", dtype="float32")
        run(engine, lambda engine: written(engine, Sampling(400, constraint=DATE)))
        return weakref.ref(engine.codec)

    codec = codec_of_a_closed_engine()
    gc.collect()
    assert codec() is None


def doubled(depth: int) -> dict[str, object]:
    """2 ** depth alternatives."""
    return {"type": "integer"} if not depth else {"anyOf": [doubled(depth - 1), {"type": "array", "items": doubled(depth - 1)}]}


def doubling(depth: int) -> dict[str, object]:
    """Definitions of which each refers twice to the next: 2 ** depth values if they are written out."""
    definitions: dict[str, object] = {f"d{depth}": {"type": "null"}}
    for i in range(depth):
        twice = [{"$ref": f"#/$defs/d{i + 1}"}] * 2
        definitions[f"d{i}"] = {"type": "array", "prefixItems": twice, "items": False, "minItems": 2}
    return {"$ref": "#/$defs/d0", "$defs": definitions}


def hostile() -> dict[str, Constraint]:
    deep: dict[str, object] = {"type": "string"}
    for _ in range(600):
        deep = {"type": "array", "items": deep}
    wide: dict[str, object] = {"anyOf": [{"type": "string", "pattern": f"^(a|b)*{i}(a|b){{{i}}}$"} for i in range(400)]}
    return {
        "an expression that backtracks": Constraint("regex", "(a+)+b" * 50),
        "an expression with many states": Constraint("regex", "(a|b)*a(a|b){400}"),
        "repeats of repeats": Constraint("regex", "((((a{1,99}){1,99}){1,99}){1,99}){1,99}"),
        "a remote schema": Constraint("json", '{"$ref": "http://example.com/schema"}'),
        "a file": Constraint("json", '{"$ref": "file:///etc/passwd"}'),
        "ten megabytes": Constraint("json", json.dumps({"enum": [f"choice {i}" for i in range(500_000)]})),
        "what is not known": Constraint("json", '{"type": "array", "uniqueItems": true}'),
        "no schema": Constraint("json", '{"type": 7}'),
        "no expression": Constraint("regex", "("),
        "deep": Constraint("json", json.dumps(deep)),
        "wide": Constraint("json", json.dumps(wide)),
        "an endless reference": Constraint("json", '{"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/a"}}}'),
        "nothing": Constraint("json", '{"allOf": [{"type": "string"}, {"type": "integer"}]}'),
        "an expression of nested stars": Constraint("regex", "(((((a*)*)*)*)*)*b"),
        "an expression of overlapping alternatives": Constraint("regex", "(a|aa|aaa|aaaa)*" * 40 + "c"),
        "a count without end": Constraint("regex", "(ab){1000000}"),
        "all of Unicode, many times": Constraint("regex", r"(\p{L}\p{N}\p{S}){5000}"),
        "a pattern in a schema": Constraint(
            "json", json.dumps({"type": "string", "pattern": "^((a|a)*)*$" + "(x{1,500}){1,500}"})
        ),
        "a length without end": Constraint("json", '{"type": "string", "minLength": 100000000}'),
        "an array without end": Constraint("json", '{"type": "array", "items": {"type": "null"}, "minItems": 100000000}'),
        "alternatives of alternatives": Constraint("json", json.dumps(doubled(14))),
        "references that double": Constraint("json", json.dumps(doubling(40))),
        "many fields": Constraint(
            "json", json.dumps({"type": "object", "properties": {f"field {i}": {"type": "string"} for i in range(3000)}})
        ),
        "a grammar that refers to itself": Constraint("lark", "start: start start | start"),
        "products of choices": Constraint(
            "json",
            json.dumps(
                {"allOf": [{"anyOf": [{"properties": {f"p{i}{j}": {"type": "integer"}}} for j in range(6)]} for i in range(12)]}
            ),
        ),
    }


@pytest.mark.parametrize("name", list(hostile()))
def test_hostile_constraints_end_in_an_error_or_a_text_and_hold_up_nobody(folder, name):
    async def main(engine: EmbeddedEngine) -> None:
        await written(engine, Sampling(2, constraint=DATE))  # which makes the tables
        try:
            text, end = await written(engine, Sampling(30, temperature=1.5, seed=1, constraint=hostile()[name]))
        except ConstraintError as error:
            told = str(error)
        else:
            told = text if end.finish == "stop" and not end.complete else ""
        assert len(told) < 400
        assert "\n" not in told
        text, _ = await written(engine, Sampling(40, constraint=DATE))  # others go on
        check(text, DATE)
        assert all_pages_free(engine)

    run(load_engine(folder, device="cpu", dtype="float32", page_size=4, kv_memory="1MB"), main)


OBJECT = Constraint(
    "json",
    '{"type": "object", "properties": {"a": {}, "b": {"type": "string"}}, "required": ["a"], "additionalProperties": false}',
)
MAYBE = Constraint("json", '{"anyOf": [{"type": "integer"}, {"type": "array", "items": {"type": "boolean"}}, {"type": "null"}]}')
STRING = Constraint("json", '{"type": "string"}')


@pytest.mark.parametrize(
    ("constraint", "text", "accepted"),
    [
        (OBJECT, '{"a": [1, {"x": null}], "b": "y"}', True),
        (OBJECT, '{"a":1}', False),
        (OBJECT, '{\n    "a": 1\n}', False),
        (OBJECT, '{"a": 1', False),
        (OBJECT, "{" + " " * 100 + '"a": 1}', False),
        (OBJECT, "{\n\n\n\n" + '"a": 1}', False),
        (OBJECT, '{"b": "y", "a": 1}', False),
        (OBJECT, '{"a": 1, "a": 2}', False),
        (OBJECT, '{"a": 1, "c": 2}', False),
        (OBJECT, '{"a": 1,}', False),
        (OBJECT, '{"a": NaN}', False),
        (OBJECT, " " + '{"a": 1}', False),
        (MAYBE, "12", True),
        (MAYBE, "[true, false]", True),
        (MAYBE, "null", True),
        (MAYBE, "nul", False),
        (MAYBE, "01", False),
        (STRING, '"東京 é 🦜 \\" \\\\ \\n"', True),
        (STRING, '"a\nb"', False),
        (STRING, '"a\x00b"', False),
        (STRING, '"\\ud83d"', False),
        (STRING, '"\\x41"', False),
        (STRING, "'a'", False),
        (CHOICES, "naïve (or not) | [x]", True),
        (CHOICES, "naïve (or not) ", False),
        (CHOICES, "0", False),
        (DATE, "2024-01-01\n", False),
    ],
)
def test_what_obeys(codec, constraint, text, accepted):
    grammar = asyncio.run(codec.grammars.start(constraint, ()))
    assert grammar.accepts(text) is accepted
