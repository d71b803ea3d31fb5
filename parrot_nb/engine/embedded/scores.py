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
    """A chosen token's log-probability, and ids and log-probabilities of the likeliest others, the likeliest first; of what a script
    writes, those of the tokens that it asks for."""

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
        asked: tokens that a script asks for at each; none where the model chooses.
        logprobs: float32 [L, V], log-softmax of the raw logits.
    """

    samples: tuple[int, ...]
    num_others: tuple[int, ...]
    asked: tuple[tuple[int, ...], ...]
    logprobs: Tensor

    @classmethod
    def of(cls, logits: Tensor, contexts: Sequence[StepContext]) -> Self | None:
        """Build from the raw logits [S, V] of the samples of these contexts, in order; None where no context asks."""
        if not any(context.scores for context in contexts):
            return None
        wanted: list[tuple[int, int, tuple[int, ...]]] = []
        start = 0
        for context in contexts:
            rows = range(start, start + context.num_samples)
            start = rows.stop
            if context.script is not None:
                wanted += [(row, 0, place.asked) for row, place in zip(rows, context.script, strict=True)]
            elif context.sampling is not None and context.sampling.logprobs is not None:
                wanted += [(row, context.sampling.logprobs, ()) for row in rows]
        if not wanted:
            return None
        samples, num_others, asked = zip(*wanted, strict=True)
        return cls(samples, num_others, asked, logits[list(samples)].float().log_softmax(-1))

    def chosen(self, ids: Tensor) -> Scores:
        """The scores of the tokens that were chosen, int64 [S]; on the device, without waiting for it."""
        own = ids[list(self.samples)].clamp_min(0)  # an unusable row has no token, and nobody reads its score
        top = self.logprobs.topk(min(max(self.num_others) + 1, self.logprobs.shape[1]), dim=-1)
        logprobs = self.logprobs.gather(1, own.unsqueeze(1)).squeeze(1)
        return Scores(self, own, logprobs, top.indices, top.values, self._asked_logprobs())

    def _asked_logprobs(self) -> Tensor:
        """Log-probabilities of all that is asked for, in a row, float32 [A]; -inf for ids that the model has no logits for."""
        import torch

        num_logits, device = self.logprobs.shape[1], self.logprobs.device
        places = [(row, token) for row, tokens in enumerate(self.asked) for token in tokens]
        rows, ids = torch.tensor(places, dtype=torch.int64).reshape(-1, 2).to(device, non_blocking=True).unbind(1)
        found = self.logprobs[rows, ids.clamp_max(num_logits - 1)]
        return found.masked_fill(ids >= num_logits, -torch.inf)


@dataclass(frozen=True, slots=True)
class Scores:
    """Scores that `ScoredRows.chosen` found, where they were computed.

    Attributes:
        rows: whose scores.
        ids: int64 [L], the chosen tokens.
        logprobs: float32 [L], of these.
        top_ids: int64 [L, N + 1], the likeliest tokens.
        top_logprobs: float32 [L, N + 1], of these.
        asked_logprobs: float32 [A], of the tokens that scripts ask for, row by row.
    """

    rows: ScoredRows
    ids: Tensor
    logprobs: Tensor
    top_ids: Tensor
    top_logprobs: Tensor
    asked_logprobs: Tensor

    def tensors(self) -> tuple[Tensor, ...]:
        """Return the tensors that `by_sample` needs on the host, in its order."""
        return self.ids, self.logprobs, self.top_ids, self.top_logprobs, self.asked_logprobs

    def by_sample(
        self,
        chosen: list[int],
        logprobs: list[float],
        top_ids: list[list[int]],
        top_logprobs: list[list[float]],
        asked_logprobs: list[float],
    ) -> dict[int, Score]:
        """Scores by the index of the sample."""
        found: dict[int, Score] = {}
        rows, columns, answers = self.rows, (chosen, logprobs, top_ids, top_logprobs), iter(asked_logprobs)
        for sample, width, asked, token, logprob, ids, others_logprobs in zip(
            rows.samples, rows.num_others, rows.asked, *columns, strict=True
        ):
            others = [(i, p) for i, p in zip(ids, others_logprobs, strict=True) if i != token][:width]
            found[sample] = Score(logprob, (*others, *((i, next(answers)) for i in asked)))
        return found
