"""A decoder straight from the safetensors files of a checkpoint that is known here (`checkpoint`).

Nothing of transformers is needed: the files hold the weights under known names, and config.json the few numbers besides.
The trial that a model of transformers has to pass before its modules are replaced has no counterpart here, because
there are no modules to compare with. It guards against classes that compute otherwise than their names suggest: code that
comes with a model, another version of transformers, features that nobody here has heard of. None of these gets here:
only checkpoints do of which every key of config.json is understood, and tests hold what is computed from each kind of
them against transformers.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from parrot_nb.engine.embedded.checkpoint import DecoderConfig, KnownCheckpoint, Rope
from parrot_nb.engine.embedded.fused import FusedDecoder, Linears, PackedLinears
from parrot_nb.engine.embedded.int_weights import Int4Rows
from parrot_nb.engine.embedded.linear import pays_to_pack

REPLACED = ("model classes",)
MAPPED_BYTES = 32 * 2**20  # of a file that may be in memory beside the copies


def read_decoder(
    checkpoint: KnownCheckpoint, dtypes: tuple[torch.dtype, torch.dtype], device: torch.device, linears: Linears | None = None
) -> FusedDecoder:
    """Read all weights.

    Args:
        checkpoint: where they are, and what follows from them.
        dtypes: what the weights become first, and then: what a checkpoint asks for may be coarser than what is computed in.
        device: where they go.
        linears: makes the matrix products; None for weights as they are.

    Raises:
        Exception: whatever reading a file can raise, if it is no longer what its header said.
    """
    with ExitStack() as stack:
        return decoder_of(checkpoint, FileWeights(checkpoint, dtypes, device, stack), linears=linears)


def decoder_of(
    config: DecoderConfig, weights: StoredWeights, rotaries: Sequence[Rotary] | None = None, linears: Linears | None = None
) -> FusedDecoder:
    """A decoder with the weights of a file; its rotary embeddings are those of its config, or others."""
    own = [Rotary(rope, config.head_dim, weights.device) for rope in config.ropes]
    return FusedDecoder.of(
        config.family,
        config.sizes,
        weights,
        own if rotaries is None else rotaries,
        name=config.family.architecture,
        linears=linears or PackedLinears(pays_to_pack(weights.dtype, weights.device)),
        replaced=REPLACED,
    )


class StoredWeights(ABC):
    """Copies of weights that are stored in files.

    Args:
        shapes: of each weight.
        dtypes: what the weights become first, and then.
        device: where they go.
        chunk_bytes: of a weight that are copied at a time.
    """

    def __init__(
        self,
        shapes: Mapping[str, tuple[int, ...]],
        dtypes: tuple[torch.dtype, torch.dtype],
        device: torch.device,
        chunk_bytes: int,
    ) -> None:
        self._shapes, self._chunk_bytes = shapes, chunk_bytes
        self._first, self.dtype = dtypes
        self.device = device

    @abstractmethod
    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows of a weight as they are stored; valid until the next call."""

    def one(self, *names: str) -> Tensor:
        """A weight, or several below one another."""
        shapes = [self._shapes[name] for name in names]
        whole = torch.empty((sum(s[0] for s in shapes), *shapes[0][1:]), dtype=self.dtype, device=self.device)
        num_rows = max(1, self._chunk_bytes // max(1, whole[:1].nbytes))
        for name, part in zip(names, whole.split([s[0] for s in shapes]), strict=True):
            for start in range(0, part.shape[0], num_rows):
                chunk = part[start : start + num_rows]
                stored = self.rows(name, start, start + chunk.shape[0])
                chunk.copy_(stored if self._first == self.dtype else stored.to(self._first))
        return whole

    def joined(self, names: Sequence[str]) -> tuple[Tensor, Tensor | None]:
        """Weight and bias of several matrices below one another."""
        return self.one(*(f"{name}.weight" for name in names)), self.bias(names)

    def shape(self, names: Sequence[str]) -> tuple[int, int]:
        """Return (N, K) of several matrices below one another."""
        shapes = [self._shapes[f"{name}.weight"] for name in names]
        return sum(shape[0] for shape in shapes), shapes[0][1]

    def bias(self, names: Sequence[str]) -> Tensor | None:
        """Return the bias of several matrices below one another."""
        biases = [f"{name}.bias" for name in names if f"{name}.bias" in self._shapes]
        assert len(biases) in (0, len(names))
        return self.one(*biases) if biases else None

    def int4_blocks(self, _name: str) -> Iterator[Int4Rows] | None:
        """Return a matrix's rows as the int4 that a file holds; None where it holds something else."""
        return None


class FileWeights(StoredWeights):
    """Weights of safetensors files. The tensors that the package hands out are views of the file, which somebody may write anew."""

    def __init__(
        self, checkpoint: KnownCheckpoint, dtypes: tuple[torch.dtype, torch.dtype], device: torch.device, stack: ExitStack
    ) -> None:
        super().__init__(checkpoint.shapes, dtypes, device, MAPPED_BYTES)
        self._files, self._stack = checkpoint.files, stack
        self._path: Path | None = None
        self._file: Any = None
        self._num_bytes = 0  # read since it was opened

    def rows(self, name: str, start: int, stop: int) -> Tensor:
        """Return rows of a weight, of the mapped file."""
        stored: Tensor = self._opened(self._files[name]).get_slice(name)[start:stop]
        self._num_bytes += stored.nbytes
        return stored

    def _opened(self, path: Path) -> Any:
        """The file, mapped anew now and then: what was read of a mapping counts as memory of the process until it is closed."""
        from safetensors import safe_open

        if path != self._path or self._num_bytes > MAPPED_BYTES:
            self._file = None
            self._stack.close()
            self._path, self._num_bytes = path, 0
            self._file = self._stack.enter_context(safe_open(path, framework="pt"))
        return self._file


class Rotary:
    """The rotary embedding's angles, computed in float32 whatever the model's dtype."""

    def __init__(self, rope: Rope, head_dim: int, device: torch.device, divisors: Sequence[float] | None = None) -> None:
        own = frequencies(rope, head_dim)
        self.frequencies = (own if divisors is None else own.div_(torch.tensor(divisors))).to(device)

    def __call__(self, x: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Cosines and sines [..., D] of positions [...], in the dtype of x; both halves of a head turn by the same."""
        angles = positions[..., None].float() * self.frequencies
        angles = torch.cat((angles, angles), dim=-1)
        return angles.cos().to(x.dtype), angles.sin().to(x.dtype)


def frequencies(rope: Rope, head_dim: int) -> Tensor:
    """Radians per token, float32 [D / 2]. Computed on the CPU, in the order of operations that transformers has, so that
    they are the same to the last bit: far into a text, an angle is a thousand times its frequency."""
    own = 1.0 / (rope.theta ** (torch.arange(0, head_dim, 2, dtype=torch.float) / head_dim))
    if rope.type == "linear":
        return own / rope.settings["factor"]
    if rope.type != "llama3":
        return own
    # Slow waves, that the original length held less than low_freq_factor times, turn slower by the factor; fast ones, of
    # more than high_freq_factor times, stay; between them the change is gradual.
    factor, length = rope.settings["factor"], rope.settings["original_max_position_embeddings"]
    low, high = rope.settings["low_freq_factor"], rope.settings["high_freq_factor"]
    wavelengths = 2 * math.pi / own
    share = (length / wavelengths - low) / (high - low)
    between = (1 - share) * own / factor + share * own
    scaled = torch.where(wavelengths > length / low, own / factor, between)
    return torch.where(wavelengths < length / high, own, scaled)
