"""The tokens that constrained contexts of a step may choose: computed in a thread of its own, while the model computes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.grammars import Grammar

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

WORD_BITS = 32


@dataclass(frozen=True, slots=True)
class Constrained:
    """A context of a step whose samples are constrained.

    Attributes:
        grammar: of its text so far.
        guess: tokens after each of which there is a sample too, all allowed.
        stop_ids: tokens that end the text, allowed where it is complete.
        num_forced: samples at the beginning that need no mask.
    """

    grammar: Grammar
    guess: tuple[int, ...]
    stop_ids: Collection[int]
    num_forced: int = 0

    @property
    def num_masks(self) -> int:
        """Number of its samples that need a mask."""
        return 1 + len(self.guess) - self.num_forced


class StepMasks:
    """Which tokens may be chosen by the constrained samples of a step, in the order of its contexts, guesses included.

    Args:
        contexts: that have constraints.
    """

    def __init__(self, contexts: Sequence[Constrained]) -> None:
        self._contexts = contexts
        self._bits: Future[NDArray[np.uint8]] = contexts[0].grammar.pool.submit(self._compute)
        for context in contexts:
            context.grammar.pending = self._bits

    def apply(self, logits: Tensor, rows: Sequence[int]) -> Tensor:
        """Wait until they are computed; set what must not be chosen to -inf, in place.

        Args:
            logits: [S, V].
            rows: of the samples that need a mask, in their order.
        """
        import numpy as np
        import torch

        from parrot_kernels import mask_logits

        bits = self._bits.result()
        if logits.device.type == "cpu":
            num_tokens = min(logits.shape[1], 8 * bits.shape[1])
            masked = torch.from_numpy(
                np.unpackbits(bits, axis=1, count=num_tokens, bitorder="little").view(np.bool_)
            ).logical_not_()
            if num_tokens < logits.shape[1]:  # rows of the embedding without a token
                masked = torch.nn.functional.pad(masked, (0, logits.shape[1] - num_tokens), value=True)
            if len(rows) == len(logits):
                return logits.masked_fill_(masked, -torch.inf)
            for row, mask in zip(rows, masked, strict=True):
                logits[row].masked_fill_(mask, -torch.inf)
            return logits
        words, places = torch.from_numpy(bits.view(np.int32)), torch.tensor(rows, dtype=torch.int32)
        return mask_logits(logits, *(side.to(logits.device, non_blocking=True) for side in (words, places)))

    def _compute(self) -> NDArray[np.uint8]:
        """uint8 [number of masks, bytes]: a bit for each token of the vocabulary, the lowest of a byte first."""
        import numpy as np

        num_ids = self._contexts[0].grammar.end_id + 1
        num_samples = sum(context.num_masks for context in self._contexts)
        bits = np.zeros((num_samples, (num_ids + WORD_BITS - 1) // WORD_BITS * WORD_BITS // 8), dtype=np.uint8)
        row = 0
        for context in self._contexts:
            row += _fill(bits[row:], context)
        num_tokens = self._contexts[0].grammar.num_tokens
        kept = np.ascontiguousarray(bits[:, : (num_tokens + WORD_BITS - 1) // WORD_BITS * WORD_BITS // 8])
        kept[:, num_tokens // 8 + 1 :] = 0  # single bytes and the end are no tokens of the model
        if num_tokens // 8 < kept.shape[1]:
            kept[:, num_tokens // 8] &= (1 << num_tokens % 8) - 1
        return kept


def _fill(bits: NDArray[np.uint8], context: Constrained) -> int:
    """Fill the first rows, one for each sample of a context that needs a mask; returns how many."""
    grammar, before = context.grammar, context.num_forced
    if before:
        grammar.matcher.consume_tokens(list(context.guess[:before]))
    for i in range(context.num_masks):
        if i:
            grammar.matcher.consume_token(context.guess[before + i - 1])
        grammar.matcher.unsafe_compute_mask_ptr(bits[i].ctypes.data, bits.shape[1])
        grammar.note_failure()
        if bits[i, grammar.end_id // 8] >> grammar.end_id % 8 & 1:
            for token_id in context.stop_ids:
                if 0 <= token_id < grammar.num_tokens:  # a model's files may name others, such as -1 or one of the base's
                    bits[i, token_id // 8] |= 1 << token_id % 8
    if context.guess:
        grammar.matcher.rollback(len(context.guess))
    return context.num_masks
