"""Starts generations: everything that a generation is made of, from how it samples to how its tokens become text."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.context import Context, Generation
from parrot_nb.engine.embedded.counts import counts_for
from parrot_nb.engine.embedded.defaults import ModelDefaults
from parrot_nb.engine.embedded.detokenize import Detokenizer
from parrot_nb.engine.embedded.draft import Drafter
from parrot_nb.engine.embedded.grammars import Grammar
from parrot_nb.engine.embedded.script import Script
from parrot_nb.engine.embedded.seams import Seam, SeamIndex
from parrot_nb.engine.protocol import Sampling


class Starter:
    """Starts the generations of one engine. Lives on its event loop.

    Args:
        codec: the tokenizer.
        eos_ids: tokens that end a text.
        defaults: what the model's files ask of every generation.
        device: where tokens are sampled.
        guesses: True if generations guess tokens ahead (`parrot_nb.engine.embedded.draft`).
    """

    def __init__(
        self, codec: TokenizerCodec, eos_ids: frozenset[int], defaults: ModelDefaults, device: str, *, guesses: bool
    ) -> None:
        self.eos_ids = eos_ids
        self._codec = codec
        self._defaults = defaults
        self._device = device
        self._guesses = guesses
        self._index: SeamIndex | None = None

    async def prepare(self, sampling: Sampling, taken_back: Sequence[int]) -> Grammar | None:
        """Make what `generation` needs to heal a seam, and the grammar of a constraint; the first of an engine orders the
        vocabulary. Raises ConstraintError."""
        if taken_back and self._index is None:  # a fraction of a second for a large vocabulary: others go on meanwhile
            self._index = await asyncio.to_thread(SeamIndex, self._codec.token_bytes, self._codec.vocab_size, self._device)
        return None if sampling.constraint is None else await self._codec.grammars.start(sampling.constraint, taken_back)

    def generation(
        self,
        context: Context,
        sampling: Sampling,
        *,
        likely: Sequence[int],
        taken_back: Sequence[int],
        grammar: Grammar | None = None,
    ) -> Generation:
        """The generation that begins on a context, with what `prepare` gave; for the other arguments see `Engine.generate`."""
        context.recompute_last()
        sampling = self._defaults.over(sampling)
        stop_ids = self._stop_ids(sampling)
        seam = None
        if taken_back:
            assert self._index is not None, "prepare() comes first"
            seam = Seam.of(self._index, self._codec.token_bytes, taken_back, stop_ids)
        return Generation(
            sampling=sampling,
            start=len(context.tokens),
            seed=secrets.randbits(63) if sampling.seed is None else sampling.seed,
            detokenizer=self._detokenizer(sampling, taken_back),
            pieces=asyncio.Queue(),
            drafter=Drafter(context, likely) if self._guesses else None,
            seam=seam,
            grammar=grammar,
            stop_ids=stop_ids,
            counts=counts_for(sampling, context.tokens),
        )

    def scripted(self, context: Context, script: Script) -> Generation:
        """The generation that writes a script on a context."""
        context.recompute_last()
        sampling = Sampling(max_tokens=len(script), ignore_eos=True)
        return Generation(
            sampling=sampling,
            start=len(context.tokens),
            seed=0,
            detokenizer=self._detokenizer(sampling, ()),
            pieces=asyncio.Queue(),
            script=script,
        )

    def _stop_ids(self, sampling: Sampling) -> frozenset[int]:
        """The tokens that end a generation: end tokens, and special tokens that its stop strings name, which have no text."""
        named = {token_id for stop in sampling.stop if (token_id := self._codec.special_id(stop)) is not None}
        return frozenset(named) if sampling.ignore_eos else self.eos_ids | named

    def _detokenizer(self, sampling: Sampling, taken_back: Sequence[int]) -> Detokenizer:
        codec = self._codec
        around = [*codec.anchor, *taken_back]
        skip_chars = len(codec.decode_plain(around)) - len(codec.decode_plain(codec.anchor)) if taken_back else 0
        return Detokenizer(codec.decode_plain, codec.anchor, codec.shown, sampling.stop, skip_chars, codec.is_open)
