"""Read a checkpoint's config, tokenizer and weights, through transformers or, where the checkpoint is known, without it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from parrot_nb.engine.embedded.checkpoint import KnownCheckpoint
from parrot_nb.engine.embedded.defaults import NO_DEFAULTS, ModelDefaults, read_defaults
from parrot_nb.engine.embedded.gguf_file import GgufHeader, read_gguf_header
from parrot_nb.engine.embedded.patterns import check_patterns
from parrot_nb.engine.embedded.placement import has_bfloat16
from parrot_nb.engine.embedded.refusals import check_architecture, explained
from parrot_nb.engine.embedded.sources import Source
from parrot_nb.engine.embedded.tokenizer import GEMMA_TYPES, known_tokenizer
from parrot_nb.errors import ModelLoadError, ParrotError, UnsupportedModelError

if TYPE_CHECKING:
    import torch

    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.decoder import Decoder
    from parrot_nb.engine.embedded.fused import FusedDecoder
    from parrot_nb.engine.embedded.gguf_weights import KnownGguf
    from parrot_nb.engine.embedded.quantizing import Quantizer

SMALL_MODEL_PARAMETERS = 100_000_000  # below, float32 is the faster dtype on CPUs without bfloat16 units, and exact


@dataclass(frozen=True, slots=True)
class Facts:
    """Facts of a loaded model, without its weights; see `Loaded`."""

    name: str
    num_parameters: int
    eos_token_id: int | Collection[int] | None
    note: str | None
    defaults: ModelDefaults


@dataclass(frozen=True, slots=True)
class Loaded:
    """A model in memory.

    Attributes:
        eos_token_id: the token or tokens that end a text, as far as the model's files say; None where they do not.
        note: the maker's word to who uses it.
        fuse: makes a fused decoder of this one, or raises LookupError; None where it is one.
        give_back: is called when the decoder is needed no more; None where it belongs to nobody else.
        defaults: what the model's files ask of every generation.
    """

    decoder: Decoder
    num_parameters: int
    eos_token_id: int | Collection[int] | None
    note: str | None
    fuse: Callable[[], FusedDecoder] | None = None
    give_back: Callable[[], None] | None = None
    defaults: ModelDefaults = NO_DEFAULTS

    @property
    def facts(self) -> Facts:
        """What is known of the model, referring to no weights."""
        return Facts(self.decoder.name, self.num_parameters, self.eos_token_id, self.note, self.defaults)


def read_config(source: Source, *, trust_remote_code: bool) -> Any:
    """Read a model's config through transformers.

    Raises:
        ModelError: it cannot be read, or is of a model that writes no text.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(source.model, trust_remote_code=trust_remote_code, **_in_file(source))
    except Exception as error:
        raise explained(source.name, error) from error
    check_architecture(source.name, config)
    return config


def load_codec(source: Source, known: KnownCheckpoint | None, config: Any, *, trust_remote_code: bool) -> TokenizerCodec:
    """Load a model's tokenizer; without transformers where it is as simple as the checkpoint is known.

    Args:
        source: where it is.
        known: the checkpoint, where it is known without transformers.
        config: transformers' config of the model, where it is not.
        trust_remote_code: run Python code that comes with the model.
    """
    if source.adapter is not None:
        num_rows = None  # an adapter may bring rows for tokens of its own
    else:
        num_rows = known.shapes["model.embed_tokens.weight"][0] if known is not None else num_rows_of(config)
    takes_the_file = known.family.plain_tokenizer if known is not None else config.model_type in GEMMA_TYPES
    if takes_the_file and source.gguf is None and (plain := known_tokenizer(source.tokenizer)) is not None:
        return _codec(source, plain, num_rows)
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(source.tokenizer, trust_remote_code=trust_remote_code, **_in_file(source))
    except BaseException as error:
        _unusable(source, error)
    return _codec(source, tokenizer, num_rows)


def _codec(source: Source, tokenizer: Any, num_rows: int | None) -> TokenizerCodec:
    """The codec of a tokenizer of a stranger's: nothing is encoded before its regular expressions were tried."""
    from parrot_nb.engine.embedded.codec import TokenizerCodec

    if (backend := getattr(tokenizer, "backend_tokenizer", None)) is not None:
        check_patterns(source.tokenizer if source.gguf is None else source.name, backend)
    try:
        return TokenizerCodec(tokenizer, num_rows)
    except ParrotError:
        raise
    except BaseException as error:
        _unusable(source, error)


def _unusable(source: Source, error: BaseException) -> NoReturn:
    """Raise what a tokenizer's failure is told as; a panic of its Rust is no Exception."""
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error
    raise explained(source.tokenizer if source.gguf is None else source.name, error, what="tokenizer") from error


def num_rows_of(config: Any) -> int | None:
    """The number of tokens that a model has embeddings for; None where its config does not say."""
    return getattr(config.get_text_config(), "vocab_size", None)


