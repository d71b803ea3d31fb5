"""Text as it streams: whole characters, and nothing of a stop string."""

from __future__ import annotations

import pytest
from built_tokenizers import built
from hypothesis import given, settings
from hypothesis import strategies as st

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.detokenize import Detokenizer


def decode(ids) -> str:
    return bytes(ids).decode("utf-8", "replace")


def detokenizer(stop=()) -> Detokenizer:
    return Detokenizer(decode, [97], lambda token: None if token < 256 else ("" if token == 256 else "<tool>"), stop)


@settings(max_examples=300)
@given(st.text(max_size=40))
def test_pieces_are_whole_characters_and_make_the_text(text):
    machine = detokenizer()
    pieces = [machine.feed(byte) for byte in text.encode()]
    assert all("\ufffd" not in piece or "\ufffd" in text for piece in pieces)
    assert "".join(pieces) + machine.finish() == text == machine.text
    assert machine.kept() == (len(text.encode()), "")


@settings(max_examples=300)
@given(st.lists(st.integers(0, 255), max_size=12))
def test_broken_bytes_end_up_as_their_decode(ids):
    machine = detokenizer()
    assert "".join([*map(machine.feed, ids), machine.finish()]) == machine.text
    if len(ids) <= 8:
        assert machine.text == decode(ids)


@settings(max_examples=500)
@given(st.text("abé✓", max_size=30), st.lists(st.text("abé✓", min_size=1, max_size=4), min_size=1, max_size=3))
def test_stop_strings_end_the_text_before_them(text, stop):
    machine, emitted = detokenizer(stop), ""
    ends = [text.find(s) + len(s) for s in stop if s in text]
    for byte in text.encode():
        emitted += machine.feed(byte)
        assert not any(s in emitted for s in stop)
        if machine.stopped_at is not None:
            break
    else:
        emitted += machine.finish()
        assert emitted == text
        assert not ends
        return
    first_complete = min(ends)
    before = text[:first_complete]
    assert emitted == machine.text == before[: min(before.find(s) for s in stop if s in before)]
    count, rest = machine.kept()
    assert decode(text.encode()[:count]) + rest == machine.text


@settings(max_examples=500)
@given(st.lists(st.integers(0, 257), max_size=30), st.lists(st.text("abc", min_size=1, max_size=4), max_size=2))
def test_what_is_settled_is_kept(ids, stop):
    machine, settled = detokenizer(stop), 0
    for token in ids:
        machine.feed(token)
        if machine.stopped_at is not None:
            break
        news = machine.newly_settled()
        assert news.start == settled <= news.stop
        settled = news.stop
    else:
        machine.finish()
    assert settled <= machine.kept()[0]


def test_what_is_certain_is_settled_at_once():
    machine = detokenizer(["ab"])
    fed = [(machine.feed(byte), machine.newly_settled()) for byte in "xaé".encode()]
    assert fed == [("x", range(1)), ("", range(1, 1)), ("", range(1, 1)), ("aé", range(1, 4))]


def test_control_tokens_are_left_out_or_spelled():
    machine = detokenizer()
    pieces = [machine.feed(token) for token in (104, 256, 105, 257, 0xE2, 0x9C)]
    assert "".join(pieces) == "hi<tool>"
    assert machine.finish() == "\ufffd"


CODECS = {name: TokenizerCodec(built(name)) for name in ("byte-level", "gemma", "llama-legacy", "llama-metaspace")}


@pytest.mark.parametrize("name", CODECS)
@settings(max_examples=200, deadline=None)
@given(data=st.data())
def test_tokens_one_by_one_give_what_the_tokenizer_decodes(name, data):
    codec, tokenizer = CODECS[name], built(name)
    first_bytes = tokenizer.convert_tokens_to_ids(["<0xE2>", "<0x9C>", "<0x93>", "<0xFF>", "<0xF0>", "<0x41>"])
    if name == "byte-level":
        first_bytes = tokenizer.convert_tokens_to_ids(["â", "ľ", "ĵ", "ÿ", "ð", "A"])
    any_id = st.integers(0, codec.vocab_size - 1).filter(lambda token_id: not codec.is_control(token_id))
    ids = data.draw(st.lists(st.one_of(st.sampled_from(first_bytes), any_id), max_size=40))
    machine = Detokenizer(codec.decode_plain, codec.anchor, codec.shown, (), is_open=codec.is_open)
    pieces, settled = [], 0
    for token_id in ids:
        pieces.append(machine.feed(token_id))
        settled = machine.newly_settled().stop
    whole = tokenizer.decode([*codec.anchor, *ids], clean_up_tokenization_spaces=False)
    before = tokenizer.decode(codec.anchor, clean_up_tokenization_spaces=False)
    assert before + "".join(pieces) + machine.finish() == before + machine.text == whole
    assert settled <= len(ids)
    assert machine.kept() == (len(ids), "")


def test_bytes_of_no_character_are_shown_one_by_one():
    tokenizer, codec = built("gemma"), CODECS["gemma"]
    machine = Detokenizer(codec.decode_plain, codec.anchor, codec.shown, (), is_open=codec.is_open)
    tokens = ["<0xE2>", "<0x9C>", "<0x93>", "<0xFF>", "e"]
    assert [machine.feed(token_id) for token_id in tokenizer.convert_tokens_to_ids(tokens)] == [
        "",
        "",
        "",
        "",
        "\ufffd" * 4 + "e",
    ]
