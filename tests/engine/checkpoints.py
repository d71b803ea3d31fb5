"""Tiny random checkpoints, their tokenizer, and a way to run an engine without the rest of the system."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import torch
import transformers as hf
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from parrot_kernels.references_elementwise import penalised_reference, sample_reference
from parrot_nb.engine.embedded import EmbeddedEngine, load_engine
from parrot_nb.engine.embedded.cache import PageCache
from parrot_nb.engine.embedded.lease import Lease
from parrot_nb.engine.embedded.times import StepTimes
from parrot_nb.engine.protocol import GenerationEnd, Kind, Priority, Sampling

NUM_BYTES = 256
PRIORITY = Priority(Kind.LATENCY)
VOCAB = NUM_BYTES + 2  # bytes, <bos>, <eos>
SHAPE = {
    "vocab_size": VOCAB, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 3, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.35,
    "bos_token_id": NUM_BYTES, "eos_token_id": NUM_BYTES + 1, "pad_token_id": None,
}  # fmt: skip
OTHER = {
    key: value for key, value in SHAPE.items() if key not in ("intermediate_size", "num_key_value_heads", "initializer_range")
}

CONFIGS = {
    "llama": lambda: hf.LlamaConfig(**SHAPE),
    "qwen2": lambda: hf.Qwen2Config(**SHAPE),
    "qwen3": lambda: hf.Qwen3Config(**SHAPE, head_dim=8),
    "mistral": lambda: hf.MistralConfig(**SHAPE, sliding_window=8),
    "gemma": lambda: hf.GemmaConfig(**SHAPE, head_dim=8),
    "gemma2": lambda: hf.Gemma2Config(**SHAPE, head_dim=8, sliding_window=8, attn_logit_softcapping=2.0, final_logit_softcapping=3.0),
    "gemma3": lambda: hf.Gemma3TextConfig(**SHAPE, head_dim=8, sliding_window=8, layer_types=["sliding_attention", "full_attention", "sliding_attention"]),
    "phi3": lambda: hf.Phi3Config(**SHAPE),
    "opt": lambda: hf.OPTConfig(**OTHER, ffn_dim=48, word_embed_proj_dim=32, init_std=0.35),
    "gpt2": lambda: hf.GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=3, n_head=4, n_positions=256, initializer_range=0.35,
        bos_token_id=NUM_BYTES, eos_token_id=NUM_BYTES + 1,
    ),
    "gpt_neox": lambda: hf.GPTNeoXConfig(**OTHER, intermediate_size=48, initializer_range=0.35, rotary_pct=0.5),
    "mixtral": lambda: hf.MixtralConfig(**SHAPE, num_local_experts=4),
    "qwen3_moe": lambda: hf.Qwen3MoeConfig(**SHAPE, head_dim=8, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16),
    "gpt_oss": lambda: hf.GptOssConfig(**SHAPE, head_dim=8, num_local_experts=4, sliding_window=8, rope_parameters={"rope_type": "default", "rope_theta": 1e4}),
}  # fmt: skip


def byte_tokenizer() -> hf.PreTrainedTokenizerFast:
    """One token a byte, so that any ids are text, plus <bos> and <eos>."""
    vocab = {char: i for i, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    return hf.PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>")


# Architectures that are read straight from their files; the same by transformers' modules, thanks to a key nobody knows.
READ_FROM_FILES = ("llama", "qwen2", "qwen3", "mistral", "phi3", "gemma", "gemma2", "gemma3")
BY_MODULES = tuple(f"{name} by modules" for name in READ_FROM_FILES)


def checkpoint(folder: Path, name: str, seed: int = 0) -> Path:
    """A checkpoint of an architecture, with random weights that make varied text."""
    random_checkpoint(folder, CONFIGS[name.removesuffix(" by modules")](), seed)
    if name in BY_MODULES:
        change_config(folder, unheard_of=1)
    return folder


def change_config(folder: Path, *leave_out: str, **changes: object) -> None:
    """Change keys of a checkpoint's config.json."""
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k not in leave_out}))


def random_checkpoint(folder: Path, config: hf.PreTrainedConfig, seed: int = 0, **how_to_save: object) -> Path:
    """A checkpoint with random weights."""
    torch.manual_seed(seed)
    model = hf.AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    with torch.no_grad():
        for parameter in model.parameters():  # what is initialised to zeros or ones shall matter too
            parameter.add_(0.02 * torch.randn_like(parameter))
    model.save_pretrained(folder, **how_to_save)
    byte_tokenizer().save_pretrained(folder)
    return folder


@lru_cache(maxsize=32)
def _reference_model(folder: Path):
    model = hf.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager").eval()
    model.generation_config.eos_token_id = None
    return model


@lru_cache(maxsize=4096)
def _continued(folder: Path, prompt: tuple[int, ...], num_tokens: int) -> tuple[int, ...]:
    config = hf.GenerationConfig(max_new_tokens=num_tokens, do_sample=False, eos_token_id=None, pad_token_id=0)
    ids = torch.tensor([prompt])
    with torch.inference_mode():
        out = _reference_model(folder).generate(ids, attention_mask=torch.ones_like(ids), generation_config=config)
    return tuple(out[0, len(prompt) :].tolist())


