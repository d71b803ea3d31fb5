"""A context of the embedded engine, and the generation that runs on it."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.cache import PageCache, PageNode
from parrot_nb.engine.embedded.detokenize import Detokenizer
from parrot_nb.engine.protocol import Finish, GenerationEnd, Pace, Piece, Priority, Sampling
from parrot_nb.errors import EngineError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.draft import Drafter

TELL_S = 0.04  # between two pieces of a text: 25 a second


@dataclass(eq=False)
class Generation:
    """What is being generated on a context.

    Attributes:
        start: tokens of the context before it.
        seed: of its noise.
        number: unlike that of any other.
        token_ids: what was sampled, without end-of-sequence.
        num_guessed: how many of them had been guessed, so that they took no step of their own.
        drafter: guesses; None where nothing is guessed.
        stop_ids: tokens that end it: end tokens, and special ones that its stop strings name.
        pieces: what the reader of the stream gets, or an error.
        held: text that its reader has not been told of yet.
        num_held: sampled tokens of that.
        told_s: when its reader was last told something.
    """

    sampling: Sampling
    start: int
    seed: int
    detokenizer: Detokenizer
    pieces: asyncio.Queue[Piece | BaseException]
    number: int = field(default_factory=itertools.count(1).__next__)
    token_ids: list[int] = field(default_factory=list)
    num_sampled: int = 0
    num_guessed: int = 0
    drafter: Drafter | None = None
    stop_ids: frozenset[int] = frozenset()
    held: str = ""
    num_held: int = 0
    told_s: float = -math.inf
    asked_s: float = field(default_factory=time.monotonic)
    first_step_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    def hold(self, text: str) -> None:
        """A token was sampled, after which so much more text is certain."""
        self.held += text
        self.num_held += 1

    def is_due(self, now_s: float, *, at_once: bool) -> bool:
        """Whether its reader is to be told what is held. Unless it wants each token `at_once`, they come together, at a rate that
        looks steady to the eye: a small model writes hundreds a second, and each piece wakes a reader and is kept as an event."""
        return self.num_held > 0 and (at_once or now_s - self.told_s >= TELL_S)

    def tell(self, now_s: float, settled_ids: tuple[int, ...] = (), end: GenerationEnd | None = None) -> None:
        """Give the reader what is held."""
        self.pieces.put_nowait(Piece(self.held, self.num_held, end, settled_ids))
        self.held, self.num_held, self.told_s = "", 0, now_s

    def fail(self, error: BaseException) -> None:
        """The reader gets what is held, and the reason why nothing more comes."""
        if self.num_held:
            self.tell(time.monotonic())
        self.pieces.put_nowait(error)


@dataclass(eq=False)
class Context:
    """A token sequence with its KV cache.

    Attributes:
        tokens: all of it, computed or not.
        num_cached: how many of them, from the front, have their KV in `pages`.
        pages: in order; the first are those of `nodes`, the others its own.
        nodes: its path in the prefix tree.
        prefilled_tokens: prompt tokens computed since its last generation; what is computed again after a preemption
            does not count twice.
        reused_tokens: prompt tokens found cached since then.
        most_cached: the largest `num_cached` so far: what lies below it has been counted.
        guess: tokens that may follow, to be checked in its next step.
        pace: how fast it wants its tokens; None where that does not matter.
        num_left_out: steps in a row that it was ready for and not in.
        num_steps: steps that read and write its pages now.
        freed: given up; its pages go back as soon as no step uses them.
        failure: why it cannot go on, for whoever fills it or generates on it next; None while it can.
    """

    id: int
    priority: Priority
    tokens: list[int] = field(default_factory=list)
    num_cached: int = 0
    pages: list[int] = field(default_factory=list)
    nodes: list[PageNode] = field(default_factory=list)
    prefilled_tokens: int = 0
    reused_tokens: int = 0
    most_cached: int = 0
    generation: Generation | None = None
    guess: tuple[int, ...] = ()
    pace: Pace | None = None
    num_left_out: int = 0
    num_steps: int = 0
    freed: bool = False
    failure: EngineError | None = None

    @property
    def urgency(self) -> tuple[Priority, int]:
        """Smaller runs first: by priority, then by age."""
        return self.priority, self.id

    @property
    def num_pending(self) -> int:
        """Tokens to compute now. The last token waits for a generation, which needs what the model says after it."""
        return max(0, len(self.tokens) - self.num_cached - (self.generation is None))

    @property
    def decodes(self) -> bool:
        """Whether its next step is one token that continues a generation."""
        return self.generation is not None and self.num_pending == 1

    def reuse(self, end: int) -> None:
        """The KV of its tokens up to `end` was found cached."""
        self.reused_tokens += max(0, end - max(self.num_cached, self.most_cached))
        self._has(end)

    def computed(self, start: int, end: int) -> None:
        """The KV of its tokens from `start` up to `end` was computed."""
        if self.generation is None or not self.generation.num_sampled:
            self.prefilled_tokens += max(0, end - max(start, self.most_cached))
        self._has(end)

    def _has(self, end: int) -> None:
        self.num_cached = end
        self.most_cached = max(self.most_cached, end)

    def truncate(self, tokens: Sequence[int], cache: PageCache) -> None:
        """Become `tokens`, keeping the KV of what they share with the tokens so far, but for the last of them."""
        shared = 0
        while shared < min(len(tokens) - 1, self.num_cached) and tokens[shared] == self.tokens[shared]:
            shared += 1
        cache.release(self, shared)
        self.tokens = list(tokens)
        self.most_cached = shared

    def end_generation(self, finish: Finish, token_ids: Sequence[int], text: str) -> None:
        """The generation is over: its reader gets the last piece, and the counts start anew."""
        generation = self.generation
        assert generation is not None
        now_s = time.monotonic()
        first_step_s = generation.first_step_s or now_s
        first_token_s = generation.first_token_s or now_s
        end = GenerationEnd(
            finish=finish,
            token_ids=tuple(token_ids),
            prefilled_tokens=self.prefilled_tokens,
            reused_tokens=self.reused_tokens,
            decoded_tokens=generation.num_sampled,
            guessed_tokens=generation.num_guessed,
            queued_s=first_step_s - generation.asked_s,
            prefill_s=first_token_s - first_step_s,
            decode_s=(generation.last_token_s or first_token_s) - first_token_s,
        )
        self.prefilled_tokens = self.reused_tokens = 0
        self.generation = None
        generation.hold(text)
        generation.tell(now_s, end=end)
