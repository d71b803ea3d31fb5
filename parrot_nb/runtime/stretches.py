"""The token ids of a prompt as its parts become known, the same as if all its plain text had been tokenized at once.

Constants and values that are plain text have the ids that the tokenizer gives for the whole *stretch* between two hard
boundaries: control tokens, and ids that a model wrote and that cross as they are. What stands at the end of a stretch may
get other ids by the text that follows, so only its stable beginning is given out before the stretch ends; and where an
output follows, its last token is taken back (`parrot_nb.engine.embedded.seams`).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from weakref import WeakKeyDictionary

from parrot_nb.engine.codec import Codec
from parrot_nb.language.nodes import Span

MAX_SEAM_TOKENS = 4  # a character has 4 bytes at most
LONG_TEXT_CHARS = 20_000  # tokenizing more than this on the loop would hold up everybody's tokens
INSIDE_CHARACTER = range(0x80, 0xC0)  # bytes of UTF-8 that do not begin one


MAX_REMEMBERED_CHARS = 2_000_000  # of a codec's texts: all calls of a map begin with the same long constant


class _Remembered:
    """Encodings of one codec, those used last kept longest."""

    def __init__(self) -> None:
        self._ids: OrderedDict[tuple[str, bool], tuple[int, ...]] = OrderedDict()
        self._num_chars = 0
        self._lock = Lock()  # long texts are tokenized in threads

    def find(self, key: tuple[str, bool]) -> tuple[int, ...] | None:
        with self._lock:
            if (ids := self._ids.get(key)) is not None:
                self._ids.move_to_end(key)
            return ids

    def keep(self, key: tuple[str, bool], ids: tuple[int, ...]) -> None:
        with self._lock:
            if key not in self._ids and len(key[0]) <= MAX_REMEMBERED_CHARS:
                self._ids[key] = ids
                self._num_chars += len(key[0])
                while self._num_chars > MAX_REMEMBERED_CHARS:
                    (text, _), _ = self._ids.popitem(last=False)
                    self._num_chars -= len(text)


_remembered: WeakKeyDictionary[Codec, _Remembered] = WeakKeyDictionary()  # goes with its codec


def encode(codec: Codec, text: str, *, first: bool) -> tuple[int, ...]:
    """`codec.encode`, remembering what was encoded before."""
    remembered = _remembered.get(codec) or _remembered.setdefault(codec, _Remembered())
    if (ids := remembered.find((text, first))) is None:
        ids = tuple(codec.encode(text, first=first))
        remembered.keep((text, first), ids)
    return ids


@dataclass(frozen=True, slots=True)
class Seam:
    """The end of a prompt before an output.

    Attributes:
        token_ids: what is still to be filled.
        taken_back: the prompt's last tokens, not to be filled; empty where nothing is healed.
        text: of these.
    """

    token_ids: tuple[int, ...]
    taken_back: tuple[int, ...]
    text: str


class PromptWriter:
    """Turns the parts of one prompt into token ids.

    Args:
        codec: the tokenizer.
    """

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._first = True  # whether the open stretch begins the prompt, or a section of it, where some tokenizers put a space
        self._ready: list[int] = []  # certain, and not taken yet
        self._text = ""  # of the stretch that is open, without what is certain
        self._certain = 0  # how many of the last ids given or ready belong to the open stretch
        self._given = 0  # ids taken so far
        self._trims = False
        self._content_start = 0  # place in the open text where a trimmed content begins

    @property
    def is_long(self) -> bool:
        """True if tokenizing the open text on the loop would hold up everybody's tokens."""
        return len(self._text) > LONG_TEXT_CHARS

    @property
    def num_open_tokens(self) -> int:
        """Tokens of these characters, if they stay as they are, and of what is ready and not taken yet."""
        return len(self._ready) + len(encode(self._codec, self._text, first=self._first))

    def add_text(self, text: str) -> str:
        """Append plain text; returns what of it is not trimmed."""
        if self._trims:
            text = text.lstrip()
            self._trims = not text
        self._text += text
        return text

    def add_controls(self, token_ids: Sequence[int], *, opens: bool = False) -> None:
        """Append control tokens: a hard boundary. `opens` says that the prompt begins after them."""
        self._add(token_ids)
        if token_ids and not opens:
            self._first = self._codec.first_after(token_ids[-1])

    def add_ids(self, token_ids: Sequence[int]) -> None:
        """Append ids that a model wrote: a hard boundary."""
        self._add(token_ids)
        if token_ids:
            self._first = self._trims = False

    def add_spans(self, spans: Sequence[Span], begun: int = 0) -> None:
        """Append a value. The first `begun` of its token ids, and the text before them, were added while it was written."""
        started = begun > 0
        for span in spans:
            if span.token_ids is not None and span.codec == self._codec.key:
                self.add_ids(span.token_ids[begun:])
                started, begun = False, 0
            elif not started:
                self.add_text(span.text)

    def start_content(self) -> None:
        """Begin a turn's content of a chat template that trims it: white space at its beginning is left out."""
        self._trims, self._content_start = True, len(self._text)

    def end_content(self) -> None:
        """End a turn's content of a chat template that trims it: white space at its end is left out, where it is plain text."""
        start = self._content_start
        self._text = self._text[:start] + self._text[start:].rstrip()
        self._trims = False

    def take(self) -> list[int]:
        """Return the ids that are certain whatever follows, since the last call.

        A seam that follows can take back nothing of them; nor need it: no token begins before the stable end of a text and
        goes on after it.
        """
        self._encode(self._codec.stable_chars(self._text, first=self._first))
        return self._taken(len(self._ready))

    def close(self) -> list[int]:
        """End the open stretch, as a hard boundary does, and return all ids since `take`."""
        self._encode(len(self._text))
        self._certain = 0
        return self._taken(len(self._ready))

    def end(self, *, heals: bool) -> Seam:
        """End the prompt before an output: all ids since `take`, less those that are taken back if the seam is to be healed."""
        self._encode(len(self._text))
        count = self._num_taken_back() if heals else 0
        taken_back = tuple(self._ready[len(self._ready) - count :])
        token_ids = self._taken(len(self._ready) - count)
        self._ready.clear()
        self._certain = 0
        self._first = False  # what a model writes comes next
        text = b"".join(self._codec.token_bytes(token_id) or b"" for token_id in taken_back).decode(errors="replace")
        return Seam(tuple(token_ids), taken_back, text)

    def _num_taken_back(self) -> int:
        """The fewest last tokens of the stretch that are whole characters, if something stands before them; else 0."""
        most = min(MAX_SEAM_TOKENS, self._certain, len(self._ready))
        for count in range(1, most + 1):
            text = self._codec.token_bytes(self._ready[-count])
            if not text or self._given + len(self._ready) == count:
                return 0
            if text[0] not in INSIDE_CHARACTER:
                return count
        return 0

    def _add(self, token_ids: Sequence[int]) -> None:
        if token_ids:
            self._encode(len(self._text))
            self._ready += token_ids
            self._certain = 0

    def _encode(self, num_chars: int) -> None:
        """Tokenize the beginning of the open text."""
        if not num_chars:
            return
        text, self._text = self._text[:num_chars], self._text[num_chars:]
        self._content_start = max(0, self._content_start - num_chars)
        ids = encode(self._codec, text, first=self._first)
        self._ready += ids
        self._certain += len(ids)
        self._first = False

    def _taken(self, count: int) -> list[int]:
        ids, self._ready = self._ready[:count], self._ready[count:]
        self._given += len(ids)
        return ids
