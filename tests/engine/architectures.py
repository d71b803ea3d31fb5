"""Tiny random models of every causal architecture that transformers has, and what the engine makes of each.

A configuration is shrunk by the names of its fields, which are much the same everywhere; `CHANGES` holds what that does not
reach. Run as a program it prints the table of the documentation:

    python tests/engine/architectures.py > docs/pages/architectures.md
"""

from __future__ import annotations

import re
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
import transformers as hf
from checkpoints import PRIORITY, byte_tokenizer, run, write
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from parrot_nb.engine.embedded import load_engine
from parrot_nb.engine.protocol import Sampling
from parrot_nb.errors import ParrotError

VOCAB, NUM_TOKENS = 258, 12
WINDOW = 8
PROMPTS = [[(37 * i + i * i + 5) % 200 + 20 for i in range(length)] for length in (29, 3)]
# Fields by name; a pattern must match all of the name. The first one counts.
SIZES: list[tuple[str, Any]] = [
    (r"vocab_size", VOCAB),
    (r"hidden_size|d_model|n_embd|dim|word_embed_proj_dim|embedding_size|embed_dim|model_dim", 32),
    (r"num_hidden_layers|n_layer|n_layers|num_layers|(en|de)coder_layers", 2),
    (r"num_attention_heads|n_head|n_heads|num_heads|decoder_attention_heads", 4),
    (r"num_key_value_heads|n_head_kv|num_kv_heads|num_global_key_value_heads", 2),
    (r"(global_)?head_dim|v_head_dim|d_kv|kv_channels|attention_head_dim", 8),
    (r"max_position_embeddings|n_positions|n_ctx|max_seq_len|max_sequence_length|max_seq_length", 128),
    (r".*intermediate_size|ffn_dim|n_inner|d_ff|ffn_hidden_size|decoder_ffn_dim|dff", 48),
    (r"num_local_experts|num_experts|n_routed_experts|moe_num_experts", 4),
    (r"num_experts_per_tok|num_experts_per_token|moe_k|moe_topk|top_k_experts|experts_per_token", 2),
    (r"sliding_window|sliding_window_size|attention_window_size|window_size|local_attention", WINDOW),
    (r"initializer_range|init_std|initializer_factor", 0.35),
    (r"q_lora_rank|kv_lora_rank", 16),
    (r"qk_rope_head_dim|qk_nope_head_dim", 8),
]  # fmt: skip
OFTEN_UNSET = ("head_dim", "num_key_value_heads")
FIXED_LAYERS = {"bamba", "falcon_h1", "recurrent_gemma", "zamba", "zamba2"}  # whose kinds of layers follow from other fields
WHOLE = {"gemma4_assistant", "musicgen", "musicgen_melody"}  # whose own defaults are no configuration: all of it is in CHANGES
BYTES = {"vocab_size": 260}  # as this architecture counts them
SWA = {"swa_num_attention_heads": 4, "swa_num_key_value_heads": 2, "swa_head_dim": 8}
SOUND = {
    "text_encoder": {"model_type": "t5", "vocab_size": VOCAB, "d_model": 32, "d_ff": 48, "d_kv": 8, "num_layers": 1, "num_heads": 4},
    "audio_encoder": {
        "model_type": "encodec", "num_filters": 4, "hidden_size": 8, "codebook_size": 16, "codebook_dim": 8, "num_lstm_layers": 1,
    },
    "decoder": {
        "vocab_size": 64, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "ffn_dim": 48, "num_codebooks": 2,
        "max_position_embeddings": 64,
    },
}  # fmt: skip
# What the names do not tell, by model type.
CHANGES: dict[str, dict[str, Any]] = {
    "axk1": {"n_routed_experts": 4, "num_experts_per_tok": 2, "n_group": 2, "topk_group": 1},
    "bamba": {"mamba_n_heads": 4, "mamba_d_head": 16, "mamba_expand": 2, "num_hidden_layers": 2, "attn_layer_indices": [1]},
    "deepseek_v2": {"num_experts_per_tok": 2, "n_group": 1, "topk_group": 1},
    "granitemoehybrid": {
        "mamba_n_heads": 4,
        "mamba_d_head": 16,
        "mamba_expand": 2,
        "layer_types": ["mamba", "attention"],
        "num_hidden_layers": 2,
    },
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "reformer": {"is_decoder": True, "axial_pos_embds": False},
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    "blt": {"num_hidden_layers": 2, "encoder_hash_byte_group_vocab": 64, "encoder_hash_byte_group_size": [3, 4], **BYTES},
    "blt_local_encoder": {"hidden_size_global": 64, "num_key_value_heads": 4, **BYTES},
    "blt_local_decoder": {"hidden_size_global": 64, "num_key_value_heads": 4, **BYTES},
    "blt_global_transformer": {"hidden_size": 64, "num_key_value_heads": 4, "head_dim": 16},
    "blt_patcher": {"num_key_value_heads": 4, **BYTES},
    "codegen": {"rotary_dim": 4},
    "dots1": {"num_experts_per_tok": 2, "n_routed_experts": 4, "n_shared_experts": 1, "n_group": 1, "topk_group": 1},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "llama4": {},
    "llama4_text": {"attention_chunk_size": 64},
    "cohere_compass_text": {
        "layer_types": ["sliding_attention", "full_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 1, 1]}
            for kind in ("sliding_attention", "full_attention")
        },
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "clip_qkv": 8, "rope_theta": 1e4},
        "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "dory": {
        "num_hidden_layers": 4,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "n_input_layers": 1,
        "n_output_layers": 1,
    },
    "dots3_note_vision_encoder": {"mlp_layer_types": ["dense", "dense"], "adapter_in_dim": 32, "adapter_out_dim": 32},
    "dots3_note_audio_encoder": {"adapter_input_size": 32, "adapter_out_dim": 32, "downsample_hidden_size": 8},
    "gemma4_text": {"num_kv_shared_layers": 0, "hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": VOCAB},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "hidden_size_per_layer_input": 8,
        "vocab_size_per_layer_input": VOCAB,
        "laurel_rank": 4,
        "activation_sparsity_pattern": [0.0] * 4,
        "intermediate_size": [48] * 4,
    },
    "gemma4_assistant": {
        "backbone_hidden_size": 32,
        "text_config": {
            "vocab_size": VOCAB,
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 8,
            "global_head_dim": 8,
            "sliding_window": WINDOW,
            "layer_types": ["sliding_attention", "full_attention"],
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 0,
            "vocab_size_per_layer_input": 0,
        },
    },
    "inkling2_loop_text": {
        "unpadded_vocab_size": VOCAB,
        "num_hidden_layers": 6,
        "layer_types": ["hybrid_sliding", "hybrid"] * 3,
        "n_layers_per_attn_res_block": 2,
        "loop_layer_index_start": 2,
        "loop_layer_index_end": 4,
        "loop_gate_rank": 4,
        **SWA,
    },
    "inkling2_text": {"unpadded_vocab_size": VOCAB, "n_layers_per_attn_res_block": 1, **SWA},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"], "num_dense_layers": 1},
    "mamba2": {"num_heads": 8, "head_dim": 8, "expand": 2, "n_groups": 1},
    "musicgen": SOUND | {"decoder": SOUND["decoder"] | {"model_type": "musicgen_decoder"}},
    "musicgen_melody": SOUND | {"decoder": SOUND["decoder"] | {"model_type": "musicgen_melody_decoder"}},
    "qwen4_exp_text": {
        "num_hidden_layers": 2,
        "layer_types": ["linear_attention", "indexed_attention"],
        "linear_num_key_heads": 2,
        "linear_num_value_heads": 4,
        "linear_key_head_dim": 8,
        "linear_value_head_dim": 8,
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 64,
        "indexer_compress_ratio": 4,
    },
    "recurrent_gemma": {"num_hidden_layers": 3, "lru_width": 32},
    "xlstm": {"hidden_size": 128, "num_heads": 2},
    "zamba": {
        "num_hidden_layers": 4,
        "layers_block_type": ["linear_attention"] * 2 + ["hybrid"] * 2,
        "attention_head_dim": 16,
        "num_key_value_heads": 4,
    },
    "zamba2": {
        "num_hidden_layers": 3,
        "layers_block_type": ["linear_attention", "hybrid", "hybrid"],
        "num_key_value_heads": 4,
    },
    "zaya": {"num_experts_per_tok": 1},
}

