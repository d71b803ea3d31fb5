"""Parts of a model, found before its weights are read: that takes longest, and what is wrong should be said first."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from parrot_nb.engine.embedded.adapters import check_adapter
from parrot_nb.engine.embedded.checkpoint import known_checkpoint
from parrot_nb.engine.embedded.claims import check_claims
from parrot_nb.engine.embedded.fingerprint import fingerprint_of
from parrot_nb.engine.embedded.gguf_file import check_gguf, read_gguf_header
from parrot_nb.engine.embedded.gguf_reader import SharedReader
from parrot_nb.engine.embedded.hub import local_folder
from parrot_nb.engine.embedded.pretrained import (
    Loaded,
    load_codec,
    loaded_module,
    num_rows_of,
    own_context_tokens_of,
    read_config,
    with_files,
    with_gguf,
    with_modules,
)
from parrot_nb.engine.embedded.quantized import check_quantised
from parrot_nb.engine.embedded.sources import find_source
from parrot_nb.engine.loads import LoadProgress, current_load

if TYPE_CHECKING:
    import torch

    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.quantizing import Quantizer


@dataclass(frozen=True, slots=True)
class Parts:
    """A model whose weights are still to be read.

    Attributes:
        own_context_tokens: the longest context that the model allows.
        read: reads the weights, in the worker thread.
        fingerprint: of the files; empty where there are none.
    """

    codec: TokenizerCodec
    own_context_tokens: int
    read: Callable[[], Loaded]
    fingerprint: str = ""


def find_parts(
    model: str, dtype: str, device: torch.device, *, fused: bool, trust_remote_code: bool, quantize: Quantizer | None = None
) -> Parts:
    """Find the parts of a model by hub id or path.

    Args:
        model: hub id or path.
        dtype: what the weights become, as `load_engine` takes it.
        device: where they go.
        trust_remote_code: run Python code that comes with the model.
        fused: a fused decoder may take the place of transformers' classes.
        quantize: makes quantised products of the weights; None for weights as they are.

    Raises:
        ModelError: it cannot be loaded, as far as that shows without its weights.
    """
    source = find_source(model)
    if not Path(source.model).is_dir():  # an adapter's base may be on the hub
        base = local_folder(source.model, None, current_load(), code=trust_remote_code)
        current_load().tell(LoadProgress("reading"))
        source = replace(source, model=base, tokenizer=base if source.tokenizer == source.model else source.tokenizer)
    if source.gguf is not None:
        header = read_gguf_header(Path(source.model) / source.gguf)
        check_gguf(header)
        current_load().num_weights = header.num_parameters
    elif (held := check_claims(Path(source.model))) is not None:
        current_load().num_weights = held.num_weights * (8 if held.quantised else 1)
    if source.adapter is not None:
        check_adapter(source.adapter)
    fingerprint = fingerprint_of(source)
    # What is known here needs no model classes of transformers, whose import takes longer than all else; "fused" is what
    # takes their place, so without it they are needed.
    known = known_checkpoint(source.model) if source.is_plain and fused else None
    if known is not None:
        codec = load_codec(source, known, None, trust_remote_code=trust_remote_code)
        return Parts(
            codec, known.max_context_tokens, partial(with_files, source.model, known, dtype, device, quantize), fingerprint
        )
    reading = nullcontext if source.gguf is None else SharedReader().used
    with reading():
        config = read_config(source, trust_remote_code=trust_remote_code)
        check_quantised(source.model, config, device, again=quantize is not None and source.gguf is None)
        codec = load_codec(source, None, config, trust_remote_code=trust_remote_code)
    if source.gguf is not None and fused:
        from parrot_nb.engine.embedded.gguf_weights import known_gguf

        file = known_gguf(read_gguf_header(Path(source.model) / source.gguf), config)
        if file is not None:
            read = partial(with_gguf, source, file, config, dtype, device, quantize)
            return Parts(codec, own_context_tokens_of(config), read, fingerprint)
    read = partial(with_modules, source, config, dtype, device, trust_remote_code=trust_remote_code, quantize=quantize)
    return Parts(codec, own_context_tokens_of(config), partial(_within, reading, read), fingerprint)


def _within(context: Callable[[], AbstractContextManager[None]], read: Callable[[], Loaded]) -> Loaded:
    """Read weights in a context."""
    with context():
        return read()


def held_parts(module: Any, tokenizer: Any) -> Parts:
    """The parts of a model that the caller holds."""
    from parrot_nb.engine.embedded.codec import TokenizerCodec
    from parrot_nb.engine.embedded.held import Loan

    def read() -> Loaded:
        loan = Loan(module)
        try:
            return loaded_module(module, give_back=loan.end)
        except BaseException:
            loan.end()
            raise

    return Parts(TokenizerCodec(tokenizer, num_rows_of(module.config)), own_context_tokens_of(module.config), read)