def _in_file(source: Source) -> dict[str, Any]:
    """Arguments that tell transformers to read all from one GGUF file."""
    return {} if source.gguf is None else {"gguf_file": source.gguf}


def with_files(
    model_id: str, known: KnownCheckpoint, dtype: str, device: torch.device, quantize: Quantizer | None = None
) -> Loaded:
    """A checkpoint that is known here, without transformers' model classes."""
    import torch

    from parrot_nb.engine.embedded.weights import read_decoder

    first: torch.dtype = getattr(torch, known.dtype if dtype == "auto" else dtype)
    last = torch.float32 if dtype == "auto" and float32_is_better(first, known.num_parameters, device) else first
    try:
        decoder = read_decoder(known, (first, last), device, None if quantize is None else quantize(known.num_parameters))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise explained(model_id, error) from error
    return Loaded(decoder, known.num_parameters, known.eos_ids, known.note, defaults=read_defaults(model_id))


def with_gguf(
    source: Source, known: KnownGguf, config: Any, dtype: str, device: torch.device, quantize: Quantizer | None = None
) -> Loaded:
    """A GGUF file that is known here, without transformers' model classes."""
    import torch
    from transformers import GenerationConfig

    from parrot_nb.engine.embedded.gguf_weights import read_gguf_decoder

    kind = gguf_dtype(known.header.num_parameters, device) if dtype == "auto" else getattr(torch, dtype)
    try:
        decoder = read_gguf_decoder(known, kind, device, None if quantize is None else quantize(known.num_parameters))
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise explained(source.name, error) from error
    generation = GenerationConfig.from_model_config(config)
    eos_token_id = getattr(config, "eos_token_id", None)
    defaults = ModelDefaults.of(generation.to_dict())
    return Loaded(decoder, known.num_parameters, eos_token_id, getattr(config, "parrot_note", None), defaults=defaults)


def float32_is_better(found: torch.dtype, num_parameters: int, device: torch.device) -> bool:
    """Whether weights of a dtype become float32 if nobody said what they should."""
    import torch

    return device.type == "cpu" and (num_parameters < SMALL_MODEL_PARAMETERS or found == torch.float16)


def with_modules(
    source: Source,
    config: Any,
    dtype: str,
    device: torch.device,
    *,
    trust_remote_code: bool,
    quantize: Quantizer | None = None,
) -> Loaded:
    """Load any model that transformers can load, with its modules."""
    module = _weights(source, config, dtype, device, trust_remote_code=trust_remote_code)
    return loaded_module(module, getattr(config, "parrot_note", None), quantize=quantize)


def loaded_module(
    module: Any, note: str | None = None, *, give_back: Callable[[], None] | None = None, quantize: Quantizer | None = None
) -> Loaded:
    """A module of transformers that is ready to compute; one that is to be given back keeps its own weights as they lie."""
    from parrot_nb.engine.embedded.module_weights import fused_decoder
    from parrot_nb.engine.embedded.modules import ModulesDecoder

    generation_config = getattr(module, "generation_config", None)
    stated = [getattr(generation_config, "eos_token_id", None), module.config.to_diff_dict().get("eos_token_id")]
    if stated == [None, None]:  # then the default of its class holds; it is no statement of the model's makers
        stated = [getattr(module.config.get_text_config(), "eos_token_id", None)]
    eos_token_ids = {token_id for ids in stated if ids is not None for token_id in ([ids] if isinstance(ids, int) else ids)}
    num_parameters = sum(p.numel() for p in module.parameters())

    def fuse() -> FusedDecoder:
        fused = fused_decoder(module, joins=give_back is None)
        if quantize is not None:
            fused.then = lambda: fused_decoder(module, joins=False, linears=quantize(num_parameters))
        return fused

    return Loaded(
        ModulesDecoder(module),
        num_parameters,
        eos_token_ids or None,
        note,
        fuse=fuse,
        give_back=give_back,
        defaults=NO_DEFAULTS if generation_config is None else ModelDefaults.of(generation_config.to_dict()),
    )


def _weights(source: Source, config: Any, dtype: str, device: torch.device, *, trust_remote_code: bool) -> Any:
    import torch

    from parrot_nb.engine.embedded.adapters import merged, without_adapter
    from parrot_nb.engine.embedded.quantized import quantisation_of

    model_id = source.name
    how: dict[str, Any] = {"trust_remote_code": trust_remote_code, "dtype": "auto" if dtype == "auto" else getattr(torch, dtype)}
    if source.gguf is not None:
        how |= _dequantised(source.gguf)
        if dtype == "auto":
            how["dtype"] = gguf_dtype(read_gguf_header(Path(source.model) / source.gguf).num_parameters, device)
    else:
        how["use_safetensors"] = True
    own_adapter = source.adapter is not None and source.adapter == Path(source.model)
    with without_adapter(Path(source.model)) if own_adapter else nullcontext(source.model) as place, _no_bars():
        module, report = _from_pretrained(model_id, str(place), config, how)
    for kind, problem in (("missing_keys", "lacks weights"), ("mismatched_keys", "has weights of another shape")):
        if report.get(kind):
            first = min(str(key[0] if isinstance(key, tuple) else key) for key in report[kind])
            raise ModelLoadError(
                f"'{model_id}' {problem} that its config.json asks for ('{first}' and {len(report[kind]) - 1} more): get its files again."
            )
    if source.gguf is not None:
        scale_positions(module, read_gguf_header(Path(source.model) / source.gguf))
    plain = quantisation_of(config) is None
    if dtype == "auto" and plain and float32_is_better(module.dtype, sum(p.numel() for p in module.parameters()), device):
        module = module.float()
    module = module.to(device)
    if source.adapter is not None:
        module = merged(module, source.adapter)
    return module.eval()


