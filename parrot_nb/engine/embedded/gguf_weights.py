"""A decoder straight from a GGUF file, for families whose arithmetic is known here (`families`).

transformers makes a model of such a file by dequantising all of it to float32 and sorting it into modules, which takes five times
as long as all else and three times the memory. Here the `gguf` package's numpy routines dequantise some rows at a time, right
into the weights that are kept. The config is the one that transformers reads from the file. What a file stores otherwise than a
checkpoint does is undone: rows of query and key that llama.cpp interleaves, norms of Gemma to which it adds 1.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from parrot_nb.engine.embedded.checkpoint import DecoderConfig, OtherwiseError, decoder_config, require, values_of
from parrot_nb.engine.embedded.fused import FusedDecoder, Linears
from parrot_nb.engine.embedded.gguf_file import ROPE_FACTORS, GgufHeader, TensorInfo
from parrot_nb.engine.embedded.int_weights import ZERO_LEVEL, Int4Rows
from parrot_nb.engine.embedded.weights import Rotary, StoredWeights, decoder_of

ARCHITECTURES = ("llama", "qwen2", "qwen3", "gemma2", "gemma3")  # of llama.cpp, that transformers reads too
INTERLEAVED = ("llama",)  # rows of query and key, the two halves of a head by turns
CHUNK_BYTES = 4 * 2**20  # of a weight: dequantising takes several times that in float32
INT4_BLOCKS = {2: 1, 3: 2}  # GGML's types Q4_0 and Q4_1: how many numbers a block of 32 levels begins with
WHOLE = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
IN_LAYER = {
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "input_layernorm": "attn_norm",
}  # fmt: skip
NORMS = {"post_attention_layernorm": "ffn_norm"}
POST_NORMS = {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm",
    "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class KnownGguf(DecoderConfig):
    """A GGUF file that can be read without transformers' model classes.

    Attributes:
        names: of each weight in the file.
    """

    header: GgufHeader
    names: Mapping[str, str]


def known_gguf(header: GgufHeader, config: Any) -> KnownGguf | None:
    """Match a file with the config that transformers reads from it; None where anything is not known here."""
    try:
        require(header.architecture in ARCHITECTURES)
        decoder = decoder_config(json.loads(config.to_json_string()))
        names = {name: _stored_name(name, post_norms=decoder.family.post_norms) for name in decoder.shapes}
        require(set(names.values()) == header.tensors.keys() - {ROPE_FACTORS})
        require(all(header.tensors[names[name]].shape == shape[::-1] for name, shape in decoder.shapes.items()))
        require(all(_is_known(tensor) for tensor in header.tensors.values()))
        factors = header.rope_factors()
        require(factors is None or (len(decoder.ropes) == 1 and len(factors) == decoder.head_dim // 2))
        return KnownGguf(**values_of(decoder), header=header, names=names)
    except (OtherwiseError, ValueError):
        return None


def _stored_name(name: str, *, post_norms: bool) -> str:
    """The name of a weight in a file."""
    whole, _, kind = name.rpartition(".")
    if whole in WHOLE:
        return f"{WHOLE[whole]}.{kind}"
    found = re.fullmatch(r"model\.layers\.(\d+)\.(.+)", whole)
    require(found is not None)
    assert found is not None
    names = IN_LAYER | (POST_NORMS if post_norms else NORMS)
    require(found[2] in names)
    return f"blk.{found[1]}.{names[found[2]]}.{kind}"


def _is_known(tensor: TensorInfo) -> bool:
    """True if the `gguf` package dequantises a tensor of such a type and shape."""
    import numpy as np
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    try:
        kind = GGMLQuantizationType(tensor.type)
        block, block_bytes = GGML_QUANT_SIZES[kind]
        dequantize(np.zeros((1, block_bytes), dtype=np.uint8), kind)
    except (ValueError, KeyError, NotImplementedError):
        return False
    return tensor.shape[0] % block == 0 and (len(tensor.shape) == 2 or block == 1)


def read_gguf_decoder(known: KnownGguf, dtype: torch.dtype, device: torch.device, linears: Linears | None = None) -> FusedDecoder:
    """Read all weights; they are dequantised, but for the int4 blocks that products are made of as they are.

    Raises:
        Exception: whatever reading a file can raise, if it is no longer what its header said.
    """
    factors = known.header.rope_factors()
    rotaries = None if factors is None else [Rotary(known.ropes[0], known.head_dim, device, factors)]
    return decoder_of(known, GgufWeights(known, dtype, device), rotaries, linears)


class GgufWeights(StoredWeights):
    """Weights of a GGUF file, dequantised."""

    def __init__(self, known: KnownGguf, dtype: torch.dtype, device: torch.device) -> None:
        super().__init__(known.shapes, (dtype, dtype), device, CHUNK_BYTES)
        import numpy as np

        self._known = known
        self._bytes = np.memmap(known.header.path, mode="r")

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows of a weight in float32."""
        import numpy as np
        from gguf import GGMLQuantizationType, dequantize

        known, shape = self._known, self._known.shapes[name]
        found = dequantize(self._stored(name, start, stop), GGMLQuantizationType(known.header.tensors[known.names[name]].type))
        rows = torch.from_numpy(np.array(found, dtype=np.float32)).reshape(stop - start, *shape[1:])
        return rows - 1 if known.family.unit_norms and name.endswith("norm.weight") else rows

    def int4_blocks(self, name: str) -> Iterator[Int4Rows] | None:
        """Return the rows of a matrix as int4 where the file has blocks of Q4_0 or Q4_1, some at a time; else None."""
        kind = self._known.header.tensors[self._known.names[f"{name}.weight"]].type
        return self._int4_rows(f"{name}.weight", kind) if kind in INT4_BLOCKS else None

    def _int4_rows(self, name: str, kind: int) -> Iterator[Int4Rows]:
        num_rows, width = self._known.shapes[name]
        step = max(1, CHUNK_BYTES // (4 * width))
        for start in range(0, num_rows, step):
            stop = min(start + step, num_rows)
            yield _int4(torch.from_numpy(self._stored(name, start, stop).copy()), kind)

    def _stored(self, name: str, start: int, stop: int) -> Any:
        """Rows of a weight as the file has them, uint8 [rows, bytes]."""
        from gguf import GGML_QUANT_SIZES, GGMLQuantizationType

        known, shape = self._known, self._known.shapes[name]
        info = known.header.tensors[known.names[name]]
        block, block_bytes = GGML_QUANT_SIZES[GGMLQuantizationType(info.type)]
        row_bytes = (shape[1] if len(shape) == 2 else 1) // block * block_bytes
        stored = self._bytes[info.offset : info.offset + shape[0] * row_bytes].reshape(shape[0], row_bytes)
        order = self._order(name)
        return stored[start:stop] if order is None else stored[order[start:stop]]

    def _order(self, name: str) -> Any:
        """Where the rows of a weight are in the file; None where they are in order."""
        import numpy as np

        projection = name.split(".")[-2]
        if self._known.header.architecture not in INTERLEAVED or projection not in ("q_proj", "k_proj"):
            return None
        rows, half = np.arange(self._known.shapes[name][0]), self._known.head_dim // 2
        head, inside = rows // (2 * half), rows % (2 * half)
        return head * 2 * half + inside % half * 2 + inside // half


def _int4(stored: Tensor, kind: int) -> Int4Rows:
    """Blocks of Q4_0, level * d - 8 d, or of Q4_1, level * d + m, in rows uint8 [N, bytes]: 32 levels each, d and m as float16."""
    num_scales = INT4_BLOCKS[kind]
    blocks = stored.unflatten(1, (-1, 2 * num_scales + 16))
    scales = blocks[..., : 2 * num_scales].contiguous().view(torch.float16).float()
    nibbles = blocks[..., 2 * num_scales :]
    levels = torch.cat([nibbles & 15, nibbles >> 4], dim=-1).flatten(1)
    step = scales[..., 0]
    zeros = torch.zeros_like(step) if num_scales == 1 else scales[..., 1] + ZERO_LEVEL * step
    return Int4Rows(levels, step, zeros)
