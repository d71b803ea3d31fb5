"""Sampled token ids to text as they come: whole characters only, and never into a stop string."""

from __future__ import annotations

from collections.abc import Callable, Sequence

REPLACEMENT = "\ufffd"  # what a decoder shows for bytes that are no character (yet)
MAX_HELD_TOKENS = 16  # a character has 4 bytes at most: what is still broken after so many tokens stays broken


class Detokenizer:
    """The text of one generation, and which of its tokens that text is made of.

    Args:
        decode: the plain text of ordinary token ids.
        anchor: some ordinary ids to decode before the first ones, since a few tokenizers treat the first specially.
        literal: text of a control token that is shown (an added token that is not special), "" for one that is not,
            None for an ordinary token.
        stop: strings that end the text.
        skip_chars: characters at the beginning of the tokens' text that are no part of it: those of a healed seam.
        is_open: True if tokens after these may change the text of their last ones. By default, text that ends in a broken
            character is waited for, over `MAX_HELD_TOKENS` tokens at most.
    """

    def __init__(
        self,
        decode: Callable[[Sequence[int]], str],
        anchor: Sequence[int],
        literal: Callable[[int], str | None],
        stop: Sequence[str],
        skip_chars: int = 0,
        is_open: Callable[[Sequence[int]], bool] | None = None,
    ) -> None:
        self._decode = decode
        self._literal = literal
        self._is_open = is_open
        self._stop = tuple(stop)
        self._anchor = list(anchor)
        self._window = list(anchor)  # ids whose text is out already, and those held after them
        self._num_out = len(self._window)  # how many of the window are out
        self._skip_chars = skip_chars
        self._text = ""  # all complete text, stop strings and all
        self._num_emitted = 0  # characters that were handed out
        self._marks = [0]  # _marks[n]: characters complete after n tokens, or -1 while some are held
        self._num_settled = 0
        self.stopped_at: int | None = None

    @property
    def text(self) -> str:
        """The text up to a stop string, if there was one."""
        return self._text if self.stopped_at is None else self._text[: self.stopped_at]

    def feed(self, token_id: int) -> str:
        """Take a token; returns text that is certain now. Sets `stopped_at` when a stop string is complete."""
        before = len(self._text)
        literal = self._literal(token_id)
        if literal is None:
            self._window.append(token_id)
            self._add(self._complete(final=False))
        else:
            self._add(self._complete(final=True) + literal)
            self._window, self._num_out = list(self._anchor), len(self._anchor)
        held = self._num_out < len(self._window)
        self._marks.append(-1 if held else len(self._text))
        return self._certain(before)

    def finish(self) -> str:
        """Finish the text: no token comes any more, so hand out what was held back."""
        before = len(self._text)
        self._add(self._complete(final=True))
        self._marks[-1] = len(self._text)
        self._find_stop(before)
        out = self.text[self._num_emitted :]
        self._num_emitted += len(out)
        return out

    def newly_settled(self) -> range:
        """Return the tokens that became certain since the last call: their whole text is out, so `kept` will keep them."""
        start = self._num_settled
        for count in range(len(self._marks) - 1, start, -1):
            if 0 <= self._marks[count] <= self._num_emitted:
                self._num_settled = count
                break
        return range(start, self._num_settled)

    def kept(self) -> tuple[int, str]:
        """(n, rest): the text is that of the first n tokens, followed by `rest`, which a stop string cut from a token."""
        end = len(self.text)
        for count in range(len(self._marks) - 1, -1, -1):
            if 0 <= self._marks[count] <= end:
                return count, self.text[self._marks[count] : end]
        raise AssertionError("the first mark is 0")

    def whole_after(self, num_tokens: int) -> tuple[int, int] | None:
        """(n, characters) for the least n from `num_tokens` on after which the text so far is whole; None where there is none."""
        for count in range(num_tokens, len(self._marks)):
            if self._marks[count] >= 0:
                return count, self._marks[count]
        return None

    def _add(self, text: str) -> None:
        skipped = min(self._skip_chars, len(text))
        self._skip_chars -= skipped
        self._text += text[skipped:]

    def token_texts(self) -> list[str]:
        """The part of the text that each of its tokens brought; in a row they are the text. A token that ends inside a character
        brings nothing, and the one that completes the character all of it."""
        num_kept, _ = self.kept()
        texts: list[str] = []
        start, end = 0, len(self.text)
        for mark in self._marks[1:]:
            if len(texts) >= num_kept and start >= end:
                break  # what follows lies behind a stop string
            stop = min(max(start, mark), end)  # the mark of a token that is held is -1
            texts.append(self._text[start:stop])
            start = stop
        return texts

    def _complete(self, *, final: bool) -> str:
        """The text of the held ids once it is whole characters; it then counts as out."""
        if self._num_out == len(self._window):
            return ""
        if not final and self._is_open is not None and self._is_open(self._window[self._num_out :]):
            return ""
        out = self._decode(self._window[: self._num_out])
        text = self._decode(self._window)
        held_too_long = len(self._window) - self._num_out > MAX_HELD_TOKENS
        if not final and self._is_open is None and text.endswith(REPLACEMENT) and not held_too_long:
            return ""
        # Keep the newest ids as context: some tokenizers decide about a space by the token before.
        self._window = self._window[self._num_out :]
        self._num_out = len(self._window)
        return text[len(out) :]

    def _certain(self, searched: int) -> str:
        self._find_stop(searched)
        end = len(self._text) - self._held_for_stop() if self.stopped_at is None else self.stopped_at
        out = self._text[self._num_emitted : max(end, self._num_emitted)]
        self._num_emitted += len(out)
        return out

    def _find_stop(self, searched: int) -> None:
        if self.stopped_at is not None:
            return
        found = [index for stop in self._stop if (index := self._text.find(stop, max(0, searched - len(stop) + 1))) >= 0]
        if found:
            self.stopped_at = min(found)

    def _held_for_stop(self) -> int:
        """Characters at the end that may be the beginning of a stop string."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._text)), longest, -1):
                if self._text.endswith(stop[:length]):
                    longest = length
                    break
        return longest
