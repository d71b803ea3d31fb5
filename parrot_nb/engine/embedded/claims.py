"""Checks of a model's config against the weights in its files, before anything is built of it.

transformers builds a model as its config says, in Python objects, before it looks at the weights: a billion layers take the memory
of any machine. The headers of the weights are a few kilobytes, and say what is there.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.checkpoint import INDEX_FILE, SINGLE_FILE
from parrot_nb.engine.embedded.defaults import FILE as GENERATION_FILE
from parrot_nb.engine.embedded.refusals import explained, placed
from parrot_nb.errors import ModelLoadError

# Keys of config.json, by what they size; older architectures have names of their own.
LAYERS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "decoder_layers",
    "encoder_layers",
    "depth",
)
HIDDEN = ("hidden_size", "n_embd", "d_model")
VOCABULARY = ("vocab_size", "padded_vocab_size")
INNER = ("intermediate_size", "ffn_dim", "n_inner", "ffn_hidden_size")
INNER_OF_EXPERTS = ("moe_intermediate_size",)  # as wide as the others where it is not said
HEADS = ("num_attention_heads", "n_head", "num_heads", "num_key_value_heads")
HEAD_DIM = ("head_dim",)
EXPERTS = ("num_local_experts", "num_experts", "n_routed_experts", "moe_num_experts")
POSITIONS = ("max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length", "max_seq_len", "seq_length")
MAY_BE_ZERO = {*INNER, *INNER_OF_EXPERTS, *EXPERTS}
SEVERAL = {*INNER, *INNER_OF_EXPERTS, *HEADS, *HEAD_DIM, *EXPERTS}  # may be lists, with a number for each layer
TEXT_CONFIGS = ("text_config", "llm_config", "language_config")

MAX_CONFIG_BYTES = 16 * 2**20  # the longest in use have some 100 KB
MAX_NOTE_CHARS = 10_000
MAX_SIZE = 2**31 - 1
MAX_POSITIONS = 2**26  # the longest contexts in use have ten million tokens
MAX_OTHER_LAYERS = 256  # of parts for images or sound, whose weights may have been left out
# A config may describe so many times the weights that are there, and so many in any case: what it says of a part that a model
# of its kind does not have counts here.
MAX_TIMES, MAX_TIMES_QUANTISED, FREE_WEIGHTS = 8, 64, 100_000_000
NUMBER = re.compile(r"(?<![^.])\d+(?![^.])")
POSITION_TABLE = re.compile(
    r"^(?!.*(vis|image|audio|encoder)).*(^|\.)(wpe|embed_positions|position_embeddings?|positions_embed)\.weight$"
)
EXPERT = re.compile(r"experts?\.\d+")
REMEDY = "get the model's files again, or correct its config"


@dataclass(frozen=True, slots=True)
class Held:
    """Contents of a model's weight files.

    Attributes:
        shapes: of each weight, by name.
        quantised: True if several weights may share one number of a file.
    """

    shapes: Mapping[str, tuple[int, ...]]
    quantised: bool = False

    @property
    def num_layers(self) -> int:
        """One more than the greatest number in a weight's name, those of experts apart."""
        numbers = (NUMBER.search(EXPERT.sub("", name)) for name in self.shapes)
        return max((int(found[0][:9]) + 1 for found in numbers if found), default=0)

    @property
    def sizes(self) -> set[int]:
        """Lengths of all dimensions of all weights."""
        return {size for shape in self.shapes.values() for size in shape}

    @property
    def num_weights(self) -> int:
        """Count of numbers in all weights."""
        return sum(map(prod, self.shapes.values()))

    @property
    def num_positions(self) -> int | None:
        """Rows of a table of positions; None where the model has none."""
        found = [shape[0] for name, shape in self.shapes.items() if POSITION_TABLE.search(name) and len(shape) == 2]
        return max(found, default=None)


