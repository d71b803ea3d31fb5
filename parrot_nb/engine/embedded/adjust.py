"""Logits of a step's samples as the sampler is to see them: whatever changes a row's logits does it in `adjust`."""

from __future__ import annotations

from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING

from parrot_nb.engine.embedded.step import StepContext

if TYPE_CHECKING:
    from torch import Tensor

    from parrot_nb.engine.embedded.counts import TokenCounts


def adjust(logits: Tensor, contexts: Sequence[StepContext]) -> Tensor:
    """Apply what the contexts ask for: penalties first, then the suppression of tokens, as `transformers` does, and last the
    restriction to what may come at an open seam.

    A step in which no context asks for anything gets its own tensor back untouched, at the cost of one look at each context.
    Otherwise all rows become float32, which changes no choice, and only the logits of the tokens in question are touched.

    Args:
        logits: [S, V] of the samples of these contexts, in order, guesses included; may be changed in place.
        contexts: of the step.
    """
    if not any(context.adjusts for context in contexts):
        return logits
    import torch

    logits = logits.float()
    samples = [(context, i) for context in contexts for i in range(context.num_samples)]
    if any(context.counts is not None for context in contexts):
        logits = _penalise(logits, samples)
    if any(context.suppressed is not None for context in contexts):
        logits = _suppress(logits, samples)
    for row, (context, _) in enumerate(samples):
        if context.allowed is not None:
            allowed = context.allowed[context.allowed < logits.shape[1]]
            kept = logits[row, allowed]
            logits[row].fill_(-torch.inf)
            logits[row, allowed] = kept
    return _constrain(logits, samples)


def _constrain(logits: Tensor, samples: Sequence[tuple[StepContext, int]]) -> Tensor:
    """Leave the tokens that constraints allow."""
    rows = [row for row, (context, i) in enumerate(samples) if context.masks is not None and i >= len(context.forced)]
    masks = next((context.masks for context, _ in samples if context.masks is not None), None)
    return logits if masks is None else masks.apply(logits, rows)


def _penalise(logits: Tensor, samples: Sequence[tuple[StepContext, int]]) -> Tensor:
    import torch

    from parrot_kernels import penalise

    rows, ids, counts = array("i"), array("i"), array("i")
    for row, (context, i) in enumerate(samples):
        if context.counts is not None:
            seen = _counts_before(context.counts, context.guess[:i])
            rows.extend(array("i", [row]) * len(seen.ids))
            ids.extend(seen.ids)
            counts.extend(seen.counts)
    if not ids:
        return logits
    entries = [torch.frombuffer(values, dtype=torch.int32) for values in (rows, ids, counts)]
    inside = entries[1] < logits.shape[1]  # a few models have fewer logits than embeddings
    if not inside.all():
        entries = [values[inside] for values in entries]
    asked = [context.sampling for context, _ in samples if context.sampling is not None]
    settings = (
        [1.0 if s.repetition_penalty is None else s.repetition_penalty for s in asked],
        [s.presence_penalty for s in asked],
        [s.frequency_penalty for s in asked],
    )
    return penalise(
        logits,
        *(values.to(logits.device, non_blocking=True) for values in entries),
        *(torch.tensor(values, dtype=torch.float32).to(logits.device, non_blocking=True) for values in settings),
    )


def _counts_before(counts: TokenCounts, guess: Sequence[int]) -> TokenCounts:
    """The counts that hold where the tokens of a guess have been chosen too."""
    if guess:
        counts = counts.copy()
        for token in guess:
            counts.add(token)
    return counts


def _suppress(logits: Tensor, samples: Sequence[tuple[StepContext, int]]) -> Tensor:
    import torch

    places = [
        (row, token)
        for row, (context, i) in enumerate(samples)
        if context.suppressed is not None
        for token in context.suppressed.at(context.position + i)
        if token < logits.shape[1]
    ]
    if places:
        rows, ids = (torch.tensor(side).to(logits.device, non_blocking=True) for side in zip(*places, strict=True))
        logits[rows, ids] = -torch.inf
    return logits
