"""Sampling of each row of a step, as tensors for `parrot_kernels.sample_tokens`, and what it chose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from parrot_nb.engine.protocol import Sampling

if TYPE_CHECKING:
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
    def of(cls, samplings: Sequence[Sampling], seeds: Sequence[int], positions: Sequence[int]) -> Self:
        """Build from the rows' samplings, their generations' seeds, and how many tokens they have sampled before; on the host."""
        import torch

        return cls(
            torch.tensor([s.temperature for s in samplings], dtype=torch.float32),
            torch.tensor([s.top_k for s in samplings], dtype=torch.int32),
            torch.tensor([s.top_p for s in samplings], dtype=torch.float32),
            torch.tensor([s.min_p for s in samplings], dtype=torch.float32),
            torch.tensor(seeds, dtype=torch.int64),
            torch.tensor(positions, dtype=torch.int64),
        )

    def tensors(self) -> list[Tensor]:
        """The settings in the order of the attributes, to be moved and given to the class again."""
        return [self.temperature, self.top_k, self.top_p, self.min_p, self.seeds, self.positions]

    def sample(self, logits: Tensor) -> Tensor:
        """Logits [B, V] -> int64 [B], -1 where they are unusable; on the device, without waiting for it."""
        from parrot_kernels import sample_tokens

        return sample_tokens(logits, self.temperature, self.top_k, self.top_p, self.min_p, self.seeds, self.positions)


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
    host = SamplingRows.of(samplings, seeds, positions)
    chosen = SamplingRows(*(tensor.to(logits.device) for tensor in host.tensors())).sample(logits)
    return [token if token >= 0 else None for token in chosen.tolist()]
