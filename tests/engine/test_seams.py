"""Token healing on the real engine, against a reference that looks at every token of the vocabulary."""

from __future__ import annotations

import asyncio
from functools import lru_cache
from pathlib import Path

import pytest
import torch
import transformers as hf
from checkpoints import PRIORITY, all_pages_free, audit, random_checkpoint, run
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers.convert_slow_tokenizer import bytes_to_unicode

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.seams import SeamIndex
from parrot_nb.engine.protocol import GenerationEnd, Sampling

TEXTS = [
    "the cat sat on the mat and the other cat ate the rat that sat there",
    "über die Brücke gehen, naïve café, 東京 と 大阪, die Straße 🙂 🙂🙂",
    "def f(x):\n    return x + 1\n\n\nfor i in range(10):\n    print(f(i))\n",
]  # fmt: skip
NUM_TOKENS = 12


def bpe_tokenizer() -> hf.PreTrainedTokenizerFast:
    """Byte-level BPE with tokens of several characters, and characters of several tokens."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=["<bos>", "<eos>"], initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )  # fmt: skip
    tokenizer.train_from_iterator(TEXTS * 4, trainer)
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("seams") / "model"
    tokenizer = bpe_tokenizer()
    config = hf.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, initializer_range=0.35, bos_token_id=0, eos_token_id=1,
    )  # fmt: skip
    random_checkpoint(path, config)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def engine(folder):
    engine = load_engine(folder, dtype="float32", device="cpu", page_size=4, max_step_tokens=24, kv_memory="1MB")
    loop = asyncio.new_event_loop()
    engine.run = loop.run_until_complete
    yield engine
    loop.run_until_complete(engine.close())
    loop.close()


@lru_cache(maxsize=4)
def reference_model(folder: Path):
    return hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()


@lru_cache(maxsize=4)
def vocabulary(folder: Path) -> dict[int, bytes]:
    """The bytes of every token that is not special, from the tokenizer's own alphabet."""
    tokenizer = hf.AutoTokenizer.from_pretrained(folder)
    alphabet = bytes_to_unicode()
    of_char = {char: byte for byte, char in alphabet.items()}
    return {
        i: bytes(of_char[char] for char in token)
        for token, i in tokenizer.get_vocab().items()
        if i not in tokenizer.all_special_ids
    }


def brute_force(folder: Path, prompt: list[int], taken_back: list[int], num_tokens: int) -> bytes:
    """The value in bytes: greedy among all tokens that agree with what was taken back, until `num_tokens` are past it."""
    words = vocabulary(folder)
    owed, ids, value, inside = b"".join(words[i] for i in taken_back), list(prompt), b"", 0
    start = len(ids)
    while len(ids) - start - inside < num_tokens:
        with torch.inference_mode():
            logits = reference_model(folder)(torch.tensor([ids])).logits[0, -1]
        if owed:
            fits = [i for i, word in words.items() if word.startswith(owed) or owed.startswith(word)]
            token = max(fits, key=lambda i: float(logits[i]))
            inside += len(words[token]) <= len(owed)
            value += words[token][len(owed) :]
            owed = owed[len(words[token]) :]
        else:
            token = int(logits.argmax())
            value += words.get(token, b"")
        ids.append(token)
    return value


async def healed(engine, prompt, taken_back, sampling, likely=()) -> tuple[str, GenerationEnd, list[str]]:
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    pieces = []
    try:
        async for piece in engine.generate(context, sampling, likely=likely, taken_back=taken_back):
            pieces.append(piece.text)
            if piece.end is not None:
                assert engine._contexts[context].tokens == [*prompt, *piece.end.context_ids]
                return "".join(pieces), piece.end, pieces
    finally:
        engine.free(context)
    raise AssertionError("no last piece")


def cut(engine, text: str) -> tuple[list[int], list[int]]:
    """A prompt's ids, and the last of them that are whole characters."""
    ids = engine.codec.encode(text, first=True)
    for count in range(1, len(ids)):
        taken = b"".join(engine.codec.token_bytes(i) for i in ids[-count:])
        if not 0x80 <= taken[0] < 0xC0:
            return ids[:-count], ids[-count:]
    raise AssertionError("no seam")


PROMPTS = [
    "the cat sat on th",
    "and the ",
    "for i in ",
    "die Br",
    "die Brü",
    "東京 ",
    "東",
    "x🙂",
    "print(\n",
    "return x\n\n",
    "a the",
]


@pytest.mark.parametrize("text", PROMPTS)
def test_greedy_among_all_that_begins_with_what_was_taken_back(engine, folder, text):
    prompt, taken = cut(engine, f"on {text}")
    sampling = Sampling(NUM_TOKENS, ignore_eos=True)
    value, end, _ = engine.run(healed(engine, prompt, taken, sampling))
    expected = brute_force(folder, prompt, taken, NUM_TOKENS)
    assert value == expected.decode(errors="replace")
    spelled = end.lead.encode() + b"".join(vocabulary(folder)[i] for i in end.token_ids if i in vocabulary(folder))
    assert spelled.decode(errors="replace") == value, "ids that cross an edge spell the value, not what was taken back"
    assert engine.codec.decode(end.context_ids).removesuffix("<eos>").startswith(engine.codec.decode(taken)[:1])


