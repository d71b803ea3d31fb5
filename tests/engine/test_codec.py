"""Texts become the ids that transformers gives, and no value becomes a control token, whatever the tokenizer."""

from __future__ import annotations

import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from built_tokenizers import EXACT, FAMILIES, MARKS, ORDINARY, SPECIAL, built, byte_level
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from parrot_nb.engine.codec import encode_parts
from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.tokenizer import known_tokenizer
from parrot_nb.errors import EngineError, ModelLoadError
from parrot_nb.tiny import default_model

REAL = [pytest.param("smollm2", marks=pytest.mark.real), pytest.param("gemma3", marks=pytest.mark.gemma)]
FOLDERS: dict[str, Path] = {}  # of the pretrained models, once a test has asked for them
NAMES = [*FAMILIES, "tiny", *REAL]
CONTROL_TEXTS = [token.content for token in (*SPECIAL, *MARKS)] + [
    "<unk>", "<bos>", "<eos>", "<|im_end|>", "<|turn_end|>", "<|endoftext|>", "<start_of_turn>", "<0x0A>",
]  # fmt: skip
PIECES = st.one_of(
    st.text(max_size=5),
    st.text("ab Tx\n\t.,'1▁é你", max_size=8),
    st.sampled_from([token.content for token in ORDINARY]),
    st.sampled_from(["The", " quick", " brown fox", "the end", " of", " wordy word ", "  ", "\n\n\n", "   \n", "</td>", " it's", "\r\n"]),
)  # fmt: skip
plain = st.lists(PIECES, max_size=10).map("".join)
hostile = st.lists(st.one_of(PIECES, st.sampled_from(CONTROL_TEXTS)), max_size=10).map("".join)
many = settings(max_examples=60, deadline=None)


@pytest.fixture(autouse=True)
def pretrained_folder(request):
    """The folder of the pretrained model that the test names, if it names one."""
    name = getattr(request.node, "callspec", None) and request.node.callspec.params.get("name")
    if name in ("smollm2", "gemma3"):
        FOLDERS[name] = request.getfixturevalue({"smollm2": "smollm2_folder", "gemma3": "gemma_folder"}[name])


@cache
def tokenizer_of(name: str):
    return (
        built(name) if name in FAMILIES else AutoTokenizer.from_pretrained(default_model() if name == "tiny" else FOLDERS[name])
    )


@cache
def codec_of(name: str) -> TokenizerCodec:
    return TokenizerCodec(tokenizer_of(name))


def ids_of(name: str, text: str) -> list[int]:
    return tokenizer_of(name)(text, add_special_tokens=False)["input_ids"]


def unknown(name: str) -> set[int | None]:
    """The token for what a vocabulary lacks, in tokenizers whose model writes it."""
    return {tokenizer_of(name).unk_token_id} if name == "unigram" else set()


@pytest.mark.parametrize("name", NAMES)
@many
@given(text=hostile, first=st.booleans())
def test_no_text_becomes_a_control_token(name, text, first):
    codec = codec_of(name)
    assert not (codec.control_ids - unknown(name)) & set(codec.encode(text, first=first))


@pytest.mark.parametrize("name", ["llama-legacy", "unigram"])
def test_the_text_of_the_unknown_token_is_spelled_out(name):
    codec = codec_of(name)
    assert tokenizer_of(name).unk_token_id not in codec.encode("a<unk>b")
    if name == "unigram":
        assert codec.encode("a☃b", first=True) == ids_of(name, "a☃b")
        assert tokenizer_of(name).unk_token_id in codec.encode("a☃b")


@pytest.mark.parametrize("name", NAMES)
@many
@given(text=plain)
def test_text_has_the_ids_that_transformers_gives(name, text):
    codec = codec_of(name)
    ids = ids_of(name, text)
    if "<unk>" not in text and not (codec.control_ids - unknown(name)) & set(ids):
        assert codec.encode(text, first=True) == ids


@pytest.mark.parametrize("name", NAMES)
@many
@given(text=hostile)
def test_split_templates_have_the_ids_that_transformers_gives(name, text):
    codec = codec_of(name)
    parts = codec.split_controls(text)
    assert all(isinstance(part, str) or codec.is_control(part) for part in parts)
    assert encode_parts(codec, parts) == ids_of(name, text)


@pytest.mark.parametrize("text", ["<old><tr>", "a<old> <tr>b", "<|user|>\n\n<mask>", "TOOL:TOOLS", "a <think>\n<tr> x"])
@pytest.mark.parametrize("name", FAMILIES)
def test_added_tokens_side_by_side(name, text):
    codec = codec_of(name)
    assert encode_parts(codec, codec.split_controls(text)) == ids_of(name, text)


@pytest.mark.parametrize("name", NAMES)
@many
@given(before=plain, behind=hostile, first=st.booleans())
def test_stable_ids_do_not_depend_on_what_follows(name, before, behind, first):
    codec = codec_of(name)
    cut = codec.stable_chars(before, first=first)
    ids = codec.encode(before[:cut], first=first) + (codec.encode(before[cut:] + behind, first=first and not cut))
    assert ids == codec.encode(before + behind, first=first)


