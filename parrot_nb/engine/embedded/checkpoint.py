"""What a checkpoint's files say, for decoders of the Llama shape whose arithmetic is known here to the last detail.

Such a checkpoint is read without transformers' model classes, whose import takes longer than everything else that loading
does. The choice is careful: every key of config.json must be known here with a value that is known here, and the
files must hold exactly the weights that follow from it. Whatever else there is, damaged and missing files too, is left
to transformers, which can do more, and says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite, prod
from pathlib import Path
from typing import Any

SINGLE_FILE, INDEX_FILE = "model.safetensors", "model.safetensors.index.json"
ADAPTER_FILE = "adapter_config.json"  # the folder is what somebody trained on top of another model
DTYPES = {"F32": "float32", "BF16": "bfloat16", "F16": "float16"}  # as safetensors and as torch call them

SIZES = {
    "vocab_size", "hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads",
    "max_position_embeddings",
}  # fmt: skip
# Keys that every family has; their values are looked at below.
LOOKED_AT = SIZES | {
    "model_type", "architectures", "hidden_act", "rms_norm_eps", "tie_word_embeddings", "dtype", "torch_dtype", "eos_token_id",
    "pad_token_id", "rope_parameters", "rope_scaling", "rope_theta", "parrot_note",
}  # fmt: skip
# Keys that change nothing of what a text makes the model compute: training, records, what other programs read.
WITHOUT_EFFECT = {
    "attention_dropout", "bos_token_id", "initializer_range", "transformers_version", "transformers.js_config", "use_cache",
    "_name_or_path", "_model_name_or_path", "unk_token_id", "sep_token_id", "unsloth_version", "unsloth_fixed",
}  # fmt: skip
# Keys that change nothing as long as they have this value.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "is_llama_config": (True,),
    "partial_rotary_factor": (1, None),
    "pretraining_tp": (1, None),
    "rope_interleaved": (False, None),
    "use_mrope": (False, None),
}
# Rope types: the settings that each needs.
ROPE_TYPES: dict[str, set[str]] = {
    "default": set(),
    "linear": {"factor"},
    "llama3": {"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"},
}


@dataclass(frozen=True, slots=True)
class Family:
    """Models that transformers computes with one class.

    Attributes:
        architecture: that class.
        own_keys: of config.json, that the others do not have.
        eos_token_id: what transformers takes where config.json says nothing.
        states_head_dim: whether config.json has to say it; elsewhere it follows from other sizes.
        qkv_bias: whether query, key and value always have a bias.
        fused: whether query, key and value are one weight, gate and up another.
        head_norms: whether query and key are normed.
        ropes: rope types.
        plain_tokenizer: whether transformers takes a tokenizer.json as it is, if the folder names no class for it.
    """

    architecture: str
    own_keys: frozenset[str] = frozenset()
    eos_token_id: int | None = None
    states_head_dim: bool = False
    qkv_bias: bool = False
    fused: bool = False
    head_norms: bool = False
    ropes: frozenset[str] = frozenset(ROPE_TYPES)
    plain_tokenizer: bool = False


WINDOWS_BY_LAYER = frozenset({"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"})
FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM", frozenset({"attention_bias", "mlp_bias", "head_dim"}), eos_token_id=2, plain_tokenizer=True
    ),
    "mistral": Family("MistralForCausalLM", frozenset({"sliding_window", "head_dim"}), eos_token_id=2),
    "qwen2": Family("Qwen2ForCausalLM", WINDOWS_BY_LAYER, qkv_bias=True),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        WINDOWS_BY_LAYER | {"attention_bias", "head_dim"},
        states_head_dim=True,
        head_norms=True,
        plain_tokenizer=True,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        # The original length matters to another rope type only.
        frozenset({"sliding_window", "resid_pdrop", "embd_pdrop", "original_max_position_embeddings"}),
        eos_token_id=32000,
        fused=True,
        ropes=frozenset({"default"}),
    ),
}


class OtherwiseError(Exception):
    """Something about a folder is not known here; who reads it with care catches this and leaves it to transformers."""


@dataclass(frozen=True, slots=True)
class Rope:
    """Rotary embedding: its type, of `ROPE_TYPES`, the base, and the settings of that type."""

    type: str
    theta: float
    settings: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class KnownCheckpoint:
    """A checkpoint on disk. Weights go by the names that transformers gives them.

    Attributes:
        dtype: torch's name of what config.json asks for.
        windows: of each layer, in tokens; None sees everything.
        eos_ids: what files of the model say ends a text; None where they say nothing.
        files: where each weight is.
        shapes: of each weight.
    """

    family: Family
    dtype: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    rope: Rope
    windows: tuple[int | None, ...]
    tied: bool
    max_context_tokens: int
    eos_ids: frozenset[int] | None
    note: str | None
    files: Mapping[str, Path]
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def num_parameters(self) -> int:
        """How many numbers the weights are."""
        return sum(map(prod, self.shapes.values()))


def known_checkpoint(folder: str | Path) -> KnownCheckpoint | None:
    """Read what a folder says of its model; None where anything is not known here, or the folder is not there."""
    folder = Path(folder)
    if not (folder / "config.json").is_file() or (folder / ADAPTER_FILE).exists():
        return None
    try:
        config = _json(folder / "config.json")
        family = _family(config)
        sizes = {key: _count(config, key) for key in SIZES}
        head_dim = _head_dim(config, family, sizes)
        tied = _flag(config, "tie_word_embeddings")
        shapes = _weight_shapes(config, family, sizes, head_dim, tied=tied)
        return KnownCheckpoint(
            family=family,
            dtype=_dtype(config),
            num_heads=sizes["num_attention_heads"],
            num_kv_heads=sizes["num_key_value_heads"],
            head_dim=head_dim,
            eps=_number(config, "rms_norm_eps"),
            rope=_rope(config, family),
            windows=_windows(config, sizes["num_hidden_layers"]),
            tied=tied,
            max_context_tokens=sizes["max_position_embeddings"],
            eos_ids=_eos_ids(folder, config, family),
            note=config.get("parrot_note"),
            files=_weight_files(folder, shapes),
            shapes=shapes,
        )
    except OtherwiseError:
        return None


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise OtherwiseError from error
    require(isinstance(found, dict))
    return dict(found)


def require(condition: bool) -> None:
    """Raise OtherwiseError unless it is so."""
    if not condition:
        raise OtherwiseError


def _family(config: dict[str, Any]) -> Family:
    model_type = config.get("model_type")
    require(isinstance(model_type, str) and model_type in FAMILIES)
    family = FAMILIES[str(model_type)]
    require(config.get("architectures", [family.architecture]) == [family.architecture])
    for key in config.keys() - LOOKED_AT - WITHOUT_EFFECT - family.own_keys:
        require(key in HARMLESS and config[key] in HARMLESS[key])
    require(config.get("hidden_act") == "silu")
    return family


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _count(config: Mapping[str, Any], key: str) -> int:
    value = config.get(key)
    require(_is_count(value))
    return int(value or 0)


def _number(config: Mapping[str, Any], key: str) -> float:
    """A number above zero; as it stands, an int or a float: torch computes a little otherwise with one than the other."""
    value: Any = config.get(key)
    require(isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value) and value > 0)
    number: float = value
    return number


def _flag(config: Mapping[str, Any], key: str) -> bool:
    value = config.get(key, False)
    require(isinstance(value, bool))
    return bool(value)


def _head_dim(config: dict[str, Any], family: Family, sizes: dict[str, int]) -> int:
    num_heads = sizes["num_attention_heads"]
    require(sizes["hidden_size"] % num_heads == 0 and num_heads % sizes["num_key_value_heads"] == 0)
    if config.get("head_dim") is None:
        require(not family.states_head_dim)
        head_dim = sizes["hidden_size"] // num_heads
    else:
        head_dim = _count(config, "head_dim")
    require(head_dim % 2 == 0)
    return head_dim


def _dtype(config: dict[str, Any]) -> str:
    found = config.get("dtype") or config.get("torch_dtype")
    require(isinstance(found, str) and found in DTYPES.values())
    return str(found)


def _rope(config: dict[str, Any], family: Family) -> Rope:
    """From `rope_parameters`, or, in older files, from `rope_theta` and `rope_scaling`; never from a mixture."""
    if "rope_parameters" in config:
        require("rope_theta" not in config and "rope_scaling" not in config)
        found = config["rope_parameters"]
    else:
        found = {"rope_type": "default"} if config.get("rope_scaling") is None else config["rope_scaling"]
        require(isinstance(found, dict) and "rope_theta" not in found)
        found = {**found, "rope_theta": config.get("rope_theta")}
    require(isinstance(found, dict))
    kind = found.get("rope_type", found.get("type"))
    require(isinstance(kind, str) and kind in family.ropes and found.get("type", kind) == kind)
    require(found.get("partial_rotary_factor", 1) == 1)
    needed = ROPE_TYPES[str(kind)]
    require(found.keys() - {"rope_type", "type", "rope_theta", "partial_rotary_factor"} == needed)
    settings = {key: _number(found, key) for key in sorted(needed)}
    if kind == "llama3":
        require(settings["low_freq_factor"] < settings["high_freq_factor"])
    return Rope(str(kind), _number(found, "rope_theta"), settings)


def _windows(config: dict[str, Any], num_layers: int) -> tuple[int | None, ...]:
    model_type = config["model_type"]
    if model_type == "llama":
        return (None,) * num_layers
    if model_type in ("mistral", "phi3"):  # one for all layers; Mistral has one where config.json does not say
        require(model_type == "phi3" or "sliding_window" in config)
        window = config.get("sliding_window")
        require(window is None or _is_count(window))
        return (window,) * num_layers
    types = config.get("layer_types")
    if not _flag(config, "use_sliding_window"):
        require(types is None or types == ["full_attention"] * num_layers)
        return (None,) * num_layers
    window = _count(config, "sliding_window")
    if types is None:
        first = config.get("max_window_layers")
        require(isinstance(first, int) and not isinstance(first, bool))
        types = ["sliding_attention" if i >= int(first or 0) else "full_attention" for i in range(num_layers)]
    require(isinstance(types, list) and len(types) == num_layers)
    require(all(kind in ("sliding_attention", "full_attention") for kind in types))
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _eos_ids(folder: Path, config: dict[str, Any], family: Family) -> frozenset[int] | None:
    path = folder / "generation_config.json"
    generation = _json(path) if path.exists() else {}
    stated = [ids for ids in (generation.get("eos_token_id"), config.get("eos_token_id")) if ids is not None]
    if not stated and "eos_token_id" not in config and family.eos_token_id is not None:
        stated = [family.eos_token_id]
    several = [token_id for ids in stated for token_id in (ids if isinstance(ids, list) else [ids])]
    require(all(isinstance(i, int) and not isinstance(i, bool) for i in several))
    return frozenset(several) if stated else None


def _weight_shapes(
    config: dict[str, Any], family: Family, sizes: dict[str, int], head_dim: int, *, tied: bool
) -> dict[str, tuple[int, ...]]:
    vocab, hidden, inner = sizes["vocab_size"], sizes["hidden_size"], sizes["intermediate_size"]
    pad = config.get("pad_token_id")
    require(pad is None or (isinstance(pad, int) and -vocab <= pad < vocab))
    query, key = sizes["num_attention_heads"] * head_dim, sizes["num_key_value_heads"] * head_dim
    bias, mlp_bias = _flag(config, "attention_bias"), _flag(config, "mlp_bias")
    qkv = {"qkv_proj": query + 2 * key} if family.fused else {"q_proj": query, "k_proj": key, "v_proj": key}
    gate_up = {"gate_up_proj": 2 * inner} if family.fused else {"gate_proj": inner, "up_proj": inner}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}

    def linear(name: str, width: int, rows: int, *, bias: bool) -> None:
        shapes[f"{name}.weight"] = rows, width
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    if not tied:
        linear("lm_head", hidden, vocab, bias=False)
    for i_layer in range(sizes["num_hidden_layers"]):
        layer = f"model.layers.{i_layer}"
        shapes[f"{layer}.input_layernorm.weight"] = shapes[f"{layer}.post_attention_layernorm.weight"] = (hidden,)
        for name, rows in qkv.items():
            linear(f"{layer}.self_attn.{name}", hidden, rows, bias=bias or family.qkv_bias)
        linear(f"{layer}.self_attn.o_proj", query, hidden, bias=bias)
        for name, rows in gate_up.items():
            linear(f"{layer}.mlp.{name}", hidden, rows, bias=mlp_bias)
        linear(f"{layer}.mlp.down_proj", inner, hidden, bias=mlp_bias)
        if family.head_norms:
            shapes[f"{layer}.self_attn.q_norm.weight"] = shapes[f"{layer}.self_attn.k_norm.weight"] = (head_dim,)
    return shapes


def _weight_files(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Path]:
    """Where each weight is; what the files' headers say must be what was expected, no more and no less."""
    from safetensors import SafetensorError, safe_open

    if (folder / SINGLE_FILE).is_file():
        names = [SINGLE_FILE]
    else:
        placed = _json(folder / INDEX_FILE).get("weight_map")
        require(isinstance(placed, dict) and all(isinstance(name, str) for name in placed.values()))
        names = sorted(set((placed or {}).values()))
        require(all(Path(name).name == name for name in names))  # nothing outside the folder
    files: dict[str, Path] = {}
    for name in names:
        try:
            with safe_open(folder / name, framework="pt") as file:
                require((file.metadata() or {}).get("format") == "pt")
                for key in file.keys():  # noqa: SIM118 - not a mapping
                    stored = file.get_slice(key)
                    require(key not in files and stored.get_dtype() in DTYPES)
                    require(shapes.get(key) == tuple(stored.get_shape()))
                    files[key] = folder / name
        except (SafetensorError, OSError) as error:
            raise OtherwiseError from error
    require(files.keys() == shapes.keys())
    return files