def test_all_at_once_alone_and_shared(engine, folder):
    """Batched, with shared beginnings, in chunks and on too few pages, the values are those of the reference."""
    sampling = Sampling(NUM_TOKENS, ignore_eos=True)
    beginning = engine.codec.encode("the cat sat on the mat and " * 4)
    cases = [(beginning + prompt, taken) for prompt, taken in (cut(engine, f"the {text}") for text in PROMPTS)]

    async def together():
        return await asyncio.gather(*(healed(engine, *case, sampling) for case in cases))

    values = [value for value, _, _ in engine.run(together())]
    assert values == [brute_force(folder, *case, NUM_TOKENS).decode(errors="replace") for case in cases]
    assert all_pages_free(engine)
    audit(engine)


def test_a_seam_of_several_tokens(engine, folder):
    """What was taken back may be written in other tokens than it was."""
    ids = engine.codec.encode("and the other cat")
    sampling = Sampling(NUM_TOKENS, ignore_eos=True)
    for count in (2, 3):
        prompt, taken = ids[:-count], ids[-count:]
        value, end, _ = engine.run(healed(engine, prompt, taken, sampling))
        assert value == brute_force(folder, prompt, taken, NUM_TOKENS).decode(errors="replace")
        assert end.decoded_tokens >= NUM_TOKENS


def test_drafts_change_nothing(engine, folder):
    prompt, taken = cut(engine, "the cat sat on the cat sat on th")
    sampling = Sampling(NUM_TOKENS, ignore_eos=True)
    value, end, _ = engine.run(healed(engine, prompt, taken, sampling))
    again, other, _ = engine.run(healed(engine, prompt, taken, sampling, likely=end.context_ids))
    assert (again, other.token_ids, other.lead) == (value, end.token_ids, end.lead)


def test_seeded_samples_are_their_own(engine):
    """A healed sample depends on its prompt and seed, not on what else runs."""
    prompt, taken = cut(engine, "the cat sat on th")
    sampling = Sampling(NUM_TOKENS, temperature=1.5, seed=7, ignore_eos=True)

    async def together():
        others = [healed(engine, prompt, taken, Sampling(NUM_TOKENS, temperature=1.0, seed=i, ignore_eos=True)) for i in range(5)]
        return (await asyncio.gather(healed(engine, prompt, taken, sampling), *others))[0][0]

    assert engine.run(together()) == engine.run(healed(engine, prompt, taken, sampling))[0]


@pytest.mark.parametrize("off", [(), ("sharing",)])
def test_a_seam_right_after_an_output_whose_end_the_model_chose(folder, off):
    """Then all that the context holds is computed already, and of the text between the outputs nothing is filled."""
    engine = load_engine(folder, dtype="float32", device="cpu", page_size=4, off=off)
    prompt, (taken,) = engine.codec.encode("the cat sat on the mat"), engine.codec.encode(" ")

    async def main(engine):
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        first = [piece async for piece in engine.generate(context, Sampling(3, ignore_eos=True))][-1].end.token_ids
        engine.free(context)
        engine._starter.eos_ids = frozenset(first[2:3]) - set(first[:2]) or frozenset(first[:1])
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        begun = [piece async for piece in engine.generate(context, Sampling(8))][-1].end
        assert begun.finish == "stop"
        engine._starter.eos_ids = frozenset()
        async with asyncio.timeout(60):
            pieces = [piece async for piece in engine.generate(context, Sampling(4, ignore_eos=True), taken_back=[taken])]
        return [*prompt, *begun.token_ids], "".join(piece.text for piece in pieces)

    before, value = run(engine, main)
    assert value == brute_force(folder, before, [taken], 4).decode(errors="replace")


@pytest.mark.parametrize("temperature", [0.0, 2.0])
def test_a_stop_string_within_the_token_that_spans_the_seam(engine, temperature):
    """Every cut of the value by a stop string leaves a context that spells prompt and value."""
    prompt, taken = cut(engine, "and the ")
    free = Sampling(NUM_TOKENS, temperature=temperature, seed=3, ignore_eos=True)
    value, _, _ = engine.run(healed(engine, prompt, taken, free))
    before = engine.codec.decode(taken)
    for start in range(min(6, len(value))):
        stop = value[start : start + 2]
        sampling = Sampling(NUM_TOKENS, temperature=temperature, seed=3, stop=(stop,), ignore_eos=True)
        cut_value, end, _ = engine.run(healed(engine, prompt, taken, sampling))
        assert cut_value == value[: value.index(stop)]
        assert end.finish == "stop"
        assert engine.codec.decode(end.context_ids) == before + cut_value
        assert end.lead + engine.codec.decode(end.token_ids) == cut_value


def test_an_end_cannot_come_before_the_seam_is_written(folder, monkeypatch):
    engine = load_engine(folder, dtype="float32", device="cpu")
    engine._starter.eos_ids = frozenset(
        range(2, 400)
    )  # every token ends a text but those that are forbidden then: none is allowed
    prompt, taken = cut(engine, "the cat sat on th")
    engine._starter.eos_ids -= set(taken)

    async def main(engine):
        return await healed(engine, prompt, taken, Sampling(NUM_TOKENS))

    value, end, _ = run(engine, main)
    assert (value, end.finish, end.decoded_tokens) == ("", "stop", 2)


@settings(max_examples=150, deadline=None)
@given(st.lists(st.binary(max_size=4) | st.none(), min_size=1, max_size=40), st.binary(min_size=1, max_size=5), st.data())
def test_the_index_finds_what_a_scan_finds(words, owed, data):
    index = SeamIndex(lambda i: words[i], len(words), "cpu")
    forbidden = frozenset(data.draw(st.sets(st.integers(0, len(words) - 1))))
    scan = [i for i, w in enumerate(words) if w and i not in forbidden and (w.startswith(owed) or owed.startswith(w))]
    assert index.allowed(owed, forbidden).tolist() == scan
