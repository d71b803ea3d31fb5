"""Decoders of the Llama shape by family: where their arithmetic, and what their config.json may say, differ.

A layer of every family is x + attention(norm(x)), then x + mlp(norm(x)), with root mean square norms, rotary embeddings and a
gated MLP. A family says what else there is. The fused decoder and the compiled one, whether their weights come from files or from
transformers' modules, follow this description, so to add a family is to add an entry to `FAMILIES`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Activation = Literal["silu", "gelu", "gelu_tanh"]
# Which layers see only the last tokens: none; all, where config.json has a window; those from `max_window_layers` on, where a
# flag is set; those that `layer_types` names, or else all but every so many-th.
Windows = Literal["none", "all", "flagged", "patterned"]
# Rope types: the settings that each needs.
ROPE_TYPES: dict[str, frozenset[str]] = {
    "default": frozenset(),
    "linear": frozenset({"factor"}),
    "llama3": frozenset({"factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"}),
}


@dataclass(frozen=True, slots=True)
class Family:
    """Models that transformers computes with one class.

    Attributes:
        architecture: that class.
        own_keys: of config.json, that not all families have.
        activation: of the gate.
        eos_token_id: what transformers takes where config.json says nothing.
        states_head_dim: whether config.json has to say it; elsewhere it follows from other sizes.
        qkv_bias: whether query, key and value always have a bias.
        joined: whether query, key and value are one weight, gate and up another.
        head_norms: whether query and key are normed.
        post_norms: whether what attention and MLP give is normed too, before it is added.
        unit_norms: whether norms multiply by 1 + their weight, before they round.
        scaled_embedding: whether embedded rows are multiplied by the root of their width.
        scaled_queries: whether config.json says which head width the scores' scale follows from.
        softcaps: keys of config.json with the bounds of scores and of logits; where a family has no such bound, None.
        windows: which layers see only so many tokens back.
        period: every so many-th layer of a pattern sees all.
        local_rope: whether layers with a window turn by a rotary embedding of their own.
        tied: what transformers takes for `tie_word_embeddings` where config.json says nothing.
        ropes: rope types.
        plain_tokenizer: whether transformers takes a tokenizer.json as it is, if the folder names no class for it.
    """

    architecture: str
    own_keys: frozenset[str] = frozenset()
    activation: Activation = "silu"
    eos_token_id: int | None = None
    states_head_dim: bool = False
    qkv_bias: bool = False
    joined: bool = False
    head_norms: bool = False
    post_norms: bool = False
    unit_norms: bool = False
    scaled_embedding: bool = False
    scaled_queries: bool = False
    softcaps: tuple[str | None, str | None] = (None, None)
    windows: Windows = "none"
    period: int = 0
    local_rope: bool = False
    tied: bool = False
    ropes: frozenset[str] = frozenset(ROPE_TYPES)
    plain_tokenizer: bool = False

    @property
    def stem(self) -> str:
        """Beginning of the names of its classes."""
        return self.architecture.removesuffix("ForCausalLM")

    @property
    def norm_names(self) -> tuple[str, str | None, str, str | None]:
        """Names of a layer's norms: before and after attention, before and after the MLP."""
        if self.post_norms:
            return "input_layernorm", "post_attention_layernorm", "pre_feedforward_layernorm", "post_feedforward_layernorm"
        return "input_layernorm", None, "post_attention_layernorm", None

    @property
    def qkv_names(self) -> tuple[str, ...]:
        """Names of the weights that make query, key and value."""
        return ("qkv_proj",) if self.joined else ("q_proj", "k_proj", "v_proj")

    @property
    def gate_up_names(self) -> tuple[str, ...]:
        """Names of the weights that make gate and what it multiplies."""
        return ("gate_up_proj",) if self.joined else ("gate_proj", "up_proj")