def reference(folder: Path, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """What `generate` writes greedily, past any end-of-sequence token."""
    return list(_continued(folder, tuple(prompt), num_tokens))


def penalised_by_hand(folder: Path, prompt: Sequence[int], sampling: Sampling) -> list[int]:
    """What a sampling with penalties, greedy or seeded, writes by transformers' logits and arithmetic in float64; without
    control tokens, which a value does not hold."""
    written: list[int] = []
    for position in range(sampling.max_tokens):
        with torch.inference_mode():
            logits = _reference_model(folder)(torch.tensor([[*prompt, *written]])).logits[0, -1].double().tolist()
        penalties = sampling.repetition_penalty or 1.0, sampling.presence_penalty, sampling.frequency_penalty
        logits = penalised_reference(logits, prompt, written, *penalties)
        filters = sampling.temperature, sampling.top_k, sampling.top_p, sampling.min_p
        written.append(sample_reference(logits, *filters, sampling.seed or 0, position))
    return [token for token in written if token < NUM_BYTES]


async def write(engine: EmbeddedEngine, context: int, sampling: Sampling) -> tuple[str, GenerationEnd]:
    """Generate to the end: the text, and how it ended."""
    text = ""
    async for piece in engine.generate(context, sampling):
        text += piece.text
        if piece.end is not None:
            return text, piece.end
    raise AssertionError("no last piece")


async def text_after(engine: EmbeddedEngine, prompt: Sequence[int], sampling: Sampling) -> str:
    """What is generated after a prompt, on a context of its own."""
    context = engine.open(PRIORITY)
    engine.fill(context, prompt)
    try:
        return (await write(engine, context, sampling))[0]
    finally:
        engine.free(context)


def run(engine: EmbeddedEngine, main) -> object:
    """Run `main(engine)` on a loop of its own, and close the engine."""

    async def whole():
        try:
            return await main(engine)
        finally:
            await engine.close()

    return asyncio.run(whole())


def greedy(engine: EmbeddedEngine, prompt: Sequence[int], num_tokens: int) -> list[int]:
    """The ids that an engine writes greedily after a prompt, past any end of text; it is closed."""

    async def main(engine: EmbeddedEngine) -> GenerationEnd:
        context = engine.open(PRIORITY)
        engine.fill(context, prompt)
        return (await write(engine, context, Sampling(max_tokens=num_tokens, ignore_eos=True)))[1]

    return list(run(engine, main).token_ids)


class FreeRows(StepTimes):
    """A machine on which rows cost next to nothing, so that guesses are made."""

    def took(self, num_rows: int, seconds: float) -> None:
        self.base_s, self.row_s = 1.0, 1e-3


def open_engine(folder: Path, **settings: object) -> EmbeddedEngine:
    """An engine that guesses tokens, on small pages."""
    engine = load_engine(folder, **{"kv_memory": "1MB", "page_size": 4, **settings})
    engine._times = FreeRows()
    return engine


def all_pages_free(engine: EmbeddedEngine) -> bool:
    load = engine.load()
    return load.owned_pages == 0 and load.num_pages == load.free_pages + load.cached_pages


def audit(engine: EmbeddedEngine) -> None:
    """Count all pages anew, and compare with what the engine says."""
    cache, load = engine._cache, engine.load()
    audit_pages(cache, [(context.lease, context.tokens) for context in (*engine._contexts.values(), *engine._leaving)])
    assert (load.free_pages, load.cached_pages, load.owned_pages) == (cache.num_free, cache.num_cached, cache.num_owned)


def audit_pages(cache: PageCache, leases: Sequence[tuple[Lease, Sequence[int]]]) -> None:
    """Count all pages anew, from what leases (with their contexts' tokens) and the tree hold, and compare with the cache's counts."""
    users: dict[int, int] = {}
    owned: set[int] = set()
    for lease, tokens in leases:
        assert lease.pages[: len(lease.nodes)] == [node.page for node in lease.nodes]
        assert len(lease.pages) == len(set(lease.pages))
        own = lease.pages[len(lease.nodes) :]
        assert owned.isdisjoint(own), "two contexts write the same page"
        owned.update(own)
        for i, node in enumerate(lease.nodes):
            users[id(node)] = users.get(id(node), 0) + 1
            assert node.parent is (lease.nodes[i - 1] if i else cache.root)
            assert list(node.tokens) == tokens[i * cache.page_size : (i + 1) * cache.page_size]
    shared, cached, frontier = set(), set(), [cache.root]
    while frontier:
        node = frontier.pop()
        frontier += node.children.values()
        if node is cache.root:
            continue
        assert node.num_users == users.get(id(node), 0)
        (shared if node.num_users else cached).add(node.page)
        assert all(not child.num_users for child in node.children.values()) or node.num_users
    free = {page for page in range(cache.num_pages) if cache._free[page]}
    pages = [*owned, *shared, *cached, *free]
    assert len(pages) == len(set(pages)) == cache.num_pages
    assert (cache.num_free, cache.num_cached, cache.num_owned) == (len(free), len(cached), len(owned | shared))