def check_claims(folder: Path) -> Held | None:
    """Check a folder's config.json against the headers of its safetensors files.

    Returns:
        What the files hold; None if they do not go by the names that transformers reads.

    Raises:
        ModelLoadError: the config says what its weights do not hold, or what no model can have; or a file is damaged.
    """
    path = folder / "config.json"
    if not path.is_file():
        return None
    if (size := path.stat().st_size) > MAX_CONFIG_BYTES:
        raise ModelLoadError(f"config.json in '{folder}' has {size / 1e6:.0f} MB, which no config needs: {REMEDY}.")
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ModelLoadError(f"config.json in '{folder}' is damaged: get it again.") from error
    if not isinstance(config, dict):
        raise ModelLoadError(f"config.json in '{folder}' is damaged: get it again.")
    _check_card(folder, config)
    claims = list(_claims(config, text=True))
    said = f"config.json in '{folder}'"
    for claim in claims:
        claim.check(said)
    held = held_weights(folder, quantised=bool(config.get("quantization_config")) or "compression_config" in config)
    if held is not None:
        exact = not held.quantised and "auto_map" not in config
        for claim in claims:
            claim.check_held(said, held, exact=exact)
    return held


def _check_card(folder: Path, config: Mapping[str, Any]) -> None:
    """Refuse what a model's files say beside its sizes, where it is of another type than it must be."""
    note = config.get("parrot_note")
    if note is not None and (not isinstance(note, str) or len(note) > MAX_NOTE_CHARS):
        raise ModelLoadError(
            f"config.json in '{folder}' has a parrot_note that is no text of up to {MAX_NOTE_CHARS} characters: {REMEDY}."
        )
    try:
        generation = json.loads((folder / GENERATION_FILE).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):  # where it is not there or no JSON, it says nothing
        generation = None
    for name, card in (("config.json", config), (GENERATION_FILE, generation)):
        ids = card.get("eos_token_id") if isinstance(card, dict) else None
        for one in ids if isinstance(ids, list) else [] if ids is None else [ids]:
            if not isinstance(one, int) or isinstance(one, bool):
                raise ModelLoadError(
                    f"{name} in '{folder}' says eos_token_id = {ids!r:.60}, which must be one id or a list of them: {REMEDY}."
                )


def held_weights(folder: Path, *, quantised: bool = False) -> Held | None:
    """Read the headers of a folder's weights; None if they do not go by the names that transformers reads.

    Raises:
        ModelLoadError: a file is damaged, or the index names what is not there.
    """
    from safetensors import safe_open

    if (folder / SINGLE_FILE).is_file():
        by_file: dict[str, set[str]] = {SINGLE_FILE: set()}
    elif (folder / INDEX_FILE).is_file():
        by_file = {}
        for name, file in placed(folder / INDEX_FILE).items():
            by_file.setdefault(file, set()).add(name)
    else:
        return None
    shapes: dict[str, tuple[int, ...]] = {}
    for file, names in by_file.items():
        try:
            with safe_open(folder / file, framework="pt") as opened:
                found = {name: tuple(opened.get_slice(name).get_shape()) for name in opened.keys()}  # noqa: SIM118 - not a mapping
        except Exception as error:  # SafetensorError, OSError and what Rust raises for a header that lies
            raise explained(str(folder), error) from error
        if lacking := sorted(names - found.keys()):
            raise ModelLoadError(
                f"{INDEX_FILE} in '{folder}' says that '{file}' has the weight '{lacking[0]}', which it has not: {REMEDY}."
            )
        shapes |= found
    return Held(shapes, quantised)


