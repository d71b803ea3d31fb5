"""A transformers causal language model made to run ragged steps over our paged KV cache.

A step is one row of T tokens, `position_ids` [1, T], and one keyword that every attention layer passes on to ours: what
to attend to (`AttentionPlan`) and where KV is kept. transformers' own cache and masks are not used.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from parrot_kernels import AttentionPlan, ContextRows, attention, write_kv
from parrot_nb.engine.embedded.cache import KVMemory, LayerShape
from parrot_nb.engine.embedded.sampling import sample
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import UnsupportedModelError

ATTENTION_NAME = "parrot"


@dataclass(frozen=True, slots=True)
class StepContext:
    """One context's part in a step: its tokens `start` to `start + len(token_ids)`, and how to sample after the last.

    `sampling` is None where nothing is sampled; `seed` and `position` are the generation's.
    """

    token_ids: tuple[int, ...]
    start: int
    pages: tuple[int, ...]
    sampling: Sampling | None
    seed: int
    position: int


@dataclass(frozen=True, slots=True)
class _Run:
    """What attention layers get during a step."""

    plan: AttentionPlan
    memory: KVMemory


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
    parrot: _Run | _Probe | None = None,
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
        shape = LayerShape(key.shape[1], key.shape[3], value.shape[3])
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

    Raises:
        UnsupportedModelError: not every layer attends through us, so that its state would not be in our cache.
    """

    def __init__(self, model: Any) -> None:
        self._model = model
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.shapes = self._probe()
        self._memory: KVMemory | None = None

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

    def allocate(self, num_slots: int) -> None:
        """Make the cache's memory."""
        self._memory = KVMemory(self.shapes, num_slots, self.dtype, self.device)

    def release(self) -> None:
        """Drop weights and cache."""
        self._memory = None
        self._model = None

    def step(self, contexts: Sequence[StepContext], page_size: int) -> list[int | None]:
        """Compute one ragged step; returns, for each context that samples, its token, or None for unusable logits."""
        assert self._memory is not None, "allocate() comes first"
        rows = [ContextRows(c.start, len(c.token_ids), c.pages) for c in contexts]
        run = _Run(AttentionPlan.build(rows, page_size, self.device), self._memory)
        token_ids = [token for c in contexts for token in c.token_ids]
        positions = [c.start + i for c in contexts for i in range(len(c.token_ids))]
        last_rows, sampled, row = [], [], 0
        for context in contexts:
            row += len(context.token_ids)
            if context.sampling is not None:
                last_rows.append(row - 1)
                sampled.append(context)
        logits = self._forward(token_ids, positions, run, last_rows)
        if not sampled:
            return []
        samplings = [c.sampling for c in sampled if c.sampling is not None]
        return sample(logits, samplings, [c.seed for c in sampled], [c.position for c in sampled])

    def _forward(self, token_ids: Sequence[int], positions: Sequence[int], parrot: _Run | _Probe, rows: Sequence[int]) -> Tensor:
        """Logits [len(rows), V] after the given rows."""
        keep = torch.tensor(rows or [0], device=self.device)  # an empty selection means "all" to some models
        with torch.inference_mode():
            out = self._model(
                input_ids=torch.tensor([token_ids], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=False,
                parrot=parrot,
                **({"logits_to_keep": keep} if self._keeps_logits else {}),
            )
        logits: Tensor = out.logits[0]
        return logits if self._keeps_logits else logits[keep]
