"""A model that the user holds, say just fine-tuned: served as it is, and given back as it was.

The engine computes with the module's own weights. While it needs the module itself, the module is in eval mode and attends
through the engine; what was changed for that is put back as soon as a fused decoder has taken the module's place, or else
when the last engine that uses it is closed.
"""

from __future__ import annotations

import threading
from typing import Any
from weakref import WeakKeyDictionary

from parrot_nb.errors import ModelLoadError, UnsupportedModelError


def check_module(module: Any, tokenizer: Any) -> None:
    """Refuse what cannot be served.

    Raises:
        ModelLoadError: not a model of transformers with its tokenizer, or weights that are not there.
        UnsupportedModelError: a model that writes no text, or whose weights are quantised.
    """
    from transformers import PreTrainedModel

    kind = type(module).__name__
    if hasattr(module, "merge_and_unload"):
        raise ModelLoadError(f"A {kind} is an adapter over a model: merge it first, with model.merge_and_unload().")
    if not isinstance(module, PreTrainedModel):
        raise ModelLoadError(f"model must be a hub id, a path or a model of transformers (PreTrainedModel), not {kind}.")
    if tokenizer is None:
        raise ModelLoadError(f"A {kind} needs its tokenizer: P.Session(model=model, tokenizer=tokenizer).")
    if getattr(tokenizer, "backend_tokenizer", None) is None:
        raise ModelLoadError(f"tokenizer must be a fast tokenizer of transformers, not {type(tokenizer).__name__}.")
    if getattr(module.config, "is_encoder_decoder", False) or not module.can_generate():
        raise UnsupportedModelError(f"A {kind} does not write text as a decoder: give a model whose class is a ...ForCausalLM.")
    weights = [*module.parameters(), *module.buffers()]
    if any(weight.device.type == "meta" for weight in weights):
        raise ModelLoadError(f"The {kind} has weights on the meta device, which holds none: load them, then pass it.")
    if getattr(module, "is_quantized", False) or getattr(module, "quantization_method", None) is not None:
        raise UnsupportedModelError(f"The {kind} has quantised weights: pass its folder or id, or the model before quantising.")
    if len({weight.device for weight in module.parameters()}) > 1:
        raise UnsupportedModelError(f"The {kind} is spread over several devices: move it to one with model.to(device).")


def check_placement(module: Any, device: str, dtype: str) -> None:
    """Refuse settings that ask for another device or dtype than the module has: it is served as it is.

    Raises:
        ModelLoadError: they differ.
    """
    import torch

    own = next(module.parameters()).device
    if device != "auto" and torch.device(device).type != own.type:
        raise ModelLoadError(f"The model is on {own}, not on {device}: move it with model.to('{device}'), or leave out device.")
    own_dtype = str(module.dtype).removeprefix("torch.")
    if dtype not in ("auto", own_dtype):
        raise ModelLoadError(f"The model is in {own_dtype}, not in {dtype}: convert it with model.to(...), or leave out dtype.")


class _Borrowed:
    """Modes, buffers and attention of a module before engines began to use it."""

    def __init__(self, module: Any) -> None:
        from transformers import PreTrainedModel

        self.num_users = 0
        self.training = [(part, part.training) for part in module.modules()]
        self.buffers = [(part, dict(part._buffers)) for part in module.modules() if part._buffers]
        configs = {id(part.config): part.config for part in module.modules() if isinstance(part, PreTrainedModel)}
        self.attention = [(config, config._attn_implementation) for config in configs.values()]

    def put_back(self) -> None:
        """Set modes, buffers and attention to what they were."""
        for part, training in self.training:
            part.training = training
        for part, buffers in self.buffers:  # some rotary embeddings replace theirs as texts get longer
            part._buffers.update(buffers)
        for config, implementation in self.attention:
            config._attn_implementation_internal = implementation


_borrowed: WeakKeyDictionary[Any, _Borrowed] = WeakKeyDictionary()
_lock = threading.Lock()


class Loan:
    """One engine's use of a module that the user holds.

    Args:
        module: a model of transformers that `check_module` lets pass.

    Raises:
        UnsupportedModelError: its attention cannot be replaced.
    """

    def __init__(self, module: Any) -> None:
        from parrot_nb.engine.embedded.modules import ATTENTION_NAME

        self._module: Any = module
        with _lock:
            borrowed = _borrowed.get(module)
            if borrowed is None:
                borrowed = _borrowed[module] = _Borrowed(module)
            borrowed.num_users += 1
        try:
            module.eval()
            module.set_attn_implementation(ATTENTION_NAME)
        except BaseException:
            self.end()
            raise
        if module.config._attn_implementation != ATTENTION_NAME:
            self.end()
            raise UnsupportedModelError(
                f"{type(module).__name__} has attention of its own, which cannot be replaced: the embedded engine cannot run it."
            )

    def end(self) -> None:
        """Give the module back; the last engine to do so leaves it as it was."""
        module, self._module = self._module, None
        if module is None:
            return
        with _lock:
            borrowed = _borrowed[module]
            borrowed.num_users -= 1
            if not borrowed.num_users:
                del _borrowed[module]
                borrowed.put_back()
