"""Reader of what a checkpoint's files say, for decoders of the Llama shape whose arithmetic is known here to the last detail.

Such a checkpoint is read without transformers' model classes, whose import takes longer than everything else that loading
does. The choice is careful: every key of config.json must be known here with a value that is known here, and the
files must hold exactly the weights that follow from it. Whatever else there is, damaged and missing files too, is left
to transformers, which can do more, and says what is wrong.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields
from math import isfinite, prod
from pathlib import Path
from typing import Any

from parrot_nb.engine.embedded.families import FAMILIES, ROPE_TYPES, DecoderSizes, Family, LayerSizes

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
ACTIVATIONS = {"silu": "silu", "gelu_pytorch_tanh": "gelu_tanh"}  # as config.json and as the kernels call them
# Keys that change nothing as long as they have this value.
HARMLESS: dict[str, tuple[Any, ...]] = {
    "is_llama_config": (True,),
    "partial_rotary_factor": (1, None),
    "pretraining_tp": (1, None),
    "rope_interleaved": (False, None),
    "use_mrope": (False, None),
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
class DecoderConfig:
    """Description of a decoder by its config.json. Weights go by the names that transformers gives them.

    Attributes:
        sizes: what it computes with besides weights.
        head_dim: of query and key.
        ropes: rotary embeddings, by the number that layers have for them.
        shapes: of each weight.
    """

    family: Family
    sizes: DecoderSizes
    head_dim: int
    ropes: tuple[Rope, ...]
    max_context_tokens: int
    shapes: Mapping[str, tuple[int, ...]]

    @property
    def num_parameters(self) -> int:
        """Count of numbers in all weights."""
        return sum(map(prod, self.shapes.values()))


@dataclass(frozen=True, slots=True)
class KnownCheckpoint(DecoderConfig):
    """A checkpoint on disk.

    Attributes:
        dtype: torch's name of what config.json asks for.
        eos_ids: what files of the model say ends a text; None where they say nothing.
        files: where each weight is.
    """

    dtype: str
    eos_ids: frozenset[int] | None
    note: str | None
    files: Mapping[str, Path]


def known_checkpoint(folder: str | Path) -> KnownCheckpoint | None:
    """Read what a folder says of its model; None where anything is not known here, or the folder is not there."""
    folder = Path(folder)
    if not (folder / "config.json").is_file() or (folder / ADAPTER_FILE).exists():
        return None
    try:
        config = _json(folder / "config.json")
        decoder = decoder_config(config)
        return KnownCheckpoint(
            **values_of(decoder),
            dtype=_dtype(config),
            eos_ids=_eos_ids(folder, config, decoder.family),
            note=config.get("parrot_note"),
            files=_weight_files(folder, decoder.shapes),
        )
    except OtherwiseError:
        return None


def decoder_config(config: dict[str, Any]) -> DecoderConfig:
    """Read what a config.json says of its decoder. Raises OtherwiseError where anything is not known here."""
    family = _family(config)
    counts = {key: _count(config, key) for key in SIZES}
    head_dim = _head_dim(config, family, counts)
    sizes = _sizes(config, family, counts, head_dim)
    return DecoderConfig(
        family=family,
        sizes=sizes,
        head_dim=head_dim,
        ropes=_ropes(config, family),
        max_context_tokens=counts["max_position_embeddings"],
        shapes=_weight_shapes(config, family, counts, head_dim, tied=sizes.tied),
    )


def values_of(decoder: DecoderConfig) -> dict[str, Any]:
    """The attributes of a decoder's config, for a class that has more."""
    return {field.name: getattr(decoder, field.name) for field in fields(DecoderConfig)}


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
    # Gemma 2 and 3 have a key of their own, beside which some files still have the older one.
    stated = [config[key] for key in ("hidden_act", "hidden_activation") if config.get(key) is not None]
    require(bool(stated) and all(isinstance(name, str) and ACTIVATIONS.get(name) == family.activation for name in stated))
    require("hidden_activation" in config or not family.post_norms)
    require(not config.get("use_bidirectional_attention"))
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


