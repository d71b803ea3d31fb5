"""Text as it streams: whole characters, and nothing of a stop string."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

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
