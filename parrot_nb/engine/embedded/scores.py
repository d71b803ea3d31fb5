"""Log-probabilities of chosen tokens and of the likeliest others, under the model's own distribution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from parrot_nb.engine.protocol import TokenScore

if TYPE_CHECKING:
    from torch import Tensor

    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.context import Generation
    from parrot_nb.engine.embedded.step import StepContext


@dataclass(frozen=True, slots=True)
class Score:
    """A chosen token's log-probability, and ids and log-probabilities of the likeliest others, the likeliest first."""

    logprob: float
    others: tuple[tuple[int, float], ...]


class TokenTexts:
    """Texts of tokens by themselves, kept once they are known."""

    def __init__(self, codec: TokenizerCodec) -> None:
        self._codec = codec
        self._texts: dict[int, str] = {}

    def scores_of(self, generation: Generation) -> tuple[TokenScore, ...] | None:
        """Scores of the tokens that a generation's text is made of; None where nobody asked for them."""
        if generation.sampling.logprobs is None:
            return None
        start = 0 if generation.seam is None else generation.seam.num_inside  # those only write the prompt's text again
        texts = generation.detokenizer.token_texts()[start:]  # fewer than tokens, where a stop string cut some off
        return tuple(
            TokenScore(text, score.logprob, tuple((self._text_of(token), logprob) for token, logprob in score.others))
            for text, score in zip(texts, generation.scores[start:], strict=False)
        )

    def _text_of(self, token: int) -> str:
        """Return the text that a token adds to one before it, since a few tokenizers treat the first specially."""
        if token not in self._texts:
            anchor = self._codec.anchor
            self._texts[token] = self._codec.decode([*anchor, token])[len(self._codec.decode(anchor)) :]
        return self._texts[token]


@dataclass(frozen=True, slots=True)
class ScoredRows:
    """The L samples of a step whose log-probabilities are asked for.

    Attributes:
        samples: their indices among all samples of the step.
        num_others: how many other tokens each asks for.
        logprobs: float32 [L, V], log-softmax of the raw logits.
    """

    samples: tuple[int, ...]
    num_others: tuple[int, ...]
    logprobs: Tensor

    @classmethod
    def of(cls, logits: Tensor, contexts: Sequence[StepContext]) -> Self | None:
        """Build from the raw logits [S, V] of the samples of these contexts, in order; None where no context asks."""
        if not any(context.scores for context in contexts):
            return None
        asked = [context.sampling for context in contexts for _ in range(context.num_samples)]
        wanted = [(i, s.logprobs) for i, s in enumerate(asked) if s is not None and s.logprobs is not None]
        if not wanted:
            return None
        samples, num_others = zip(*wanted, strict=True)
        return cls(samples, num_others, logits[list(samples)].float().log_softmax(-1))

    def chosen(self, ids: Tensor) -> Scores:
        """The scores of the tokens that were chosen, int64 [S]; on the device, without waiting for it."""
        own = ids[list(self.samples)].clamp_min(0)  # an unusable row has no token, and nobody reads its score
        top = self.logprobs.topk(min(max(self.num_others) + 1, self.logprobs.shape[1]), dim=-1)
        return Scores(self, own, self.logprobs.gather(1, own.unsqueeze(1)).squeeze(1), top.indices, top.values)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores that `ScoredRows.chosen` found, where they were computed.

    Attributes:
        rows: whose scores.
        ids: int64 [L], the chosen tokens.
        logprobs: float32 [L], of these.
        top_ids: int64 [L, N + 1], the likeliest tokens.
        top_logprobs: float32 [L, N + 1], of these.
    """

    rows: ScoredRows
    ids: Tensor
    logprobs: Tensor
    top_ids: Tensor
    top_logprobs: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that `by_sample` needs on the host, in its order."""
        return self.ids, self.logprobs, self.top_ids, self.top_logprobs

    def by_sample(
        self, chosen: list[int], logprobs: list[float], top_ids: list[list[int]], top_logprobs: list[list[float]]
    ) -> dict[int, Score]:
        """Scores by the index of the sample."""
        found: dict[int, Score] = {}
        columns = chosen, logprobs, top_ids, top_logprobs
        for sample, width, token, logprob, ids, others_logprobs in zip(
            self.rows.samples, self.rows.num_others, *columns, strict=True
        ):
            others = [(i, p) for i, p in zip(ids, others_logprobs, strict=True) if i != token]
            found[sample] = Score(logprob, tuple(others[:width]))
        return found