@dataclass(frozen=True, slots=True)
class LayerSizes:
    """Numbers and choices of one layer, besides its weights.

    Attributes:
        index: of the layer.
        eps: of its norms.
        scale: of the scores.
        window: how many last positions a row sees, itself included; None for all.
        softcap: bound of the scores, or None.
        rotary: which of the decoder's rotary embeddings turns its heads.
        activation: of the gate.
    """

    index: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    eps: float
    scale: float
    window: int | None = None
    softcap: float | None = None
    rotary: int = 0
    activation: Activation = "silu"


@dataclass(frozen=True, slots=True)
class DecoderSizes:
    """Numbers and choices of a decoder, besides its weights.

    Attributes:
        eps: of the last norm.
        tied: whether the embedding is the head as well.
        embedding_scale: factor of embedded rows, or None.
        softcap: bound of the logits, or None.
    """

    layers: tuple[LayerSizes, ...]
    eps: float
    tied: bool
    embedding_scale: float | None = None
    softcap: float | None = None


WINDOWS_BY_LAYER = frozenset({"use_sliding_window", "sliding_window", "max_window_layers", "layer_types"})
GEMMA_KEYS = frozenset({"attention_bias", "head_dim", "hidden_activation", "use_bidirectional_attention", "cache_implementation"})
GEMMA_PATTERN = frozenset({
    "sliding_window", "layer_types", "query_pre_attn_scalar", "attn_logit_softcapping", "final_logit_softcapping",
})  # fmt: skip
FAMILIES = {
    "llama": Family(
        "LlamaForCausalLM", frozenset({"attention_bias", "mlp_bias", "head_dim"}), eos_token_id=2, plain_tokenizer=True
    ),
    "mistral": Family("MistralForCausalLM", frozenset({"sliding_window", "head_dim"}), eos_token_id=2, windows="all"),
    "qwen2": Family("Qwen2ForCausalLM", WINDOWS_BY_LAYER, qkv_bias=True, windows="flagged"),
    "qwen3": Family(
        "Qwen3ForCausalLM",
        WINDOWS_BY_LAYER | {"attention_bias", "head_dim"},
        states_head_dim=True,
        head_norms=True,
        windows="flagged",
        plain_tokenizer=True,
    ),
    "phi3": Family(
        "Phi3ForCausalLM",
        # The original length matters to another rope type only.
        frozenset({"sliding_window", "resid_pdrop", "embd_pdrop", "original_max_position_embeddings"}),
        eos_token_id=32000,
        joined=True,
        windows="all",
        ropes=frozenset({"default"}),
    ),
    "gemma": Family(
        "GemmaForCausalLM",
        GEMMA_KEYS,
        activation="gelu_tanh",
        eos_token_id=1,
        states_head_dim=True,
        unit_norms=True,
        scaled_embedding=True,
        plain_tokenizer=True,
        tied=True,
    ),
    "gemma2": Family(
        "Gemma2ForCausalLM",
        GEMMA_KEYS | GEMMA_PATTERN,
        activation="gelu_tanh",
        eos_token_id=1,
        states_head_dim=True,
        post_norms=True,
        unit_norms=True,
        scaled_embedding=True,
        plain_tokenizer=True,
        scaled_queries=True,
        softcaps=("attn_logit_softcapping", "final_logit_softcapping"),
        windows="patterned",
        period=2,
        tied=True,
    ),
    "gemma3_text": Family(
        "Gemma3ForCausalLM",
        GEMMA_KEYS | GEMMA_PATTERN | {"rope_local_base_freq", "sliding_window_pattern", "_sliding_window_pattern"},
        activation="gelu_tanh",
        eos_token_id=1,
        states_head_dim=True,
        head_norms=True,
        post_norms=True,
        unit_norms=True,
        scaled_embedding=True,
        plain_tokenizer=True,
        scaled_queries=True,
        softcaps=(None, "final_logit_softcapping"),  # transformers has a key for scores too, and does not look at it
        windows="patterned",
        period=6,
        local_rope=True,
        tied=True,
    ),
}  # fmt: skip