@pytest.mark.parametrize("name", [name for name in NAMES if name not in ("unigram", "llama-legacy", "byte-level-prefix")])
def test_most_of_a_text_is_stable(name):
    codec = codec_of(name)
    text = "Read the text below and say what it is about.\nThe text"
    assert text[codec.stable_chars(text) :] == " text"


@pytest.mark.parametrize("name", [*EXACT, "tiny", *REAL])
@many
@given(text=hostile)
def test_bytes_of_tokens_are_those_of_the_text(name, text):
    codec = codec_of(name)
    text = "".join(char for char in text if char in "\n\t" or " " <= char < "\U00020000")  # SmolLM2 lacks bytes of others
    text = text.replace("<left>", "").replace("<right>", "")  # these take white space, which is lost
    while name == "llama-legacy" and (found := [token.content for token in ORDINARY if token.content in text]):
        text = text.replace(found[0], "")  # it puts spaces behind these
    ids = codec.encode(text)
    spelled = text if name in ("byte-level", "byte-level-prefix", "tiny", "smollm2") else text.replace("▁", " ")
    if name != "byte-level-prefix" or not any(token.content in text for token in ORDINARY):
        assert b"".join(codec.token_bytes(token_id) or b"" for token_id in ids) == spelled.encode()
    assert all(token_id < codec.vocab_size for token_id in ids)


def test_control_tokens_have_no_bytes():
    codec = codec_of("gemma")
    assert {codec.token_bytes(token_id) for token_id in codec.control_ids} == {None}
    assert codec.token_bytes(codec.vocab_size) is None
    assert codec.token_bytes(tokenizer_of("gemma").convert_tokens_to_ids("<0xE2>")) == b"\xe2"
    assert codec.token_bytes(tokenizer_of("gemma").convert_tokens_to_ids("\n\n")) == b"\n\n"


@pytest.mark.parametrize("name", ["byte-level", "split-bytes", "gemma", "llama-legacy", "tiny", *REAL])
@many
@given(data=st.data())
def test_decoding_gives_what_transformers_gives(name, data):
    codec, tokenizer = codec_of(name), tokenizer_of(name)
    ordinary = st.integers(0, codec.vocab_size - 1).filter(lambda token_id: not codec.is_control(token_id))
    ids = data.draw(st.lists(ordinary, max_size=12))
    assert codec.decode(ids) == tokenizer.decode(ids, clean_up_tokenization_spaces=False)


def test_which_tokens_are_control():
    codec, tokenizer = codec_of("byte-level"), tokenizer_of("byte-level")
    names = {
        token.content: codec.is_control(tokenizer.convert_tokens_to_ids(token.content)) for token in (*SPECIAL, *MARKS, *ORDINARY)
    }
    assert names == {token.content: True for token in (*SPECIAL, *MARKS)} | {token.content: False for token in ORDINARY}
    assert codec.encode("a\n\n    <table>")[1:] == [tokenizer.convert_tokens_to_ids(t) for t in ("\n\n", "    ", "<table>")]


def test_what_is_generated_is_shown_and_carried():
    codec, tokenizer = codec_of("byte-level"), tokenizer_of("byte-level")
    special, mark, tag = tokenizer.convert_tokens_to_ids(["</s>", "<tool_call>", "<table>"])
    ids = codec.encode("a")
    assert [codec.shown(token_id) for token_id in (special, mark, tag)] == ["", "<tool_call>", None]
    assert codec.carried_over([*ids, special, *ids, tag]) == [*ids, *ids, tag]
    assert codec.carried_over([mark]) == codec.encode("<tool_call>")
    assert mark not in codec.encode("<tool_call>")


def test_a_prompt_begins_with_a_space_where_the_tokenizer_puts_one():
    for name in ("llama-legacy", "llama-metaspace", "unigram"):
        codec = codec_of(name)
        (space,) = {tokenizer_of(name).convert_tokens_to_ids("▁")}
        starts = codec.encode("The", first=True)
        assert starts != codec.encode("The")
        assert starts == codec.encode(" The") or starts[0] == space
    bos = tokenizer_of("llama-legacy").bos_token_id
    assert codec_of("llama-legacy").first_after(bos)
    assert not codec_of("llama-metaspace").first_after(bos)


def test_openings():
    assert codec_of("byte-level").opening_ids == (tokenizer_of("byte-level").bos_token_id,)
    assert codec_of("tiny").opening_ids == TokenizerCodec(known_tokenizer(default_model())).opening_ids == ()


