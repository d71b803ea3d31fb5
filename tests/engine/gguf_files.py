"""Tiny GGUF files of known weights, written by the `gguf` package."""

from __future__ import annotations

from pathlib import Path

import gguf
import torch
import transformers as hf
from checkpoints import NUM_BYTES, VOCAB, byte_tokenizer

CHAT_TEMPLATE = (
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}{% endfor %}{% if add_generation_prompt %}[bot]{% endif %}"
)
NAMES = {
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down", "self_attn.q_norm": "attn_q_norm", "self_attn.k_norm": "attn_k_norm",
}  # fmt: skip
WITH_POST_NORMS = NAMES | {
    "post_attention_layernorm": "post_attention_norm", "pre_feedforward_layernorm": "ffn_norm", "post_feedforward_layernorm": "post_ffw_norm",
}  # fmt: skip


def random_llama(folder: Path, **changes) -> Path:
    """A Llama checkpoint whose widths are whole blocks of GGML's types. Its tokens: bytes, <bos>, <eos>, and " t"."""
    sizes = {
        "vocab_size": VOCAB + 1, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.35, "bos_token_id": NUM_BYTES,
        "eos_token_id": NUM_BYTES + 1, "pad_token_id": None,
    }  # fmt: skip
    torch.manual_seed(3)
    model = hf.LlamaForCausalLM(hf.LlamaConfig(**sizes | changes))
    model.save_pretrained(folder)
    return folder


def write_gguf(
    path: Path,
    checkpoint: Path,
    *,
    quantisation: gguf.GGMLQuantizationType = gguf.GGMLQuantizationType.F32,
    values: dict[str, object] | None = None,
    factors: list[float] | None = None,
    tokenizer: bool = True,
    architecture: str = "llama",
) -> Path:
    """A checkpoint as one GGUF file, the way llama.cpp writes its architecture.

    Args:
        quantisation: GGML's type of matrices; norms stay float32.
        values: further strings and numbers of the header.
        factors: of the rotary embedding's frequencies.
    """
    config = hf.AutoConfig.from_pretrained(checkpoint)
    weights = hf.AutoModelForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).state_dict()
    writer = gguf.GGUFWriter(path, architecture)
    writer.add_name("tiny")
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_parameters.get("full_attention", config.rope_parameters)["rope_theta"])
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_vocab_size(config.vocab_size)
    for key, value in (values or {}).items():
        (writer.add_string if isinstance(value, str) else writer.add_uint32)(key, value)
    if architecture != "llama":
        writer.add_key_length(config.head_dim)
        writer.add_value_length(config.head_dim)
    is_gemma = architecture.startswith("gemma")
    if is_gemma:
        writer.add_sliding_window(config.sliding_window)
    if tokenizer:
        _add_tokenizer(writer)
    if factors is not None:
        writer.add_tensor("rope_freqs.weight", torch.tensor(factors, dtype=torch.float32).numpy())
    for name, tensor in weights.items():
        if name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}.get(name.split(".")[-2])
        heads = heads if architecture == "llama" else None
        stored = tensor if heads is None else _interleaved(tensor, heads)
        array = (stored + 1 if is_gemma and name.endswith("norm.weight") else stored).contiguous().numpy()
        kind = quantisation if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32
        writer.add_tensor(_name(name, WITH_POST_NORMS if is_gemma else NAMES), gguf.quantize(array, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add_tokenizer(writer: gguf.GGUFWriter) -> None:
    vocab = byte_tokenizer().get_vocab()
    tokens = [*sorted(vocab, key=vocab.__getitem__), "Ġt"]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("default")
    writer.add_token_list(tokens)
    control, normal = gguf.TokenType.CONTROL, gguf.TokenType.NORMAL
    writer.add_token_types([control if vocab[token] >= NUM_BYTES else normal for token in tokens[:-1]] + [normal])
    writer.add_token_merges(["Ġ t"])
    writer.add_bos_token_id(NUM_BYTES)
    writer.add_eos_token_id(NUM_BYTES + 1)
    writer.add_chat_template(CHAT_TEMPLATE)


def _interleaved(weight: torch.Tensor, num_heads: int) -> torch.Tensor:
    """Rows in llama.cpp's order: the two halves of a head by turns."""
    return weight.view(num_heads, 2, -1, weight.shape[1]).transpose(1, 2).reshape(weight.shape)


def _name(name: str, names: dict[str, str]) -> str:
    whole = {
        "model.embed_tokens.weight": "token_embd.weight",
        "model.norm.weight": "output_norm.weight",
        "lm_head.weight": "output.weight",
    }
    if name in whole:
        return whole[name]
    _, _, i_layer, *rest, kind = name.split(".")
    return f"blk.{i_layer}.{names['.'.join(rest)]}.{kind}"
