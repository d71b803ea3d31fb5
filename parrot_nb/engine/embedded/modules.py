"""A transformers causal language model made to run ragged steps over our paged KV cache.

A step is one row of T tokens and `position_ids` [1, T]. What to attend to (`AttentionPlan`) and where KV is kept reaches the
attention function by way of the thread, because not every model hands keywords on to its layers. transformers' own cache and
masks are not used, so what a model does by these alone would be lost: before a model is taken, its logits on a text in two
pieces are compared with those that it gives by itself. Importing this module imports transformers' model classes, which takes
a second.
"""

from __future__ import annotations

import inspect
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor
from transformers import AttentionInterface

from parrot_kernels import AttentionPlan, ContextRows, attention, write_kv
from parrot_nb.engine.embedded.cache import KVMemory, LayerShape
from parrot_nb.engine.embedded.linear import WideLinear
from parrot_nb.engine.embedded.refusals import quoted
from parrot_nb.engine.embedded.step import Run
from parrot_nb.errors import UnsupportedModelError

ATTENTION_NAME = "parrot"
CHECKED_TOKENS = 16  # of the text that shows whether a model computes as it does by itself
CHECK_TOLERANCE = {torch.float32: 1e-3, torch.float64: 1e-6}  # of the largest logit
LOW_PRECISION_TOLERANCE = 5e-2
SCALED = "ScaledWordEmbedding"  # how classes of embeddings that multiply rows by `embed_scale` are called
WIDENED_BYTES = 2**30  # of parameters that are no linear layer's: `in_float32` widens these all at once

_step = threading.local()
_locks: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()  # by module: two engines may share one that a user holds


@dataclass
class _Probe:
    """Stand-in for a run during the trial at load, in which attention layers leave their shapes."""

    shapes: dict[int, LayerShape] = field(default_factory=dict)
    has_window: bool = False


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
    **_: Any,
) -> tuple[Tensor, None]:
    """The attention function that transformers calls; returns [1, T, Hq, Dv]."""
    layer = getattr(module, "layer_idx", None)
    run: Run | _Probe | None = getattr(_step, "run", None)
    if run is None:
        raise UnsupportedModelError("The model is served by a session now: close that first, then call the model itself.")
    if layer is None or not getattr(module, "is_causal", True):
        raise UnsupportedModelError(
            f"{type(module).__name__} does not attend causally over one sequence: the embedded engine cannot run it."
        )
    rows = query[0].transpose(0, 1)
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    if isinstance(run, _Probe):
        run.has_window |= sliding_window is not None
        shape = LayerShape(query.shape[1], key.shape[1], key.shape[3], value.shape[3])
        if run.shapes.setdefault(layer, shape) != shape:
            raise UnsupportedModelError(f"Layer {layer} attends twice in different shapes: the embedded engine cannot run it.")
        return query.new_zeros(1, query.shape[2], query.shape[1], value.shape[3]), None
    k_cache, v_cache = run.memory.keys[layer], run.memory.values[layer]
    write_kv(key[0].transpose(0, 1), value[0].transpose(0, 1), k_cache, v_cache, run.plan.new_slots)
    out = attention(rows, k_cache, v_cache, run.plan, scale=scale, window=sliding_window, softcap=softcap, sinks=s_aux)
    return out[None], None


@contextmanager
def _attending(run: Run | _Probe) -> Iterator[None]:
    _step.run = run
    try:
        yield
    finally:
        del _step.run


AttentionInterface.register(ATTENTION_NAME, _attention)


