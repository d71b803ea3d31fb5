"""A context of the embedded engine, and the generation that runs on it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from parrot_nb.engine.embedded.detokenize import Detokenizer
from parrot_nb.engine.protocol import Finish, GenerationEnd, Piece, Priority, Sampling


@dataclass(eq=False)
class Generation:
    """What is being generated on a context.

    Attributes:
        start: tokens of the context before it.
        seed: of its noise.
        token_ids: what was sampled, without end-of-sequence.
        pieces: what the reader of the stream gets, or an error.
        prefilled_tokens: tokens computed before the first sample, recomputation after a preemption not counted twice.
    """

    sampling: Sampling
    start: int
    seed: int
    detokenizer: Detokenizer
    pieces: asyncio.Queue[Piece | BaseException]
    token_ids: list[int] = field(default_factory=list)
    num_sampled: int = 0
    prefilled_tokens: int = 0
    asked_s: float = field(default_factory=time.monotonic)
    first_step_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None
    ended: bool = False

    def end(self, finish: Finish, token_ids: Sequence[int], text: str) -> Piece:
        """The last piece."""
        now_s = time.monotonic()
        first_step_s = self.first_step_s or now_s
        first_token_s = self.first_token_s or now_s
        end = GenerationEnd(
            finish=finish,
            token_ids=tuple(token_ids),
            prefilled_tokens=self.prefilled_tokens,
            reused_tokens=0,
            decoded_tokens=self.num_sampled,
            queued_s=first_step_s - self.asked_s,
            prefill_s=first_token_s - first_step_s,
            decode_s=(self.last_token_s or first_token_s) - first_token_s,
        )
        return Piece(text, 1, end)


@dataclass(eq=False)
class Context:
    """A token sequence with its KV cache.

    Attributes:
        tokens: all of it, computed or not.
        num_cached: how many of them, from the front, have their KV in `pages`.
        most_computed: the largest `num_cached` so far: what lies below it is recomputation.
        in_step: a step is reading and writing its pages now.
        freed: given up; its pages go back as soon as no step uses them.
    """

    id: int
    priority: Priority
    tokens: list[int] = field(default_factory=list)
    num_cached: int = 0
    most_computed: int = 0
    pages: list[int] = field(default_factory=list)
    generation: Generation | None = None
    in_step: bool = False
    freed: bool = False

    @property
    def urgency(self) -> tuple[Priority, int]:
        """Smaller runs first: by priority, then by age."""
        return self.priority, self.id

    @property
    def num_pending(self) -> int:
        """Tokens to compute: those without KV, and at least one before a sample."""
        pending = len(self.tokens) - self.num_cached
        return max(pending, 1) if self.generation is not None and self.tokens else pending

    @property
    def decodes(self) -> bool:
        """Whether its next step is one token that continues a generation."""
        return self.generation is not None and self.num_pending == 1

    def truncate(self, tokens: Sequence[int], give_back: Callable[[Sequence[int]], None], page_size: int) -> None:
        """Become `tokens`, keeping the KV of what they share with the tokens so far."""
        shared = 0
        while shared < min(len(tokens), self.num_cached) and tokens[shared] == self.tokens[shared]:
            shared += 1
        self.tokens = list(tokens)
        self.num_cached = self.most_computed = shared
        needed = -(-shared // page_size)
        give_back(self.pages[needed:])
        del self.pages[needed:]
