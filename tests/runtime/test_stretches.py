"""A prompt's ids are those of whole stretches of plain text, however and whenever its parts come."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.language.nodes import Span
from parrot_nb.runtime.stretches import PromptWriter
from parrot_nb.tiny import default_model


@pytest.fixture(scope="module")
def codec() -> TokenizerCodec:
    return TokenizerCodec(AutoTokenizer.from_pretrained(default_model()))


WORDS = st.sampled_from(
    ["the ", "cat", " sat", ".\n", "\n\n", " ", "", "é", "🙂", "東京", "x1 ", "Answer:", "<|turn_end|>", "  two", "a b c d"]
)
TEXTS = st.lists(WORDS, max_size=6).map("".join)
WRITTEN = st.lists(st.integers(10, 200), min_size=1, max_size=5).map(tuple)  # ids that a model wrote
PARTS = st.lists(TEXTS | WRITTEN, max_size=8)


def expected(codec: TokenizerCodec, parts: list) -> list[int]:
    """Neighbouring texts as one, ids as they are."""
    ids: list[int] = []
    text, first = "", True
    for part in parts:
        if isinstance(part, str):
            text += part
        else:
            ids += codec.encode(text, first=first) + list(part)
            text, first = "", False
    return ids + codec.encode(text, first=first)


@settings(max_examples=300, deadline=None)
@given(PARTS, st.data())
def test_whatever_is_taken_early_the_ids_are_those_of_the_whole(codec, parts, data):
    writer, taken = PromptWriter(codec), []
    for part in parts:
        if isinstance(part, str):
            writer.add_text(part)
        else:
            writer.add_spans([Span("", part, codec.key)])
        if data.draw(st.booleans(), "takes"):
            taken += writer.take()
    seam = writer.end(heals=False)
    assert [*taken, *seam.token_ids] == expected(codec, parts)
    assert seam.taken_back == ()


@settings(max_examples=300, deadline=None)
@given(PARTS, st.data())
def test_a_seam_takes_back_the_last_whole_characters_of_plain_text(codec, parts, data):
    whole = expected(codec, parts)
    writer, taken = PromptWriter(codec), []
    for part in parts:
        (writer.add_text if isinstance(part, str) else writer.add_ids)(part)
        if data.draw(st.booleans(), "takes"):
            taken += writer.take()
    seam = writer.end(heals=True)
    ids = [*taken, *seam.token_ids]
    assert ids + list(seam.taken_back) == whole
    last = next((part for part in reversed(parts) if part), None)
    if not isinstance(last, str) or len(whole) < 2:
        assert not seam.taken_back, "nothing is plain text, or nothing stands before it"
    if seam.taken_back:
        assert ids
        text = b"".join(codec.token_bytes(i) for i in seam.taken_back).decode()
        assert text
        assert "".join(p for p in parts if isinstance(p, str)).endswith(text)


@settings(max_examples=200, deadline=None)
@given(TEXTS, WRITTEN, TEXTS, st.integers(0, 5))
def test_a_value_that_streamed_has_the_ids_of_one_that_came_at_once(codec, before, written, lead, begun):
    begun = min(begun, len(written))
    spans = [Span(lead), Span("", written, codec.key)]
    at_once, streamed = PromptWriter(codec), PromptWriter(codec)
    for writer in (at_once, streamed):
        writer.add_text(before)
    at_once.add_spans(spans)
    if begun:
        streamed.add_text(lead)
        streamed.add_ids(written[:begun])
    ids = streamed.take()
    streamed.add_spans(spans, begun)
    assert [*ids, *streamed.close()] == at_once.close()


def test_ids_of_another_tokenizer_are_text(codec):
    writer = PromptWriter(codec)
    writer.add_spans([Span("the cat", (5, 6), "another vocabulary")])
    assert writer.close() == codec.encode("the cat", first=True)


@pytest.mark.parametrize(
    ("contents", "kept"),
    [
        ((" \n the cat \n",), "the cat"),
        (("  ", "\n", "the", " cat", " ", "  "), "the cat"),
        (("the cat",), "the cat"),
        ((" ",), ""),
    ],
)
def test_a_template_that_trims_contents_trims_ours(codec, contents, kept):
    writer = PromptWriter(codec)
    writer.add_controls([1])
    writer.start_content()
    ids = []
    for content in contents:
        writer.add_text(content)
        ids += writer.take()
    writer.end_content()
    writer.add_controls([2])
    assert [*ids, *writer.close()] == [1, *codec.encode(kept), 2]


@pytest.mark.parametrize("content", ["", " \n", "the cat \n"])
def test_trimming_leaves_the_template_s_own_white_space(codec, content):
    for takes in (False, True):
        writer = PromptWriter(codec)
        writer.add_controls([1])
        writer.add_text("user\n\n")
        ids = writer.take() if takes else []
        writer.start_content()
        writer.add_text(content)
        ids += writer.take() if takes else []
        writer.end_content()
        writer.add_controls([2])
        assert [*ids, *writer.close()] == [1, *codec.encode(f"user\n\n{content.strip()}"), 2]


def test_encodings_are_remembered_with_their_codec(codec, monkeypatch):
    encoded = []
    real = codec.encode
    monkeypatch.setattr(codec, "encode", lambda text, **how: encoded.append(text) or real(text, **how))
    text = "a text that no other test has, said many times over: " + "and so on " * 20
    for _ in range(3):
        writer = PromptWriter(codec)
        writer.add_text(text)
        writer.take()
    assert len([t for t in encoded if t.startswith("a text that no other")]) == 1
    assert all(a != b for a, b in pairwise(encoded))
