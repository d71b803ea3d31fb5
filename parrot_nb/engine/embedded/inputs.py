"""Inputs of a step besides weights and KV: built on the host, moved in one copy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.embedded.step import StepContext
from parrot_nb.engine.protocol import Sampling

KNOWN = -1  # source of a row whose token is known
GREEDY = Sampling(max_tokens=1)


@dataclass(frozen=True, slots=True)
class StepInputs:
    """The tensors of a step of T rows, of which S are sampled, all on the host or all on the device.

    Attributes:
        token_ids: int64 [T]; those that are not known yet are 0.
        sources: int64 [T], which sample of the step before is a row's token; `KNOWN` where it is known. None if all are.
        positions: int64 [T].
        keep: int64 [K], the rows whose logits are needed; None for all.
        plan: of the attention.
        sampling: of the S samples.
    """

    token_ids: Tensor
    sources: Tensor | None
    positions: Tensor
    keep: Tensor | None
    plan: AttentionPlan
    sampling: SamplingRows

    @classmethod
    def of(
        cls,
        contexts: Sequence[StepContext],
        plan: AttentionPlan,
        *,
        padded_to: int | None = None,
        num_samples: int | None = None,
    ) -> StepInputs:
        """Return the inputs of a step on the host.

        Args:
            contexts: of the step, in order.
            plan: of their rows; on the host.
            padded_to: number of rows up to which rows follow that nobody reads: the inputs of a graph, whose sources are always
                there. Without `num_samples` the logits of all rows are needed.
            num_samples: number of samples up to which samples of the first row follow that nobody reads.
        """
        padding = [0] * (0 if padded_to is None else padded_to - sum(len(c.token_ids) for c in contexts))
        token_ids = [token for c in contexts for token in c.token_ids] + padding
        positions = [c.start + i for c in contexts for i in range(len(c.token_ids))] + padding
        sources = None
        if padded_to is not None or any(c.after is not None for c in contexts):
            of_each = [KNOWN if c.after is None else c.after for c in contexts for _ in c.token_ids]
            sources = torch.tensor(of_each + [KNOWN] * len(padding))
        keep: list[int] = []
        row = 0
        for context in contexts:
            row += len(context.token_ids)
            keep += range(row - context.num_samples, row)
        samples = [(c, i) for c in contexts for i in range(c.num_samples)]
        spare = padding if num_samples is None else [0] * (num_samples - len(samples))
        if num_samples is not None:
            keep += spare
        return cls(
            torch.tensor(token_ids),
            sources,
            torch.tensor(positions),
            torch.tensor(keep or [0])
            if padded_to is None or num_samples is not None
            else None,  # an empty selection means "all" to some models
            plan,
            SamplingRows.of(
                [c.sampling or GREEDY for c, _ in samples] + [GREEDY] * len(spare),
                [c.seed for c, _ in samples] + spare,
                [c.position + i for c, i in samples] + spare,
            ),
        )

    def tensors(self) -> list[Tensor]:
        """All tensors, in the order in which `moved` takes them; those of the attention last."""
        found = [self.token_ids, self.positions, *self.sampling.tensors()]
        found += [tensor for tensor in (self.sources, self.keep) if tensor is not None]
        return found if self.plan.tiles is None else [*found, self.plan.new_slots, self.plan.tiles.buffer]

    def needed(self) -> list[Tensor]:
        """All tensors, the last only as far as this step needs it: other steps of the same shapes list more pages."""
        assert self.plan.tiles is not None
        return [*self.tensors()[:-1], self.plan.tiles.buffer[: self.plan.tiles.num_used]]

    def moved(self, tensors: Sequence[Tensor]) -> StepInputs:
        """Return the same inputs in other tensors, of the shapes and in the order of `tensors`."""
        rest = iter(tensors)
        token_ids, positions = next(rest), next(rest)
        sampling = SamplingRows(*(next(rest) for _ in range(6)))
        sources = None if self.sources is None else next(rest)
        keep = None if self.keep is None else next(rest)
        plan = self.plan if self.plan.tiles is None else self.plan.at(next(rest), next(rest))
        return StepInputs(token_ids, sources, positions, keep, plan, sampling)

    def known(self, chosen: Tensor | None) -> Tensor:
        """Return the rows' tokens, int64 [T], with those that the step before chose, which never leave the device. One that could
        not be chosen (-1) fails its context; what follows from it is not read."""
        if self.sources is None:
            return self.token_ids
        assert chosen is not None
        found = chosen.index_select(0, self.sources.clamp_min(0)).clamp_min(0)
        return torch.where(self.sources == KNOWN, self.token_ids, found)
