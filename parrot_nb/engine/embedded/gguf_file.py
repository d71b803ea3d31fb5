"""The header of a GGUF file, read before transformers reads and dequantises it.

transformers reads headers slowly, checks little, and leaves out what it does not know: a file that was cut short fails inside
numpy, and scaled rotary embeddings become plain ones without a word. Reading the header here first takes a fraction of a
second, refuses what would fail or give other text, and needs neither torch nor the `gguf` package.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from importlib.util import find_spec
from math import prod
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.claims import Claims, Held
from parrot_nb.errors import ModelLoadError, UnsupportedModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
ROPE_FACTORS = "rope_freqs.weight"  # by which each frequency is divided, as in Llama 3.1 and later
# GGUF's types of a value, as struct writes them.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
FLOAT32 = 0  # of a tensor's types
MAX_COUNT = 2**24  # of values, tensors and elements of an array: more than any model has, less than any memory
# Sizes of the metadata, by config.json's names for them; those that are arrays have a number for each layer.
SIZES = {
    "num_hidden_layers": "block_count", "hidden_size": "embedding_length", "intermediate_size": "feed_forward_length",
    "num_attention_heads": "attention.head_count", "num_key_value_heads": "attention.head_count_kv", "head_dim": "attention.key_length",
    "max_position_embeddings": "context_length", "num_experts": "expert_count", "moe_intermediate_size": "expert_feed_forward_length",
}  # fmt: skip
INSTALL = 'pip install "parrot-nb[gguf]"'


class ArrayLength(int):
    """The number of elements of an array in the metadata, which is no number that the file states."""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor in the file: its shape with the fastest dimension first, GGML's type of it, and where its bytes begin."""

    shape: tuple[int, ...]
    type: int
    offset: int


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """Metadata and tensors of a file, as its header states them.

    Attributes:
        values: metadata by key; of arrays only an `ArrayLength`.
        tensors: by name.
    """

    path: Path
    values: Mapping[str, Any]
    tensors: Mapping[str, TensorInfo]

    @property
    def architecture(self) -> str:
        """llama.cpp's name of the architecture."""
        return str(self.values.get("general.architecture", ""))

    def number(self, key: str, otherwise: int) -> int:
        """A whole number of the metadata, for a key that the architecture's name or "general" begins.

        Raises:
            ModelLoadError: something else stands there.
        """
        value = self.values.get(key, otherwise)
        if isinstance(value, (bool, ArrayLength)) or not isinstance(value, int):
            kind = "an array" if isinstance(value, ArrayLength) else repr(value)[:40]
            raise ModelLoadError(f"'{self.path.name}' says {key} = {kind}, which must be a whole number: get the file again.")
        return value

    @property
    def num_parameters(self) -> int:
        """Number of weights."""
        return sum(prod(tensor.shape) for tensor in self.tensors.values())

    def rope_factors(self) -> list[float] | None:
        """Factors by which the rotary embedding's frequencies are divided; None where the file has none."""
        info = self.tensors.get(ROPE_FACTORS)
        if info is None:
            return None
        if info.type != FLOAT32:
            raise _damaged(self.path)
        with self.path.open("rb") as file:
            file.seek(info.offset)
            count = prod(info.shape)
            return list(struct.unpack(f"<{count}f", file.read(4 * count)))


def read_gguf_header(path: Path) -> GgufHeader:
    """Read and check the header of a GGUF file.

    Raises:
        ModelLoadError: the file is no GGUF file, or damaged.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
            return _Parser(path, view).header()
    except (OSError, ValueError, struct.error, OverflowError) as error:  # empty, cut short, not UTF-8, absurd counts
        raise _damaged(path) from error


def check_gguf(header: GgufHeader) -> None:
    """Refuse a file that transformers cannot read, or would read wrongly.

    Raises:
        ModelLoadError: a part of a model, a file without a tokenizer, or one that lacks the packages that read it.
        UnsupportedModelError: not a language model, or one whose positions are scaled in a way that transformers leaves out.
    """
    name, values, arch = header.path.name, header.values, header.architecture
    if header.number("split.count", 1) > 1:
        raise ModelLoadError(
            f"'{name}' is one part of a model that was split into {values['split.count']}: merge them with llama.cpp's "
            "llama-gguf-split --merge, and load the result."
        )
    if values.get("general.type", "model") != "model" or arch == "clip":
        kind = "image encoder" if arch == "clip" else values["general.type"]
        raise UnsupportedModelError(f"'{name}' holds no language model but a part of one ({kind}): load the model's own file.")
    if not isinstance(values.get("tokenizer.ggml.tokens"), ArrayLength):
        raise ModelLoadError(f"'{name}' has no tokenizer: convert the model anew with llama.cpp's convert_hf_to_gguf.py.")
    scaling = values.get(f"{arch}.rope.scaling.type", "none")
    if scaling not in ("none", ""):
        raise UnsupportedModelError(
            f"'{name}' scales its positions ({scaling}), which transformers leaves out when it reads GGUF files: load the model's "
            "safetensors folder instead."
        )
    _check_sizes(header)
    _check_packages(name)


def _check_sizes(header: GgufHeader) -> None:
    """Refuse metadata that state other sizes than the file's tensors have."""
    arch, values = header.architecture, header.values
    stated = {key: f"{arch}.{name}" for key, name in SIZES.items()}
    sizes = {key: values[name] for key, name in stated.items() if name in values and not isinstance(values[name], ArrayLength)}
    sizes["vocab_size"] = int(values["tokenizer.ggml.tokens"])
    said = f"The metadata of '{header.path.name}'"
    claims = Claims(sizes)
    claims.check(said)
    claims.check_held(said, Held({name: tensor.shape for name, tensor in header.tensors.items()}), exact=True)


