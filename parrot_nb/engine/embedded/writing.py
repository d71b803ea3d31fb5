"""Recording of a step's choices in contexts: tokens, texts, ends, and the notification of readers."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

from parrot_nb.engine.embedded.codec import TokenizerCodec
from parrot_nb.engine.embedded.context import Context, Generation
from parrot_nb.engine.embedded.failures import as_text_error
from parrot_nb.engine.embedded.scores import Score, TokenTexts
from parrot_nb.engine.embedded.step import Choice, StepContext
from parrot_nb.engine.protocol import Finish
from parrot_nb.errors import ConstraintError, NonFiniteError


class Writer:
    """Writes what steps choose into contexts, and tells their readers. Lives on the engine's loop.

    What a tokenizer raises on the way fails the context whose tokens it was given, and no other.

    Args:
        codec: the tokenizer.
        max_context_tokens: the longest context.
    """

    def __init__(self, codec: TokenizerCodec, max_context_tokens: int) -> None:
        self._codec = codec
        self._max_context_tokens = max_context_tokens
        self._token_texts = TokenTexts(codec)

    def accept(self, context: Context, generation: Generation, chosen: Sequence[Choice], part: StepContext) -> None:
        """Take the chosen tokens of a context's part in a step, as long as those before them had been guessed."""
        try:
            self._accept_all(context, generation, chosen, part.guess, part.forced)
        except BaseException as error:  # a panic of a tokenizer's Rust is no Exception; nothing waits in here for anybody
            context.fail(as_text_error(error))

    def tell(self, contexts: Iterable[Context], *, with_ids: bool) -> None:
        """Give readers what has come for them, `with_ids` where fills stream: nobody else looks at ids before the end."""
        now_s = time.monotonic()
        for context in contexts:
            generation = context.generation
            if generation is not None and generation.is_due(now_s, at_once=context.pace is not None):
                try:
                    lead, settled_ids = generation.newly_settled(self._codec) if with_ids else ("", ())
                except BaseException as error:  # as above
                    context.fail(as_text_error(error))
                else:
                    generation.tell(now_s, settled_ids, lead=lead)

    def _accept_all(
        self,
        context: Context,
        generation: Generation,
        chosen: Sequence[Choice],
        guess: Sequence[int],
        forced: Sequence[int],
    ) -> None:
        grammar = generation.grammar
        if grammar is not None and grammar.failure is not None:  # its masks allow nothing but an end
            context.fail(ConstraintError(f"The type cannot be followed any further ({grammar.failure}): make it simpler."))
            return
        num_right, num_judged = 0, len(guess)
        for i, choice in enumerate(chosen):
            if (token := choice.token) is None:
                context.fail(NonFiniteError("The model computed NaN for this text: try another dtype, such as float32."))
                return
            if grammar is not None and i < len(forced):
                token = grammar.spelled(token, forced[i])
            self._accept(context, generation, token, choice.score)
            if i == len(guess) or token != guess[i] or context.generation is not generation:
                break
            num_right += 1
            if i + 1 >= len(forced) and generation.forced:
                num_judged = num_right
                break  # the next choice was made by a mask, but a token is forced there: it is made again
            generation.num_guessed += 1
            context.lease.confirm()
        if guess and generation.drafter is not None and not generation.guess_is_forced:
            generation.drafter.judged(num_judged, num_right)

    def _accept(self, context: Context, generation: Generation, token: int, score: Score | None) -> None:
        """Take one token."""
        now_s = time.monotonic()
        generation.first_token_s = generation.first_token_s or now_s
        generation.last_token_s = now_s
        generation.num_sampled += 1
        if token in generation.stop_ids:
            self._end(context, generation, "stop", generation.detokenizer.finish())
            return
        generation.take(token, score)
        context.tokens.append(token)
        if generation.seam is not None and generation.seam.is_open:
            generation.seam.accept(token)
        if generation.grammar is not None:
            generation.grammar.accept(token)
        text = generation.detokenizer.feed(token)
        if generation.detokenizer.stopped_at is not None:
            self._end(context, generation, "stop", text)
        elif generation.grammar is not None and generation.grammar.is_over:
            self._end(context, generation, "stop", text + generation.detokenizer.finish())
        elif generation.num_sampled >= generation.most_sampled or len(context.tokens) >= self._max_context_tokens:
            self._end(context, generation, "length", text + generation.detokenizer.finish())
        else:
            generation.hold(text)

    def _end(self, context: Context, generation: Generation, finish: Finish, text: str) -> None:
        lead, ids, written_ids = generation.outcome(self._codec)
        if list(written_ids) != generation.token_ids:
            context.truncate([*context.tokens[: generation.start], *written_ids])
        if generation.detokenizer.stopped_at is not None:  # completed by what was held back
            finish = "stop"
        scores, complete = self._token_texts.scores_of(generation), None
        if (grammar := generation.grammar) is not None:
            cut = generation.detokenizer.stopped_at is not None
            complete = grammar.accepts(generation.detokenizer.text) if cut else grammar.is_complete
        context.end_generation(finish, ids, text, lead=lead, written_ids=written_ids, scores=scores, complete=complete)