# Types whose models write no text by themselves, so that `generate` is not asked; and their files' class, where it is no causal one.
NO_TEXT = {
    "gemma4_assistant": "",
    "gemma4_unified_assistant": "",
    "musicgen": "MusicgenForConditionalGeneration",
    "musicgen_melody": "MusicgenMelodyForConditionalGeneration",
}
Verdict = Literal["equal", "refused", "wrong", "unbuilt"]


@dataclass(frozen=True)
class Outcome:
    """What became of one architecture.

    Attributes:
        verdict: "equal" to `generate`; "refused" by the engine; "wrong" text; "unbuilt", where no tiny model could be made.
        detail: how it runs, or why not.
    """

    model_type: str
    architecture: str
    verdict: Verdict
    detail: str


def shrunk(config: hf.PreTrainedConfig, model_type: str) -> dict[str, Any]:
    """The settings of a tiny configuration of the same kind."""
    settings: dict[str, Any] = {}
    for name, value in config.to_dict().items():
        inner = vars(config).get(name)
        if isinstance(inner, hf.PreTrainedConfig):
            settings[name] = shrunk(inner, inner.model_type)
            continue
        if re.fullmatch(r".*_token_(id|index)|.*_token_ids", name):
            settings[name] = _in_vocab(value)
            continue
        for pattern, size in SIZES:
            numeric = isinstance(value, (int, float)) and not isinstance(value, bool)
            if re.fullmatch(pattern, name) and (numeric or (value is None and name in OFTEN_UNSET)):
                settings[name] = size
                break
    kinds = vars(config).get("layer_types")
    if kinds and model_type not in FIXED_LAYERS:
        kinds = list(dict.fromkeys(kinds))
        settings["layer_types"] = kinds if len(kinds) > 1 else kinds * 2
        settings["num_hidden_layers"] = len(settings["layer_types"])
    if "kv_lora_rank" in settings:  # latent attention has as many keys as queries
        settings["num_key_value_heads"] = settings["num_attention_heads"]
    settings |= CHANGES.get(model_type, {})
    return settings


