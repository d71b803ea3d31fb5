"""The tokens that constrained contexts of a step may choose: computed in a thread of its own, while the model computes."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.grammars import Grammar

if TYPE_CHECKING:
    import numpy as np
    import torch
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
        self._num_tokens = contexts[0].grammar.num_tokens  # of one tokenizer, like all of a step
        self._bits: Future[NDArray[np.uint8]] = contexts[0].grammar.pool.submit(self._compute)
        for context in contexts:
            context.grammar.pending = self._bits

    def allowed(self, num_logits: int, device: torch.device) -> Tensor:
        """Wait until they are computed: bool [number of samples, num_logits], True where a token may be chosen."""
        import numpy as np
        import torch

        bits = self._bits.result()
        if device.type == "cpu":
            allowed = torch.from_numpy(np.unpackbits(bits, axis=1, bitorder="little").view(np.bool_))
        else:  # the bits travel, and are told apart there
            allowed = unpacked(torch.from_numpy(bits).to(device, non_blocking=True))
        num_tokens = min(num_logits, self._num_tokens)
        if num_tokens == num_logits:
            return allowed[:, :num_logits]
        padded = torch.zeros(len(bits), num_logits, dtype=torch.bool, device=device)  # rows of the embedding without a token
        padded[:, :num_tokens] = allowed[:, :num_tokens]
        return padded

    def _compute(self) -> NDArray[np.uint8]:
        """uint8 [number of samples, bytes]: a bit for each id, the lowest of a byte first."""
        import numpy as np

        num_ids = self._contexts[0].grammar.end_id + 1
        num_samples = sum(context.num_masks for context in self._contexts)
        bits = np.zeros((num_samples, (num_ids + WORD_BITS - 1) // WORD_BITS * WORD_BITS // 8), dtype=np.uint8)
        row = 0
        for context in self._contexts:
            row += _fill(bits[row:], context)
        return bits


def unpacked(bits: Tensor) -> Tensor:
    """uint8 [S, B] -> bool [S, 8 * B], the lowest bit of a byte first; on its device, as `numpy.unpackbits` does it."""
    import torch

    places = torch.arange(8, dtype=torch.uint8, device=bits.device)
    return ((bits.unsqueeze(2) >> places) & 1).flatten(1).bool()


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