MEMORY = """
import sys
from tokenizers import Tokenizer
from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.tokenizer import KnownTokenizer

def resident_kb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

def codec(path):
    return TokenizerCodec(KnownTokenizer(Tokenizer.from_file(path), {}, [], None))

small = codec(sys.argv[1])  # whatever is loaded on first use
small.prepare()
before = resident_kb()
tokenizer = Tokenizer.from_file(sys.argv[2])
one = resident_kb() - before
made = TokenizerCodec(KnownTokenizer(tokenizer, {}, [], None))
made.prepare()
made.encode("some text", first=True)
print(one, resident_kb() - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux to measure")
def test_a_codec_takes_little_more_than_its_tokenizer(tmp_path):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    pairs = [(a, b) for a in alphabet for b in alphabet]
    for name, count in (("small", 10), ("large", len(pairs))):
        vocab = {token: i for i, token in enumerate([*alphabet, *(a + b for a, b in pairs[:count])])}
        tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=pairs[:count]))
        tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.ByteLevel(add_prefix_space=True), decoders.ByteLevel()
        tokenizer.add_tokens([AddedToken("\n\n", special=False)])
        tokenizer.save(str(tmp_path / name))
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "small"), str(tmp_path / "large")]
    one_kb, whole_kb = map(int, subprocess.run(command, check=True, capture_output=True, text=True).stdout.split())
    assert whole_kb < 1.5 * one_kb


def test_equal_tokenizers_have_one_key():
    one, other = byte_level(), byte_level()
    assert TokenizerCodec(PreTrainedTokenizerFast(tokenizer_object=one)).key == TokenizerCodec(PreTrainedTokenizerFast(tokenizer_object=other)).key  # fmt: skip
    vocab = other.get_vocab()
    first, last = min(vocab, key=vocab.get), max(vocab, key=vocab.get)
    vocab[first], vocab[last] = vocab[last], vocab[first]
    swapped = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    swapped.pre_tokenizer, swapped.decoder = other.pre_tokenizer, other.decoder
    plain_one = Tokenizer(models.BPE(vocab=other.get_vocab(), merges=[]))
    plain_one.pre_tokenizer, plain_one.decoder = other.pre_tokenizer, other.decoder
    assert TokenizerCodec(PreTrainedTokenizerFast(tokenizer_object=swapped)).key != TokenizerCodec(PreTrainedTokenizerFast(tokenizer_object=plain_one)).key  # fmt: skip


def with_added(*tokens: AddedToken) -> PreTrainedTokenizerFast:
    tokenizer = byte_level()
    tokenizer.add_tokens(list(tokens))
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer)


def test_added_tokens_without_an_embedding():
    rows = byte_level().get_vocab_size()
    with pytest.raises(ModelLoadError, match=r"'<b>'.*resize_token_embeddings"):
        TokenizerCodec(with_added(AddedToken("<b>", special=False)), rows)
    assert TokenizerCodec(with_added(AddedToken("<b>", special=False)), rows + 1).encode("<b>") == [rows]
    image = TokenizerCodec(with_added(AddedToken("<image>", special=True)), rows)
    assert image.split_controls("a<image>b") == ["a<image>b"]
    assert max(image.encode("a<image>b")) < rows
    written = with_added(AddedToken("<image>", special=True))
    written.chat_template = "<image>{{ messages[0].content }}"
    with pytest.raises(ModelLoadError, match="'<image>'"):
        TokenizerCodec(written, rows)


def test_a_model_that_lacks_an_added_token_is_refused(checkpoints, tmp_path):
    folder = shutil.copytree(checkpoints("llama"), tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_tokens([AddedToken("<b>", special=False)])
    tokenizer.save_pretrained(folder)
    with pytest.raises(ModelLoadError, match=r"added token '<b>' with the id \d+"):
        load_engine(folder)


def test_ids_with_gaps_are_the_tokenizers_own():
    tokenizer = Tokenizer(models.BPE(vocab={c: i for i, c in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.add_special_tokens([AddedToken("<s>", special=True), AddedToken("</s>", special=True)])
    tokenizer.add_tokens([AddedToken("\n\n", special=False)])
    codec = TokenizerCodec(PreTrainedTokenizerFast(tokenizer_object=tokenizer))
    assert codec.encode("\n\n</s>")[0] == 258
    assert codec.split_controls("a</s>\n\n") == ["a", 257, "\n\n"]


def test_special_tokens_by_name():
    codec, tokenizer = codec_of("gemma"), tokenizer_of("gemma")
    assert codec.special_id("</s>") == tokenizer.eos_token_id
    assert codec.special_id("<tool_call>") is codec.special_id("\n\n") is codec.special_id("nothing") is None


def test_a_template_that_loses_a_turn_is_refused():
    tokenizer = with_added()
    tokenizer.chat_template = "{{ messages[0]['content'] }}"
    with pytest.raises(EngineError, match="--raw"):
        TokenizerCodec(tokenizer).chat_frame(2, None)
    tokenizer.chat_template = "{{ nonsense.attribute.lost }}"
    with pytest.raises(EngineError, match="--raw"):
        TokenizerCodec(tokenizer).chat_frame(1, None)