def _in_vocab(token: Any) -> Any:
    """A special token, moved to the end of the vocabulary."""
    if isinstance(token, (list, tuple)):
        return [_in_vocab(each) for each in token]
    return min(token, VOCAB - 1) if isinstance(token, int) else token


def tiny_config(model_type: str) -> hf.PreTrainedConfig:
    """A tiny configuration of a model type."""
    if model_type in WHOLE:
        return hf.AutoConfig.for_model(model_type, **CHANGES[model_type])
    kind = type(hf.AutoConfig.for_model(model_type))
    return kind(**shrunk(kind(), model_type))


def tiny_checkpoint(folder: Path, model_type: str, seed: int = 0) -> hf.PreTrainedModel:
    """Save a tiny random model, and return it as transformers computes it by itself."""
    torch.manual_seed(seed)
    config = tiny_config(model_type)
    if found := NO_TEXT.get(model_type):
        model = getattr(hf, found)(config).eval()
    else:
        model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="eager").eval()
    with torch.no_grad():
        model.generation_config.eos_token_id = None
        for parameter in model.parameters():  # what is initialised to zeros or ones shall matter too
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    byte_tokenizer().save_pretrained(folder)
    return model


def expected_tokens(model: hf.PreTrainedModel, prompt: list[int]) -> list[int]:
    """What `generate` writes greedily."""
    config = hf.GenerationConfig(max_new_tokens=NUM_TOKENS, do_sample=False, eos_token_id=None, pad_token_id=0)
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = model.generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return out[0, len(prompt) :].tolist()


def found_tokens(engine: Any) -> list[list[int]]:
    """What the engine writes greedily: prompts side by side, in chunks, on small pages."""
    import asyncio

    sampling = Sampling(max_tokens=NUM_TOKENS, ignore_eos=True)

    async def one(engine: Any, prompt: list[int]) -> list[int]:
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        _, end = await write(engine, context, sampling)
        engine.free(context)
        return list(end.token_ids)

    async def main(engine: Any) -> list[list[int]]:
        return list(await asyncio.gather(*(one(engine, prompt) for prompt in PROMPTS)))

    return run(engine, main)