def _from_pretrained(model_id: str, place: str, config: Any, how: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The module, and what transformers reports of weights that it missed."""
    import torch
    from transformers import AutoModelForCausalLM

    from parrot_nb.engine.embedded.modules import ATTENTION_NAME

    try:
        module, report = AutoModelForCausalLM.from_pretrained(
            place, config=config, attn_implementation=ATTENTION_NAME, output_loading_info=True, **how
        )
    except (torch.OutOfMemoryError, MemoryError):
        raise
    except Exception as error:
        raise explained(model_id, error) from error
    return module, report


@contextmanager
def _no_bars() -> Iterator[None]:
    """Keep transformers' progress bars from being drawn into whatever cell runs now; the event log tells of the load."""
    from transformers import modeling_gguf_pytorch_utils as gguf_utils
    from transformers.utils import logging as hf_logging

    were_on, bar = hf_logging.is_progress_bar_enabled(), getattr(gguf_utils, "tqdm", None)
    hf_logging.disable_progress_bar()
    if bar is not None:  # a bar of its own, which that switch does not know
        gguf_utils.tqdm = partial(bar, disable=True)
    try:
        yield
    finally:
        if bar is not None:
            gguf_utils.tqdm = bar
        if were_on:
            hf_logging.enable_progress_bar()


def _dequantised(name: str) -> dict[str, Any]:
    """How transformers is told to make plain weights of a GGUF file's blocks; before it could keep them it always did."""
    import transformers

    kind = getattr(transformers, "GgufConfig", None)
    return {"gguf_file": name} | ({} if kind is None else {"quantization_config": kind(dequantize=True)})


def gguf_dtype(num_parameters: int, device: torch.device) -> torch.dtype:
    """The dtype that a GGUF file's weights become if nobody said which: it has none of its own."""
    import torch

    wide = float32_is_better(torch.bfloat16, num_parameters, device) or not has_bfloat16(device)
    return torch.float32 if wide else torch.bfloat16


def scale_positions(module: Any, header: GgufHeader) -> None:
    """Divide the rotary embedding's frequencies by a GGUF file's factors, which transformers leaves out.

    Raises:
        UnsupportedModelError: the module has no one rotary embedding that they belong to.
    """
    import torch

    factors = header.rope_factors()
    if factors is None:
        return
    rotaries = [part for part in module.modules() if "inv_freq" in dict(part.named_buffers(recurse=False))]
    if len(rotaries) != 1 or rotaries[0].inv_freq.shape != (len(factors),):
        raise UnsupportedModelError(
            f"'{header.path.name}' scales its positions in a way that transformers leaves out when it reads GGUF files: load the "
            "model's safetensors folder instead."
        )
    with torch.no_grad():
        rotaries[0].inv_freq.div_(torch.tensor(factors, dtype=rotaries[0].inv_freq.dtype))


def own_context_tokens_of(config: Any) -> int:
    """Longest context of a model, in tokens."""
    text = config.get_text_config()
    own = getattr(text, "max_position_embeddings", None) or getattr(text, "n_positions", None) or 4096
    rope = getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None) or {}
    kind = rope.get("rope_type", rope.get("type")) if isinstance(rope, dict) else None
    if kind in ("longrope", "dynamic"):
        # These change all positions' angles once a text passes the original length, cached ones included.
        own = rope.get("original_max_position_embeddings") or getattr(text, "original_max_position_embeddings", None) or own
    chunk = getattr(text, "attention_chunk_size", None)
    if chunk and "chunked_attention" in (getattr(text, "layer_types", None) or ()):
        own = min(own, chunk)  # layers that start anew after so many tokens see all before that
    return int(own)


def eos_ids_of(stated: int | Collection[int] | None, codec: TokenizerCodec) -> frozenset[int]:
    """Tokens that end a text: those that the model's files state, the tokenizer's, and what its chat template writes after
    an answer; may be none."""
    ids = [stated] if isinstance(stated, int) else [*stated] if stated is not None else []
    return frozenset(token_id for token_id in (*ids, codec.eos_token_id, codec.turn_end_id) if token_id is not None)
