"""Guesses at what a generation will write, so that one step can check several tokens (prompt lookup decoding).

A prompt of an application holds most of what is to be written: the code to be revised, the lists to be combined, the text
to be quoted. So where the last tokens have stood before, in the prompt or in what an earlier version of the prompt gave,
the guess is that they go on as they did there. A guess changes no text: a token counts only if it is the one that would
have been chosen without it.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from parrot_nb.engine.embedded.context import Context

NGRAMS = (6, 3, 2)  # tokens that must agree, the longest first
FIRST_GUESS, LONGEST_GUESS = 4, 16
MISSES_ALLOWED = 3  # in a row, before a pause that doubles each time
FIRST_PAUSE, LONGEST_PAUSE = 8, 256
GUESSED_ROWS = 32  # of a step; a step of few rows waits for the weights, and these come along almost for nothing


def guess(contexts: Collection[Context], max_context_tokens: int) -> None:
    """Set what each context that decodes may write next: few tokens for all, since each is a row more to compute."""
    decoding = []
    for context in contexts:
        context.guess = ()
        if context.decodes:
            decoding.append(context)
    for context in decoding:
        generation = context.generation
        assert generation is not None
        most = min(
            GUESSED_ROWS // len(decoding),
            generation.sampling.max_tokens - generation.num_sampled - 1,
            max_context_tokens - len(context.tokens) - 1,
        )
        if generation.drafter is not None and generation.num_sampled and most >= 2:
            context.guess = generation.drafter.guess(most)


class Drafter:
    """The guesses of one generation.

    Args:
        context: whose tokens it looks at.
        likely: tokens that the text may resemble.
    """

    def __init__(self, context: Context, likely: Sequence[int] = ()) -> None:
        self._context = context
        self._places: dict[tuple[int, ...], tuple[Sequence[int], int]] = {}  # n-gram -> what followed it last
        self._num_noted = 0
        self._length = FIRST_GUESS
        self._misses = 0
        self._pause, self._paused = FIRST_PAUSE, 0
        self._note(likely, 0, len(likely) - 1)

    def guess(self, most: int) -> tuple[int, ...]:
        """The next tokens, at most so many; none where nothing suggests any, or guesses have been poor."""
        if self._paused:
            self._paused -= 1
            return ()
        tokens = self._context.tokens
        self._note(tokens, self._num_noted, len(tokens) - 1)  # what ends with the last token is what is looked for
        self._num_noted = max(0, len(tokens) - 1)
        for size in NGRAMS:
            found = self._places.get(tuple(tokens[-size:])) if len(tokens) >= size else None
            if found is not None:
                source, start = found
                count = min(most, self._length)
                return _repeated(tokens, start, count) if source is tokens else tuple(source[start : start + count])
        return ()

    def judged(self, num_guessed: int, num_right: int) -> None:
        """So many of the last guess were right: guess more or less next time."""
        if num_right:
            self._misses, self._pause = 0, FIRST_PAUSE
            self._length = min(LONGEST_GUESS, 2 * self._length) if num_right == num_guessed else max(2, num_right + 1)
            return
        self._misses += 1
        self._length = max(2, self._length // 2)
        if self._misses >= MISSES_ALLOWED:
            self._misses, self._paused = 0, self._pause
            self._pause = min(LONGEST_PAUSE, 2 * self._pause)

    def _note(self, tokens: Sequence[int], start: int, end: int) -> None:
        """Note what follows the n-grams that end at tokens `start` to `end`."""
        for i in range(start + 1, end + 1):
            for size in NGRAMS:
                if i >= size:
                    self._places[tuple(tokens[i - size : i])] = tokens, i


def _repeated(tokens: Sequence[int], start: int, count: int) -> tuple[int, ...]:
    """What follows if the tokens go on as they did at `start`; past their end, as they will have gone on by then."""
    read: list[int] = []
    for i in range(start, start + count):
        read.append(tokens[i] if i < len(tokens) else read[i - len(tokens)])
    return tuple(read)