def outcome(model_type: str, folder: Path) -> Outcome:
    """Make a tiny model, load it, and compare its texts."""
    architecture = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    try:
        model = tiny_checkpoint(folder, model_type)
    except Exception as error:
        return Outcome(model_type, architecture, "unbuilt", _why_unbuilt(error))
    try:
        expected = [] if model_type in NO_TEXT else [expected_tokens(model, prompt) for prompt in PROMPTS]
    except Exception as error:
        return Outcome(model_type, architecture, "unbuilt", f"`generate` itself fails on a tiny one with {type(error).__name__}")
    try:
        engine = load_engine(folder, device="cpu", dtype="float32", kv_memory="4MB", page_size=4, max_step_tokens=8)
    except ParrotError as error:
        return Outcome(model_type, architecture, "refused", str(error))
    how = ", ".join(engine.model.swapped)
    try:
        found = found_tokens(engine)
    except Exception as error:
        return Outcome(model_type, architecture, "wrong", f"{type(error).__name__}: {error}")
    expected = [[token for token in tokens if token < 256] for tokens in expected]
    return Outcome(
        model_type, architecture, "equal" if found == expected else "wrong", how if found == expected else f"{found} {expected}"
    )


def _why_unbuilt(error: Exception) -> str:
    """Why transformers makes no tiny model of a type, in words."""
    lacking = sorted(set(re.findall(r"requires the (\w+) library", str(error))))
    if lacking:
        return f"needs {' and '.join(lacking)}, which this project does not install"
    return f"transformers makes no tiny one: {type(error).__name__}: {' '.join(str(error).split())}"


REASONS = (  # of refusals, as the table writes them: a part of our message, and words for it
    ("state-space", "some layers keep a state that is not keys and values"),
    ("AttentionInterface", "attention of its own"),
    ("attention of its own", "attention of its own"),
    ("does not attend causally", "an encoder, or attention of another kind"),
    ("shared_kv_states", "drafts for another model, from whose keys and values it reads"),
    ("computes with more", "computes with more than attention over positions"),
    ("cannot run ragged steps", "needs its own masks or cache"),
    ("sliding window in masks", "keeps its sliding window in masks"),
    ("does not know as a causal", "not loaded as text by transformers from its own files"),
    ("through its layers several times", "goes through its layers several times"),
    ("encoder-decoder", "an encoder-decoder model; what it writes is sound"),
)


def row(found: Outcome) -> str:
    """A row of the table."""
    if found.verdict == "refused":
        detail = next((words for part, words in REASONS if part in found.detail), "refused")
        return f"| `{found.model_type}` | `{found.architecture}` | refused | {detail} |"
    if found.verdict == "equal":
        detail = "fused decoder" if "QKV projection" in found.detail else "transformers' modules"
        return f"| `{found.model_type}` | `{found.architecture}` | equal | {detail} |"
    return f"| `{found.model_type}` | `{found.architecture}` | {VERDICTS[found.verdict]} | {found.detail} |"


VERDICTS = {"equal": "equal", "refused": "refused", "unbuilt": "not tried", "wrong": "WRONG"}
INTRODUCTION = """# Architectures

Every causal language model class of `transformers` {version}, tried with a tiny random model: two prompts side by side, computed
in chunks on small pages, against `generate` in float32. *Equal*: the same tokens. *Refused*: `P.UnsupportedModelError` says why
before anything is generated. *Not tried*: `transformers` makes no tiny model of the class here, and the row says why. Before a model of
any class is taken, its logits on a short text are compared with those it gives by itself, so a class that nobody has tried is refused
rather than served wrongly.

{counts}

The table is written by `python tests/engine/architectures.py > docs/pages/architectures.md`, and
`pytest -m architectures` holds every class to it: none may be wrong.

| model type | class | verdict | how, or why not |
|---|---|---|---|"""


def quietly() -> None:
    """Keep transformers' warnings about tiny configurations out of the way."""
    hf.utils.logging.set_verbosity_error()
    hf.utils.logging.disable_progress_bar()


def main() -> None:
    """Print the page with the table."""
    import contextlib
    import warnings

    warnings.simplefilter("ignore")
    quietly()
    found = []
    with contextlib.redirect_stdout(sys.stderr):  # some classes print
        for model_type in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
            with tempfile.TemporaryDirectory() as folder:
                found.append(outcome(model_type, Path(folder)))
    named = {"equal": "equal", "refused": "refused", "unbuilt": "not tried", "wrong": "wrong"}
    counts = {verdict: sum(each.verdict == verdict for each in found) for verdict in named}
    listed = ", ".join(f"{counts[verdict]} {words}" for verdict, words in named.items() if counts[verdict])
    print(INTRODUCTION.format(version=hf.__version__, counts=f"Of {len(found)} model types: {listed}."))
    print("\n".join(map(row, found)))


if __name__ == "__main__":
    main()
