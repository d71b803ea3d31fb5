"""A transformers causal language model made to run ragged steps over our paged KV cache.

A step is one row of T tokens, `position_ids` [1, T], and one keyword that every attention layer passes on to ours: what
to attend to (`AttentionPlan`) and where KV is kept. transformers' own cache and masks are not used. Importing this module
imports transformers' model classes, which takes a second.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from parrot_kernels import attention, write_kv
from parrot_nb.engine.embedded.cache import LayerShape
from parrot_nb.engine.embedded.linear import WideLinear
from parrot_nb.engine.embedded.step import Run
from parrot_nb.errors import UnsupportedModelError

ATTENTION_NAME = "parrot"


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


class ModulesDecoder:
    """A model of transformers that computes logits on our pages.

    Args:
        model: a transformers causal language model, in eval mode, with `attn_implementation` ATTENTION_NAME.

    Raises:
        UnsupportedModelError: not every layer attends through us, so that its state would not be in our cache.
    """

    parts: tuple[str, ...] = ()

    def __init__(self, model: Any) -> None:
        self.model = model
        self.name = type(model).__name__
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.shapes = self._probe()

    def _probe(self) -> dict[int, LayerShape]:
        """Run two tokens, and learn what every layer keeps."""
        probe = _Probe()
        two = torch.arange(2, device=self.device)
        try:
            with torch.inference_mode():
                self(torch.zeros_like(two), two, probe, two[1:])
        except UnsupportedModelError:
            raise
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, IndexError, KeyError) as error:
            raise UnsupportedModelError(
                f"{self.name} cannot run ragged steps ({type(error).__name__}: {error}): the embedded engine cannot run it."
            ) from error
        num_layers = self.model.config.get_text_config().num_hidden_layers
        if len(probe.shapes) != num_layers:
            raise UnsupportedModelError(
                f"{self.name} has {num_layers} layers, of which {len(probe.shapes)} are attention layers that the embedded "
                "engine can serve: state-space and linear-attention layers keep a state that it does not hold."
            )
        return probe.shapes

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """A context in which the model computes in float32, for comparison; its weights are widened some at a time."""
        with ExitStack() as undo:
            for module in self.model.modules():
                if isinstance(module, torch.nn.Embedding):
                    undo.callback(module.register_forward_hook(lambda _module, _inputs, out: out.float()).remove)
                elif type(module) is torch.nn.Linear:
                    module.__dict__["forward"] = WideLinear(module.weight, module.bias)
                    undo.callback(module.__dict__.pop, "forward")
                else:  # norms and the like, which are small
                    own = {name: weight for name, weight in module._parameters.items() if weight is not None}
                    wide = {name: torch.nn.Parameter(w.float(), requires_grad=False) for name, w in own.items()}
                    module._parameters.update(wide)
                    undo.callback(module._parameters.update, own)
            yield

    def __call__(self, token_ids: Tensor, positions: Tensor, run: Run | _Probe, rows: Tensor | None) -> Tensor:
        """Logits [len(rows), V] after the given rows, or after all; token_ids and positions are int64 [T]."""
        keeps = self._keeps_logits and rows is not None
        out = self.model(
            input_ids=token_ids[None],
            position_ids=positions[None],
            use_cache=False,
            parrot=run,
            **({"logits_to_keep": rows} if keeps else {}),
        )
        logits: Tensor = out.logits[0]
        return logits if keeps or rows is None else logits[rows]
