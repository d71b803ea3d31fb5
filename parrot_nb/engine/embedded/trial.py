"""Trials of what replaces a model's own modules: does it compute the logits that the model has on ordinary text?

In float32 two right ways of computing a model agree to some millionths. In bfloat16 and float16 they do not: every operation
rounds, and models amplify that, on control tokens until the logits of two right decoders have little in common. So a trial runs
prose, and asks two questions of a decoder in a narrow dtype:

1. Is it the same function? Both are computed in float32, from the same weights, of which some rows at a time are widened: that
   takes no second copy, whatever the size of the model. Here a wrong constant shows.
2. Are its roundings as good? Its own logits must be about as near to those in float32 as the logits that the model's own
   modules have in that dtype. Single rows of two right decoders may differ by more, so all rows count together.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from parrot_kernels import AttentionPlan, ContextRows, Costs, HeadShape, TileLimits
from parrot_nb.engine.embedded.cache import KVMemory, LayerShape
from parrot_nb.engine.embedded.step import Run

TEXT = (
    "The harbour was quiet when the first boats came in. Two men carried a crate of apples up the steps, and a woman at the "
    "window counted them: twelve, perhaps thirteen. She had lived above the market for 40 years and knew every sound of it.\n"
    "Later that morning it began to rain. The price of bread had gone up again, so most people walked past the bakery."
)
SHORT, BEYOND = 12, 5  # tokens of a prompt shorter than a page, and how many a prompt exceeds a page by
SAME = 1e-3  # deviation of two float32 computations up to which they are of the same function
ROUNDED = {torch.bfloat16: 1e-2, torch.float16: 2e-3}  # what a narrower dtype may deviate by in any case: a few roundings
TIMES = 3.0  # else so many times what the model's own modules deviate by; right decoders were seen at 0.9 to 1.5 times


class Computes(Protocol):
    """Computes logits on pages; see `Decoder`."""

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run, rows: Tensor | None) -> Tensor:
        """Logits after the given rows, or after all."""
        ...


@dataclass(frozen=True, slots=True)
class Tiled:
    """Settings of tiled attention by Triton's kernel, as `AttentionPlan.build` takes them."""

    shape: HeadShape
    costs: Costs | None
    limits: TileLimits


class Trial:
    """Steps on ordinary text: prompts of several lengths in one ragged step, then one more token after the longest.

    The prompts have one token, `SHORT`, a page, and more than a page. The step after them has a single row: products, kernels
    and compilers have a path of their own for that.

    Args:
        token_ids: of ordinary text, in the model's tokens; repeated where there are too few.
        page_size: tokens per page.
        shapes: of what each layer keeps, by the layer's index.
        device: where the model is.
    """

    def __init__(self, token_ids: Sequence[int], page_size: int, shapes: Mapping[int, LayerShape], device: torch.device) -> None:
        self._page_size, self._shapes, self._device = page_size, dict(shapes), device
        longest = page_size + BEYOND
        tokens = [token_ids[i % len(token_ids)] for i in range(longest + 1)]
        self._prompts = [tokens[:length] for length in sorted({1, min(SHORT, page_size), page_size, longest})]
        self._next = tokens[longest]

    def logits(self, decoder: Computes, dtype: torch.dtype, tiled: Tiled | None = None) -> Tensor:
        """Compute the logits after every token, float32 [tokens, V], with a cache of a dtype; by tiles if they are given."""
        size, rows, first = self._page_size, [], 0
        for prompt in self._prompts:
            pages = range(first, first + len(prompt) // size + 1)  # with room for one token more
            rows.append(ContextRows(0, len(prompt), list(pages)))
            first = pages.stop
        memory = KVMemory(self._shapes, first * size, dtype, self._device)
        tokens = [token for prompt in self._prompts for token in prompt]
        positions = [i for prompt in self._prompts for i in range(len(prompt))]
        longest = rows[-1]
        after = ContextRows(longest.num_new_tokens, 1, longest.pages)
        with torch.inference_mode():
            whole = self._step(decoder, tokens, positions, rows, memory, tiled)
            one = self._step(decoder, [self._next], [longest.num_new_tokens], [after], memory, tiled)
            return torch.cat([whole, one])

    def _step(
        self,
        decoder: Computes,
        tokens: list[int],
        positions: list[int],
        rows: list[ContextRows],
        memory: KVMemory,
        tiled: Tiled | None,
    ) -> Tensor:
        if tiled is None:
            plan = AttentionPlan.build(rows, self._page_size, self._device)
        else:
            shape, costs, limits = tiled.shape, tiled.costs, tiled.limits
            plan = AttentionPlan.build(rows, self._page_size, self._device, shape=shape, costs=costs, tiled=limits)
        run = Run(plan, memory)
        keep = torch.arange(len(tokens), device=self._device)
        ids, where = torch.tensor(tokens, device=self._device), torch.tensor(positions, device=self._device)
        return decoder(ids, where, run, keep).float()


@dataclass(frozen=True, slots=True)
class Outcome:
    """Deviations that a trial found, as `deviation` measures them.

    Attributes:
        apart: of the replacement from what it replaces, both in float32; None where that was not compared.
        found: of the replacement from the model in float32; None where the dtype is no narrower.
        own: of what it replaces, likewise.
    """

    dtype: torch.dtype
    apart: float | None = None
    found: float | None = None
    own: float | None = None

    @property
    def is_same(self) -> bool:
        """True if both are the same function in float32, as far as that was compared."""
        return self.apart is None or self.apart <= SAME

    @property
    def passed(self) -> bool:
        """True if the replacement may be used."""
        if self.found is None or self.own is None:
            return self.is_same
        return self.is_same and self.found <= max(ROUNDED[self.dtype], TIMES * self.own)

    def __str__(self) -> str:
        """The figures as a clause."""
        figures = []
        if self.apart is not None:
            allowed = "" if self.is_same else f", where {_percent(SAME)} is allowed"
            figures.append(f"in float32 its logits deviate by {_percent(self.apart)} from the model's own{allowed}")
        if self.found is not None and self.own is not None:
            dtype = str(self.dtype).removeprefix("torch.")
            figures.append(
                f"in {dtype} its logits deviate by {_percent(self.found)} from float32, the model's own by {_percent(self.own)}"
            )
        return "; ".join(figures)


def is_narrow(dtype: torch.dtype) -> bool:
    """Return True if logits in a dtype are compared with float32."""
    return dtype in ROUNDED


def deviation(found: Tensor, expected: Tensor, *, worst: bool = False) -> float:
    """Return the root mean square by which logits [T, V] differ, relative to that of the expected ones.

    Args:
        found: float32; infinite is the result where it has a NaN that the expected ones have not.
        expected: float32; rows that are not finite do not count.
        worst: of the worst row, not of all together.
    """
    counted = expected.isfinite().all(-1)
    if not bool(counted.any()):
        return 0.0
    found, expected = found[counted], expected[counted]
    if not bool(found.isfinite().all()):
        return float("inf")
    apart, size = (found - expected).square().mean(-1), expected.square().mean().sqrt()
    off = apart.max() if worst else apart.mean()
    return float(off.sqrt() / size.clamp_min(torch.finfo(torch.float32).tiny))


def _percent(share: float) -> str:
    if share >= 1:
        return f"{100 * share:.0f} %" if share < float("inf") else "NaN"
    return f"{100 * share:.2g} %" if share >= 1e-5 else "less than 0.001 %"