class ModulesDecoder:
    """A model of transformers that computes logits on our pages.

    Args:
        model: a transformers causal language model, in eval mode, with `attn_implementation` ATTENTION_NAME.

    Raises:
        UnsupportedModelError: not every layer attends through us, so that its state would not be in our cache, or the model gives
            other logits by itself.
    """

    parts: tuple[str, ...] = ()

    def __init__(self, model: Any) -> None:
        self.model = model
        self._alone = _locks.setdefault(model, threading.RLock())  # held while the module computes, or is changed to compare
        self.name = type(model).__name__
        self.device: torch.device = next(model.parameters()).device
        self.dtype: torch.dtype = next(p.dtype for p in model.parameters() if p.is_floating_point())
        self.num_embeddings: int = model.get_input_embeddings().weight.shape[0]
        self._keeps_logits = "logits_to_keep" in inspect.signature(model.forward).parameters
        self.shapes = self._probe()
        self.check()

    def _probe(self) -> dict[int, LayerShape]:
        """Run two tokens, and learn what every layer keeps."""
        probe = _Probe()
        two = torch.arange(2, device=self.device)
        with torch.inference_mode(), self._refusing():
            self(torch.zeros_like(two), two, probe, two[1:])
        text = self.model.config.get_text_config()
        num_layers = getattr(text, "num_hidden_layers", len(probe.shapes))
        if not probe.shapes:
            raise UnsupportedModelError(
                f"{self.name} does not attend through transformers' AttentionInterface in any layer: the embedded engine cannot "
                "run it."
            )
        if len(probe.shapes) != num_layers:
            raise UnsupportedModelError(
                f"{self.name} has {num_layers} layers, of which {len(probe.shapes)} are attention layers that the embedded "
                "engine can serve: state-space and linear-attention layers keep a state that it does not hold."
            )
        if _has_windows(text) and not probe.has_window:
            raise UnsupportedModelError(
                f"{self.name} keeps its sliding window in masks that the embedded engine does not use: it cannot run it."
            )
        return probe.shapes

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        """Turn what goes wrong in a trial into a reason not to run the model."""
        try:
            yield
        except (TypeError, ValueError, RuntimeError, AttributeError, NotImplementedError, IndexError, KeyError) as error:
            if isinstance(error, (UnsupportedModelError, torch.OutOfMemoryError)):
                raise
            raise UnsupportedModelError(
                f"{self.name} cannot run ragged steps ({type(error).__name__}: {quoted(error)}): the embedded engine cannot run it."
            ) from error

    def check(self) -> None:
        """Compare the logits of a text in two pieces on pages with those that the model gives by itself; in float32 where that
        can be had, since rounding to a narrower dtype can turn a text of such tokens into another.

        Raises:
            UnsupportedModelError: they differ by more than rounding.
        """
        widens = self._widens()
        with self._alone, torch.inference_mode(), self._refusing(), self.in_float32() if widens else nullcontext():
            alike = self._computes_as_by_itself(torch.float32 if widens else self.dtype)
        if not alike:
            raise UnsupportedModelError(
                f"{self.name} computes with more than attention over its tokens' positions, and gives other text without it: the "
                "embedded engine cannot run it."
            )

    def _widens(self) -> bool:
        """True if the model is of one narrow dtype, and `in_float32` takes little memory."""
        if self.dtype not in (torch.bfloat16, torch.float16) or any(p.dtype != self.dtype for p in self.model.parameters()):
            return False
        kinds = (torch.nn.Embedding, torch.nn.Linear)
        others = (p for m in self.model.modules() if not isinstance(m, kinds) for p in m._parameters.values() if p is not None)
        num_numbers: int = sum(p.numel() for p in others)
        return num_numbers * torch.float32.itemsize <= WIDENED_BYTES

    def _computes_as_by_itself(self, dtype: torch.dtype) -> bool:
        size, vocab = CHECKED_TOKENS, self.model.get_input_embeddings().weight.shape[0]
        token_ids = torch.arange(1, size + 1, device=self.device) * (vocab // (size + 2))  # all over the vocabulary
        positions = torch.arange(size, device=self.device)
        expected = self._by_itself(token_ids, positions)
        memory = KVMemory(self.shapes, 2 * size, dtype, self.device)
        found, half = [], size // 2
        for piece in (slice(0, half), slice(half, size)):
            rows = ContextRows(piece.start, piece.stop - piece.start, [1])
            run = Run(AttentionPlan.build([rows], size, self.device), memory)
            found.append(self(token_ids[piece], positions[piece], run, None))
        return _alike(torch.cat(found), expected)

    def _by_itself(self, token_ids: Tensor, positions: Tensor) -> Tensor:
        """The logits by transformers' own attention and masks."""
        self.model.set_attn_implementation("eager")
        try:
            logits: Tensor = self.model(input_ids=token_ids[None], position_ids=positions[None], use_cache=False).logits[0]
        finally:
            self.model.set_attn_implementation(ATTENTION_NAME)
        return logits

    @contextmanager
    def in_float32(self) -> Iterator[None]:
        """A context in which the model computes in float32, for comparison; its weights are widened some at a time."""
        with self._alone, ExitStack() as undo:
            for module in self.model.modules():
                if type(module).__name__.endswith(SCALED):
                    module.__dict__["forward"] = _WideScaledEmbedding(module)
                    undo.callback(module.__dict__.pop, "forward")
                elif isinstance(module, torch.nn.Embedding):
                    undo.callback(module.register_forward_hook(lambda _module, _inputs, out: out.float()).remove)
                elif type(module) is torch.nn.Linear:
                    module.__dict__["forward"] = WideLinear(module)
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
        with self._alone, _attending(run):
            out = self.model(
                input_ids=token_ids[None],
                position_ids=positions[None],
                use_cache=False,
                **({"logits_to_keep": rows} if keeps else {}),
            )
        logits: Tensor = out.logits[0]
        return logits if keeps or rows is None else logits[rows]


class _WideScaledEmbedding:
    """Computes a scaled embedding's rows in float32, from its narrow weight."""

    def __init__(self, module: Any) -> None:
        self._module = module

    def __call__(self, token_ids: Tensor) -> Tensor:
        weight, scale = self._module.weight, self._module.embed_scale
        scale = scale.to(weight.dtype).float() if isinstance(scale, Tensor) else scale
        return torch.nn.functional.embedding(token_ids, weight).float() * scale


def _has_windows(config: Any) -> bool:
    """Whether a config asks for layers that see only so many tokens back."""
    kinds = getattr(config, "layer_types", None)
    if kinds is not None:
        return "sliding_attention" in kinds
    return bool(getattr(config, "sliding_window", None)) and getattr(config, "use_sliding_window", True) is not False


def _alike(found: Tensor, expected: Tensor) -> bool:
    """Whether logits [T, V] differ by no more than rounding in most rows; a few may be chaotic in coarse dtypes."""
    tolerance = CHECK_TOLERANCE.get(expected.dtype, LOW_PRECISION_TOLERANCE)
    found, expected = found.float().nan_to_num(), expected.float().nan_to_num()
    differences = (found - expected).abs().amax(1) / expected.abs().amax().clamp(min=1e-30)
    exact = tolerance < LOW_PRECISION_TOLERANCE
    return bool((differences.amax() if exact else differences.median()) <= tolerance)
