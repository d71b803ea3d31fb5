"""A transformers causal language model made to run ragged steps over our paged KV cache.

A step is one row of T tokens, `position_ids` [1, T], and one keyword that every attention layer passes on to ours: what
to attend to (`AttentionPlan`) and where KV is kept. transformers' own cache and masks are not used.
"""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from parrot_kernels import (
    AttentionPlan,
    ContextRows,
    HeadShape,
    PlanTooLargeError,
    TileLimits,
    attention,
    backend,
    fits,
    write_kv,
)
from parrot_nb.engine.embedded.cache import KVMemory, LayerShape
from parrot_nb.engine.embedded.fused import FusedDecoder
from parrot_nb.engine.embedded.graphs import Capture, DecodeGraphs, cuda_capture, filled_in
from parrot_nb.engine.embedded.sampling import SamplingRows
from parrot_nb.engine.embedded.step import Chosen, Run, StepBatch, StepContext
from parrot_nb.errors import UnsupportedModelError

ATTENTION_NAME = "parrot"
TRIAL_TOKENS = 12
TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 5e-2, torch.float16: 1e-2, torch.float64: 1e-6}  # of the largest logit


@dataclass
class _Probe:
    """What attention layers get during the trial at load: they leave their shapes."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)


def _attention(
    module: torch.nn.Module,
    query: Tensor,  # [1, Hq, T, D]
    key: Tensor,  # [1, Hkv, T, D]
    value: Tensor,  # [1, Hkv, T, Dv]
    attention_mask: Tensor | None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    parrot: Run | _Probe | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; returns [1, T, Hq, Dv]."""
    layer = getattr(module, "layer_idx", None)
    if parrot is None or layer is None or not getattr(module, "is_causal", True):
        raise UnsupportedModelError(
            f"{type(module).__name__} does not attend causally over one sequence: the embedded engine cannot run it."
        )
    rows = query[0].transpose(0, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    if isinstance(parrot, _Probe):
        shape = LayerShape(query.shape[1], key.shape[1], key.shape[3], value.shape[3])
        if parrot.shapes.setdefault(layer, shape) != shape:
            raise UnsupportedModelError(f"Layer {layer} attends twice in different shapes: the embedded engine cannot run it.")
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
    k_cache, v_cache = parrot.memory.keys[layer], parrot.memory.values[layer]
    write_kv(key[0].transpose(0, 1), value[0].transpose(0, 1), k_cache, v_cache, parrot.plan.new_slots)
    out = attention(rows, k_cache, v_cache, parrot.plan, scale=scale, window=sliding_window, softcap=softcap, sinks=s_aux)
    return out[None], None


AttentionInterface.register(ATTENTION_NAME, _attention)


class StepModel:
    """A loaded model that computes steps. Its methods run in the engine's worker thread.

    Args:
        model: a transformers causal language model, in eval mode, with `attn_implementation` ATTENTION_NAME.
        off: optimisations to do without: "two_phase" (attention reads shared tokens once for all), "fused" (large
            operations in place of transformers' modules).

    Raises:
        UnsupportedModelError: not every layer attends through us, so that its state would not be in our cache.
    """

    def __init__(self, model: Any, off: Collection[str] = ()) -> None:
        self._model = model
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._off = off
        self._fused: FusedDecoder | None = None
        self.shapes = self._probe()
        shape = next(iter(self.shapes.values()))  # layers differ little; what pays for one pays for all
        self._heads = HeadShape(shape.num_heads, shape.num_kv_heads, shape.key_dim, shape.value_dim, self.dtype.itemsize)
        self._costs = None if "two_phase" in off else self._heads.costs(self.device)
        self._tiled: TileLimits | None = None
        self._graphs: DecodeGraphs | None = None
        self._chosen: Tensor | None = None  # by the step before
        self._memory: KVMemory | None = None
        self._page_size = 0

    def _probe(self) -> dict[int, LayerShape]:
        """Run two tokens, and learn what every layer keeps."""
        probe = _Probe()
        try:
            self._forward([0, 0], [0, 1], probe, [1])
        except UnsupportedModelError:
            raise
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, IndexError, KeyError) as error:
            raise UnsupportedModelError(
                f"{type(self._model).__name__} cannot run ragged steps ({type(error).__name__}: {error}): the embedded engine cannot run it."
            ) from error
        num_layers = self._model.config.get_text_config().num_hidden_layers
        if len(probe.shapes) != num_layers:
            raise UnsupportedModelError(
                f"{type(self._model).__name__} has {num_layers} layers, of which {len(probe.shapes)} are attention layers that the embedded "
                "engine can serve: state-space and linear-attention layers keep a state that it does not hold."
            )
        return probe.shapes

    def bytes_per_token(self) -> int:
        """KV memory that one token takes, over all layers."""
        return sum(shape.num_bytes(self.dtype.itemsize) for shape in self.shapes.values())

    def allocate(self, num_pages: int, page_size: int) -> None:
        """Make the cache's memory, and choose how steps are computed on it."""
        self._page_size = page_size
        # One page more than the pool has: rows that fill up a captured graph write there.
        self._memory = KVMemory(self.shapes, (num_pages + 1) * page_size, self.dtype, self.device)
        if "fused" not in self._off:
            self._fuse()
        if self.device.type == "cuda" and self._tileable():
            self.use_tiles(2 * torch.cuda.get_device_properties(self.device).multi_processor_count, cuda_capture(), num_pages)

    def _tileable(self) -> bool:
        heads = {(shape.num_heads, shape.num_kv_heads) for shape in self.shapes.values()}
        return len(heads) == 1 and all(
            fits(s.num_heads, s.num_kv_heads, s.key_dim, s.value_dim) and self.dtype.itemsize <= 4 for s in self.shapes.values()
        )

    def use_tiles(self, target_programs: int, capture: Capture, num_pages: int) -> None:
        """Attend by the Triton kernel from now on, and run decode steps as graphs where the decoder is fused."""
        assert self._memory is not None
        self._tiled = TileLimits(target_programs)
        if self._fused is not None and "graphs" not in self._off:
            self._graphs = DecodeGraphs(
                self._decode,
                self._memory,
                num_pages=num_pages,
                page_size=self._page_size,
                shape=self._heads,
                costs=self._costs,
                target_programs=target_programs,
                device=self.device,
                capture=capture,
            )

    def _fuse(self) -> None:
        """Take the fused decoder if there is one for this model and it gives the same logits on a trial."""
        assert self._memory is not None
        num_tokens = min(TRIAL_TOKENS, self._page_size)
        plan = AttentionPlan.build([ContextRows(0, num_tokens, [0])], self._page_size, self.device)
        trial = list(range(num_tokens)), list(range(num_tokens)), Run(plan, self._memory), list(range(num_tokens))
        expected = self._forward(*trial)
        try:
            self._fused = FusedDecoder(self._model)
        except LookupError:
            return
        found = self._forward(*trial)
        tolerance = TOLERANCE[self.dtype] * float(expected.nan_to_num().abs().max())
        if not torch.allclose(found, expected, rtol=0, atol=tolerance, equal_nan=True):
            self._fused = None
            warnings.warn(
                f"{type(self._model).__name__} computes otherwise than its class suggests: its own modules are used.",
                stacklevel=2,
            )

    @property
    def swapped(self) -> tuple[str, ...]:
        """What runs in place of transformers' own modules and functions."""
        parts = ("attention over shared pages",) + (() if self._fused is None else self._fused.parts)
        if self._tiled is not None:
            parts += ("Triton kernels",)
        return parts + (("decode steps as CUDA graphs",) if self._graphs is not None else ())

    def release(self) -> None:
        """Drop weights and cache."""
        self._memory = None
        self._model = self._fused = self._graphs = self._chosen = None

    def step(self, batch: StepBatch) -> Chosen:
        """Compute one ragged step, or have the device begin to."""
        self._chosen = self._attempt(batch)
        return Chosen(self._chosen)

    def _attempt(self, batch: StepBatch) -> Tensor | None:
        assert self._memory is not None, "allocate() comes first"
        with torch.inference_mode():
            self._memory.copy(batch.copies, self._page_size)
            if self._tiled is None and self.device.type == "cpu":
                return self._step(batch.contexts)
            try:
                return self._step(batch.contexts)
            except Exception as error:
                if not _is_from_triton(error):
                    raise
                self._tiled = self._graphs = None
                backend.disable()
                warnings.warn(f"A Triton kernel failed ({type(error).__name__}: {error}): torch runs them now.", stacklevel=2)
                return self._step(batch.contexts)  # what the failed attempt wrote is written again

    def _step(self, contexts: Sequence[StepContext]) -> Tensor | None:
        assert self._memory is not None
        if self._graphs is not None and self._graphs.serves(contexts):
            try:
                return self._graphs.step(contexts, self._chosen)
            except PlanTooLargeError:
                pass  # computed without a graph
        rows = [ContextRows(c.start, len(c.token_ids), c.pages) for c in contexts]
        plan = AttentionPlan.build(rows, self._page_size, self.device, shape=self._heads, costs=self._costs, tiled=self._tiled)
        run = Run(plan, self._memory)
        token_ids = filled_in([token for c in contexts for token in c.token_ids], contexts, self._chosen, self.device)
        positions = [c.start + i for c in contexts for i in range(len(c.token_ids))]
        sampled_rows, row = [], 0
        samplings, seeds, sample_positions = [], [], []
        for context in contexts:
            row += len(context.token_ids)
            for i in range(context.num_samples):
                assert context.sampling is not None
                sampled_rows.append(row - context.num_samples + i)
                samplings.append(context.sampling)
                seeds.append(context.seed)
                sample_positions.append(context.position + i)
        logits = self._forward(token_ids, positions, run, sampled_rows)
        return SamplingRows.of(samplings, seeds, sample_positions, self.device).sample(logits) if samplings else None

    def _decode(self, token_ids: Tensor, positions: Tensor, run: Run, rows: SamplingRows) -> Tensor:
        """A decode step on tensors alone: the chosen tokens, int64 [B]."""
        assert self._fused is not None
        return rows.sample(self._fused(token_ids, positions, run, None))

    def _forward(
        self, token_ids: Tensor | Sequence[int], positions: Sequence[int], parrot: Run | _Probe, rows: Sequence[int]
    ) -> Tensor:
        """Logits [len(rows), V] after the given rows."""
        keep = torch.tensor(rows or [0], device=self.device)  # an empty selection means "all" to some models
        with torch.inference_mode():
            if self._fused is not None and isinstance(parrot, Run):
                where = torch.tensor(positions, device=self.device)
                return self._fused(torch.as_tensor(token_ids, device=self.device), where, parrot, keep)
            out = self._model(
                input_ids=torch.as_tensor(token_ids, device=self.device)[None],
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                parrot=parrot,
                **({"logits_to_keep": keep} if self._keeps_logits else {}),
            )
        logits: Tensor = out.logits[0]
        return logits if self._keeps_logits else logits[keep]


def _is_from_triton(error: BaseException) -> bool:
    """Whether a kernel could not be compiled or launched; memory that runs out is another matter."""
    return type(error).__module__.partition(".")[0] == "triton" and not isinstance(error, MemoryError)
