"""Read a checkpoint's config, tokenizer and weights, through transformers or, where the checkpoint is known, without it."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from parrot_nb.engine.embedded.checkpoint import KnownCheckpoint
from parrot_nb.engine.embedded.refusals import explained
from parrot_nb.engine.embedded.tokenizer import known_tokenizer
from parrot_nb.errors import ModelLoadError, UnsupportedModelError

if TYPE_CHECKING:
    import torch

    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.fused import FusedDecoder
    from parrot_nb.engine.embedded.model import Decoder

SMALL_MODEL_PARAMETERS = 100_000_000  # below, float32 is the faster dtype on CPUs without bfloat16 units, and exact


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        eos_token_id: the token or tokens that end a text, as far as the model's files say; None where they do not.
        note: the maker's word to who uses it.
        fuse: makes a fused decoder of this one, or raises LookupError; None where it is one.
    """

    decoder: Decoder
    num_parameters: int
    eos_token_id: int | Collection[int] | None
    note: str | None
    fuse: Callable[[], FusedDecoder] | None = None


def read_config(model_id: str, *, trust_remote_code: bool) -> Any:
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise explained(model_id, error) from error
    if getattr(config, "is_encoder_decoder", False):
        raise UnsupportedModelError(
            f"'{model_id}' is an encoder-decoder model ({config.model_type}): the embedded engine runs decoder-only language models."
        )
    return config


def load_codec(model_id: str, known: KnownCheckpoint | None, *, trust_remote_code: bool) -> TokenizerCodec:
    from parrot_nb.engine.embedded.codec import TokenizerCodec

    if known is not None and known.family.plain_tokenizer and (plain := known_tokenizer(model_id)) is not None:
        return TokenizerCodec(plain)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(model_id, trust_remote_code=trust_remote_code)
    except Exception as error:
        raise explained(model_id, error, what="tokenizer") from error
    return TokenizerCodec(tokenizer)


def with_files(model_id: str, known: KnownCheckpoint, dtype: str, device: torch.device) -> Loaded:
    """A checkpoint that is known here, without transformers' model classes."""
    import torch

    from parrot_nb.engine.embedded.weights import read_decoder

    first: torch.dtype = getattr(torch, known.dtype if dtype == "auto" else dtype)
    last = torch.float32 if dtype == "auto" and float32_is_better(first, known.num_parameters, device) else first
    try:
        decoder = read_decoder(known, (first, last), device)
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise explained(model_id, error) from error
    return Loaded(decoder, known.num_parameters, known.eos_ids, known.note)


def float32_is_better(found: torch.dtype, num_parameters: int, device: torch.device) -> bool:
    """Whether weights of a dtype become float32 if nobody said what they should."""
    import torch

    return device.type == "cpu" and (num_parameters < SMALL_MODEL_PARAMETERS or found == torch.float16)


def with_modules(model_id: str, config: Any, dtype: str, device: torch.device, *, trust_remote_code: bool) -> Loaded:
    """Whatever transformers can load, with its modules."""
    from parrot_nb.engine.embedded.fused import FusedDecoder
    from parrot_nb.engine.embedded.modules import ModulesDecoder

    module = _weights(model_id, config, dtype, device, trust_remote_code=trust_remote_code)
    generation_config = getattr(module, "generation_config", None)
    eos_token_id = getattr(generation_config, "eos_token_id", None)
    if eos_token_id is None:
        eos_token_id = getattr(config.get_text_config(), "eos_token_id", None)
    return Loaded(
        ModulesDecoder(module),
        sum(p.numel() for p in module.parameters()),
        eos_token_id,
        getattr(config, "parrot_note", None),
        fuse=lambda: FusedDecoder.of(module),
    )


def _weights(model_id: str, config: Any, dtype: str, device: torch.device, *, trust_remote_code: bool) -> Any:
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.utils import logging as hf_logging

    from parrot_nb.engine.embedded.modules import ATTENTION_NAME

    wanted = "auto" if dtype == "auto" else getattr(torch, dtype)
    bars_were_on = hf_logging.is_progress_bar_enabled()
    hf_logging.disable_progress_bar()  # it would be drawn into whatever cell runs now; the event log tells of the load
    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            model_id,
            config=config,
            dtype=wanted,
            attn_implementation=ATTENTION_NAME,
            use_safetensors=True,
            trust_remote_code=trust_remote_code,
            output_loading_info=True,
        )
    except (torch.cuda.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise explained(model_id, error) from error
    finally:
        if bars_were_on:
            hf_logging.enable_progress_bar()
    for kind, problem in (("missing_keys", "lacks weights"), ("mismatched_keys", "has weights of another shape")):
        if report.get(kind):
            first = min(str(key[0] if isinstance(key, tuple) else key) for key in report[kind])
            raise ModelLoadError(
                f"'{model_id}' {problem} that its config.json asks for ('{first}' and {len(report[kind]) - 1} more): get its files again."
            )
    if dtype == "auto" and float32_is_better(module.dtype, sum(p.numel() for p in module.parameters()), device):
        module = module.float()
    return module.to(device).eval()


def own_context_tokens_of(config: Any) -> int:
    """Longest context of a model, in tokens."""
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 4096
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    if kind in ("longrope", "dynamic"):
        # These change all positions' angles once a text passes the original length, cached ones included.
        own = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None) or own
    return int(own)


def eos_ids_of(*sources: int | Collection[int] | None) -> frozenset[int]:
    """Tokens that end a text, of the first that names any; may be none."""
    for ids in sources:
        if ids is not None:
            return frozenset([ids] if isinstance(ids, int) else ids)
    return frozenset()
