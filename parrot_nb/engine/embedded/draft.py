"""Guesses at what a generation will write, so that one step can check several tokens (prompt lookup decoding).

A prompt of an application holds most of what is to be written: the code to be revised, the lists to be combined, the text
to be quoted. So where the last tokens have stood before, in the prompt or in what an earlier version of the prompt gave,
the guess is that they go on as they did there. Of several such places it is the next one, since what is copied is copied in
order; after a guess that was wrong from its first token on it is the last one, until that is wrong. A guess changes no
text: a token counts only if it is the one that would have been chosen without it.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Collection, Sequence

from parrot_nb.engine.embedded.context import Context
from parrot_nb.engine.embedded.times import StepTimes

NGRAMS = (6, 3, 2)  # tokens that must agree, the longest first
LONGEST_GUESS = 16
TOKEN_BYTES = array("I").itemsize
FIRST_RATE, LEAST_RATE, MOST_RATE = 0.6, 0.4, 0.98  # share of guessed tokens that are right
MEMORY = 0.6  # of that share, from one guess to the next
PROBE = 2  # tokens to guess after a pause, whatever they cost
FIRST_PAUSE, LONGEST_PAUSE = 8, 256  # tokens without a guess where guesses have been poor; doubled each time


def guess(contexts: Collection[Context], times: StepTimes, max_context_tokens: int) -> None:
    """Set what each context that decodes may write next.

    A guessed token is one row more, which takes time in which all of them would have written something; it is worth that
    while it is likely enough to be right. What a constraint forces is guessed whatever it costs: it is right, unless the model
    spells it in other tokens than its tokenizer does. A script is guessed with the end of its prompt.
    """
    decoding = []
    for context in contexts:
        context.guess = ()
        if context.generation is not None and context.generation.script:
            context.guess = tuple(place.token for place in context.generation.script[context.generation.num_sampled : -1])
        elif context.decodes:
            decoding.append(context)
    # Tokens that a row costs; and as much again, since what runs side by side is often waited for until the last has ended.
    price = 2 * len(decoding) * times.row_s / max(times.step_s(len(decoding)), 1e-9)
    for context in decoding:
        generation = context.generation
        assert generation is not None
        most = min(
            generation.most_sampled - generation.num_sampled - 1,
            max_context_tokens - len(context.tokens) - 1,
        )
        restricted = generation.seam is not None and generation.seam.is_open
        if generation.drafter is not None and generation.num_sampled and most > 0 and not restricted:
            grammar = generation.grammar
            forced = generation.forced[: min(most, LONGEST_GUESS)]
            context.guess = forced or generation.drafter.guess(most, price)
            generation.guess_is_forced = bool(forced)
            if grammar is not None and not forced:
                context.guess = context.guess[: grammar.num_allowed(context.guess)]


class Drafter:
    """The guesses of one generation.

    Args:
        context: whose tokens it looks at.
        likely: tokens that the text may resemble.
    """

    def __init__(self, context: Context, likely: Sequence[int] = ()) -> None:
        self._context = context
        self._prompt = _Source(context.tokens)
        self._likely = _Source(likely)
        self._guessed: tuple[_Source, int] | None = None  # where the last guess was taken from
        self._in_order = True
        self._rate, self._probes = FIRST_RATE, True
        self._pause, self._paused = FIRST_PAUSE, 0

    def guess(self, most: int, price: float) -> tuple[int, ...]:
        """The next tokens, at most so many; none where nothing suggests any, or guesses have been poor.

        Args:
            most: tokens.
            price: how likely the last of them must be, in (0, 1].
        """
        if self._paused:
            self._paused -= 1
            return ()
        worth = int(math.log(price) / math.log(self._rate)) if 0 < price < 1 else 0
        count = min(most, LONGEST_GUESS, max(worth, PROBE if self._probes else 0))
        if not count:
            self._wait()
            return ()
        self._prompt.read()
        tokens = self._context.tokens
        for size in NGRAMS:
            if len(tokens) < size:
                continue
            last = _bytes(tokens[-size:])
            for source in (self._prompt, self._likely):
                if (place := source.place_after(last, in_order=self._in_order)) is not None:
                    self._guessed = source, place
                    if source is self._prompt:
                        return _repeated(tokens, place, count)
                    return tuple(source.tokens[place : place + count])
        return ()

    def judged(self, num_guessed: int, num_right: int) -> None:
        """Adapt to how many of the last guess were right: guess more or less next time."""
        self._probes = False
        if self._guessed is not None:
            source, place = self._guessed
            source.next = place + num_right
            self._in_order ^= num_right == 0
        share = num_right / min(num_guessed, num_right + 1)  # what comes after a mistake says nothing
        self._rate = min(MOST_RATE, MEMORY * self._rate + (1 - MEMORY) * share)
        if num_right:
            self._pause = FIRST_PAUSE
        elif self._rate < LEAST_RATE:
            self._wait()

    def _wait(self) -> None:
        """Guess nothing for a while, and then try again."""
        self._paused, self._pause = self._pause, min(LONGEST_PAUSE, 2 * self._pause)
        self._rate, self._probes = max(self._rate, FIRST_RATE), True


class _Source:
    """Tokens in which patterns are looked for: in bytes, where one is found a hundred times faster than in a list.

    Attributes:
        tokens: may grow.
        next: place of the token that comes after those that have been copied.
    """

    def __init__(self, tokens: Sequence[int]) -> None:
        self.tokens = tokens
        self.next = 0
        self._bytes = bytearray()
        self.read()

    def read(self) -> None:
        """Take in tokens that have come since."""
        self._bytes += _bytes(self.tokens[len(self._bytes) // TOKEN_BYTES :])

    def place_after(self, pattern: bytes, *, in_order: bool) -> int | None:
        """The place after these tokens, where they stand with a token after them; None for nowhere.

        With `in_order` the first place that is not before the `next` token; the last of all if there is none, and without.
        """
        size, end = len(pattern), len(self._bytes) - TOKEN_BYTES
        start = max(0, self.next * TOKEN_BYTES - size)
        found = self._bytes.find(pattern, start, end) if in_order else -1
        while found >= 0 and found % TOKEN_BYTES:  # between tokens
            found = self._bytes.find(pattern, found + 1, end)
        if found < 0:
            found = self._bytes.rfind(pattern, 0, max(0, end))
        while found >= 0 and found % TOKEN_BYTES:
            found = self._bytes.rfind(pattern, 0, found + size - 1)
        return (found + size) // TOKEN_BYTES if found >= 0 else None


def _bytes(tokens: Sequence[int]) -> bytes:
    return array("I", tokens).tobytes()


def _repeated(tokens: Sequence[int], start: int, count: int) -> tuple[int, ...]:
    """Return the next tokens if they go on as they did at `start`; past their end, as they will have gone on by then."""
    read: list[int] = []
    for i in range(start, start + count):
        read.append(tokens[i] if i < len(tokens) else read[i - len(tokens)])
    return tuple(read)