def _check_packages(name: str) -> None:
    missing = [package for package in ("gguf", "accelerate") if find_spec(package) is None]
    if missing:
        raise ModelLoadError(
            f"'{name}' is a GGUF file, which needs the package{'s' * (len(missing) > 1)} {' and '.join(missing)}: {INSTALL}."
        )
    if tuple(int(part) for part in version("gguf").split(".")[:2]) < (0, 17):
        raise ModelLoadError(f"'{name}' needs gguf 0.17 or later, and {version('gguf')} is installed: {INSTALL}.")


def _damaged(path: Path) -> ModelLoadError:
    return ModelLoadError(f"The GGUF file '{path.name}' is damaged or cut short: get it again.")


class _Parser:
    """A walk through the header. Raises ValueError or struct.error where it is not what a header can be."""

    def __init__(self, path: Path, view: mmap.mmap) -> None:
        self._path, self._view, self._at = path, view, 0

    def header(self) -> GgufHeader:
        """The whole of it, checked against the file's size."""
        if self._view[:4] != MAGIC:
            raise ModelLoadError(f"'{self._path.name}' is not a GGUF file: its first bytes are others.")
        self._at = 4
        written = self._scalar("I")
        if written not in VERSIONS:
            raise ModelLoadError(
                f"'{self._path.name}' is of GGUF version {written}: versions {' and '.join(map(str, VERSIONS))} can be read."
            )
        num_tensors, num_values = self._count(), self._count()
        values: dict[str, Any] = {}
        for _ in range(num_values):
            key = self._text()
            _require(key not in values)
            values[key] = self._value(self._scalar("I"))
        infos = [self._tensor() for _ in range(num_tensors)]
        alignment = values.get("general.alignment", 32)
        _require(type(alignment) is int and 0 < alignment <= MAX_COUNT)
        _require(isinstance(values.get("general.architecture", ""), str))
        start = -(-self._at // alignment) * alignment
        tensors = {name: TensorInfo(shape, kind, start + offset) for name, shape, kind, offset in infos}
        _require(len(tensors) == num_tensors > 0)
        self._check_size(tensors)
        return GgufHeader(self._path, values, tensors)

    def _check_size(self, tensors: Mapping[str, TensorInfo]) -> None:
        sizes = _block_sizes()
        for tensor in tensors.values():
            block, num_bytes = sizes.get(tensor.type, (1, 0))  # of a type that is not known here at least the beginning is there
            _require(tensor.offset + prod(tensor.shape) // block * num_bytes <= len(self._view))

    def _tensor(self) -> tuple[str, tuple[int, ...], int, int]:
        name = self._text()
        num_dims = self._scalar("I")
        _require(num_dims <= 8)
        shape = tuple(self._scalar("Q") for _ in range(num_dims))
        return name, shape, self._scalar("I"), self._scalar("Q")

    def _value(self, kind: int) -> Any:
        if kind == STRING:
            return self._text()
        if kind != ARRAY:
            return self._scalar(SCALARS.get(kind, ""))
        inner, count = self._scalar("I"), self._count()
        if inner == STRING:
            for _ in range(count):
                self._skip(self._scalar("Q"))
        else:
            _require(inner in SCALARS)
            self._skip(count * struct.calcsize(f"<{SCALARS[inner]}"))
        return ArrayLength(count)

    def _scalar(self, kind: str) -> Any:
        _require(bool(kind))
        (value,) = struct.unpack_from(f"<{kind}", self._view, self._at)
        self._at += struct.calcsize(f"<{kind}")
        return value

    def _count(self) -> int:
        count = int(self._scalar("Q"))
        _require(count <= MAX_COUNT)
        return count

    def _skip(self, num_bytes: int) -> None:
        _require(self._at + num_bytes <= len(self._view))
        self._at += num_bytes

    def _text(self) -> str:
        length = int(self._scalar("Q"))
        start = self._at
        self._skip(length)
        return self._view[start : self._at].decode("utf-8")


def _require(condition: bool) -> None:
    if not condition:
        raise ValueError


def _block_sizes() -> Mapping[int, tuple[int, int]]:
    """Weights and bytes of a block, by GGML's type; without the package that knows them, of plain floats only."""
    try:
        from gguf import GGML_QUANT_SIZES
    except ImportError:
        return {0: (1, 4), 1: (1, 2)}
    return {int(kind): sizes for kind, sizes in GGML_QUANT_SIZES.items()}
