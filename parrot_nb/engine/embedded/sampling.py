"""How each row of a step samples, as tensors for `parrot_kernels.sample_tokens`, and what it chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from parrot_nb.engine.protocol import Sampling

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True, slots=True)
class SamplingRows:
    """B rows' settings, as `sample_tokens` takes them; all [B]."""

    temperature: Tensor  # float32
    top_k: Tensor  # int32
    top_p: Tensor  # float32
    min_p: Tensor  # float32
    seeds: Tensor  # int64
    positions: Tensor  # int64

    @classmethod
    def of(
        cls, samplings: Sequence[Sampling], seeds: Sequence[int], positions: Sequence[int], device: torch.device | str = "cpu"
    ) -> Self:
        """From the rows' samplings, their generations' seeds, and how many tokens these have sampled before."""
        import torch

        def tensor(values: list[float] | Sequence[int], dtype: torch.dtype) -> Tensor:
            return torch.tensor(values, dtype=dtype).to(device, non_blocking=True)

        return cls(
            tensor([s.temperature for s in samplings], torch.float32),
            tensor([s.top_k for s in samplings], torch.int32),
            tensor([s.top_p for s in samplings], torch.float32),
            tensor([s.min_p for s in samplings], torch.float32),
            tensor(seeds, torch.int64),
            tensor(positions, torch.int64),
        )


def sample(logits: Tensor, samplings: Sequence[Sampling], seeds: Sequence[int], positions: Sequence[int]) -> list[int | None]:
    """Choose one token per row.

    Args:
        logits: [B, V], any float dtype.
        samplings: B, how each row chooses.
        seeds: B, of each row's generation.
        positions: B, how many tokens each generation has sampled before.

    Returns:
        B token ids; None for a row whose logits hold NaN or no finite value.
    """
    from parrot_kernels import NO_TOKEN, sample_tokens

    rows = SamplingRows.of(samplings, seeds, positions, logits.device)
    chosen = sample_tokens(logits, rows.temperature, rows.top_k, rows.top_p, rows.min_p, rows.seeds, rows.positions)
    return [None if token == NO_TOKEN else token for token in chosen.tolist()]
