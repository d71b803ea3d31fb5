"""A context of the embedded engine, and the generation that runs on it."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from collections.abc import AsyncIterator, Sequence
from dataclasses import InitVar, dataclass, field
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.detokenize import Detokenizer
from parrot_nb.engine.embedded.lease import Lease
from parrot_nb.engine.embedded.seams import Seam
from parrot_nb.engine.protocol import Finish, GenerationEnd, Pace, Piece, Priority, Sampling, TokenScore
from parrot_nb.errors import EngineError

if TYPE_CHECKING:
    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.counts import TokenCounts
    from parrot_nb.engine.embedded.draft import Drafter
    from parrot_nb.engine.embedded.grammars import Grammar
    from parrot_nb.engine.embedded.scores import Score
    from parrot_nb.engine.embedded.script import Script

TELL_S = 0.04  # between two pieces of a text: 25 a second


@dataclass(eq=False)
class Generation:
    """Generation in progress on a context.

    Attributes:
        start: tokens of the context before it.
        seed: of its noise.
        number: unlike that of any other.
        token_ids: what was sampled, without end-of-sequence.
        num_guessed: how many of them had been guessed, so that they took no step of their own.
        drafter: guesses; None where nothing is guessed.
        guess_is_forced: whether the last guess was what the grammar forces.
        seam: the text taken back from the prompt; None where nothing was.
        lead_told: whether the reader was told the text before the first settled token.
        grammar: what its text may still become; None where it is not constrained.
        stop_ids: tokens that end it.
        counts: of the context's tokens; None where there are no penalties.
        scores: of each of `token_ids`, where log-probabilities are asked for.
        script: what it writes whatever the model says; empty where the model chooses.
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
    seam: Seam | None = None
    grammar: Grammar | None = None
    guess_is_forced: bool = False
    lead_told: bool = False
    stop_ids: frozenset[int] = frozenset()
    counts: TokenCounts | None = None
    scores: list[Score] = field(default_factory=list)
    script: Script = ()
    held: str = ""
    num_held: int = 0
    told_s: float = -math.inf
    asked_s: float = field(default_factory=time.monotonic)
    first_step_s: float | None = None
    first_token_s: float | None = None
    last_token_s: float | None = None

    @property
    def forced(self) -> tuple[int, ...]:
        """The tokens that a constraint forces next. None at the beginning, where the model is free to spell across what the prompt
        ends in, and none where log-probabilities are asked for: they are of tokens that were chosen."""
        restricted = self.seam is not None and self.seam.is_open
        if self.grammar is None or not self.num_sampled or restricted or self.sampling.logprobs is not None:
            return ()
        return self.grammar.forced()

    @property
    def most_sampled(self) -> int:
        """The most tokens to sample; those that only write the prompt's text again do not count against `max_tokens`."""
        return self.sampling.max_tokens + (0 if self.seam is None else self.seam.num_inside)

    @property
    def lead(self) -> tuple[int, str] | None:
        """(n, text): the value is this text, which tokens share with the prompt, and then that of the tokens from the n-th on;
        None while that is not known."""
        if self.seam is None:
            return 0, ""
        whole = None if self.seam.is_open else self.detokenizer.whole_after(self.seam.num_tokens)
        return None if whole is None else (whole[0], self.detokenizer.text[: whole[1]])

    def outcome(self, codec: TokenizerCodec) -> tuple[str, list[int], list[int]]:
        """(lead, token_ids, written_ids) of a generation that ends; see `GenerationEnd`."""
        count, rest = self.detokenizer.kept()
        lead = self.lead
        if self.seam is not None and (lead is None or count < lead[0]):  # it ended within the token that spans the seam
            text = self.detokenizer.text
            return text, [], [*self.seam.taken_back, *codec.encode(text)]
        assert lead is not None
        start, text = lead
        ids = codec.carried_over(self.token_ids[start:count]) + codec.encode(rest)
        return text, ids, [*self.token_ids[:start], *ids]

    def newly_settled(self, codec: TokenizerCodec) -> tuple[str, tuple[int, ...]]:
        """The text before the first token id and the ids that are certain since this was last asked."""
        settled, lead = self.detokenizer.newly_settled(), self.lead
        if lead is None or settled.stop < lead[0]:
            return "", ()
        start, text = lead
        text, self.lead_told = "" if self.lead_told else text, True
        return text, tuple(codec.carried_over(self.token_ids[max(start, settled.start) : settled.stop]))

    def take(self, token: int, score: Score | None) -> None:
        """A token of the text was sampled, with its score if that was asked for."""
        self.token_ids.append(token)
        if self.counts is not None:
            self.counts.add(token)
        if score is not None:
            self.scores.append(score)

    def hold(self, text: str) -> None:
        """A token was sampled, after which so much more text is certain."""
        self.held += text
        self.num_held += 1

    def is_due(self, now_s: float, *, at_once: bool) -> bool:
        """Whether its reader is to be told what is held. Unless it wants each token `at_once`, they come together, at a rate that
        looks steady to the eye: a small model writes hundreds a second, and each piece wakes a reader and is kept as an event."""
        return self.num_held > 0 and (at_once or now_s - self.told_s >= TELL_S)

    def tell(self, now_s: float, settled_ids: tuple[int, ...] = (), end: GenerationEnd | None = None, *, lead: str = "") -> None:
        """Give the reader what is held."""
        self.pieces.put_nowait(Piece(self.held, self.num_held, end, settled_ids, lead))
        self.held, self.num_held, self.told_s = "", 0, now_s

    async def told(self) -> AsyncIterator[Piece]:
        """Pieces as they come; the last has an end. Raises what the generation failed with."""
        while True:
            piece = await self.pieces.get()
            if isinstance(piece, BaseException):
                raise piece
            yield piece
            if piece.end is not None:
                return

    def fail(self, error: BaseException) -> None:
        """The reader gets what is held, and the reason why nothing more comes."""
        if self.num_held:
            self.tell(time.monotonic())
        self.pieces.put_nowait(error)