@dataclass(frozen=True, slots=True)
class Claims:
    """Sizes that a config states for one part of a model.

    Attributes:
        values: as they stand, by key.
        is_text: True for the part that writes text, False for parts that read images or sound.
    """

    values: Mapping[str, Any]
    is_text: bool = True

    def check(self, said: str) -> None:
        """Refuse what no model can have. Raises ModelLoadError."""
        for key, value in self.values.items():
            least, most = (0 if key in MAY_BE_ZERO else 1), MAX_POSITIONS if key in POSITIONS else MAX_SIZE
            several = value if isinstance(value, list) and key in SEVERAL else [value]
            for one in several:
                if isinstance(one, list) and key in SEVERAL:  # of a block of layers
                    continue
                if isinstance(one, bool) or not isinstance(one, int) or not least <= one <= most:
                    shown = repr(one) if len(repr(one)) <= 40 else f"{repr(one)[:40]}…"
                    raise ModelLoadError(
                        f"{said} says {key} = {shown}, which must be a whole number from {least} to {most}: {REMEDY}."
                    )

    def check_held(self, said: str, held: Held, *, exact: bool) -> None:
        """Refuse what the weights do not hold.

        Args:
            said: who says it, for messages.
            held: the weights.
            exact: True if sizes must occur among the weights' own.
        """
        room = max(held.num_layers or len(held.shapes), 0 if self.is_text else MAX_OTHER_LAYERS)
        for key, layers in self._said(LAYERS):
            if layers > room:
                raise ModelLoadError(
                    f"{said} says {key} = {layers}, but its weights are of {held.num_layers} layers: {REMEDY} (a model that goes "
                    "through its layers several times cannot be run)."
                )
        if not self.is_text:
            return
        for key, size in self._said((*HIDDEN, VOCABULARY[0])) if exact else ():
            if size not in held.sizes:
                raise ModelLoadError(f"{said} says {key} = {size}, but none of its weights has that size: {REMEDY}.")
        for key, positions in self._said(POSITIONS[:2]) if held.num_positions is not None else ():
            if positions > (held.num_positions or 0):
                raise ModelLoadError(
                    f"{said} says {key} = {positions}, but its weights have {held.num_positions} positions: {REMEDY}."
                )
        described = self._num_weights()
        times = MAX_TIMES_QUANTISED if held.quantised else MAX_TIMES
        if described > max(times * held.num_weights, FREE_WEIGHTS):
            raise ModelLoadError(
                f"{said} describes some {described:.1e} weights, but its files hold {held.num_weights:.1e}: {REMEDY}."
            )

    def _said(self, keys: Iterable[str]) -> list[tuple[str, int]]:
        """Return those of these keys that are present, each with the greatest of its values."""
        return [(key, _greatest(self.values[key])) for key in keys if key in self.values]

    def _size(self, keys: Iterable[str], otherwise: int) -> int:
        return max((size for _, size in self._said(keys)), default=otherwise)

    def _num_weights(self) -> int:
        """About how many weights follow from the sizes."""
        hidden, layers, heads = self._size(HIDDEN, 0), self._size(LAYERS, 0), self._size(HEADS, 1)
        width = max(heads * self._size(HEAD_DIM, hidden // heads or 1), hidden)
        inner, experts = self._size(INNER, 4 * hidden), max(self._size(EXPERTS, 1), 1)
        inner = max(inner, experts * self._size(INNER_OF_EXPERTS, inner))
        return layers * hidden * (2 * width + 2 * inner) + self._size(VOCABULARY, 0) * hidden


def _greatest(value: Any) -> int:
    if isinstance(value, list):
        return max(map(_greatest, value), default=0)
    return value if isinstance(value, int) else 0


def _claims(config: Mapping[str, Any], *, text: bool, depth: int = 0) -> Iterator[Claims]:
    """The claims of a config, and of those in it."""
    known = {*LAYERS, *HIDDEN, *VOCABULARY, *INNER, *INNER_OF_EXPERTS, *HEADS, *HEAD_DIM, *EXPERTS, *POSITIONS}
    yield Claims({key: value for key, value in config.items() if key in known and value is not None}, text)
    for key, inner in config.items():
        if key.endswith("config") and isinstance(inner, dict) and depth < 4:
            yield from _claims(inner, text=text and key in TEXT_CONFIGS, depth=depth + 1)