def _flag(config: Mapping[str, Any], key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    require(isinstance(value, bool))
    return bool(value)


def _head_dim(config: dict[str, Any], family: Family, counts: dict[str, int]) -> int:
    num_heads = counts["num_attention_heads"]
    require(counts["hidden_size"] % num_heads == 0 and num_heads % counts["num_key_value_heads"] == 0)
    if config.get("head_dim") is None:
        require(not family.states_head_dim)
        head_dim = counts["hidden_size"] // num_heads
    else:
        head_dim = _count(config, "head_dim")
    require(head_dim % 2 == 0)
    return head_dim


def _dtype(config: dict[str, Any]) -> str:
    found = config.get("dtype") or config.get("torch_dtype")
    require(isinstance(found, str) and found in DTYPES.values())
    return str(found)


def _sizes(config: dict[str, Any], family: Family, counts: dict[str, int], head_dim: int) -> DecoderSizes:
    eps = _number(config, "rms_norm_eps")
    score_cap, logit_cap = (_softcap(config, key) for key in family.softcaps)
    if "attn_logit_softcapping" not in family.softcaps:
        require(config.get("attn_logit_softcapping") is None)
    scale = _number(config, "query_pre_attn_scalar") if family.scaled_queries else head_dim
    windows = _windows(config, family, counts["num_hidden_layers"])
    layers = tuple(
        LayerSizes(
            index=index,
            num_heads=counts["num_attention_heads"],
            num_kv_heads=counts["num_key_value_heads"],
            head_dim=head_dim,
            eps=eps,
            scale=scale**-0.5,
            window=window,
            softcap=score_cap,
            rotary=int(family.local_rope and window is not None),
            activation=family.activation,
        )
        for index, window in enumerate(windows)
    )
    embedding_scale = counts["hidden_size"] ** 0.5 if family.scaled_embedding else None
    return DecoderSizes(layers, eps, _flag(config, "tie_word_embeddings", family.tied), embedding_scale, logit_cap)


def _softcap(config: dict[str, Any], key: str | None) -> float | None:
    """A bound of scores or logits. It must be there, if only as null: what stands for it if not depends on the family."""
    if key is None:
        return None
    require(key in config)
    return None if config[key] is None else _number(config, key)


def _ropes(config: dict[str, Any], family: Family) -> tuple[Rope, ...]:
    """From `rope_parameters`, or, in older files, from `rope_theta`, `rope_scaling` and so on; never from a mixture."""
    older = {"rope_theta", "rope_scaling", "rope_local_base_freq"}
    if "rope_parameters" in config:
        require(not older & config.keys())
        found = config["rope_parameters"]
        if not family.local_rope:
            return (_rope(found, family),)
        require(isinstance(found, dict) and found.keys() == {"full_attention", "sliding_attention"})
        return _rope(found["full_attention"], family), _rope(found["sliding_attention"], family)
    found = {"rope_type": "default"} if config.get("rope_scaling") is None else config["rope_scaling"]
    require(isinstance(found, dict) and "rope_theta" not in found)
    rope = _rope({**found, "rope_theta": config.get("rope_theta")}, family)
    if not family.local_rope:
        return (rope,)
    return rope, _rope({"rope_type": "default", "rope_theta": config.get("rope_local_base_freq")}, family)


def _rope(found: Any, family: Family) -> Rope:
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


def _windows(config: dict[str, Any], family: Family, num_layers: int) -> tuple[int | None, ...]:
    if family.windows == "none":
        return (None,) * num_layers
    if family.windows == "all":  # Mistral has one where config.json does not say
        require("sliding_window" in config or family.architecture != "MistralForCausalLM")
        window = config.get("sliding_window")
        require(window is None or _is_count(window))
        return (window,) * num_layers
    types = config.get("layer_types")
    if family.windows == "flagged" and not _flag(config, "use_sliding_window"):
        require(types is None or types == ["full_attention"] * num_layers)
        return (None,) * num_layers
    window = _count(config, "sliding_window")
    if types is None:
        types = _kinds(config, family, num_layers)
    require(isinstance(types, list) and len(types) == num_layers)
    require(all(kind in ("sliding_attention", "full_attention") for kind in types))
    return tuple(window if kind == "sliding_attention" else None for kind in types)


def _kinds(config: dict[str, Any], family: Family, num_layers: int) -> list[str]:
    """The kind of each layer where config.json does not list them."""
    if family.windows == "flagged":
        first = config.get("max_window_layers")
        require(isinstance(first, int) and not isinstance(first, bool))
        slides = [i >= int(first or 0) for i in range(num_layers)]
    else:
        period = _count(config, "sliding_window_pattern") if "sliding_window_pattern" in config else family.period
        slides = [bool((i + 1) % period) for i in range(num_layers)]
    return ["sliding_attention" if slide else "full_attention" for slide in slides]


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
    config: dict[str, Any], family: Family, counts: dict[str, int], head_dim: int, *, tied: bool
) -> dict[str, tuple[int, ...]]:
    vocab, hidden, inner = counts["vocab_size"], counts["hidden_size"], counts["intermediate_size"]
    pad = config.get("pad_token_id")
    require(pad is None or (isinstance(pad, int) and -vocab <= pad < vocab))
    query, key = counts["num_attention_heads"] * head_dim, counts["num_key_value_heads"] * head_dim
    bias, mlp_bias = _flag(config, "attention_bias"), _flag(config, "mlp_bias")
    qkv = {"qkv_proj": query + 2 * key} if family.joined else {"q_proj": query, "k_proj": key, "v_proj": key}
    gate_up = {"gate_up_proj": 2 * inner} if family.joined else {"gate_proj": inner, "up_proj": inner}
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden), "model.norm.weight": (hidden,)}

    def linear(name: str, width: int, rows: int, *, bias: bool) -> None:
        shapes[f"{name}.weight"] = rows, width
        if bias:
            shapes[f"{name}.bias"] = (rows,)

    if not tied:
        linear("lm_head", hidden, vocab, bias=False)
    for i_layer in range(counts["num_hidden_layers"]):
        layer = f"model.layers.{i_layer}"
        shapes |= {f"{layer}.{norm}.weight": (hidden,) for norm in family.norm_names if norm is not None}
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
    """Return the file of each weight; what the files' headers say must be what was expected, no more and no less."""
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