@dataclass(eq=False)
class Context:
    """A token sequence with its KV cache.

    Args:
        cache: where its pages are.

    Attributes:
        tokens: all of it, computed or not.
        lease: its pages, and how many of its tokens have their KV there.
        prefilled_tokens: prompt tokens computed since its last generation; what is computed again after a preemption
            does not count twice.
        guess: tokens that may follow, to be checked in its next step.
        pace: how fast it wants its tokens; None where that does not matter.
        num_left_out: steps in a row that it was ready for and not in.
        freed: given up; its pages go back as soon as no step uses them.
        failure: why it cannot go on, for whoever fills it or generates on it next; None while it can.
    """

    id: int
    priority: Priority
    cache: InitVar[PageCache]
    tokens: list[int] = field(default_factory=list)
    lease: Lease = field(init=False)
    prefilled_tokens: int = 0
    generation: Generation | None = None
    guess: tuple[int, ...] = ()
    pace: Pace | None = None
    num_left_out: int = 0
    freed: bool = False
    failure: EngineError | None = None

    def __post_init__(self, cache: PageCache) -> None:
        self.lease = cache.lease(self.tokens)

    @property
    def urgency(self) -> tuple[Priority, int]:
        """Smaller runs first: by priority, then by age."""
        return self.priority, self.id

    @property
    def num_pending(self) -> int:
        """Tokens to compute now. The last token waits for a generation, which needs what the model says after it."""
        return max(0, len(self.tokens) - self.lease.num_cached - (self.generation is None))

    @property
    def decodes(self) -> bool:
        """Whether its next step is one token that continues a generation."""
        return self.generation is not None and self.num_pending == 1

    def computed(self, end: int) -> None:
        """Take the KV of the tokens up to `end` from the step that has ended."""
        new = self.lease.computed(end)
        if self.generation is None or not self.generation.num_sampled:
            self.prefilled_tokens += new

    def truncate(self, tokens: Sequence[int]) -> None:
        """Become `tokens`, keeping the KV of what they share with the tokens so far, but for the last of them."""
        shared = 0
        while shared < min(len(tokens) - 1, self.lease.num_cached) and tokens[shared] == self.tokens[shared]:
            shared += 1
        self.lease.truncate(shared)
        self.tokens[:] = tokens

    def recompute_last(self) -> None:
        """Have the last token computed again where nothing was filled since the last output: a sample needs what follows it."""
        if self.lease.num_cached >= len(self.tokens):
            self.truncate(self.tokens)

    def set_aside(self) -> None:
        """Hold nothing for now, so that other contexts share all of what it has computed; `become` follows."""
        self.lease.release()
        self.tokens.clear()

    def become(self, tokens: Sequence[int]) -> None:
        """Become `tokens`: after `set_aside`, or as `truncate` does it."""
        if self.tokens:
            self.truncate(tokens)
        else:
            self.tokens[:] = tokens

    def fail(self, error: EngineError) -> None:
        """Give up: tell the reader, or whoever uses the context next; give back its pages and forget its tokens."""
        self.failure = error
        if self.generation is not None:
            self.generation.fail(error)
            self.generation = None
        self.lease.truncate(0)
        self.lease.pop_reused()
        self.tokens.clear()
        self.prefilled_tokens = 0

    def end_generation(
        self,
        finish: Finish,
        token_ids: Sequence[int],
        text: str,
        *,
        lead: str,
        written_ids: Sequence[int],
        scores: tuple[TokenScore, ...] | None = None,
        complete: bool | None = None,
    ) -> None:
        """Finish the generation: give its reader the last piece and reset the counters."""
        generation = self.generation
        assert generation is not None
        now_s = time.monotonic()
        first_step_s = generation.first_step_s or now_s
        first_token_s = generation.first_token_s or now_s
        end = GenerationEnd(
            finish=finish,
            token_ids=tuple(token_ids),
            prefilled_tokens=self.prefilled_tokens,
            reused_tokens=self.lease.pop_reused(),
            decoded_tokens=generation.num_sampled,
            guessed_tokens=generation.num_guessed,
            queued_s=first_step_s - generation.asked_s,
            prefill_s=first_token_s - first_step_s,
            decode_s=(generation.last_token_s or first_token_s) - first_token_s,
            lead=lead,
            written_ids=tuple(written_ids),
            scores=scores,
            complete=complete,
        )
        self.prefilled_tokens = 0
        self.generation = None
        generation.hold(text)
        generation.tell(now_s, end=end)
